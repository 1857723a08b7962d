"""`replicator compact` and what `run` does by itself: which buckets, what it tells, and no harm done."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from replicator.buckets.compacting import Work, compact, keep_compacted
from replicator.cli import main
from replicator.config import Config
from replicator.database import migrate
from replicator.errors import ConfigError
from tests.database.clinics import configure
from tests.fixtures.postgres import Database
from tests.fixtures.signals import Signals

pytestmark = pytest.mark.migrated

#: One bucket with much that is dead, one with as many ops and little of it, and one with hardly any ops.
_FILLED = """
WITH named AS (
    INSERT INTO replicator.buckets (name) VALUES ('mine["ann"]'), ('mine["ben"]'), ('ours[]')
    RETURNING id, name)
INSERT INTO replicator.ops (op_id, bucket, checksum, op, object_type, object_id, subkey, data)
SELECT n, id, n, 'PUT', 'visits', row, '7/' || row, '{}' FROM (
    SELECT n, CASE WHEN n > 2990 THEN 'ours[]'
                   WHEN n % 2 = 0 THEN 'mine["ann"]' ELSE 'mine["ben"]' END AS name,
           CASE WHEN n % 2 = 0 THEN n % 20 ELSE n END::text AS row
    FROM generate_series(1, 3000) AS n) AS made JOIN named USING (name)
"""
_CHECKPOINT = """
INSERT INTO replicator.checkpoints
    (slot, op_id, lsn, fence, system_id, timeline, recorded_at, shown_op_id, shown_lsn)
VALUES ('replicator', 3000, '0/1', 1, '1', 1, now(), 3000, '0/1')
"""
_TOLD = "INSERT INTO replicator.changes VALUES (3000, NULL, NULL, now() - interval '6 minutes')"
_COUNTED = """
SELECT b.name, count(*) FROM replicator.ops AS o JOIN replicator.buckets AS b ON b.id = o.bucket
GROUP BY b.name ORDER BY b.name
"""


@pytest.fixture
async def config(database: Database) -> Config:
    await migrate(database.dsn, "replicator")
    for statement in (_FILLED, _CHECKPOINT, _TOLD):
        database.execute(statement)
    return configure(database.dsn)


def says_nothing(work: Work, read: int) -> None:
    pass


async def test_buckets_are_compacted_where_it_is_worth_it(database: Database, config: Config) -> None:
    said: list[tuple[int, int, int]] = []
    report = await compact(
        config, None, everything=False, say=lambda work, read: said.append((work.buckets, work.ops, read))
    )
    # Many ops have come since it was compacted last: how many of them are dead is not known before.
    assert (report.buckets, report.ops_before) == (2, 2990)
    assert database.execute(_COUNTED) == [('mine["ann"]', 11), ('mine["ben"]', 1495), ("ours[]", 10)]
    assert report.ops_after == 1506 and report.bytes_freed > 0
    assert said[0] == (2, 2000, 0), "it is not worth counting exactly"
    assert sum(read for *_, read in said) == 2990
    again = await compact(config, None, everything=False, say=says_nothing)
    assert (again.buckets, again.ops_before) == (0, 0)


async def test_one_bucket_or_all_are_compacted_whatever_it_is_worth(
    database: Database, config: Config
) -> None:
    report = await compact(config, 'mine["ann"]', everything=False, say=says_nothing)
    assert (report.buckets, report.ops_before, report.ops_after) == (1, 1495, 11)
    report = await compact(config, None, everything=True, say=says_nothing)
    assert (report.buckets, report.ops_before, report.ops_after) == (3, 1516, 1516)


async def test_a_name_that_no_bucket_has_is_told_with_those_that_are_like_it(config: Config) -> None:
    with pytest.raises(ConfigError, match="there is no bucket") as told:
        await compact(config, 'mine["eve"]', everything=False, say=says_nothing)
    assert 'mine["ann"], mine["ben"]' in told.value.hint


async def test_nothing_is_compacted_before_anything_is_old_enough(database: Database, config: Config) -> None:
    database.execute("UPDATE replicator.changes SET recorded_at = now()")
    report = await compact(config, None, everything=True, say=says_nothing)
    assert report.buckets == 0


def test_the_verb_tells_what_it_came_to(database: Database, tmp_path: Path) -> None:
    asyncio.run(migrate(database.dsn, "replicator"))
    for statement in (_FILLED, _CHECKPOINT, _TOLD):
        database.execute(statement)
    file = tmp_path / "replicator.yaml"
    file.write_text(json.dumps({"source": {"dsn": database.dsn}}))
    done = CliRunner().invoke(main, ["compact", "--config", str(file)])
    assert done.exit_code == 0 and done.output.startswith("2 buckets: 2,990 ops before, 1,506 after; ")
    done = CliRunner().invoke(main, ["compact", "--config", str(file)])
    assert done.output == "nothing was worth compacting\n"
    done = CliRunner().invoke(main, ["compact", "--config", str(file), "--all", "--json"])
    assert json.loads(done.output)["ops_before"] == 1516
    done = CliRunner().invoke(main, ["compact", "--config", str(file), "--all", "--bucket", "ours[]"])
    assert done.exit_code == 2


@asynccontextmanager
async def kept(config: Config) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(keep_compacted(config, 0.01))
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_by_itself_it_compacts_what_is_worth_it(
    database: Database, config: Config, signals: Signals
) -> None:
    async with kept(config):
        told = await signals.wait("compacted buckets")
    assert told == {"buckets": 2, "ops": 2990, "left": 1506}


async def test_whatever_happens_to_it_stays_there(
    database: Database, config: Config, signals: Signals
) -> None:
    async with kept(config) as task:
        signals.fail_at("compacting", error=AssertionError)
        await signals.wait("compaction failed")
        database.execute("ALTER TABLE replicator.compacted RENAME TO elsewhere")
        await signals.wait("compaction waits")
        assert not task.done()
        database.execute("ALTER TABLE replicator.elsewhere RENAME TO compacted")
        database.execute("DELETE FROM replicator.compacted")
        await signals.wait("compacted buckets", buckets=lambda count: count >= 1)
