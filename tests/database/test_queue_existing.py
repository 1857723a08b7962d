"""Rows of mapped tables become jobs: those that were there before, once, and whatever happens to them since.

Also where no rule reads the table, so that nobody else follows it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from replicator.config import load
from replicator.database import connected
from replicator.ehr.queue_rebuilt import position_before
from replicator.errors import Unavailable
from replicator.observe import publication
from replicator.rules.parse import parse_rules
from tests.database.queued import prepared
from tests.fixtures.children import At, Child, StartChild
from tests.fixtures.least import restrict
from tests.fixtures.postgres import Database, MakeDatabase, Server

_MAPPING = """\
system: clinic
namespace: clinic
ctx: {language: en, territory: CM, setting: other care, composer: Clinic, time: at}
tables:
  readings:
    key: id
    patient: patient_id
    template: replicator.pulse.v1
    fields: {pulse_encounter/pulse/any_event:0/rate: {column: rate, unit: /min}}
"""
_TABLES = """
CREATE TABLE readings (
    id text PRIMARY KEY, patient_id text, rate integer, at timestamptz DEFAULT now(), long text);
CREATE TABLE other (id text PRIMARY KEY);
CREATE PUBLICATION powersync FOR TABLE readings, other;
"""
_RULES = "bucket_definitions: {all: {data: [SELECT * FROM %s]}}"
_FILL = "INSERT INTO readings SELECT n::text, 'p' || n %% 7, 60 FROM generate_series(1, %s) AS n"
#: Too long to be told again by an update that leaves it.
_LONG = "SELECT string_agg(md5(n::text), '') FROM generate_series(1, 300) AS n"


class Source:
    """A clinic, and the replicator that follows it."""

    def __init__(self, database: Database, folder: Path, children: StartChild) -> None:
        self.database, self._folder, self._children = database, folder, children
        database.execute(_TABLES)

    def start(
        self,
        mapping: str | None = _MAPPING,
        rules: str = _RULES % "other",
        kill_at: At | None = None,
        block_at: At | None = None,
    ) -> Child:
        config = self.configure(mapping, rules)
        argv = ("run", "--only", "replicate", "--config", config)
        return self._children(*argv, kill_at=kill_at, block_at=block_at)

    def configure(self, mapping: str | None, rules: str = _RULES % "other") -> Path:
        ehr = {"mapping": "ehr.yaml", "url": "http://127.0.0.1:9/nowhere"} if mapping else {}
        (self._folder / "ehr.yaml").write_text(mapping or "")
        (self._folder / "rules.yaml").write_text(rules)
        config = self._folder / "replicator.yaml"
        config.write_text(
            json.dumps(
                {
                    "source": {"dsn": self.database.dsn, "on_slot_loss": "resync"},
                    "rules": "rules.yaml",
                    "ehr": ehr,
                }
            )
        )
        restrict(self.database, config)
        return config

    async def jobs(self, n: int) -> list[tuple[Any, ...]]:
        """Every job's record and operation, in the order of its lane, once there are so many."""
        query = "SELECT record_key, operation FROM replicator.ehr_sync_queue ORDER BY lane, seq"
        async with asyncio.timeout(60):
            while len(found := await asyncio.to_thread(self.database.execute, query)) < n:
                await asyncio.sleep(0.02)
        assert len(found) == n, found
        return found

    async def shown(self, rate: int) -> None:
        """Wait until clients are told of this rate."""
        query = "SELECT count(*) FROM replicator.ops WHERE data::json ->> 'rate' = %s"
        async with asyncio.timeout(60):
            while not self.database.execute(query, [str(rate)])[0][0]:
                await asyncio.sleep(0.02)


@pytest.fixture
async def source(database: Database, tmp_path: Path, children: StartChild) -> Source:
    await prepared(database)
    return Source(database, tmp_path, children)


