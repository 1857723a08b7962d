"""Jobs → the record system. VERB.

A lane is one patient's jobs: they are delivered one after the other, and lanes beside each other. Any number
of workers may work, on any number of machines; each takes the lanes that are due, for as long as a lease, and
renews that while it works. One that dies is replaced when its leases end, and one that only stood still finds
that nothing it says is taken any more.

What cannot be delivered now stops its lane, and no other: it is tried again later, or waits for a template,
or for a person. While the server does not answer, no lane is taken at all: one asks, now and then.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import socket
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field

from replicator import queries
from replicator.config import Config
from replicator.database import check_migrated, connected, pooled
from replicator.ehr.circuit import Circuit, Closed, Probing, ask, hear
from replicator.ehr.client import Anonymous, Auth, Basic, Bearer, Client, ClientCredentials, Limits, Unreached
from replicator.ehr.deliver import Delivery, End
from replicator.ehr.deliver_plans import Plans
from replicator.ehr.deliver_read import reading
from replicator.ehr.job import Jobs, Operation
from replicator.ehr.lanes import (
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
    merged,
    released,
    stopped,
)
from replicator.ehr.lanes_recorded import Recorder
from replicator.ehr.lanes_taken import SERVER, Lanes
from replicator.ehr.model import Filter, Formula, RecordMapping
from replicator.ehr.retry import Done, Hold, Park, Retry, verdict
from replicator.errors import ConfigError, ProtocolError, Unavailable
from replicator.marks import mark
from replicator.together import end_with_parent
from replicator.wal.source import printing

_q = queries.load("queue")

#: Connections to storage, and to the source.
_STORAGE_CONNECTIONS, _SOURCE_CONNECTIONS = 4, 2
#: Waiting for storage: from so much, doubling, to so much.
_BACKOFF_S = (0.1, 5.0)
#: Who empties the queue looks again after so long, also if nobody says anything.
_LOOK_S = 1.0
#: What is held is looked at after so long.
_HOLD_S = 15.0
#: How often what was finished long ago is looked for, and how much of it goes at once.
_FORGET_S, _FORGET_ROWS = 60.0, 5000
#: How long requests that are under way are given when we are to stop.
_STOP_S = 60.0


@dataclass(frozen=True, slots=True)
class Pace:
    """How much one worker does at once, and for how long."""

    #: Lanes at a time, and so requests.
    concurrency: int = 16
    #: Jobs a second; None for as many as the server takes.
    rate: float | None = None
    #: Jobs of a lane that are taken together.
    jobs: int = 20
    lease_s: float = 60.0
    #: How long what is finished is kept.
    keep_s: float = 30 * 86_400.0


@dataclass(frozen=True, slots=True)
class Computed:
    """What the expressions of a mapping come to, by their text."""

    filters: Mapping[str, Filter] = field(default_factory=dict)
    formulas: Mapping[str, Formula] = field(default_factory=dict)


async def run_work(
    config: Config,
    mapping: RecordMapping,
    stop: asyncio.Event,
    *,
    computed: Computed | None = None,
    pace: Pace | None = None,
) -> None:
    """Work until told to stop, connecting again after whatever heals by itself."""
    if config.ehr.url is None:
        raise ConfigError("no record system is configured", "Set ehr.url to the root of its openEHR API.")
    mark("working", level=logging.INFO, mapping=mapping.file)
    attempt = 0
    parent = asyncio.create_task(_end_with_parent(stop))
    try:
        while not stop.is_set():
            try:
                await work_once(config, mapping, stop, computed or Computed(), pace or Pace())
            except Unavailable as error:
                attempt += 1
                first, most = _BACKOFF_S
                wait_s = random.uniform(0.5, 1) * min(most, first * 2 ** min(attempt, 16))
                mark("waiting", level=logging.WARNING, why=error.what, seconds=round(wait_s, 2))
                with suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), wait_s)
    finally:
        parent.cancel()
    mark("stopped", level=logging.INFO)


async def _end_with_parent(stop: asyncio.Event) -> None:
    await end_with_parent()
    stop.set()


async def work_once(
    config: Config, mapping: RecordMapping, stop: asyncio.Event, computed: Computed, pace: Pace
) -> None:
    """One set of connections' worth of work."""
    assert config.ehr.url is not None
    schema = config.storage.schema_name
    async with AsyncExitStack() as stack:
        opened = stack.enter_async_context
        listening = await opened(connected(config.storage_dsn, "work", schema=schema))
        await check_migrated(listening, schema)
        storage = await opened(pooled(config.storage_dsn, "work", schema=schema, most=_STORAGE_CONNECTIONS))
        source = await opened(pooled(printing(config.source_dsn), "work", most=_SOURCE_CONNECTIONS))
        limits = Limits(connections=pace.concurrency + 2)
        client = await opened(Client(config.ehr.url, auth=auth_of(config), limits=limits))
        jobs = Jobs(mapping, lambda *asked: None, computed.filters)
        plans = Plans(client, mapping)
        delivery = Delivery(client, jobs, plans, computed.formulas, reading(source))
        holder = f"{socket.gethostname()}:{os.getpid()}"
        worker = Worker(Lanes(storage, holder, pace.lease_s), delivery, pace)
        await listening.execute(_q.listen)

        async def hear_of_jobs() -> None:
            async for _ in listening.notifies():
                worker.wake.set()

        await worker.run(stop, hear_of_jobs())


