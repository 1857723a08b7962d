"""`audit` tells which buckets held a row, when, and who gets them; and what it cannot know."""

from __future__ import annotations

import asyncio
import json
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from replicator.buckets import deploy
from replicator.buckets.audit import RowOp, spans
from replicator.buckets.compact import compact_bucket
from replicator.buckets.compact_rest import forget_entries
from replicator.buckets.force import shown
from replicator.buckets.model import OpId
from replicator.buckets.retire import retire
from replicator.cli import main
from replicator.config import Config
from replicator.database import connected
from replicator.errors import ConfigError
from replicator.observe.audit import Audit, Seen, audit
from replicator.rules.model import Rules
from replicator.rules.parse import parse_rules
from tests.database.test_verify import RULES, config, in_force, replicating, rules
from tests.fixtures.postgres import Database
from tests.oracle.tight import bounded

__all__ = ["config", "rules"]


def op(op_id: int, put: bool = True, compacted: bool = False) -> RowOp:
    return RowOp("mine[]", "visits", "7/1", op_id, put, compacted)


@pytest.mark.parametrize(
    ("ops", "expected"),
    [
        ([op(3)], [(3, None, 1, False)]),
        ([op(3), op(5), op(9, put=False)], [(3, 9, 2, False)]),
        ([op(3), op(9, put=False), op(12)], [(3, 9, 1, False), (12, None, 1, False)]),
        ([op(3), op(9, put=False), op(10, put=False)], [(3, 9, 1, False)]),
        # What came before is gone: it was there by then, and may have been for long.
        ([op(3, compacted=True), op(9, put=False)], [(3, 9, 1, True)]),
        ([op(3, put=False, compacted=True)], [(None, 3, 0, True)]),
        ([op(3, compacted=True), op(9, put=False), op(12)], [(3, 9, 1, True), (12, None, 1, False)]),
    ],
)
def test_ops_of_a_row_are_spans(ops: list[RowOp], expected: list[tuple[object, ...]]) -> None:
    assert [(one.since, one.until, one.puts, one.may_be_longer) for one in spans(ops)] == expected


def places(found: Audit) -> list[tuple[str, bool]]:
    return [(one.held.bucket, one.held.until is None) for one in found.seen]


def users(seen: Seen) -> set[str | None]:
    return {who.user for who, _, _ in seen.who}


async def look(config: Config, rules: Rules, table: str, row_id: str, at: datetime | None = None) -> Audit:
    return await audit(config, in_force(rules), table, row_id, at=at, everywhere=False)


async def test_a_row_that_moves_was_seen_by_each_in_turn(
    database: Database, config: Config, rules: Rules
) -> None:
    async with replicating(config, rules):
        database.execute("UPDATE visits SET owner = 'u3' WHERE id = 7")
        database.execute("DELETE FROM visits WHERE id = 7")
        await stored(database)
        found = await look(config, rules, "visits", "7")
    assert places(found) == [('1#mine["u2"]', False), ('1#mine["u3"]', False)]
    assert [users(one) for one in found.seen] == [{"u2"}, {"u3"}]
    first, second = found.seen
    assert first.held.until is not None and second.held.since is not None
    assert second.held.since < second.held.until  # type: ignore[operator]  # it has ended, as above
    assert all(one.since and one.since.by and one.until and one.until.by for one in found.seen)
    assert found.notes == []


async def test_users_are_found_through_lookups(database: Database, config: Config, rules: Rules) -> None:
    expected = {who for (who,) in database.execute("SELECT DISTINCT member FROM teams WHERE team = 't2'")}
    async with replicating(config, rules):
        found = await look(config, rules, "public.letters", "l30/0")
        by_bucket = {one.held.bucket: users(one) for one in found.seen}
        assert by_bucket.pop('1#team["t2"]') == expected
        assert by_bucket == {f'1#read["{who}"]': {who} for who in expected}
        assert {one.held.object_type for one in found.seen} == {"letters", "post"}
        [(gone,)] = database.execute("SELECT id FROM teams WHERE team = 't2' ORDER BY id LIMIT 1")
        [(left,)] = database.execute("DELETE FROM teams WHERE id = %s RETURNING member", [gone])
        await stored(database)
        found = await look(config, rules, "letters", "l30/0")
        [team] = [one for one in found.seen if one.held.bucket == '1#team["t2"]']
        assert users(team) == expected
        assert left in {who.user for who, _, until in team.who if until is not None}
        [post] = [one for one in found.seen if one.held.bucket == f'1#read["{left}"]']
        assert post.held.until is not None


