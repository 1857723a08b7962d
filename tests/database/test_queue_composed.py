"""Rows in a clinic's tables → what the record holds of them, all the way: whatever a mapping can ask for."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from replicator.config import load
from replicator.database import migrate
from replicator.ehr.mapping import load_mapping
from replicator.ehr.pace import Pace
from replicator.ehr.sandbox.changes import DELETION
from replicator.work import run_work
from tests.database.queued import sandbox_with_template
from tests.fixtures.children import StartChild
from tests.fixtures.least import restrict
from tests.fixtures.postgres import Database

pytestmark = pytest.mark.migrated

_MAPPING = """\
system: clinic
namespace: clinic
ctx: {language: en, territory: CM, setting: other care, composer: Clinic, time: at}
tables:
  rounds:
    key: id
    patient: {column: visit, through: visits, key: id, patient: patient_id}
    template: replicator.pulse.v1
    filter: state IN ('final', 'amended') AND kind <> 'test'
    soft_delete: deleted
    ignore: [synced]
    groups:
      pulse_encounter/pulse/any_event:
        rows: {table: beats, parent: {round: id}, order: n}
        fields:
          rate: {expression: round(rate * 1.0), unit: /min}
          comment: {expression: "'beat ' || n || ifnull(': ' || note, '')"}
"""
_TABLES = """
CREATE DOMAIN kind AS text;
CREATE TABLE visits (id int PRIMARY KEY, patient_id text);
CREATE TABLE rounds (
    id int PRIMARY KEY, visit int, at timestamptz, state text, kind kind,
    deleted boolean DEFAULT false, synced text);
CREATE TABLE beats (round int, n int, rate numeric, note text, PRIMARY KEY (round, n));
CREATE TABLE other (id text PRIMARY KEY);
CREATE PUBLICATION powersync FOR TABLE rounds, beats, other;
INSERT INTO visits VALUES (1, 'p1'), (2, 'p2');
INSERT INTO rounds VALUES
    (1, 1, '2026-03-01 08:30:00+00', 'final', 'ward'), (2, 2, '2026-03-01', 'draft', 'ward');
INSERT INTO beats VALUES (1, 1, 71.4, 'at rest'), (1, 2, 80, NULL);
"""
_NEWEST = """SELECT DISTINCT ON (object_id) number, change, body FROM sandbox.versions
             WHERE kind = 'COMPOSITION' ORDER BY object_id, number DESC"""
_RATE, _COMMENT = (
    "pulse_encounter/pulse/any_event:{}/rate|magnitude",
    "pulse_encounter/pulse/any_event:{}/comment",
)
Held = list[tuple[int, str, list[tuple[float, str]]]]


def held(database: Database) -> Held:
    """Of each composition: how many versions it has, what the last one was, and the beats it holds."""
    found: Held = []
    for number, change, body in database.execute(_NEWEST):
        said: dict[str, Any] = body or {}
        beats = [
            (said[_RATE.format(n)], said[_COMMENT.format(n)]) for n in range(9) if _RATE.format(n) in said
        ]
        found.append((number, change, beats))
    return found


async def becomes(database: Database, is_so: Callable[[Held], bool]) -> Held:
    """What is held, once it is so."""
    async with asyncio.timeout(60):
        while not is_so(found := await asyncio.to_thread(held, database)):
            await asyncio.sleep(0.02)
    return found


async def test_all_that_a_mapping_asks_for_is_in_the_record(
    database: Database, tmp_path: Path, children: StartChild
) -> None:
    """The patient by way of another table, parts that are rows, a filter, a deletion that is a column."""
    await migrate(database.dsn, "replicator")
    database.execute(_TABLES)
    (tmp_path / "ehr.yaml").write_text(_MAPPING)
    (tmp_path / "rules.yaml").write_text("bucket_definitions: {all: {data: [SELECT * FROM other]}}")
    path = tmp_path / "replicator.yaml"
    async with sandbox_with_template(database.owner_dsn) as sandbox:
        ehr = {"mapping": "ehr.yaml", "url": sandbox.url}
        path.write_text(json.dumps({"source": {"dsn": database.dsn}, "rules": "rules.yaml", "ehr": ehr}))
        restrict(database, path)
        child = children("run", "--only", "replicate", "--config", path)
        config, stop = load(path, {}), asyncio.Event()
        working = asyncio.create_task(
            run_work(config, load_mapping(config.ehr.mapping_path), stop, pace=Pace())
        )
        first = [(71, "beat 1: at rest"), (80, "beat 2")]
        assert [each[2] for each in await becomes(database, lambda found: bool(found))] == [first]
        database.execute("UPDATE beats SET rate = 90 WHERE n = 2; UPDATE rounds SET synced = 'x'")
        second = [(71, "beat 1: at rest"), (90, "beat 2")]
        found = await becomes(database, lambda found: found[0][2] == second)
        assert [each[0] for each in found] == [2]
        database.execute(
            "INSERT INTO beats VALUES (2, 1, 60, NULL); UPDATE rounds SET state = 'final' WHERE id = 2"
        )
        await becomes(database, lambda found: [(60, "beat 1")] in [each[2] for each in found])
        database.execute("UPDATE rounds SET deleted = true WHERE id = 1")
        await becomes(database, lambda found: [each[1] for each in found].count(DELETION) == 1)
        database.execute("UPDATE rounds SET kind = 'test' WHERE id = 2")
        await becomes(database, lambda found: {each[1] for each in found} == {DELETION})
        stop.set()
        await working
    child.terminate()
    assert await asyncio.to_thread(child.wait) == 0, child.stderr
    query = "SELECT DISTINCT patient, trouble, error_class FROM replicator.ehr_sync_queue ORDER BY 1"
    assert database.execute(query) == [("p1", None, None), ("p2", None, None)]


async def test_nothing_of_ours_can_fail_a_clinical_write(
    database: Database, tmp_path: Path, children: StartChild
) -> None:
    """Triggers fed the queue: a wrong cast, or a column it lacked, undid payments and clinical notes."""
    await migrate(database.dsn, "replicator")
    database.execute(_TABLES)
    (tmp_path / "ehr.yaml").write_text(_MAPPING)
    (tmp_path / "rules.yaml").write_text("bucket_definitions: {all: {data: [SELECT * FROM other]}}")
    path = tmp_path / "replicator.yaml"
    ehr = {"mapping": "ehr.yaml", "url": "http://127.0.0.1:9/nowhere"}
    path.write_text(json.dumps({"source": {"dsn": database.dsn}, "rules": "rules.yaml", "ehr": ehr}))
    restrict(database, path)
    child = children("run", "--only", "replicate", "--config", path)
    await asyncio.to_thread(child.wait_for, "existing queued")
    assert database.execute("SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal") == [(0,)]
    query = "SELECT count(*) FROM replicator.ehr_sync_queue WHERE record_key = '3'"
    # The queue cannot be written to, and the row is one that no composition could be made of.
    with psycopg.connect(database.owner_dsn) as locked:
        locked.execute("LOCK TABLE replicator.ehr_sync_queue IN ACCESS EXCLUSIVE MODE")
        database.execute("SET lock_timeout = '10s'; INSERT INTO rounds VALUES (3, 99, NULL, 'final', 'ward')")
    async with asyncio.timeout(60):
        while database.execute(query) != [(1,)]:
            await asyncio.sleep(0.02)