def auth_of(config: Config) -> Auth:
    """How to log in to the record system."""
    given = {name: secret.get_secret_value() for name, secret in config.ehr.auth.items()}
    match given:
        case {"user": user, "password": password, **rest} if not rest:
            return Basic(user, password)
        case {"token": token, **rest} if not rest:
            return Bearer(token)
        case {"token_url": url, "client_id": client_id, "client_secret": secret, **rest} if set(rest) <= {
            "scope"
        }:
            return ClientCredentials(url, client_id, secret, scope=rest.get("scope", ""))
        case {**rest} if not rest:
            return Anonymous()
    raise ConfigError(
        f"ehr.auth: cannot log in with {', '.join(sorted(given))}",
        "Give user and password; or token; or token_url, client_id, client_secret and perhaps scope.",
    )


class Worker:
    """Lanes at work, and what they share: the circuit, the holds, and the pace."""

    def __init__(self, lanes: Lanes, delivery: Delivery, pace: Pace) -> None:
        self.lanes, self.delivery, self.pace = lanes, delivery, pace
        self.recorder = Recorder(lanes.record)
        self.wake = asyncio.Event()
        self.circuit: Circuit = Closed()
        #: What is known to hold many lanes.
        self.held: set[str] = set()
        self._running: dict[asyncio.Task[None], Lane] = {}
        #: Until when each lane is surely ours, by our own clock.
        self._ours_until: dict[int, float] = {}
        self._next_at = 0.0
        self._stop = asyncio.Event()

    @property
    def now(self) -> float:
        return asyncio.get_running_loop().time()

    async def run(self, stop: asyncio.Event, *besides: Awaitable[None]) -> None:
        """Work until told to stop: then what was taken is finished or given back."""
        self._stop = stop
        works = [
            self._claiming(),
            self.recorder.run(),
            self._renewing(),
            self._checking(),
            self._forgetting(),
        ]
        tasks = [asyncio.ensure_future(work) for work in (*works, *besides)]
        waking = asyncio.ensure_future(stop.wait())
        waking.add_done_callback(lambda _: self.wake.set())
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            ending = [*tasks, waking, *self._running]
            for each in ending:
                each.cancel()
            await asyncio.gather(*ending, return_exceptions=True)

    # Taking lanes.

    async def _claiming(self) -> None:
        while not self._stop.is_set():
            self.wake.clear()
            free = self.pace.concurrency - len(self._running)
            taken = await self._claim(free) if free > 0 else 0
            if taken < free or free <= 0:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self.wake.wait(), _LOOK_S if free > 0 else None)
        await self._finish()

    async def _claim(self, free: int) -> int:
        if SERVER in self.held or not await self._is_open():
            return 0
        before = self.now
        taken = await self.lanes.claim(free, self.pace.jobs)
        for lane in taken:
            self._ours_until[lane.id] = before + self.pace.lease_s
            task = asyncio.create_task(self._work(lane))
            self._running[task] = lane
            task.add_done_callback(self._is_over)
        if taken:
            mark("lanes taken", lanes=len(taken), jobs=sum(len(lane.tasks) for lane in taken))
        return len(taken)

    def _is_over(self, task: asyncio.Task[None]) -> None:
        self._running.pop(task, None)
        self.wake.set()
        if not task.cancelled():
            task.exception()  # whatever it is, the recorder has failed of it, too

    async def _finish(self) -> None:
        """Let those who work come to the end of their job, and give the rest of their lanes back."""
        if self._running:
            await asyncio.wait(list(self._running), timeout=_STOP_S)

    # One lane.

    async def _work(self, lane: Lane) -> None:
        instead = merged(lane.tasks)
        known: dict[str, Known | None] = {}
        noted: dict[str, asyncio.Future[bool]] = {}
        for task in lane.tasks:
            if self._is_to_pause():
                break
            if self.now >= self._ours_until.get(lane.id, 0.0):
                mark("lane lost", lane=lane.id, token=lane.token)
                return
            name = task.job.composition
            if (later := instead.get(task.seq)) is not None:
                said = Said(lane.id, task.seq, "merged", message=f"delivered as {lane.id}.{later.seq}")
                self._note(lane, task, said)
                continue
            if task.state == "skipping":
                self._note(lane, task, Said(lane.id, task.seq, "skipped"))
                continue
            # A later version is only sent once it is certain that the earlier one will not be sent again.
            if name is not None and name in noted and not await noted.pop(name):
                return
            if name is not None and name in known:
                task = Task(task.seq, task.job, task.state, task.attempts, known[name])
            before = [each for each in lane.tasks if instead.get(each.seq) is task]
            end = await self._deliver(lane, as_first(task, before))
            if not isinstance(end, Done):
                await self.recorder.note(await self._stopped(lane, task, end))
                mark("lane stopped", lane=lane.id, seq=task.seq, end=type(end).__name__)
                return
            said = ended(lane, task, end)
            future = self._note(lane, task, said)
            if name is not None:
                noted[name] = future
                known[name] = Known(end.version, said.is_deleted, task.job.change) if end.version else None
        mark("lane releasing", lane=lane.id, upto=lane.upto)
        await self.recorder.note(released(lane))
        mark("lane released", lane=lane.id, upto=lane.upto)

    def _note(self, lane: Lane, task: Task, said: Said) -> asyncio.Future[bool]:
        lane.upto, lane.failures = task.seq, 0
        going = Going(lane.id, lane.token, lane.upto, lane.home)
        return self.recorder.note(Report(going, (said,)))

    def _is_to_pause(self) -> bool:
        return self._stop.is_set() or SERVER in self.held or not isinstance(self.circuit, Closed)

    async def _deliver(self, lane: Lane, task: Task) -> End:
        job = task.job
        if task.state == "parked":
            return Park("")
        if job.trouble is not None or job.patient is None:
            return Park(job.trouble or "no patient")
        if (name := hold_name("template", job.template)) in self.held:
            return Hold("template", f"waits for {name}")
        await self._paced()
        end = await self._in_home(lane, task)
        if isinstance(end, Hold) and end.scope == "ehr" and lane.home is not None:
            # It was there once; perhaps it has another one by now.
            lane.home = None
            end = await self._in_home(lane, task)
        self._hear(end)
        return end

    async def _in_home(self, lane: Lane, task: Task) -> End:
        if lane.home is None:
            home = await self.delivery.home(task.job)
            if not isinstance(home, Home):
                return home
            lane.home = home

        async def is_ours() -> bool:
            return lane.id in await self.lanes.renew([lane])

        return await self.delivery.deliver(task, lane.home, is_ours)

    async def _stopped(self, lane: Lane, task: Task, end: Retry | Hold | Park) -> Report:
        if task.state == "parked":
            return Report(Going(lane.id, lane.token, lane.upto, lane.home, 0.0, "parked"))
        if isinstance(end, Hold) and end.scope != "ehr":
            name = hold_name(end.scope, task.job.template)
            if name not in self.held:
                self.held.add(name)
                mark("held", level=logging.WARNING, what=name, why=end.reason)
                await self.lanes.hold(name, end.reason, _HOLD_S)
            if task.job.template is not None:
                self.delivery.plans.forget(task.job.template)
        elif isinstance(end, Park):
            mark("parked", level=logging.WARNING, lane=lane.id, seq=task.seq, mapping=task.job.mapping)
        return stopped(lane, task, end, random.random())

    async def _paced(self) -> None:
        """Wait for our turn, if so many jobs a second are the most."""
        if self.pace.rate is None:
            return
        self._next_at = max(self._next_at, self.now) + 1 / self.pace.rate
        await asyncio.sleep(self._next_at - 1 / self.pace.rate - self.now)

    # Whether the server is there.

    def _hear(self, end: End | Done) -> None:
        is_outage = isinstance(end, Retry) and end.is_outage
        before = self.circuit
        self.circuit = hear(before, is_outage=is_outage, now=self.now, luck=random.random())
        if type(before) is not type(self.circuit):
            mark("circuit", level=logging.WARNING, state=type(self.circuit).__name__)

    async def _is_open(self) -> bool:
        """Whether lanes may be taken; where it is time to ask the server that, it is asked."""
        may_send, self.circuit = ask(self.circuit, self.now)
        if may_send and isinstance(self.circuit, Probing):
            self._hear(await self._probe())
        return isinstance(self.circuit, Closed)

    async def _probe(self) -> End:
        mark("probing")
        try:
            answer = await self.delivery.client.templates()
        except Unreached as unreached:
            return Retry(str(unreached.fault), is_outage=True)
        except ProtocolError as error:
            return Hold("server", error.what)
        if isinstance(answer, tuple):
            return Done()
        said = verdict(Operation.STATUS, answer, tries=0, template_is_known=True)
        return said if isinstance(said, Retry | Hold) else Park(answer.summary)

    # What goes on beside.

    async def _renewing(self) -> None:
        while True:
            await asyncio.sleep(self.pace.lease_s / 3)
            lanes, before = list(self._running.values()), self.now
            ours = await self.lanes.renew(lanes)
            for lane in lanes:
                if lane.id in ours:
                    self._ours_until[lane.id] = before + self.pace.lease_s
            running = {lane.id for lane in self._running.values()}
            self._ours_until = {id: until for id, until in self._ours_until.items() if id in running}

    async def _checking(self) -> None:
        """Look at what is held, now and then; one worker looks for all."""
        while True:
            self.held = await self.lanes.holds()
            if self.held and (name := await self.lanes.due_hold(_HOLD_S)) is not None:
                if await self._is_healed(name):
                    await self.lanes.end_hold(name)
                    self.held.discard(name)
                    mark("hold ended", level=logging.INFO, what=name)
                    self.wake.set()
            await self.lanes.let_go()
            await asyncio.sleep(_LOOK_S)

    async def _is_healed(self, name: str) -> bool:
        if name == SERVER:
            return isinstance(await self._probe(), Done)
        template = name.removeprefix("template ")
        for table in self.delivery.jobs.mapping.tables.values():
            if table.template is not None and table.template.id == template:
                self.delivery.plans.forget(template)
                try:
                    plan = await self.delivery.plans.of(table)
                except Unreached:
                    return False
                if isinstance(plan, Retry | Hold | Park):
                    return False
        return True

    async def _forgetting(self) -> None:
        while True:
            while await self.lanes.forget_done(self.pace.keep_s, _FORGET_ROWS) >= _FORGET_ROWS:
                pass
            await asyncio.sleep(_FORGET_S)


#: What starts one: for whoever runs it beside the others.
Start = Callable[[asyncio.Event], Awaitable[None]]
