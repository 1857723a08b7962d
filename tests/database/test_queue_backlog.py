"""A record system is away for long, and jobs gather behind it: that costs probes, and no job anything."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable

import pytest

from replicator.database import Connect, connected, migrate, pooled
from replicator.ehr.circuit import FAILURES_MAX
from replicator.ehr.client.versions import VersionUid
from replicator.ehr.deliver import End
from replicator.ehr.identity import ChangeId
from replicator.ehr.job import Job, Operation
from replicator.ehr.lanes import Home, Task
from replicator.ehr.lanes_held import Holds
from replicator.ehr.lanes_taken import Lanes
from replicator.ehr.pace import Pace
from replicator.ehr.queue import append
from replicator.ehr.retry import Done, Retry
from replicator.wal.lsn import Lsn
from replicator.work import Worker
from tests.fixtures.postgres import Database

pytestmark = pytest.mark.migrated

_PATIENTS, _AT_ONCE, _BATCH = 500, 32, 5000
#: Probes of a server that is away, before it comes back.
_PROBES = 8


def job(number: int) -> Job:
    """The changes of a patient's one record, one after another."""
    patient = f"p{number % _PATIENTS}"
    operation = Operation.UPDATE if number >= _PATIENTS else Operation.CREATE
    of_patient = f"00000000-0000-5000-8000-{number % _PATIENTS:012}"
    return Job(
        operation, "readings", "public.readings", patient, patient, of_patient, of_patient,
        "replicator.pulse.v1", ChangeId(Lsn(8 * number + 8), 1), 0, b"{}", 50, False,
    )  # fmt: skip


class Recorder:
    """A record system that can be away, and otherwise takes whatever it is given."""

    def __init__(self) -> None:
        self.is_there = True
        #: Given back with every probe.
        self.probed = asyncio.Semaphore(0)
        self.tries = 0
        self.taken: dict[str, list[ChangeId]] = defaultdict(list)

    async def server(self) -> End:
        self.probed.release()
        return Done() if self.is_there else Retry("nobody listens there", is_outage=True)

    async def template(self, name: str) -> End:
        return await self.server()

    async def home(self, job: Job) -> Home | End:
        return Home(str(job.ehr), "there")

    async def deliver(self, task: Task, home: Home, is_ours: Callable[[], Awaitable[bool]]) -> End:
        self.tries += 1
        if not self.is_there:
            return Retry("nobody listens there", is_outage=True)
        versions = self.taken[str(task.job.composition)]
        versions.append(task.job.change)
        return Done(VersionUid(str(task.job.composition), "there", len(versions)))


async def until(connect: Connect, condition: str) -> None:
    async with connect() as connection:
        while await (await connection.execute(f"SELECT {condition}".encode())).fetchone() != (True,):
            await asyncio.sleep(0.05)


async def gather(dsn: str, count: int) -> None:
    async with connected(dsn, "feed", schema="replicator") as storage:
        for first in range(0, count, _BATCH):
            async with storage.transaction():
                await append(storage, [job(number) for number in range(first, min(first + _BATCH, count))])


@pytest.mark.timeout(0)
async def test_what_has_gathered_behind_a_server_that_was_away_is_delivered_once_and_in_order(
    database: Database, backlog: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many jobs as `--backlog` says: a hundred thousand before a release."""
    monkeypatch.setattr("replicator.ehr.lanes_held.LOOK_S", (0.01, 0.02))
    monkeypatch.setattr("replicator.work._LOOK_S", 0.05)
    await migrate(database.dsn, "replicator")
    server, stop = Recorder(), asyncio.Event()
    async with pooled(database.dsn, "work", schema="replicator", most=4) as connect:
        lanes = Lanes(connect, "worker", 60.0)
        worker = Worker(lanes, server, Holds(lanes, server), Pace(_AT_ONCE, jobs=50))  # type: ignore[arg-type]  # stands for one

        async def away_and_back() -> None:
            await server.probed.acquire()
            server.is_there = False
            await gather(database.dsn, backlog)
            await until(connect, "EXISTS (SELECT FROM ehr_holds)")
            await until(connect, "NOT EXISTS (SELECT FROM ehr_lanes WHERE lease_until IS NOT NULL)")
            tries = server.tries
            assert tries <= _AT_ONCE + FAILURES_MAX
            for _ in range(_PROBES):
                await server.probed.acquire()
            assert server.tries == tries
            server.is_there = True
            await until(connect, "NOT EXISTS (SELECT FROM ehr_lanes WHERE state <> 'idle')")
            assert server.tries == tries + backlog
            stop.set()
            await asyncio.Event().wait()

        await worker.run(stop, away_and_back())
    assert sum(map(len, server.taken.values())) == backlog
    assert all(changes == sorted(set(changes)) for changes in server.taken.values())
    done = "SELECT state, count(*), sum(attempts) FROM replicator.ehr_sync_queue GROUP BY state"
    assert database.execute(done) == [("done", backlog, server.tries - backlog)]
