"""Whatever a clinic does to its rows, the record's versions are their history: from SQL to the record."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from click.testing import CliRunner

from replicator.cli import main
from replicator.database import connected
from replicator.ehr.identity import composition_id
from replicator.ehr.queue_mirrored import mirror
from replicator.ehr.sandbox.server import Sandbox
from tests.database.queued import MAPPING, prepared, sandbox_with_template
from tests.fixtures.children import StartChild
from tests.fixtures.least import restrict
from tests.fixtures.postgres import Database

pytestmark = pytest.mark.migrated

#: A patient, and one of their rows.
Record = tuple[str, str]
#: What each record has been told, one version after another; None for its deletion.
Histories = dict[Record, list[int | None]]

_TRANSACTIONS = 60
_AT = "2026-03-01 08:30:00+00"
_RULES = ("SELECT * FROM readings",)
#: What the queue says of each job, and a row that rules can name.
SAID = """
SELECT id, table_name, record_id, template_id, sync_type,
       CASE sync_status WHEN 'processing' THEN 'pending' ELSE sync_status END, retry_count,
       nullif(error_message, ''), ehrbase_composition_id, ehr_id, created_at, processed_at
FROM replicator.ehrbase_sync_queue
WHERE id NOT IN (SELECT lane || '.' || seq FROM replicator.ehr_jobs_done WHERE state = 'merged') ORDER BY id
"""
MIRRORED = """
SELECT id, table_name, record_id, template_id, sync_type, sync_status, retry_count, error_message,
       ehrbase_composition_id, ehr_id, created_at, processed_at
