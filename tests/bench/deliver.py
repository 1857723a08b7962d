"""Compositions → how fast a worker delivers them to a sandbox over HTTP, beside the HTTP client alone."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import orjson

from replicator.database import connected, migrate, pooled
from replicator.ehr.bind import Plan
from replicator.ehr.client import Client, Ehr, Flat, Limits, Subject, VersionUid
from replicator.ehr.compose import Stamp, compose
from replicator.ehr.deliver import Delivery
from replicator.ehr.deliver_checks import Checks
from replicator.ehr.deliver_content import signed
from replicator.ehr.deliver_plans import Plans
from replicator.ehr.identity import ehr_id
from replicator.ehr.job import Job, Jobs
from replicator.ehr.lanes_held import Holds
from replicator.ehr.lanes_taken import Lanes
from replicator.ehr.mapping import parse_mapping
from replicator.ehr.model import RecordMapping
from replicator.ehr.pace import Pace
from replicator.ehr.queue import append
from replicator.ehr.sandbox.server import Sandbox
from replicator.wal.lsn import Lsn
from replicator.wal.messages import Column, Relation
from replicator.wal.transactions import Change, Kind
from replicator.work import Worker
from tests.bench.bench import Bench
from tests.bench.place import database
from tests.bench.result import Result, at_least

_OPT = Path(__file__).parents[1] / "ehrbase" / "pulse.opt"
_MAPPING = """\
system: bench
namespace: bench
ctx: {language: en, territory: CM, setting: other care, composer: Clinic, time: at}
tables:
  readings:
    key: id
    patient: patient_id
    template: replicator.pulse.v1
    fields:
      pulse_encounter/pulse/any_event:0/rate: {column: rate, unit: /min}
"""
_NAMES = ("id", "patient_id", "rate", "at")
#: The EHRs are there in both cases.
_SET_HOMES = "UPDATE ehr_lanes SET ehr_id = own_ehr_id, system_id = %(system)s::text"
_PATIENTS, _AT_ONCE = 200, 16


def deliver(bench: Bench) -> Iterator[Result]:
    """The same compositions for the same patients, to a sandbox that is a process of its own."""
    count = bench.count(8000, 500)
    ours: list[float] = []
    alone: list[float] = []
    for run in bench.each(f"deliver: {count:,} compositions"):
        with database(bench.serve(), f"deliver_{run}") as dsn:
            argv = [sys.executable, "-m", "tests.bench.deliver", dsn]
            with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as sandbox:
                assert sandbox.stdin is not None and sandbox.stdout is not None, "both are pipes"
                url = sandbox.stdout.readline().decode().strip()
                # The one that comes second finds a fuller sandbox, and each machine has its moods.
                for is_ours in (run % 2 == 0, run % 2 == 1):
                    if is_ours:
                        ours.append(count / asyncio.run(_delivered(dsn, url, _jobs(count, "bench"))))
                    else:
                        alone.append(count / asyncio.run(_alone(url, _jobs(count, "alone"))))
                sandbox.stdin.close()
    yield Result("deliver", ours, "compositions/s", "its HTTP client alone", alone, at_least(0.8))


def _mapping(system: str) -> RecordMapping:
    return parse_mapping(_MAPPING.replace("bench", system), "bench")


def _jobs(count: int, system: str) -> list[Job]:
    made = Jobs(_mapping(system), lambda *asked: None, {})
    relation = Relation(1, "public", "readings", "f", tuple(Column(n, 25, -1, n == "id") for n in _NAMES))
    found: list[Job] = []
    for number in range(count):
        row = (str(number), f"p{number % _PATIENTS}", str(50 + number % 60), "2026-03-01 08:30:00+00")
        found += made.of(Change(Kind.INSERT, relation, None, row, number), Lsn(0x1000))
    return found


async def _alone(url: str, jobs: Sequence[Job]) -> float:
    """How long the requests take that cannot be avoided, as fast as they can be made."""
    async with Client(url, limits=Limits(connections=_AT_ONCE)) as client:
        plan = await Plans(client, mapping := _mapping("alone")).of(mapping.tables["readings"])
        assert isinstance(plan, Plan), "it fits"
        homes = {ehr.id: ehr for ehr in await _ehrs(client, "alone")}
        waiting = [_sent(plan, job, homes) for job in jobs]

        async def send() -> None:
            while waiting:
                answer = await client.create(*waiting.pop())
                assert answer.ok, answer.summary

        begun = time.perf_counter()
        await asyncio.gather(*(send() for _ in range(_AT_ONCE)))
        return time.perf_counter() - begun


def _sent(plan: Plan, job: Job, homes: Mapping[str, Ehr]) -> tuple[str, Flat, VersionUid]:
    """What a worker sends of a job: to the last field, so that the server has the same to do."""
    assert job.ehr is not None and job.composition is not None, "each has a patient"
    composed = compose(plan, _row(job), Stamp(job.key, job.change))
    fields, _ = signed(composed, plan.template.root, plan.mapping.system)
    uid = VersionUid(job.composition, homes[job.ehr].system, 1)
    return job.ehr, Flat(plan.template.id, fields), uid


def _row(job: Job) -> dict[str, str | None]:
    found: dict[str, str | None] = orjson.loads(job.snapshot or b"{}")
    return found


async def _ehrs(client: Client, namespace: str) -> list[Ehr]:
    made = []
    for number in range(_PATIENTS):
        ehr = await client.ensure_ehr(ehr_id(namespace, f"p{number}"), Subject(f"p{number}", namespace))
        assert isinstance(ehr, Ehr)
        made.append(ehr)
    return made


async def _delivered(dsn: str, url: str, jobs: Sequence[Job]) -> float:
    """How long a worker takes for all of them, from the queue to the last one recorded."""
    await migrate(dsn, "replicator")
    async with connected(dsn, "feed", schema="replicator") as storage, storage.transaction():
        await append(storage, jobs)
    mapping = _mapping("bench")
    async with (
        pooled(dsn, "work", schema="replicator", most=4) as connect,
        Client(url, limits=Limits(connections=_AT_ONCE)) as client,
    ):
        homes = await _ehrs(client, "bench")
        async with connect() as storage:
            await storage.execute(_SET_HOMES, {"system": homes[0].system})
        plans = Plans(client, mapping)
        delivery = Delivery(client, Jobs(mapping, lambda *asked: None, {}), plans)
        lanes, stop = Lanes(connect, "bench", 60.0), asyncio.Event()
        worker = Worker(lanes, delivery, Holds(lanes, Checks(client, plans, mapping)), Pace(_AT_ONCE))

        async def until_empty() -> None:
            asked = "SELECT EXISTS (SELECT FROM ehr_lanes WHERE state <> 'idle')"
            async with connect() as storage:
                # Asking while somebody is at work would take of the time that is measured.
                while worker.busy or (await (await storage.execute(asked)).fetchone()) != (False,):
                    await asyncio.sleep(0.02)
            stop.set()
            await asyncio.Event().wait()

        begun = time.perf_counter()
        await worker.run(stop, until_empty())
        seconds = time.perf_counter() - begun
        async with connect() as storage:
            done = await (await storage.execute("SELECT count(*) FROM ehr_jobs_done")).fetchone()
        assert done == (len(jobs),), "every one is delivered"
        return seconds


async def _sandbox(dsn: str) -> None:
    async with Sandbox(dsn) as sandbox:
        async with Client(sandbox.url) as client:
            assert (await client.upload_template(_OPT.read_bytes())).ok
        print(sandbox.url, flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(_sandbox(sys.argv[1]))
