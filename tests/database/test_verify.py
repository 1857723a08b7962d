"""`verify` finds every kind of damage, by its place and not its values; and nothing where there is none."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner

from replicator.buckets import deploy
from replicator.buckets.compact import compact_bucket, horizon, lock
from replicator.buckets.force import shown
from replicator.cli import main
from replicator.config import Config
from replicator.database import connected, migrate
from replicator.errors import Unavailable
from replicator.observe.rules.got import User
from replicator.observe.verify import verify
from replicator.observe.verify_found import Verified, facts_of, text_of
from replicator.rules.model import Rules
from replicator.rules.parse import parse_rules
from replicator.rules.versions import versioned, versions_of
from replicator.supervise import run_replicate
from tests.database.clinics import configure
from tests.fixtures.postgres import Database
from tests.oracle.tight import bounded

TABLES = """
CREATE TABLE visits (id int PRIMARY KEY, owner text, note text, seen int);
CREATE TABLE letters (id text, part int, team text, said text, due timestamptz, PRIMARY KEY (id, part));
CREATE TABLE teams (id int PRIMARY KEY, team text, member text);
CREATE PUBLICATION powersync FOR TABLE visits, letters, teams;
INSERT INTO visits SELECT n, 'u' || n % 5, 'said', n FROM generate_series(1, 60) AS n;
INSERT INTO teams SELECT n, 't' || n % 4, 'u' || n % 5 FROM generate_series(1, 12) AS n;
INSERT INTO letters SELECT 'l' || n, n % 3, 't' || n % 4, 'said', now() + (n - 10) * interval '1 day'
FROM generate_series(1, 40) AS n;
"""
RULES = {
    "mine": {
        "parameters": "SELECT request.user_id() AS user_id",
        "data": ["SELECT * FROM visits WHERE owner = bucket.user_id"],
    },
    "team": {
        "parameters": "SELECT team FROM teams WHERE member = request.user_id()",
        "data": ["SELECT id || '/' || part AS id, said FROM letters WHERE team = bucket.team"],
    },
    "read": {
        "parameters": "SELECT request.user_id() AS user_id",
        "data": [
            "SELECT id || '/' || part AS id, said FROM letters AS post WHERE due > now() "
            "AND team IN (SELECT team FROM teams WHERE member = bucket.user_id)"
        ],
    },
}
#: Pieces of few rows, and no waiting for what is not there.
TIGHT = {
    "replicator.observe.verify_source.PIECE_ROWS": 7,
    "replicator.observe.verify._TOGETHER": 3,
    "replicator.observe.verify._AGAIN": 4,
    "replicator.observe.verify._ENTRIES_AT_ONCE": 10,
    "replicator.observe.verify_kept.FIRST_PAUSE_S": 0.01,
    "replicator.observe.verify_kept._AT_ONCE": 10,
    "replicator.observe.verify_settle.FIRST_PAUSE_S": 0.01,
}


@pytest.fixture
def rules() -> Rules:
    return parse_rules(json.dumps({"bucket_definitions": RULES}), "rules")


@pytest.fixture(autouse=True)
def _tight() -> Iterator[None]:
    with bounded(TIGHT):
        yield


@pytest.fixture
async def config(database: Database) -> Config:
    await migrate(database.dsn, "replicator")
    with psycopg.connect(database.owner_dsn, autocommit=True) as connection:
        connection.execute(TABLES.encode())
    return configure(database.dsn, slot=f"slot_{database.name}")


@asynccontextmanager
async def replicating(config: Config, rules: Rules) -> AsyncIterator[None]:
    """A replicator at work, once everything has been copied."""
    stop = asyncio.Event()
    running = asyncio.create_task(run_replicate(config, rules, stop))
    try:
        async with connected(config.storage_dsn, "test", schema="replicator") as storage:
            while not await _is_shown(storage):
                assert not running.done(), running.exception()
        yield
    finally:
        stop.set()
        await running


async def _is_shown(storage) -> bool:  # type: ignore[no-untyped-def]  # a Connection
    found = await storage.execute("SELECT shown_op_id IS NOT NULL, pg_sleep(0.02) FROM checkpoints")
    return any(is_shown for is_shown, _ in await found.fetchall())


def in_force(rules: Rules) -> Rules:
    """The same, with every name as the first deploy gives it."""
    return versioned(rules, versions_of(rules, 1, None))


def kinds(verified: Verified) -> list[tuple[str, str, str]]:
    return sorted((one.kind, one.bucket, one.object_id) for one in verified.differences)


async def everything(config: Config, rules: Rules) -> Verified:
    return await verify(config, in_force(rules), user=None, sample=None)


async def test_nothing_is_found_where_nothing_is_wrong(config: Config, rules: Rules) -> None:
    async with replicating(config, rules):
        found = await everything(config, rules)
        assert found.differences == [] and found.unsettled == 0
        # Each letter is in its team's bucket; one that is due later, in those of its readers as well.
        assert found.rows > 60 + 40 and found.buckets >= 5 + 4 + 5 and found.entries > 12
        sampled = await verify(config, in_force(rules), user=None, sample=3)
        assert (sampled.buckets, sampled.differences) == (3, [])
        one = await verify(config, in_force(rules), user=User("u1", {"sub": "u1"}, {}), sample=None)
        assert one.rows and one.differences == []
        assert text_of(one).endswith("no difference")


async def test_a_row_too_large_for_clients_is_not_missing(
    database: Database, config: Config, rules: Rules
) -> None:
    config = config.model_copy(update={"replicate": config.replicate.model_copy(update={"row_bytes": 500})})
    database.execute("UPDATE visits SET note = repeat('x', 500) WHERE id = 7")
    async with replicating(config, rules):
        assert kinds(await everything(config, rules)) == []


DAMAGE = {
    "missing": "DELETE FROM ops WHERE object_type = 'visits' AND object_id = '7'",
    "content": "UPDATE ops SET data = replace(data, '\"seen\":7', '\"seen\":8') "
    "WHERE object_type = 'visits' AND object_id = '7'",
    "leak": "INSERT INTO ops SELECT c.op_id, b.id, 0, 'PUT', o.object_type, o.object_id, o.subkey, o.data "
    "FROM ops AS o, buckets AS b, checkpoints AS c "
    "WHERE o.object_type = 'visits' AND o.object_id = '7' AND b.name = '1#mine[\"u1\"]'",
    "stranger": "UPDATE buckets SET name = '1#yours[\"u2\"]' WHERE name = '1#mine[\"u2\"]'",
}
EXPECTED = {
    "missing": [("missing", '1#mine["u2"]', "7")],
    "content": [("content", '1#mine["u2"]', "7")],
    "leak": [("leak", '1#mine["u1"]', "7")],
    "stranger": [("stranger", '1#yours["u2"]', "")],
}


@pytest.mark.parametrize("kind", DAMAGE)
async def test_damage_to_a_row_is_found(database: Database, config: Config, rules: Rules, kind: str) -> None:
    async with replicating(config, rules):
        damage(database, DAMAGE[kind])
        found = await everything(config, rules)
        told = [one for one in kinds(found) if one[0] != "sum"]
        if kind == "stranger":  # and all that the bucket under its own name should hold
            told = [one for one in told if one[0] != "missing"]
        assert told == EXPECTED[kind]
        assert found.exit_code == 1 and "said" not in text_of(found) + json.dumps(facts_of(found))
        sampled = await verify(config, in_force(rules), user=None, sample=100)
        assert [one for one in kinds(sampled) if one[0] not in ("sum", "missing")] == [
            one for one in told if one[0] != "missing"
        ]
        if kind == "missing":
            assert kinds(sampled) == kinds(found)
        if kind == "content":
            assert found.differences[0].columns == ("seen",)
            mine = await verify(config, in_force(rules), user=User("u2", {"sub": "u2"}, {}), sample=None)
            assert kinds(mine) == told
            theirs = await verify(config, in_force(rules), user=User("u3", {"sub": "u3"}, {}), sample=None)
            assert kinds(theirs) == []


async def test_a_row_that_is_where_another_row_put_it_is_verified_too(
    database: Database, config: Config, rules: Rules
) -> None:
    async with replicating(config, rules):
        damage(database, "DELETE FROM ops WHERE object_type = 'post' AND object_id = 'l30/0'")
        found = await everything(config, rules)
        told = [one for one in found.differences if one.kind != "sum"]
        assert told and {one.object_type for one in told} == {"post"}
        assert {(one.kind, one.object_id) for one in told} == {("missing", "l30/0")}


@pytest.mark.parametrize(
    ("statement", "columns"),
    [
        ("UPDATE totals SET checksum = mod(checksum + 1, 4294967296) WHERE bucket = {}", {"checksum"}),
        ("UPDATE totals SET count = count + 1 WHERE bucket = {}", {"count"}),
        ("UPDATE ops SET checksum = 5 WHERE bucket = {} AND object_id = '7'", {"checksum"}),
    ],
)
async def test_sums_that_are_wrong_are_found(
    database: Database, config: Config, rules: Rules, statement: str, columns: set[str]
) -> None:
    async with replicating(config, rules):
        [[bucket]] = database.execute("SELECT id FROM replicator.buckets WHERE name = '1#mine[\"u2\"]'")
        damage(
            database,
            f"INSERT INTO totals SELECT {bucket}, max(op_id), "
            f"mod(sum(checksum::bigint & 4294967295), 4294967296), count(*) FROM ops WHERE bucket = {bucket} "
            "ON CONFLICT (bucket, op_id) DO UPDATE SET count = totals.count",
        )
        assert kinds(await everything(config, rules)) == []
        damage(database, statement.format(bucket))
        found = await everything(config, rules)
        assert {one.kind for one in found.differences} == {"sum"}
        assert {one.bucket for one in found.differences} == {'1#mine["u2"]'}
        assert {column for one in found.differences for column in one.columns} == columns


async def test_ops_of_no_bucket_are_found(database: Database, config: Config, rules: Rules) -> None:
    async with replicating(config, rules):
        [[number]] = database.execute("SELECT max(id) + 1 FROM replicator.buckets")
        damage(
            database,
            "INSERT INTO ops SELECT op_id, id + 1, checksum, op, object_type, object_id, subkey, data "
            "FROM ops, (SELECT max(id) AS id FROM buckets) AS last ORDER BY op_id LIMIT 3",
        )
        assert kinds(await everything(config, rules)) == [("nameless", str(number), "")]


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM lookups WHERE subkey LIKE '%/3' AND key LIKE '%u3%'",
        "UPDATE lookups SET value = '[\"t9\"]' WHERE subkey LIKE '%/3' AND key LIKE '%u3%'",
        "INSERT INTO lookups SELECT lookup, '[\"u9\"]', value, subkey, op_id FROM lookups "
        "WHERE subkey LIKE '%/3' AND key LIKE '%u3%'",
        "INSERT INTO lookups SELECT * FROM lookups WHERE subkey LIKE '%/3' AND key LIKE '%u3%'",
        "DELETE FROM lookups WHERE lookup LIKE '@due %' AND subkey LIKE '%l30%'",
    ],
)
async def test_entries_that_differ_are_found(
    database: Database, config: Config, rules: Rules, statement: str
) -> None:
    async with replicating(config, rules):
        assert kinds(await everything(config, rules)) == []
        damage(database, statement)
        found = await everything(config, rules)
        assert {one.kind for one in found.differences} == {"lookup"}


KEPT = "oid = 'public.visits'::regclass::oid::bigint"


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        (
            f"UPDATE row_states SET row = replace(row, 'said', 'kept') WHERE {KEPT} AND key = '[\"7\"]'",
            ("outdated", '["7"]', ("note",)),
        ),
        (
            "UPDATE row_states SET row = replace(row, 'said', 'kept') WHERE key = '[\"l7\",\"1\"]'",
            ("outdated", '["l7","1"]', ("said",)),
        ),
        (f"UPDATE row_states SET row = '[9,9]' WHERE {KEPT} AND key = '[\"7\"]'", ("outdated", '["7"]', ())),
        (f"DELETE FROM row_states WHERE {KEPT} AND key = '[\"60\"]'", ("unkept", '["60"]', ())),
        (
            f"INSERT INTO row_states SELECT slot, oid, '[\"99\"]', row FROM row_states WHERE {KEPT} LIMIT 1",
            ("kept", '["99"]', ()),
        ),
        (
            f"INSERT INTO row_states SELECT slot, oid, '[\"no number\"]', row FROM row_states "
            f"WHERE {KEPT} LIMIT 1",
            ("kept", '["no number"]', ()),
        ),
    ],
)
async def test_rows_that_are_kept_wrongly_are_found(
    database: Database,
    config: Config,
    rules: Rules,
    statement: str,
    expected: tuple[str, str, tuple[str, ...]],
) -> None:
    """No bucket shows it yet: the next update that leaves something out would."""
    async with replicating(config, rules):
        found = await everything(config, rules)
        assert found.differences == [] and found.kept == 60 + 12 + 40
        damage(database, statement)
        found = await everything(config, rules)
        [one] = found.differences
        assert (one.kind, one.object_id, one.columns) == expected
        assert found.exit_code == 1 and "said" not in text_of(found).replace("(said)", "")


async def test_rows_stored_before_a_column_was_added_are_as_they_must_be(
    database: Database, config: Config, rules: Rules
) -> None:
    async with replicating(config, rules):
        database.execute("ALTER TABLE visits ADD more text")
        database.execute("ALTER TABLE letters ADD more text")
        database.execute("UPDATE visits SET more = 'said', owner = 'u1' WHERE id < 9")
        database.execute("UPDATE letters SET more = 'said' WHERE part = 1")
        found = await everything(config, rules)
        assert found.differences == [] and found.kept == 60 + 12 + 40


async def test_rows_of_a_table_that_is_followed_no_more_are_not_waited_for(
    database: Database, config: Config, rules: Rules
) -> None:
    """Rules that read it are over, and what was kept of it goes, while it is compared."""
    gone: list[int] = []

    def let_it_go(rows: int) -> None:
        if not gone:
            gone.append(rows)
            forget = "WITH gone AS (DELETE FROM tables WHERE name = 'letters' RETURNING oid) "
            damage(database, forget + "DELETE FROM row_states USING gone WHERE row_states.oid = gone.oid")

    async with replicating(config, rules):
        found = await verify(config, in_force(rules), user=None, sample=None, say=let_it_go)
        assert gone and (found.kept, found.unsettled, found.differences) == (60 + 12, 0, [])


async def test_what_changes_meanwhile_is_no_difference(
    database: Database, config: Config, rules: Rules, rng: random.Random
) -> None:
    async with replicating(config, rules):
        stop = asyncio.Event()
        writing = asyncio.create_task(asyncio.to_thread(write, database, rng, stop))
        try:
            for _ in range(3):
                found = await everything(config, rules)
                assert found.differences == []
                async with connected(config.storage_dsn, "compact", schema="replicator") as storage:
                    await lock(storage)
                    upto = await horizon(storage, config.source.slot, 0)
                    assert upto is not None
                    for (number,) in database.execute("SELECT id FROM replicator.buckets"):
                        async for _ in compact_bucket(storage, number, upto):
                            pass
            damage(database, "UPDATE ops SET data = '{}' WHERE object_type = 'visits' AND object_id = '60'")
            found = await everything(config, rules)
            assert kinds(found) == [("content", '1#mine["u0"]', "60")]
        finally:
            stop.set()
            await writing


def write(database: Database, rng: random.Random, stop: asyncio.Event) -> None:
    """Traffic on everything but one row."""
    with psycopg.connect(database.owner_dsn, autocommit=True) as connection:
        while not stop.is_set():
            n = rng.randrange(1, 60)
            for statement in rng.sample(
                [
                    f"UPDATE visits SET seen = seen + 1, owner = 'u' || {n % 5} WHERE id = {n}",
                    f"DELETE FROM visits WHERE id = {n}",
                    f"INSERT INTO visits VALUES ({n}, 'u{n % 3}', 'said', 1) ON CONFLICT DO NOTHING",
                    f"UPDATE teams SET team = 't{n % 4}' WHERE id = {n % 12}",
                    f"UPDATE teams SET member = 'u{n % 5}' WHERE id = {n % 12}",
                    f"UPDATE letters SET due = now() + interval '{n - 20} days' WHERE id = 'l{n}'",
                ],
                2,
            ):
                connection.execute(statement.encode())
            # No faster than it can be replicated beside everything else.
            connection.execute(b"SELECT pg_sleep(0.01)")


async def test_what_other_rules_have_is_no_difference(
    database: Database, config: Config, rules: Rules
) -> None:
    """For a while after a deploy, readers may still be at what the rules before it made."""
    other = json.dumps({"bucket_definitions": {"other": RULES["mine"]}})
    async with replicating(config, rules):
        async with connected(config.storage_dsn, "test", schema="replicator") as storage:
            await deploy.store(storage, config.source.slot, parse_rules(other, "other"), "command")
            while (in_it := await shown(storage, config.source.slot)) is None or in_it.lookups:
                await storage.execute("SELECT pg_sleep(0.02)")
        found = await verify(config, in_it, user=None, sample=None)
        assert found.differences == [] and found.entries > 12
        damage(database, "UPDATE buckets SET name = '9#yours[\"u2\"]' WHERE name = '1#mine[\"u2\"]'")
        found = await verify(config, in_it, user=None, sample=None)
        assert kinds(found) == [("stranger", '9#yours["u2"]', "")]


async def test_a_copy_under_way_is_waited_for(database: Database, config: Config, rules: Rules) -> None:
    async with replicating(config, rules):
        pass
    damage(database, "UPDATE tables SET state = 'wanted' WHERE name = 'visits'")
    with pytest.raises(Unavailable, match="visits is being copied"):
        await everything(config, rules)


def damage(database: Database, statement: str) -> None:
    with psycopg.connect(
        database.owner_dsn, autocommit=True, options="-c search_path=replicator"
    ) as connection:
        assert connection.execute(statement.encode()).rowcount, "it does some damage"


async def test_the_verb_tells_and_ends_with_one(
    database: Database, config: Config, rules: Rules, tmp_path: Path
) -> None:
    (tmp_path / "rules.yaml").write_text(json.dumps({"bucket_definitions": RULES}))
    file = tmp_path / "replicator.yaml"
    file.write_text(json.dumps({"source": {"dsn": database.dsn, "slot": config.source.slot}}))

    async def say(*options: str) -> tuple[int, str]:
        call = ["verify", "--config", str(file), *options]
        done = await asyncio.to_thread(CliRunner().invoke, main, call)
        return done.exit_code, done.output

    async with replicating(config, rules):
        code, output = await say("--all")
        assert code == 0 and output.endswith(" entries of lookups, 112 kept rows: no difference\n")
        damage(database, DAMAGE["missing"])
        code, output = await say("--user", "u2")
        assert code == 1
        assert 'missing: 1#mine["u2"]: visits 7 is in the source, and not in the bucket\n' in output
        code, output = await say("--all", "--json")
        assert code == 1 and json.loads(output)["differences"][0]["kind"] in ("missing", "sum")
        code, _ = await say("--all", "--user", "u2")
        assert code == 2