async def test_a_table_that_no_rule_reads_is_followed_from_its_first_row_on(source: Source) -> None:
    """Its rows are kept, so that an update is whole and a deletion knows whose row it was."""
    execute = source.database.execute
    execute(f"INSERT INTO readings SELECT 'a', 'p1', 60, now(), ({_LONG})")
    child = source.start()
    assert await source.jobs(1) == [("a", "create")]
    execute("UPDATE readings SET rate = 61 WHERE id = 'a'")
    execute("INSERT INTO readings VALUES ('b', 'p1', 70)")
    execute("UPDATE readings SET patient_id = 'p1' WHERE id = 'b'")
    execute("DELETE FROM readings WHERE id = 'a'")
    await source.jobs(4)
    execute("TRUNCATE readings")
    expected = [("a", "create"), ("a", "update"), ("b", "create"), ("a", "delete"), ("b", "delete")]
    assert await source.jobs(5) == expected
    query = (
        "SELECT length(snapshot::json ->> 'long') FROM replicator.ehr_sync_queue WHERE operation = 'update'"
    )
    assert execute(query) == [(9600,)]
    # Clients never waited for it: it is in nobody's bucket.
    assert execute("SELECT for_rules FROM replicator.tables WHERE name = 'readings'") == [(0,)]
    child.terminate()
    assert await asyncio.to_thread(child.wait) == 0, child.stderr


async def test_what_was_there_before_is_left_alone_where_the_mapping_says_so(source: Source) -> None:
    source.database.execute(_FILL, [3])
    await asyncio.to_thread(
        source.start(_MAPPING.replace("key: id", "key: id\n    existing: skip")).wait_for, "copied", n=2
    )
    source.database.execute("INSERT INTO readings VALUES ('new', 'p1', 60)")
    assert await source.jobs(1) == [("new", "create")]