FROM replicator.ehr_sync_status ORDER BY id
"""
_HELD = """
SELECT object_id::text, (coalesce(
    body ->> 'pulse_encounter/pulse/any_event:0/rate|magnitude',
    body #>> '{content,0,data,events,0,data,items,0,value,magnitude}'))::float8::integer
FROM sandbox.versions WHERE kind = 'COMPOSITION' ORDER BY object_id, number
"""


@pytest.fixture
async def sandbox(database: Database) -> AsyncIterator[Sandbox]:
    await prepared(database)
    for table in ("users", "readings"):
        columns = "id text PRIMARY KEY, patient_id text, rate integer, at timestamptz, active boolean"
        database.execute(f"CREATE TABLE {table} ({columns})")
        database.execute(f"ALTER TABLE {table} REPLICA IDENTITY FULL")
    database.execute("CREATE PUBLICATION powersync FOR TABLE readings, users")
    async with sandbox_with_template(database.owner_dsn) as sandbox:
        yield sandbox


def configured(
    folder: Path, database: Database, url: str, *, is_atomic: bool, rules: Sequence[str] = _RULES
) -> Path:
    mapping = MAPPING[: MAPPING.index("  merging:")]
    (folder / "ehr.yaml").write_text(mapping.replace("ctx:", f"atomic: {str(is_atomic).lower()}\nctx:", 1))
    (folder / "rules.yaml").write_text(json.dumps({"bucket_definitions": {"all": {"data": rules}}}))
    ehr = {"mapping": "ehr.yaml", "url": url}
    path = folder / "replicator.yaml"
    path.write_text(json.dumps({"source": {"dsn": database.dsn}, "rules": "rules.yaml", "ehr": ehr}))
    restrict(database, path)
    return path


class History:
    """Rows, what chance does to them, and what the record is to be told of it."""

    def __init__(self, chance: random.Random, *, is_atomic: bool) -> None:
        self._chance, self._is_atomic = chance, is_atomic
        self._rows: dict[str, str] = {}
        self._rate = 0
        self.told: Histories = {}

    def transaction(self) -> str:
        """The SQL of one."""
        before = {record: len(versions) for record, versions in self.told.items()}
        statements = [self._statement() for _ in range(self._chance.randrange(1, 6))]
        if self._is_atomic:
            for record, versions in self.told.items():
                self._leave_last(versions, before.get(record, 0))
        return f"BEGIN; {' '.join(statements)} COMMIT"

    def _leave_last(self, versions: list[int | None], before: int) -> None:
        """Of what one transaction did, only what it has left counts; and nothing if that is nothing new."""
        new, versions[before:] = versions[before:], []
        was_there = bool(versions) and versions[-1] is not None
        if new and (new[-1] is not None or was_there):
            versions.append(new[-1])

    def _statement(self) -> str:
        self._rate += 1
        id, patient = f"r{self._chance.randrange(6)}", f"p{self._chance.randrange(3)}"
        owner = self._rows.get(id)
        if owner is None:
            self._put(patient, id)
            return f"INSERT INTO readings VALUES ('{id}', '{patient}', {self._rate}, '{_AT}');"
        kind = self._chance.random()
        if kind < 0.25:
            del self._rows[id]
            self._tell(owner, id, None)
            return f"DELETE FROM readings WHERE id = '{id}';"
        if kind < 0.5 and patient != owner:
            self._tell(owner, id, None)
        else:
            patient = owner
        self._put(patient, id)
        return f"UPDATE readings SET rate = {self._rate}, patient_id = '{patient}' WHERE id = '{id}';"

    def _put(self, patient: str, id: str) -> None:
        self._rows[id] = patient
        self._tell(patient, id, self._rate)

    def _tell(self, patient: str, id: str, rate: int | None) -> None:
        self.told.setdefault((patient, id), []).append(rate)


def stored(database: Database) -> dict[str, list[int | None]]:
    found: dict[str, list[int | None]] = {}
    for name, rate in database.execute(_HELD):
        found.setdefault(name, []).append(rate)
    return found


async def until(database: Database, condition: str) -> None:
    async with asyncio.timeout(60):
        while await asyncio.to_thread(database.execute, condition) != [(True,)]:
            await asyncio.sleep(0.1)


@pytest.mark.parametrize("is_atomic", [False, True], ids=["alone", "together"])
async def test_the_records_versions_are_the_history_of_the_rows(
    sandbox: Sandbox,
    database: Database,
    tmp_path: Path,
    children: StartChild,
    rng: random.Random,
    is_atomic: bool,
) -> None:
    history = History(rng, is_atomic=is_atomic)
    run = children("run", "--config", configured(tmp_path, database, sandbox.url, is_atomic=is_atomic))
    # From then on every change counts, and not only what it leaves.
    await until(database, "SELECT count(*) = 2 FROM replicator.ehr_existing WHERE state = 'queued'")
    for _ in range(_TRANSACTIONS):
        await asyncio.to_thread(database.execute, history.transaction())
    expected = {
        composition_id("clinic", "readings", patient, (id,)): versions
        for (patient, id), versions in history.told.items()
        if versions
    }
    wanted = sum(map(len, expected.values()))
    with suppress(TimeoutError):  # what is there then says more
        await until(database, f"SELECT count(*) >= {wanted} FROM sandbox.versions WHERE kind = 'COMPOSITION'")
    run.terminate()
    assert await asyncio.to_thread(run.wait) == 0, run.stderr
    assert stored(database) == expected
    states = "SELECT DISTINCT state FROM replicator.ehr_sync_queue WHERE state NOT IN ('done', 'merged')"
    assert database.execute(states) == []


async def test_what_became_of_each_job_comes_to_whom_rules_say(
    sandbox: Sandbox, database: Database, tmp_path: Path, children: StartChild, rng: random.Random
) -> None:
    """The queue feeds a table that is published itself: the log tells of our own writing, and that ends."""
    history = History(rng, is_atomic=False)
    rules = (*_RULES, "SELECT * FROM replicator.ehr_sync_status")
    config = configured(tmp_path, database, sandbox.url, is_atomic=False, rules=rules)
    told = ["check", "--config", str(config)]
    assert "and nobody keeps it" in (await asyncio.to_thread(CliRunner().invoke, main, told)).stdout
    async with connected(database.dsn, "mirror", schema="replicator") as storage:
        assert (await mirror(storage, is_kept=True)).has_changed
    assert "and nobody keeps it" not in (await asyncio.to_thread(CliRunner().invoke, main, told)).stdout
    told = ["publication", "plan", "--config", str(config)]
    plan = (await asyncio.to_thread(CliRunner().invoke, main, told)).stdout
    assert "ADD TABLE replicator.ehr_sync_status" in plan
    database.execute(plan)
    run = children("run", "--config", config)
    await until(database, "SELECT count(*) = 2 FROM replicator.ehr_existing WHERE state = 'queued'")
    for _ in range(_TRANSACTIONS):
        await asyncio.to_thread(database.execute, history.transaction())
    wanted = sum(map(len, history.told.values()))
    await until(database, f"SELECT count(*) >= {wanted} FROM replicator.ehr_jobs_done")
    await until(database, "SELECT count(*) = 0 FROM replicator.ehr_sync_queue_open")
    assert database.execute(MIRRORED) == database.execute(SAID)
    assert database.execute("SELECT DISTINCT sync_status FROM replicator.ehr_sync_status") == [("completed",)]
    patients = "SELECT DISTINCT patient_id FROM replicator.ehr_sync_status ORDER BY 1"
    assert {row[0] for row in database.execute(patients)} == {patient for patient, _ in history.told}
    verify = children("verify", "--config", config)
    assert await asyncio.to_thread(verify.wait) == 0, verify.stderr
    run.terminate()
    assert await asyncio.to_thread(run.wait) == 0, run.stderr
    sent = "SELECT count(DISTINCT object_id) FROM replicator.ops WHERE object_type = 'ehr_sync_status'"
    assert database.execute(sent) == [(wanted,)]