async def test_what_was_compacted_away_is_said(database: Database, config: Config, rules: Rules) -> None:
    async with replicating(config, rules):
        database.execute("UPDATE visits SET owner = 'u3' WHERE id = 7")
        database.execute("UPDATE visits SET seen = 0 WHERE id = 8")
        await stored(database)
        async with connected(config.storage_dsn, "compact", schema="replicator") as storage:
            for number, upto in database.execute(
                "SELECT bucket, max(op_id) FROM replicator.ops GROUP BY bucket"
            ):
                async for _ in compact_bucket(storage, number, OpId(upto)):
                    pass
        moved = await look(config, rules, "visits", "7")
        changed = await look(config, rules, "visits", "8")
    # In the bucket that it left, its end is all that is left of it.
    assert places(moved) == [('1#mine["u2"]', False), ('1#mine["u3"]', True)]
    assert moved.seen[0].held.since is None and moved.seen[0].held.may_be_longer
    assert places(changed) == [('1#mine["u3"]', True)] and changed.seen[0].held.may_be_longer
    assert "buckets have been compacted" in moved.notes[0]


async def test_only_those_are_told_who_got_the_bucket_while_it_held_the_row(
    database: Database, config: Config, rules: Rules
) -> None:
    async with replicating(config, rules):
        for statement in (
            "DELETE FROM teams WHERE team = 't2'",
            "INSERT INTO teams VALUES (100, 't2', 'early')",
            "INSERT INTO letters VALUES ('new', 0, 't2', 'said')",
            "DELETE FROM teams WHERE id = 100",
            "INSERT INTO teams VALUES (101, 't2', 'meanwhile')",
            "DELETE FROM letters WHERE id = 'new'",
            "INSERT INTO teams VALUES (102, 't2', 'late')",
        ):
            database.execute(statement)
            await stored(database)
        found = await look(config, rules, "letters", "new/0")
    [team] = [one for one in found.seen if one.held.bucket == '1#team["t2"]']
    assert users(team) == {"early", "meanwhile"}


async def test_at_one_time_only_those_are_told_who_got_the_bucket_then(
    database: Database, config: Config, rules: Rules
) -> None:
    async with replicating(config, rules):
        [(row, left)] = database.execute("SELECT id, member FROM teams WHERE team = 't2' ORDER BY id LIMIT 1")
        database.execute("DELETE FROM teams WHERE id = %s", [row])
        await stored(database)
        [(end,)] = database.execute(
            "SELECT max(until_op_id) FROM replicator.lookups "
            "WHERE subkey = 'public.teams'::regclass::oid || '/' || %s",
            [row],
        )
        database.execute(
            "UPDATE replicator.changes SET recorded_at = now() - CASE WHEN op_id < %s THEN interval '1 hour' "
            "ELSE interval '30 minutes' END", [end]
        )  # fmt: skip
        [(now,)] = database.execute("SELECT now()")
        for minutes, is_told in ((45, True), (10, False)):
            found = await look(config, rules, "letters", "l30/0", now - timedelta(minutes=minutes))
            [team] = [one for one in found.seen if one.held.bucket == '1#team["t2"]']
            assert (left in users(team)) == is_told


async def test_what_was_forgotten_is_said(database: Database, config: Config, rules: Rules) -> None:
    async with replicating(config, rules):
        database.execute("DELETE FROM teams WHERE id = 1")
        await stored(database)
        assert (await look(config, rules, "visits", "7")).notes == []
        async with connected(config.storage_dsn, "compact", schema="replicator") as storage:
            [(upto,)] = database.execute("SELECT shown_op_id FROM replicator.checkpoints")
            assert sum([count async for count in forget_entries(storage, OpId(upto))])
            [note] = (await look(config, rules, "visits", "7")).notes
            assert note.startswith("whom lookups led to buckets, and did so no more before 2")
            # Other rules, by which a definition means something else.
            await deploy.store(storage, config.source.slot, parse_rules(OTHER, "rules"), "command")
        async with connected(config.storage_dsn, "test", schema="replicator") as storage:
            with bounded({"replicator.buckets.retire.GRACE_S": 0.0}):
                while not await retire(storage, config.source.slot):
                    database.execute("SELECT pg_sleep(0.02)")
        found = await audit(config, await _shown(config), "visits", "7", at=None, everywhere=False)
    assert places(found) == [("2#mine[2]", True)]
    notes = [note for note in found.notes if note.startswith("buckets of rules that are over")]
    assert len(notes) == 1 and "what they held before 2" in notes[0]


