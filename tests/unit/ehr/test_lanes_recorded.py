"""Reports of many lanes → how many statements, and what is in each."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from replicator.ehr.lanes import Going, Report, Said
from replicator.ehr.lanes_recorded import Recorder


class Stored:
    """What was to be recorded at once; of lane 9 nothing is taken any more."""

    def __init__(self) -> None:
        self.statements: list[list[Report]] = []

    async def __call__(self, reports: Sequence[Report]) -> set[int]:
        self.statements.append(list(reports))
        return {report.going.lane for report in reports} - {9}


def report(lane: int, seq: int, token: int = 1) -> Report:
    return Report(Going(lane, token, seq, None), (Said(lane, seq, "done"),))


async def recorded(stored: Stored, enough: int, *reports: Report) -> list[bool]:
    """Noted in the same moment, before anything can be recorded."""
    recorder = Recorder(stored, lambda: enough)
    running = asyncio.ensure_future(recorder.run())
    try:
        return await asyncio.gather(*map(recorder.note, reports))
    finally:
        running.cancel()
        await asyncio.wait({running})


async def test_what_is_noted_in_the_same_moment_is_one_statement_with_a_lane_once() -> None:
    stored = Stored()
    assert await recorded(stored, 3, report(1, 4), report(2, 7), report(1, 5)) == [True, True, True]
    [[first, second]] = stored.statements
    assert first == Report(Going(1, 1, 5, None), (Said(1, 4, "done"), Said(1, 5, "done")))
    assert second == report(2, 7)


async def test_each_hears_whether_its_own_lane_was_ours() -> None:
    assert await recorded(Stored(), 2, report(9, 1), report(8, 1)) == [False, True]


@pytest.mark.parametrize("late_comes_last", [False, True])
async def test_what_is_said_by_a_lanes_former_number_is_not_recorded_by_its_new_one(
    late_comes_last: bool,
) -> None:
    stored, now, late = Stored(), report(1, 1, token=2), report(1, 2, token=1)
    reports = [now, late] if late_comes_last else [late, now]
    assert await recorded(stored, 2, *reports) == [each is now for each in reports]
    assert stored.statements == [[now]]


async def test_what_nobody_joins_is_recorded_nonetheless() -> None:
    stored = Stored()
    assert await recorded(stored, 1000, report(1, 1)) == [True]
    assert stored.statements == [[report(1, 1)]]


async def test_what_somebody_waits_for_is_recorded_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("replicator.ehr.lanes_recorded._LINGER_S", 3600.0)
    stored = Stored()
    recorder = Recorder(stored, lambda: 1000)
    running = asyncio.ensure_future(recorder.run())
    recorder.hurry()
    first, second = recorder.note(report(1, 1)), recorder.note(report(2, 1))
    recorder.hurry()
    async with asyncio.timeout(60):
        assert [await first, await second] == [True, True]
    assert stored.statements == [[report(1, 1), report(2, 1)]], "and nothing where there was nothing"
    running.cancel()
    await asyncio.wait({running})


async def test_what_comes_while_a_statement_is_under_way_goes_into_the_next() -> None:
    stored, under_way, may_end = Stored(), asyncio.Event(), asyncio.Event()

    async def slowly(reports: Sequence[Report]) -> set[int]:
        under_way.set()
        await may_end.wait()
        return await stored(reports)

    recorder = Recorder(slowly, lambda: 1)
    running = asyncio.ensure_future(recorder.run())
    first = recorder.note(report(1, 1))
    await under_way.wait()
    others = [recorder.note(report(2, 1)), recorder.note(report(3, 1))]
    may_end.set()
    assert await asyncio.gather(first, *others) == [True, True, True]
    assert stored.statements == [[report(1, 1)], [report(2, 1), report(3, 1)]]
    running.cancel()
    await asyncio.wait({running})
