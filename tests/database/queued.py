"""A clinic of pulse readings → its jobs in a queue, a sandbox to deliver them to, and what both then hold."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from replicator.config import load
from replicator.database import connected, migrate
from replicator.ehr.client import Client
from replicator.ehr.job import Job, Jobs
from replicator.ehr.mapping import load_mapping, parse_mapping
from replicator.ehr.pace import Pace
from replicator.ehr.queue import append
from replicator.ehr.sandbox.server import Sandbox
from replicator.wal.lsn import Lsn
from replicator.wal.messages import Column, Relation
from replicator.wal.transactions import Change, Kind
from replicator.work import run_work
from tests.fixtures.least import restrict
from tests.fixtures.postgres import Database

Row = Mapping[str, str | None]

TEMPLATE = "replicator.pulse.v1"
OPT = (Path(__file__).parents[1] / "ehrbase" / "pulse.opt").read_bytes()
SYSTEM = "clinic"
MAPPING = """\
system: clinic
namespace: clinic
ctx: {language: en, territory: CM, setting: other care, composer: Clinic, time: at}
tables:
  users: {key: id, patient: id, priority: 0, status: {modifiable: active}}
  readings:
    key: id
    patient: patient_id
    priority: 50
    coalesce: false
    template: replicator.pulse.v1
    fields:
      pulse_encounter/pulse/any_event:0/rate: {column: rate, unit: /min}
  merging:
    key: id
    patient: patient_id
    priority: 50
    template: replicator.pulse.v1
    fields:
      pulse_encounter/pulse/any_event:0/rate: {column: rate, unit: /min}
  urgent:
    key: id
    patient: patient_id
    priority: 10
    template: replicator.pulse.v1
    fields:
      pulse_encounter/pulse/any_event:0/rate: {column: rate, unit: /min}
  other:
    key: id
    patient: patient_id
    template: replicator.other.v1
    fields:
      pulse_encounter/pulse/any_event:0/rate: {column: rate, unit: /min}
"""
NAMES = ("id", "patient_id", "rate", "at", "active")
AT = "2026-03-01 08:30:00+00"


def jobs_of_clinic(mapping: str = MAPPING) -> Jobs:
    return Jobs(parse_mapping(mapping, "ehr.yaml"), lambda *asked: None, {})


def reading(id: str, patient: str | None = "p1", rate: object = 72) -> dict[str, str | None]:
    return {"id": id, "patient_id": patient, "rate": str(rate), "at": AT, "active": "t"}


class Clinic:
    """What writes changes, one after another, as the log of a source would tell them."""

    def __init__(self, dsn: str, mapping: str = MAPPING) -> None:
        self.dsn, self.jobs = dsn, jobs_of_clinic(mapping)
        self._lsn = 0x1000
        #: Of the last change, in a transaction that goes on.
        self._ordinal: int | None = None
        self._rows: dict[tuple[str, str], Row] = {}

    def change(self, table: str, old: Row | None, new: Row | None) -> list[Job]:
        """The jobs of one change, in a transaction of its own if none is open."""
        if self._ordinal is None:
            self._lsn += 0x100
        else:
            self._ordinal += 1
        kind = Kind.INSERT if old is None else Kind.DELETE if new is None else Kind.UPDATE
        relation = Relation(
            1, "public", table, "f", tuple(Column(name, 25, -1, name == "id") for name in NAMES)
        )
        values = [None if row is None else tuple(row.get(name) for name in NAMES) for row in (old, new)]
        change = Change(kind, relation, values[0], values[1], self._ordinal or 1, old is not None)
        return list(self.jobs.of(change, Lsn(self._lsn)))

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Changes within belong together."""
        self._lsn, self._ordinal = self._lsn + 0x100, 0
        yield
        self._ordinal = None

    def put(self, table: str, row: Row) -> list[Job]:
        """A row is inserted, or is now so."""
        key = table, str(row["id"])
        before, self._rows[key] = self._rows.get(key), row
        return self.change(table, before, row)

    def drop(self, table: str, id: str) -> list[Job]:
        return self.change(table, self._rows.pop((table, id)), None)

    async def append(self, *batches: list[Job]) -> None:
        """All of these in one storage transaction."""
        jobs = [job for batch in batches for job in batch]
        async with connected(self.dsn, "feed", schema="replicator") as storage, storage.transaction():
            await append(storage, jobs)


@asynccontextmanager
async def sandbox_with_template(dsn: str, **options: Any) -> AsyncIterator[Sandbox]:
    async with Sandbox(dsn, **options) as sandbox:
        async with Client(sandbox.url) as client:
            uploaded = await client.upload_template(OPT)
            assert uploaded.status in (201, 409), uploaded.summary
        yield sandbox


async def prepared(database: Database) -> Clinic:
    await migrate(database.dsn, "replicator")
    return Clinic(database.dsn)


def write_config(
    folder: Path, database: Database, url: str, *, mapping: str = MAPPING, **ehr: object
) -> Path:
    """What a worker in a process of its own reads."""
    (folder / "ehr.yaml").write_text(mapping)
    path = folder / "replicator.yaml"
    keys = {"url": url, "mapping": "ehr.yaml", **ehr}
    path.write_text(json.dumps({"source": {"dsn": database.dsn}, "ehr": keys}))
    restrict(database, path)
    return path


def left(database: Database) -> int:
    return int(database.execute("SELECT count(*) FROM replicator.ehr_sync_queue_open")[0][0])


def forget(database: Database) -> None:
    """As if none of it had been queued, or noted as delivered."""
    database.execute("TRUNCATE replicator.ehr_parcels, replicator.ehr_jobs, replicator.ehr_jobs_done")
    database.execute("TRUNCATE replicator.ehr_lanes, replicator.ehr_compositions")


def states(database: Database) -> list[tuple[str, ...]]:
    """Every job's record, operation and state, in order of lanes' numbers."""
    query = "SELECT record_key, operation, state FROM replicator.ehr_sync_queue"
    ordered = f"{query} ORDER BY commit_lsn, ordinal, part"
    return [tuple(map(str, row)) for row in database.execute(ordered)]


#: Every version in the sandbox: which composition, its number, what it was, and the change it holds.
_HELD = """
SELECT object_id::text, number, change, source_version,
       (body ->> 'pulse_encounter/pulse/any_event:0/rate|magnitude')
FROM sandbox.versions WHERE kind = 'COMPOSITION' ORDER BY object_id, number
"""


def held(database: Database) -> dict[str, list[tuple[Any, ...]]]:
    """What the sandbox holds: of each composition its versions."""
    found: dict[str, list[tuple[Any, ...]]] = {}
    for object_id, *version in database.execute(_HELD):
        found.setdefault(object_id, []).append(tuple(version))
    return found


class Worker:
    """A worker in this process."""

    def __init__(
        self, folder: Path, database: Database, url: str, pace: Pace | None = None, **keys: Any
    ) -> None:
        self._config = load(write_config(folder, database, url, **keys), {})
        self._mapping = load_mapping(self._config.ehr.mapping_path)
        self._stop = asyncio.Event()
        self._pace = pace or Pace()

    async def __aenter__(self) -> Worker:
        self._running = asyncio.create_task(
            run_work(self._config, self._mapping, self._stop, pace=self._pace)
        )
        return self

    async def __aexit__(self, *error: object) -> None:
        self._stop.set()
        await self._running


async def delivered(database: Database, n: int = 0) -> None:
    """Wait until no more than so many jobs are left."""
    async with asyncio.timeout(120):
        while await asyncio.to_thread(left, database) > n:
            await asyncio.sleep(0.02)
