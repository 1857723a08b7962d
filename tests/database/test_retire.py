"""What only rules that are over needed is taken away whole, whatever else is being stored meanwhile."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import pytest

from replicator.buckets.lookups import Lookups
from replicator.buckets.numbers import Numbers
from replicator.buckets.retire import retire
from replicator.buckets.write import Source, Writer, begin, open_writer
from replicator.database import Connection, connected, migrate
from replicator.rules.model import Put
from replicator.rules.parse import parse_rules
from replicator.rules.route import Enter, Router
from replicator.rules.versions import versions_of
from replicator.wal.lsn import Lsn
from tests.fixtures.postgres import Connection as Plain
from tests.fixtures.postgres import Database
from tests.oracle.tight import bounded

pytestmark = pytest.mark.migrated

_SLOT = "s"
_RULES = {
    "bucket_definitions": {
        "team": {
            "parameters": "SELECT team FROM teams WHERE member = request.user_id()",
            "data": ["SELECT * FROM letters WHERE team = bucket.team"],
        }
    }
}
_LEFT = """
SELECT 'ops', count(*) FROM replicator.ops UNION ALL SELECT 'buckets', count(*) FROM replicator.buckets
UNION ALL SELECT 'totals', count(*) FROM replicator.totals
UNION ALL SELECT 'lookups', count(*) FROM replicator.lookups
"""
_IS_WAITING = """
SELECT count(*) > 0, pg_sleep(0.01) FROM pg_stat_activity
WHERE application_name = 'replicator retire' AND wait_event_type = 'Lock' AND datname = current_database()
  AND query LIKE %s
"""


class Over(NamedTuple):
    """A set of rules that is over, with a bucket and a lookup of which something stands."""

    writer: Writer
    retiring: Connection
    bucket: str
    lookup: str


@asynccontextmanager
async def over(database: Database, has_entry: bool = True) -> AsyncIterator[Over]:
    await migrate(database.dsn, "replicator")
    rules = parse_rules(json.dumps(_RULES), "rules")
    versions = versions_of(rules, 1, None)
    [bucket], [lookup] = versions.buckets(), versions.maintained()
    database.execute(
        "INSERT INTO replicator.rule_sets (slot, id, content, origin, state, versions, ended_at) "
        "VALUES (%s, 1, %s, 'command', 'retired', %s, now() - interval '1 day')",
        [_SLOT, rules.text, json.dumps(versions.as_json())],
    )
    async with (
        connected(database.dsn, "write", schema="replicator") as writing,
        connected(database.dsn, "numbers", schema="replicator") as numbering,
        connected(database.dsn, "retire", schema="replicator") as retiring,
    ):
        await begin(writing, _SLOT, Lsn(1), Source("1", 1))
        opened = await open_writer(writing, _SLOT, Numbers(numbering))
        assert opened is not None
        writer, _ = opened
        writer.lookups = Lookups(writing, Router(rules))
        await writer.lookups.open()
        batch = writer.batch()
        await batch.add([Put(f'{bucket}["t1"]', "letters", "1", "7/1", "{}")])
        if has_entry:
            await batch.add([Enter(lookup, '["u1"]', '["t1"]', "7/1")])
        await batch.commit(lambda checkpoint: None)
        await writer.settle()
        yield Over(writer, retiring, f'{bucket}["t1"]', lookup)


async def waits(database: Database, retired: asyncio.Task[int], query: str = "%") -> None:
    """Until who takes them away waits for somebody else, or is done."""
    async with asyncio.timeout(120):
        while not retired.done() and not database.execute(_IS_WAITING, [query])[0][0]:
            await asyncio.sleep(0)


@pytest.mark.parametrize("has_entry", [False, True])
async def test_what_a_sweep_adds_while_they_are_taken_away_goes_with_them(
    database: Database, has_entry: bool
) -> None:
    """Who takes them away meets the sweep at an entry, which both change, or nowhere."""
    async with over(database, has_entry) as (writer, retiring, *_):
        batch = writer.batch()
        await batch.sweep("7/")
        retired = asyncio.create_task(retire(retiring, _SLOT))
        await waits(database, retired)
        await batch.commit(lambda checkpoint: None)
        await writer.settle()
        await retired
        assert dict(database.execute(_LEFT)) == {"ops": 0, "buckets": 0, "totals": 0, "lookups": 0}


async def test_what_is_swept_afterwards_brings_nothing_of_them_back(database: Database) -> None:
    async with over(database) as (writer, retiring, *_):
        await retire(retiring, _SLOT)
        batch = writer.batch()
        await batch.sweep("7/")
        await batch.commit(lambda checkpoint: None)
        await writer.settle()
        assert dict(database.execute(_LEFT)) == {"ops": 0, "buckets": 0, "totals": 0, "lookups": 0}


_FIRST_OF = {
    "ops": "DELETE FROM replicator.ops WHERE op_id = (SELECT min(op_id) FROM replicator.ops)",
    "entries": "DELETE FROM replicator.lookups WHERE op_id = (SELECT min(op_id) FROM replicator.lookups)",
}


@pytest.mark.parametrize("kind", ["ops", "entries"])
async def test_a_step_that_meets_compaction_is_not_taken_for_the_last(database: Database, kind: str) -> None:
    """It takes away fewer than it has found, and there are more."""
    async with over(database) as (writer, retiring, bucket, lookup):
        batch = writer.batch()
        await batch.add([Put(bucket, "letters", str(n), f"7/{n}", "{}") for n in range(2, 20)])
        await batch.add([Enter(lookup, f'["u{n}"]', '["t1"]', f"7/{n}") for n in range(2, 20)])
        await batch.commit(lambda checkpoint: None)
        await writer.settle()
        batch = writer.batch()
        await batch.sweep("8/")  # the batch that is waited for, until it is committed
        compacting = database.connect()
        with bounded({"replicator.buckets.retire.STEP": 3}):
            with compacting.transaction():
                compact_one(compacting, kind)
                retired = asyncio.create_task(retire(retiring, _SLOT))
                await waits(database, retired)
            await waits(database, retired, "%FROM checkpoints%")
            with compacting.transaction():
                compact_one(compacting, kind)
                await batch.commit(lambda checkpoint: None)
                await writer.settle()
                await waits(database, retired, "%DELETE FROM%")
            await retired
        assert dict(database.execute(_LEFT)) == {"ops": 0, "buckets": 0, "totals": 0, "lookups": 0}


def compact_one(compacting: Plain, kind: str) -> None:
    """Hold the bucket, and take away the first of what is there."""
    if kind == "ops":
        compacting.execute("SELECT FROM replicator.buckets FOR KEY SHARE")
    compacting.execute(_FIRST_OF[kind].encode())
