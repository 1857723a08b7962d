"""Jobs → the record system. VERB.

A lane is one patient's jobs: they are delivered one after the other, and lanes beside each other. Any number
of workers may work, on any number of machines; each takes the lanes that are due, for as long as a lease, and
renews that while it works. One that dies is replaced when its leases end, and one that only stood still finds
that nothing it says is taken any more.

What cannot be delivered now stops its lane, and no other: it is tried again later, or waits for a template,
or for a person. While the server does not answer, no lane is taken at all: one worker asks, now and then.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
import time
from collections.abc import Awaitable, Collection
from contextlib import AsyncExitStack, suppress
from typing import Any

from replicator import pulse, queries
from replicator.config import Config
from replicator.database import check_migrated, connected, pooled
from replicator.ehr.client import Auth, Client, Limits, Turns, auth_from, trusting
from replicator.ehr.columns import computed, read_catalogue
from replicator.ehr.deliver import Delivery
from replicator.ehr.deliver_checks import Checks
from replicator.ehr.deliver_plans import Plans
from replicator.ehr.deliver_read import reading
from replicator.ehr.job import Jobs
from replicator.ehr.lanes import Lane
from replicator.ehr.lanes_held import Holds
from replicator.ehr.lanes_recorded import Recorder
from replicator.ehr.lanes_seats import Seats
from replicator.ehr.lanes_taken import Lanes
from replicator.ehr.lanes_worked import Work
from replicator.ehr.model import RecordMapping
from replicator.ehr.pace import Pace
from replicator.errors import ConfigError, Unavailable
from replicator.marks import mark
from replicator.patience import Patience, stopped_within
from replicator.wal.source import printing

_q = queries.load("queue")

_STORAGE_CONNECTIONS, _SOURCE_CONNECTIONS = 4, 2
#: Of each lane that is at work, so many jobs are recorded at once.
_RECORDED = 4
#: Who empties the queue looks again after so long, also if nobody says anything.
_LOOK_S = 1.0
#: How often what was finished long ago is looked for, and how much of it goes at once.
_FORGET_S, _FORGET_ROWS = 60.0, 5000


async def run_work(
    config: Config, mapping: RecordMapping, stop: asyncio.Event, *, pace: Pace | None = None
) -> None:
    """Work until told to stop, connecting again after whatever heals by itself."""
    if config.ehr.url is None:
        raise ConfigError("no record system is configured", "Set ehr.url to the root of its openEHR API.")
    auth_of(config), trusting(config.ehr.ca_file)
    mark("working", level=logging.INFO, mapping=mapping.file)
    patience, holder = Patience(), f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
    while not stop.is_set():
        began = time.monotonic()
        try:
            await work_once(config, mapping, stop, pace or pace_of(config), holder)
        except Unavailable as error:
            wait_s = patience.after(time.monotonic() - began)
            mark("waiting", level=logging.WARNING, why=error.what, seconds=round(wait_s, 2))
            pulse.at(f"waiting: {error.what}", is_ready=False)
            await stopped_within(stop, wait_s)
    mark("stopped", level=logging.INFO)


async def work_once(
    config: Config, mapping: RecordMapping, stop: asyncio.Event, pace: Pace, holder: str
) -> None:
    """One set of connections' worth of work."""
    url, dsn, schema = config.ehr.url, config.storage_dsn, config.storage.schema_name
    assert url is not None
    async with AsyncExitStack() as stack:
        opened = stack.enter_async_context
        listening = await opened(connected(dsn, "work", schema=schema))
        await check_migrated(listening, schema)
        storage = await opened(pooled(dsn, "work", schema=schema, most=_STORAGE_CONNECTIONS))
        source = await opened(pooled(printing(config.source_dsn), "work", most=_SOURCE_CONNECTIONS))
        async with source() as asked:
            compiled = computed(mapping, await read_catalogue(asked, mapping))
        turns = Turns(pace.rate)
        limits = Limits(connections=pace.concurrency + 2, answer_s=pace.timeout_s)
        tls = trusting(config.ehr.ca_file)
        client = await opened(Client(url, auth=auth_of(config), limits=limits, tls=tls, turns=turns))
        jobs, plans = Jobs(mapping, lambda *asked: None, compiled.filters), Plans(client, mapping)
        delivery = Delivery(client, jobs, plans, compiled.formulas, reading(source))
        lanes = Lanes(storage, holder, pace.lease_s)
        seats = await opened(Seats(storage, holder, url, pace))
        atomic = {table.name for table in mapping.tables.values() if table.atomic}
        worker = Worker(lanes, delivery, Holds(lanes, Checks(client, plans, mapping)), pace, atomic)
        await listening.execute(_q.listen)

        async def hear_of_jobs() -> None:
            async for notice in listening.notifies():
                if notice.payload:
                    worker.look_anew()
                worker.wake.set()

        async def share() -> None:
            while True:
                worker.allow(await seats.settle(worker.busy))
                turns.share = (
                    max(1, worker.allowed) / pace.concurrency
                )  # never nothing: somebody has to probe
                pulse.at(f"delivering: {worker.busy} lanes at work", is_ready=True)
                await asyncio.sleep(_LOOK_S)

        worker.allowed = 0
        await worker.run(stop, hear_of_jobs(), share())


