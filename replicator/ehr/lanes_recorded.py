"""Reports of many lanes, as they come → few statements.

What arrives while one is under way goes into the next.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from replicator.ehr.lanes import Going, Report, Said
from replicator.marks import mark

#: Records all of it, and answers which lanes were still ours.
Store = Callable[[Sequence[Report]], Awaitable[set[int]]]


class _Lane:
    """What is to be recorded of one lane, and who waits for that."""

    __slots__ = ("going", "said", "waiting")

    def __init__(self, report: Report, future: asyncio.Future[bool]) -> None:
        self.going: Going = report.going
        self.said: list[Said] = list(report.said)
        self.waiting = [future]

    def add(self, report: Report, future: asyncio.Future[bool]) -> None:
        self.going = report.going
        self.said += report.said
        self.waiting.append(future)


class Recorder:
    """Used by many lanes at once, while `run` is running."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._next: dict[int, _Lane] = {}
        self._is_due = asyncio.Event()

    def note(self, report: Report) -> asyncio.Future[bool]:
        """Have it recorded; the answer is whether the lane was still ours."""
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        # Nobody may be left who waits for it.
        future.add_done_callback(lambda done: done.cancelled() or done.exception())
        lane = self._next.get(report.going.lane)
        if lane is None:
            self._next[report.going.lane] = _Lane(report, future)
        else:
            lane.add(report, future)
        self._is_due.set()
        return future

    async def run(self) -> None:
        """Record, until ended or failed; whoever waits fails with it."""
        while True:
            await self._is_due.wait()
            self._is_due.clear()
            lanes, self._next = self._next, {}
            try:
                await self._record(lanes)
            except BaseException as error:
                said = error if isinstance(error, Exception) else asyncio.CancelledError()
                for lane in (*lanes.values(), *self._next.values()):
                    for future in lane.waiting:
                        if not future.done():
                            future.set_exception(said)
                raise

    async def _record(self, lanes: dict[int, _Lane]) -> None:
        jobs = sum(len(lane.said) for lane in lanes.values())
        mark("jobs recording", lanes=len(lanes), jobs=jobs)
        kept = await self._store([Report(lane.going, tuple(lane.said)) for lane in lanes.values()])
        mark("jobs recorded", lanes=len(kept), jobs=jobs)
        for number, lane in lanes.items():
            for future in lane.waiting:
                if not future.done():
                    future.set_result(number in kept)
