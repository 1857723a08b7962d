"""Reports of many lanes, as they come → few statements.

A statement costs storage about the same, however many reports are in it. So they wait for each other until
there are enough of them, one has waited long enough, or somebody waits for it; what arrives while one
statement is under way goes into the next.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from replicator.ehr.lanes import Going, Report, Said
from replicator.marks import mark

#: Records all of it, and answers which lanes were still ours.
Store = Callable[[Sequence[Report]], Awaitable[set[int]]]
#: For so long a report waits for others. Who is kept from sending by that says so; a lane that is given back,
#: and may have new jobs by then, waits for it.
_LINGER_S = 0.05


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

    def refuse(self) -> None:
        for future in self.waiting:
            if not future.done():
                future.set_result(False)


class Recorder:
    """Used by many lanes at once, while `run` is running."""

    def __init__(self, store: Store, enough: Callable[[], int] = lambda: 1) -> None:
        """`enough` is asked how many reports need not wait for more."""
        self._store, self._enough = store, enough
        self._next: dict[int, _Lane] = {}
        self._noted = 0
        self._is_due = asyncio.Event()
        self._waiting: asyncio.TimerHandle | None = None

    def note(self, report: Report) -> asyncio.Future[bool]:
        """Have it recorded; the answer is whether the lane was still ours."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[bool] = loop.create_future()
        # Nobody may be left who waits for it.
        future.add_done_callback(lambda done: done.cancelled() or done.exception())
        lane = self._next.get(report.going.lane)
        if lane is not None and report.going.token < lane.going.token:
            # We have taken it anew ourselves since: its former number must not pass by the new one.
            future.set_result(False)
            return future
        if lane is not None and report.going.token > lane.going.token:
            lane.refuse()
            lane = None
        if lane is None:
            self._next[report.going.lane] = _Lane(report, future)
        else:
            lane.add(report, future)
        self._noted += 1
        if self._noted >= self._enough():
            self._is_due.set()
        elif self._waiting is None:
            self._waiting = loop.call_later(_LINGER_S, self._is_due.set)
        return future

    def hurry(self) -> None:
        """Somebody waits for one of those that were noted: record them now."""
        if self._next:
            self._is_due.set()

    async def run(self) -> None:
        """Record, until ended or failed; whoever waits fails with it."""
        while True:
            await self._is_due.wait()
            lanes = self._taken()
            try:
                await self._record(lanes)
            except BaseException as error:
                said = error if isinstance(error, Exception) else asyncio.CancelledError()
                for lane in (*lanes.values(), *self._next.values()):
                    for future in lane.waiting:
                        if not future.done():
                            future.set_exception(said)
                raise

    def _taken(self) -> dict[int, _Lane]:
        """All there is; whatever is noted from now on waits for the next."""
        lanes, self._next, self._noted = self._next, {}, 0
        self._is_due.clear()
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None
        return lanes

    async def _record(self, lanes: dict[int, _Lane]) -> None:
        jobs = sum(len(lane.said) for lane in lanes.values())
        mark("jobs recording", lanes=len(lanes), jobs=jobs)
        kept = await self._store([Report(lane.going, tuple(lane.said)) for lane in lanes.values()])
        mark("jobs recorded", lanes=len(kept), jobs=jobs)
        for number, lane in lanes.items():
            for future in lane.waiting:
                if not future.done():
                    future.set_result(number in kept)