def pace_of(config: Config) -> Pace:
    keys = config.ehr
    return Pace(
        keys.concurrency, keys.rate, lease_s=keys.lease_s, timeout_s=keys.timeout_s, keep_s=keys.keep_s
    )


def auth_of(config: Config) -> Auth:
    return auth_from({name: secret.get_secret_value() for name, secret in config.ehr.auth.items()})


class Worker:
    """Lanes at work."""

    def __init__(
        self, lanes: Lanes, delivery: Delivery, holds: Holds, pace: Pace, atomic: Collection[str] = ()
    ) -> None:
        self.lanes, self.holds, self.pace = lanes, holds, pace
        # Where few lanes are at work, nothing waits for anything; where many are, a statement for every few
        # of their jobs costs a processor as much as sending these does.
        self.recorder = Recorder(lanes.record, lambda: _RECORDED * (self.busy - 2))
        self.work = Work(lanes, delivery, holds, self.recorder, atomic)
        self.wake = asyncio.Event()
        #: How many lanes may be at work here.
        self.allowed = pace.concurrency
        self._running: dict[asyncio.Task[None], Lane] = {}
        #: How many of those only wait for what they did to be recorded.
        self._over = 0
        self._stop = asyncio.Event()

    @property
    def busy(self) -> int:
        """Lanes in which something may still be sent."""
        return len(self._running) - self._over

    def look_anew(self) -> None:
        """People have decided about some lanes: give back what there is, to see what they have decided."""
        for lane in self._running.values():
            lane.is_decided = True
        mark("decided", lanes=len(self._running))

    def allow(self, lanes: int) -> None:
        self.allowed = lanes
        self.wake.set()

    async def run(self, stop: asyncio.Event, *besides: Awaitable[None]) -> None:
        """Work until told to stop: then what was taken is finished or given back."""
        self._stop = stop
        works = [self._claiming(), self.recorder.run(), self._renewing(), self._looking(), self._forgetting()]
        tasks = [asyncio.ensure_future(work) for work in (*works, *besides)]
        waking = asyncio.ensure_future(stop.wait())
        waking.add_done_callback(self._wake_to_stop)
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            await _end(*tasks, waking, *self._running)

    def _wake_to_stop(self, _: object) -> None:
        self.work.is_stopping = True
        self.wake.set()

    async def _claiming(self) -> None:
        beginning, stopping = (
            asyncio.ensure_future(self.holds.begin()),
            asyncio.ensure_future(self._stop.wait()),
        )
        try:
            await asyncio.wait({beginning, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await _end(stopping, beginning)
        if not beginning.cancelled():
            beginning.result()
        while not self._stop.is_set():
            self.wake.clear()
            free = self.holds.circuit.lanes(self.allowed) - self.busy
            taken = await self._claim(free) if free > 0 and not self.holds.is_server_held else 0
            if taken < free or free <= 0:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self.wake.wait(), _LOOK_S)
        await self._finish()

    async def _claim(self, free: int) -> int:
        before = asyncio.get_running_loop().time()
        taken = await self.lanes.claim(free, self.pace.jobs)
        for lane in taken:
            lane.ours_until = before + self.pace.lease_s
            task = asyncio.create_task(self._work(lane))
            self._running[task] = lane
            task.add_done_callback(self._has_ended)
        if taken:
            mark("lanes taken", lanes=len(taken), jobs=sum(len(lane.tasks) for lane in taken))
        return len(taken)

    async def _work(self, lane: Lane) -> None:
        report = await self.work.jobs(lane)
        if report is None:
            return
        # Nothing more is sent in it: another lane need not wait until that is recorded.
        self._over += 1
        self.wake.set()
        try:
            await self.work.release(lane, report)
        finally:
            self._over -= 1

    def _has_ended(self, task: asyncio.Task[None]) -> None:
        self._running.pop(task, None)
        self.wake.set()
        if not task.cancelled():
            task.exception()  # it could not be recorded, so the recorder has failed, too

    async def _finish(self) -> None:
        """Let those who work come to the end of their job, and give the lanes of those back who do not."""
        if not self._running:
            return
        _, late = await asyncio.wait(list(self._running), timeout=self.pace.stop_s)
        lanes = [self._running[task] for task in late if task in self._running]
        await _end(*late)
        await asyncio.gather(*map(self.work.give_back, lanes))

    # What goes on beside.

    async def _renewing(self) -> None:
        while True:
            await asyncio.sleep(self.pace.lease_s / 3)
            lanes, before = list(self._running.values()), asyncio.get_running_loop().time()
            ours = await self.lanes.renew(lanes)
            for lane in lanes:
                if lane.id in ours:
                    lane.ours_until = before + self.pace.lease_s

    async def _looking(self) -> None:
        while True:
            if await self.holds.look():
                self.wake.set()
            await asyncio.sleep(_LOOK_S)

    async def _forgetting(self) -> None:
        while True:
            while await self.lanes.forget_done(self.pace.keep_s, _FORGET_ROWS) >= _FORGET_ROWS:
                pass
            await asyncio.sleep(_FORGET_S)


async def _end(*tasks: asyncio.Future[Any]) -> None:
    """Cancel them, and wait until they have ended.

    Before Python 3.12 waiting with a timeout loses a cancellation that comes at the same moment as what is
    waited for, such as a connection: so it is said again.
    """
    pending = {task for task in tasks if not task.done()}
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=0.5)
    await asyncio.gather(*tasks, return_exceptions=True)  # what went wrong with them is heard