OTHER = json.dumps({"bucket_definitions": {"mine": {
    "parameters": "SELECT request.user_id() AS rest",
    "data": ["SELECT * FROM visits WHERE id % 5 = bucket.rest"],
}}})  # fmt: skip


async def _shown(config: Config) -> Rules:
    async with connected(config.storage_dsn, "test", schema="replicator") as storage:
        found = await shown(storage, config.source.slot)
    assert found is not None, "it has been replicated"
    return found


async def test_at_one_time_only_those_who_saw_it_then(
    database: Database, config: Config, rules: Rules
) -> None:
    async with replicating(config, rules):
        database.execute("UPDATE visits SET owner = 'u3' WHERE id = 7")
        await stored(database)
        # As if all that had happened an hour ago, and the move half an hour ago.
        [(move,)] = database.execute("SELECT max(op_id) FROM replicator.ops WHERE object_id = '7'")
        database.execute(
            "UPDATE replicator.changes SET recorded_at = now() - CASE WHEN op_id < %s THEN interval '1 hour' "
            "ELSE interval '30 minutes' END", [move]
        )  # fmt: skip
        [(now,)] = database.execute("SELECT now()")
        held = {
            minutes: places(await look(config, rules, "visits", "7", now - timedelta(minutes=minutes)))
            for minutes in (90, 45, 10)
        }
    both = [('1#mine["u2"]', False), ('1#mine["u3"]', True)]
    # Between two times that are known, either may have been.
    assert held == {90: [], 45: both, 10: both[1:]}


async def test_a_table_that_nobody_replicates_is_told(config: Config, rules: Rules) -> None:
    with pytest.raises(ConfigError, match="no table nurses"):
        await look(config, rules, "nurses", "7")


async def test_of_very_many_ops_only_those_of_todays_buckets_are_read(
    database: Database, config: Config, rules: Rules
) -> None:
    async with replicating(config, rules):
        database.execute("UPDATE visits SET owner = 'u3' WHERE id = 7")
        await stored(database)
        database.execute("VACUUM replicator.ops")
        with bounded({"replicator.observe.audit.READ_MAX": 10}):
            few = await look(config, rules, "visits", "7")
            every = await audit(config, in_force(rules), "visits", "7", at=None, everywhere=True)
    assert places(few) == [('1#mine["u3"]', True)] and "--everywhere" in few.notes[0]
    assert places(every) == [('1#mine["u2"]', False), ('1#mine["u3"]', True)]


async def test_the_verb_tells_it(database: Database, config: Config, rules: Rules, tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(json.dumps({"bucket_definitions": RULES}))
    file = tmp_path / "replicator.yaml"
    file.write_text(json.dumps({"source": {"dsn": database.dsn, "slot": config.source.slot}}))
    async with replicating(config, rules):
        pass
    for options in ([], ["--json"], ["--at", "2020-01-01"], ["--at", "yesterday"]):
        call = ["audit", "--config", str(file), "visits", "7", *options]
        done = await asyncio.to_thread(CliRunner().invoke, main, call)
        if options == ["--json"]:
            [seen] = json.loads(done.output)["seen"]
            assert seen["bucket"] == '1#mine["u2"]' and seen["who"][0]["user"] == "u2" and seen["is_there"]
        elif "yesterday" in options:
            assert done.exit_code == 2
        elif not options:
            assert done.output.startswith('1#mine["u2"]: as visits, from 2')
            assert "\n  u2 (its own)\n" in done.output


async def stored(database: Database) -> None:
    """Wait until everything written so far is."""
    [(lsn,)] = database.execute("SELECT pg_logical_emit_message(true, 'test', '')")
    query = "SELECT shown_lsn >= %s::pg_lsn, pg_sleep(0.01) FROM replicator.checkpoints"
    async with asyncio.timeout(60):
        while not (await asyncio.to_thread(database.execute, query, [lsn]))[0][0]:
            pass
