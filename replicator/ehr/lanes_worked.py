"""A lane that was taken → its jobs delivered in order, until one cannot be, or somebody is to stop."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from replicator.ehr.deliver import Delivery
from replicator.ehr.deliver_together import Stopped, deliver_together
from replicator.ehr.lanes import (
    TOGETHER_MOST,
    Going,
    Home,
    Known,
    Lane,
    Report,
    Said,
    Task,
    as_first,
    ended,
    hold_name,
    is_cut,
    is_of_transaction,
    merged,
    released,
    set_aside,
    stopped,
    together,
)
from replicator.ehr.lanes_held import Holds
from replicator.ehr.lanes_recorded import Recorder
from replicator.ehr.lanes_taken import Lanes
from replicator.ehr.retry import Done, Hold, Park, Retry, tired
from replicator.errors import ConfigError, ReplicatorError, place_of
from replicator.marks import mark


class _Over(NamedTuple):
    """What is to be recorded of a job; and if it was delivered, how it was taken and ended."""

    said: Said
    delivered: tuple[Task, Done] | None = None


@dataclass(slots=True)
class _Memory:
    """What earlier jobs of a lane have left in the record, that later ones are about."""

    #: In the lane's order, the jobs of which nothing has been recorded yet.
    left: deque[Task]
    #: Those of them that were delivered before their turn, with others of their transaction.
    over: dict[int, _Over] = field(default_factory=dict)
    known: dict[str, Known | None] = field(default_factory=dict)
    #: What is being recorded of each.
    noted: dict[str, asyncio.Future[bool]] = field(default_factory=dict)

    async def recall(self, task: Task, hurry: Callable[[], None]) -> Task | None:
        """The job with what is known by now; None if the lane turns out not to be ours."""
        name = task.job.composition
        # A later version is only sent once it is certain that the earlier one will not be sent again.
        if name is not None and (noted := self.noted.pop(name, None)) is not None:
            if not noted.done():
                hurry()
            if not await noted:
                return None
        return replace(task, known=self.known[name]) if name is not None and name in self.known else task

    def due(self) -> list[_Over]:
        """What can be recorded: nothing before it in the lane is still to be done."""
        found: list[_Over] = []
        while self.left and self.left[0].seq in self.over:
            found.append(self.over.pop(self.left.popleft().seq))
        return found

    def keep(self, task: Task, end: Done, said: Said, future: asyncio.Future[bool]) -> None:
        if (name := task.job.composition) is not None:
            self.noted[name] = future
            at = said.newer or task.job.change
            self.known[name] = Known(end.version, said.is_deleted, at) if end.version else None


class Work:
    """What the lanes of one worker have in common."""

    def __init__(
        self,
        lanes: Lanes,
        delivery: Delivery,
        holds: Holds,
        recorder: Recorder,
        atomic: Collection[str] = (),
    ) -> None:
        self._lanes, self._delivery = lanes, delivery
        self._holds, self._recorder = holds, recorder
        #: The mappings whose changes go together, transaction by transaction.
        self._atomic = atomic
        self.is_stopping = False

    async def release(self, lane: Lane, report: Report) -> None:
        """Have it recorded how a lane goes on."""
        await self._recorder.note(report)
        is_free = report.going.state is None and not report.said
        mark("lane released" if is_free else "lane stopped", lane=lane.id, upto=lane.upto)

    def give_back(self, lane: Lane) -> asyncio.Future[bool]:
        return self._recorder.note(released(lane))

    async def jobs(self, lane: Lane) -> Report | None:
        """Work in it: how it goes on; None if it is not ours any more."""
        if is_cut(lane.tasks, self._atomic):
            lane.tasks += await self._lanes.rest(lane, TOGETHER_MOST)
        groups, memory = together(lane.tasks, self._atomic), _Memory(deque(lane.tasks))
        instead = merged([task for tasks in groups for task in tasks], self._atomic)
        parked = [task.seq for task in lane.tasks if task.state == "parked"]
        for tasks in groups:
            if self.is_stopping or self._holds.is_server_held or lane.is_decided:
                break
            if asyncio.get_running_loop().time() >= lane.ours_until:
                mark("lane lost", lane=lane.id, token=lane.token)
                return None
            if any(tasks[0].seq <= seq <= tasks[-1].seq for seq in parked):
                return Report(Going(lane.id, lane.token, lane.upto, lane.home, 0.0, "parked"))
            recalled = await self._recalled(lane, tasks, instead, memory)
            if recalled is None:
                return None
            ends = await self._attempt(lane, recalled) if recalled else {}
            if isinstance(ends, Stopped):
                return await self._stopped(lane, ends)
            self._note(lane, tasks, instead, recalled, ends, memory)
        mark("lane releasing", lane=lane.id, upto=lane.upto)
        return released(lane)

    async def _recalled(
        self, lane: Lane, tasks: list[Task], instead: dict[int, Task], memory: _Memory
    ) -> list[Task] | None:
        """Those that are to be delivered, as what is known by now; None if the lane is not ours."""
        found: list[Task] = []
        for task in tasks:
            if set_aside(lane, task, instead) is not None:
                continue
            if (recalled := await memory.recall(task, self._recorder.hurry)) is None:
                return None
            before = [each for each in lane.tasks if instead.get(each.seq) is task] if instead else []
            found.append(as_first(recalled, before))
        return found

    def _note(
        self,
        lane: Lane,
        tasks: list[Task],
        instead: dict[int, Task],
        recalled: list[Task],
        ends: dict[int, Done],
        memory: _Memory,
    ) -> None:
        """What has become of jobs that were delivered together, or left out: at once, as far as nothing is
        left to do before them. The others' turn is to come; if the lane stops before, they are found to be
        there already.
        """
        for task in tasks:
            if (aside := set_aside(lane, task, instead)) is not None:
                memory.over[task.seq] = _Over(aside)
        for task in recalled:
            end = ends[task.seq]
            memory.over[task.seq] = _Over(ended(lane, task, end), (task, end))
        due = memory.due()
        lane.upto, lane.failures = due[-1].said.seq, 0
        going = Going(lane.id, lane.token, lane.upto, lane.home)
        noted = self._recorder.note(Report(going, tuple(over.said for over in due)))
        for said, delivered in due:
            if delivered is not None:
                memory.keep(*delivered, said, noted)

    # What is delivered at once.

    async def _attempt(self, lane: Lane, tasks: list[Task]) -> dict[int, Done] | Stopped:
        """What becomes of them; also if that is something that nobody foresaw."""
        others_pass, lane.trying = not self._holds.circuit.outages, tasks
        try:
            ends = await self._deliver(lane, tasks)
        except ConfigError as error:
            held = Hold("server", error.what)
            await self._holds.hear(held)
            ends = Stopped(tasks[0], held)
        except ReplicatorError as error:
            ends = Stopped(tasks[0], Retry(error.what))
        except Exception as error:
            # One job must not stop the others; and where it was says enough, without a value.
            seq = tasks[0].seq
            mark("job failed", level=logging.ERROR, lane=lane.id, seq=seq, error=place_of(error))
            why = f"the replicator failed at it: {place_of(error)}"
            ends = Stopped(tasks[0], Retry(why, look_first=True, is_ours=True))
        lane.trying = ()
        if not isinstance(ends, Stopped):
            return ends
        end = tired(ends.end, ends.task.attempts, others_pass=others_pass)
        return {ends.task.seq: end} if isinstance(end, Done) else Stopped(ends.task, end)

    async def _deliver(self, lane: Lane, tasks: list[Task]) -> dict[int, Done] | Stopped:
        for task in tasks:
            job = task.job
            if job.trouble is not None or job.patient is None:
                return Stopped(task, Park(job.trouble or "no patient"))
            if (name := hold_name("template", job.template)) in self._holds.names:
                return Stopped(task, Hold("template", f"waits for {name}"))
        ends = await self._in_home(lane, tasks)
        if _lacks_ehr(ends) and lane.home_of(tasks[0].job) is not None:
            # It was there once; perhaps it has another one by now.
            lane.has_home(tasks[0].job, None)
            ends = await self._in_home(lane, tasks)
        await self._holds.hear(ends.end if isinstance(ends, Stopped) else Done())
        return ends

    async def _in_home(self, lane: Lane, tasks: list[Task]) -> dict[int, Done] | Stopped:
        home = lane.home_of(tasks[0].job)
        if home is None:
            found = await self._delivery.home(tasks[0].job)
            if not isinstance(found, Home):
                assert not isinstance(found, Done), "who has no EHR has nothing done"
                return Stopped(tasks[0], found)
            home = found
            lane.has_home(tasks[0].job, home)

        async def is_ours() -> bool:
            return lane.id in await self._lanes.renew([lane])

        if is_of_transaction(tasks[0], self._atomic):
            return await deliver_together(self._delivery, tasks, home, is_ours)
        end = await self._delivery.deliver(tasks[0], home, is_ours)
        return {tasks[0].seq: end} if isinstance(end, Done) else Stopped(tasks[0], end)

    # A lane that does not go on.

    async def _stopped(self, lane: Lane, stop: Stopped) -> Report:
        task, end = stop
        if isinstance(end, Hold) and end.scope != "ehr":
            name = hold_name(end.scope, task.job.template)
            await self._holds.add(name, end.reason)
            if task.job.template is not None:
                self._delivery.plans.forget(task.job.template)
        elif isinstance(end, Park):
            mark("parked", level=logging.WARNING, lane=lane.id, seq=task.seq, mapping=task.job.mapping)
        return stopped(lane, task, end, random.random())


def _lacks_ehr(ends: dict[int, Done] | Stopped) -> bool:
    return isinstance(ends, Stopped) and isinstance(ends.end, Hold) and ends.end.scope == "ehr"