async def test_no_position_is_taken_while_a_commit_before_it_may_not_be_seen(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever writes last may have committed already, and wait for the disk, or for a standby."""
    database.execute("CREATE TABLE written (id integer)")
    asking = connected(database.dsn, "position")
    with database.connect() as other:
        async with asking as source:
            with monkeypatch.context() as bounded:
                bounded.setattr("replicator.ehr.queue_rebuilt._OPEN_S", 0.3)
                with other.transaction():
                    other.execute("INSERT INTO written VALUES (1)")
                    with pytest.raises(Unavailable, match="have been open"):
                        await position_before(source)
            await position_before(source)


async def test_a_position_is_where_a_crash_leaves_the_log_as_it_is(
    own_server: Callable[..., Server], make_database: MakeDatabase
) -> None:
    database = make_database(on=own_server(wal_writer_delay="10s"))
    database.execute("SET synchronous_commit = off")
    database.execute("CREATE TABLE written (id integer)")
    async with connected(database.dsn, "position") as source:
        at = await position_before(source)
    ((is_safe,),) = database.execute("SELECT %s::pg_lsn < pg_current_wal_flush_lsn()", [str(at)])
    assert is_safe


@pytest.mark.parametrize("existing", ["deliver", "skip"])
async def test_a_change_that_its_row_was_not_there_for_is_a_job(source: Source, existing: str) -> None:
    """The log leaves out what it has told nobody yet: the change waits for the copy, and is not lost."""
    execute = source.database.execute
    execute(
        f"INSERT INTO readings SELECT id, 'p1', 60, now(), ({_LONG}) FROM (VALUES ('a'), ('b')) AS t (id)"
    )
    mapping = _MAPPING.replace("key: id", f"key: id\n    existing: {existing}")
    child = source.start(mapping, block_at=("streaming", 1))
    await asyncio.to_thread(child.wait_for, "streaming")
    execute("UPDATE readings SET rate = 61 WHERE id = 'a'")
    child.go_on()
    expected = {"a": ("create", "61", 9600)} | (
        {"b": ("create", "60", 9600)} if existing == "deliver" else {}
    )
    await source.jobs(len(expected))
    query = """SELECT record_key, operation, snapshot::json ->> 'rate', length(snapshot::json ->> 'long')
               FROM replicator.ehr_sync_queue"""
    assert {row[0]: row[1:] for row in execute(query)} == expected
    child.terminate()
    assert await asyncio.to_thread(child.wait) == 0, child.stderr


async def test_each_row_that_was_there_is_queued_once_however_often_it_is_killed(source: Source) -> None:
    """And so is each that is written meanwhile."""
    source.database.execute(_FILL, [1900])
    for nth, at in enumerate([("existing rows", 1), ("existing rows", 1), ("existing rows", 2)]):
        child = source.start(kill_at=at)
        source.database.execute("INSERT INTO readings VALUES (%s, 'p1', 60)", [f"new {nth}"])
        await asyncio.to_thread(child.wait)
    source.start()
    found = await source.jobs(1903)
    assert len(set(found)) == 1903 and {operation for _, operation in found} == {"create"}


async def test_a_mapping_that_comes_later_finds_the_rows_that_are_there(source: Source) -> None:
    """Rules have followed the table for long; what they copied is not copied again."""
    source.database.execute(_FILL, [3])
    child = source.start(None, _RULES % "readings")
    await asyncio.to_thread(child.wait_for, "copied")
    source.database.execute("UPDATE readings SET rate = 99 WHERE id = '2'")
    await source.shown(99)
    child.terminate()
    await asyncio.to_thread(child.wait)
    ops = "SELECT count(*) FROM replicator.ops"
    before = source.database.execute(ops)
    source.start(_MAPPING, _RULES % "readings")
    assert sorted(await source.jobs(3)) == [("1", "create"), ("2", "create"), ("3", "create")]
    rate = "SELECT snapshot::json ->> 'rate' FROM replicator.ehr_sync_queue WHERE record_key = '2'"
    assert source.database.execute(rate) == [("99",)]
    assert source.database.execute(ops) == before


async def test_rows_of_which_a_job_is_known_are_not_queued_again(source: Source) -> None:
    """As in a queue that was fed before anybody noted what had been there."""
    child = source.start()
    await asyncio.to_thread(child.wait_for, "existing queued")
    source.database.execute("INSERT INTO readings VALUES ('1', 'p1', 60)")
    await source.jobs(1)
    child.terminate()
    await asyncio.to_thread(child.wait)
    source.database.execute(
        "DELETE FROM replicator.ehr_existing; INSERT INTO readings VALUES ('2', 'p1', 60)"
    )
    await asyncio.to_thread(source.start().wait_for, "existing queued")
    assert await source.jobs(2) == [("1", "create"), ("2", "create")]


async def test_what_changed_while_a_mapping_was_out_of_the_file_is_queued_when_it_is_back(
    source: Source,
) -> None:
    source.database.execute(_FILL, [2])
    for rate, mapping in enumerate((_MAPPING, None, _MAPPING), 61):
        child = source.start(mapping, _RULES % "readings")
        await asyncio.to_thread(child.wait_for, "existing queued" if mapping else "streaming")
        source.database.execute("UPDATE readings SET rate = %s WHERE id = '1'", [rate])
        await source.shown(rate)
        child.terminate()
        await asyncio.to_thread(child.wait)
    query = (
        "SELECT snapshot::json ->> 'rate' FROM replicator.ehr_sync_queue WHERE record_key = '1' ORDER BY seq"
    )
    assert [row[0] for row in source.database.execute(query)] == ["60", "61", "62", "63"]


async def test_a_table_that_was_only_mapped_reaches_clients_when_rules_read_it(source: Source) -> None:
    source.database.execute(_FILL, [3])
    child = source.start()
    await source.jobs(3)
    child.terminate()
    await asyncio.to_thread(child.wait)
    source.start(_MAPPING, _RULES % "readings")
    query = "SELECT count(*) FROM replicator.ops WHERE object_type = 'readings'"
    async with asyncio.timeout(60):
        while source.database.execute(query) != [(3,)]:
            await asyncio.sleep(0.02)
    await source.jobs(3)


async def test_a_mapped_table_is_part_of_what_is_planned_and_looked_at(source: Source) -> None:
    """Also if no rule reads it: else its changes would never be told."""
    source.database.execute("ALTER PUBLICATION powersync DROP TABLE readings")
    config = load(source.configure(_MAPPING), {})
    plan = (await publication.plan(config, parse_rules(_RULES % "other", "rules.yaml"), None)).plan
    assert [(step.code, step.about) for step in plan.steps] == [("publication.table", "public.readings")]
    child = source.start()
    assert await asyncio.to_thread(child.wait) == 1
    assert "readings" in child.stderr and "ALTER PUBLICATION" in child.stderr


async def test_rows_whose_changes_were_lost_with_the_log_are_queued_again(source: Source) -> None:
    source.database.execute(_FILL, [1])
    for rate in (61, 62):
        child = source.start()
        await asyncio.to_thread(child.wait_for, "existing queued")
        child.terminate()
        await asyncio.to_thread(child.wait)
        source.database.execute("UPDATE readings SET rate = %s", [rate])
        source.database.drop_slot("replicator")
    query = "SELECT operation, snapshot::json ->> 'rate' FROM replicator.ehr_sync_queue ORDER BY seq"
    assert source.database.execute(query) == [("create", "60"), ("create", "61")]
