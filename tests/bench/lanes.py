"""Jobs that nobody delivers → how many a second four workers take and finish, and what waits besides."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
from uuid_utils import UUID

from replicator.database import connected, migrate, pooled
from replicator.ehr.client import VersionUid
from replicator.ehr.deliver import End
from replicator.ehr.identity import ChangeId, uuid5
from replicator.ehr.job import Job, Operation
from replicator.ehr.lanes import Home, Task
from replicator.ehr.lanes_held import Holds
from replicator.ehr.lanes_taken import Lanes
from replicator.ehr.pace import Pace
from replicator.ehr.queue import append
from replicator.ehr.retry import Done
from replicator.wal.lsn import Lsn
from replicator.work import Worker
from tests.bench.bench import Bench
from tests.bench.place import database
from tests.bench.result import Result, at_least, at_most

_WORKERS = 4
_MANY, _FEW = 3000, 5
_BAR_MANY, _BAR_FEW = 10_000, 5000
_WAITING = 1_000_000
_SNAPSHOT = json.dumps({f"column_{n}": "some value of a row" for n in range(9)}).encode()
_SPACE = UUID(int=0)


def lanes(bench: Bench) -> Iterator[Result]:
    """Claims and completions, with a server that has done it before it is asked."""
    many, few, alone, crowded = [], [], [], []
    jobs = bench.count(60_000, 10_000)
    waiting = bench.count(_WAITING, 100_000)
    for run in bench.each(f"lanes: {jobs:,} jobs, {_WORKERS} workers"):
        with database(bench.serve(), f"lanes_{run}") as dsn:
            asyncio.run(migrate(dsn, "replicator"))
            asyncio.run(fill(dsn, jobs, _MANY))
            many.append(jobs / _work_s(dsn))
            asyncio.run(fill(dsn, jobs, _FEW))
            few.append(jobs / _work_s(dsn))
    yield Result(f"lanes, {_MANY} patients", many, "jobs/s", "bar", [_BAR_MANY], at_least(1))
    yield Result(f"lanes, {_FEW} patients", few, "jobs/s", "bar", [_BAR_FEW], at_least(1))
    for run in bench.each(f"lanes: a claim beside {waiting:,} jobs"):
        with database(bench.serve(), f"claim_{run}") as dsn:
            asyncio.run(migrate(dsn, "replicator"))
            asyncio.run(fill(dsn, 30_000, _MANY))
            asyncio.run(claim_ms(dsn))  # from here on, what is taken is laid out
            alone.append(asyncio.run(claim_ms(dsn)))
            asyncio.run(fill(dsn, waiting, _MANY))
            crowded.append(asyncio.run(claim_ms(dsn)))
    yield Result("a claim, 1,000,000 jobs waiting", crowded, "ms", "30,000 waiting", alone, at_most(1.2))


async def fill(dsn: str, count: int, patients: int) -> None:
    """So many jobs, a patient's one after another's."""
    async with connected(dsn, "feed", schema="replicator") as storage:
        for first in range(0, count, 5000):
            jobs = [_job(number, patients) for number in range(first, min(count, first + 5000))]
            async with storage.transaction():
                await append(storage, jobs)
        await storage.execute("VACUUM ANALYZE ehr_lanes")
        await storage.execute("CHECKPOINT")


def _job(number: int, patients: int) -> Job:
    patient = f"patient {number % patients}"
    change = ChangeId(Lsn(number + 1), 1)
    composition, ehr = uuid5(_SPACE, f"{time.monotonic_ns()} {number}"), uuid5(_SPACE, patient)
    return Job(
        Operation.CREATE, "vital_signs", "public.vital_signs", str(number), patient, ehr, composition,
        "IDCR - Vital Signs Encounter.v1", change, 0, _SNAPSHOT, 50, False,
    )  # fmt: skip


async def claim_ms(dsn: str, rounds: int = 200) -> float:
    """How long a claim of 16 lanes takes; giving them back is not counted, nor is the first half.

    Each round leaves dead rows behind, and begins with what the one before it has read.
    """
    taken_s = 0.0
    async with pooled(dsn, "bench", schema="replicator") as connect:
        lanes = Lanes(connect, "bench", 60.0)
        for number in range(2 * rounds):
            taken_s = 0.0 if number == rounds else taken_s
            begun = time.perf_counter()
            found = await lanes.claim(16, 10)
            taken_s += time.perf_counter() - begun
            assert len(found) == 16
            async with connect() as connection:
                await connection.execute("UPDATE ehr_lanes SET due_at = now() WHERE lease_until > now()")
    return taken_s * 1000 / rounds


def _work_s(dsn: str) -> float:
    """How long the workers take until nothing is left: processes, as there would be."""
    argv = [sys.executable, "-m", "tests.bench.lanes", dsn]
    with ThreadPoolExecutor() as threads:
        workers = [
            subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(_WORKERS)
        ]
        for worker in workers:
            assert worker.stdout is not None
            worker.stdout.readline()
        begun = time.perf_counter()
        for ended in [threads.submit(worker.communicate, b"go\n") for worker in workers]:
            ended.result()
        seconds = time.perf_counter() - begun
    assert all(worker.returncode == 0 for worker in workers)
    with psycopg.connect(dsn) as connection:
        left = connection.execute("SELECT count(*) FROM replicator.ehr_sync_queue_open").fetchone()
        assert left == (0,), "every job is finished"
        connection.execute("TRUNCATE replicator.ehr_jobs_done, replicator.ehr_compositions")
    return seconds


class _Nowhere:
    """A record system that has done it before it is asked."""

    async def home(self, job: Job) -> Home | End:
        return Home(str(job.ehr), "nowhere")

    async def deliver(self, task: Task, home: Home, is_ours: object) -> End:
        return Done(VersionUid(str(task.job.composition), "nowhere", 1))

    async def server(self) -> End:
        return Done()

    async def template(self, name: str) -> End:
        return Done()


async def _work(dsn: str) -> None:
    async with pooled(dsn, "work", schema="replicator", most=4) as connect:
        held = Lanes(connect, "bench", 60.0)
        nowhere = _Nowhere()
        worker = Worker(held, nowhere, Holds(held, nowhere), Pace(concurrency=32, jobs=50))  # type: ignore[arg-type]  # stands for one
        stop = asyncio.Event()
        await held.holds()
        print("ready", flush=True)
        sys.stdin.readline()

        async def until_empty() -> None:
            async with connect() as connection:
                asked = "SELECT EXISTS (SELECT FROM ehr_lanes WHERE state <> 'idle')"
                while (await (await connection.execute(asked)).fetchone()) != (False,):
                    await asyncio.sleep(0.02)
            stop.set()
            await asyncio.Event().wait()

        await worker.run(stop, until_empty())


if __name__ == "__main__":
    asyncio.run(_work(sys.argv[1]))
