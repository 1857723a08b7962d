"""Batches of changes, joined rules and a driven clock on a real storage: what stands at each checkpoint."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any, NamedTuple

import pytest

from replicator import queries
from replicator.buckets.lookups import Lookups
from replicator.buckets.numbers import Numbers
from replicator.buckets.write import Batch, Source, Writer, begin, open_writer
from replicator.database import Connection, connected, migrate
from replicator.rules import keys
from replicator.rules.lookups import View
from replicator.rules.model import Rules
from replicator.rules.route import Router
from replicator.wal.lsn import Lsn
from replicator.wal.transactions import Change, Kind, Transaction
from tests.fixtures.postgres import Cluster, Database, MakeDatabase
from tests.oracle.tight import bounded
from tests.unit.rules.from_scratch import Entry, FromScratch, Place, Shown
from tests.unit.rules.joined import TABLES, World, make_rules, without_at
from tests.unit.rules.plans import read

_copy = queries.load("copy")
SLOT = "s"
#: Few rows meet every bound.
TIGHT = {
    "replicator.buckets.lookups.WIDE": 1,
    "replicator.buckets.lookups._FEW": 1,
    "replicator.buckets.lookups.MOST_HELD": 2,
    "replicator.buckets.lookups.PAGE": 2,
    "replicator.buckets.entries._HELD": 3,
}
_HELD = """
SELECT DISTINCT ON (bucket, object_type, object_id, subkey) bucket, object_type, object_id, subkey, op, data
FROM replicator.history WHERE op_id <= %s ORDER BY bucket, object_type, object_id, subkey, op_id DESC
"""
_STANDING = """
SELECT lookup, key, value, subkey FROM replicator.lookups
WHERE op_id <= %(at)s AND (until_op_id IS NULL OR until_op_id > %(at)s) AND lookup NOT LIKE '@%%'
"""


def make_storage(database: Database) -> None:
    import asyncio

    asyncio.run(migrate(database.dsn, "replicator"))


@pytest.fixture
def storage(server: Cluster, make_database: MakeDatabase) -> Database:
    return make_database(template=server.template("storage of lookups", make_storage))


class Moment(NamedTuple):
    """What must stand at a checkpoint."""

    op_id: int
    held: dict[Place, Shown]
    entries: set[Entry]


class Store:
    """A writer and what it needs, which can be had anew from what is stored."""

    def __init__(self, connection: Connection, numbers: Numbers, database: Database, rules: Rules) -> None:
        self._connection, self._database, self.rules = connection, database, rules
        self._numbers = numbers
        self.writer: Writer
        self.batch: Batch
        self.lsn = 1000
        #: Transactions that no checkpoint covers yet, and when they were appended.
        self.sent: list[tuple[Transaction, float]] = []
        self.clock = 0.0

    async def begin(self) -> None:
        await begin(self._connection, SLOT, Lsn(1), Source("1", 1))
        await self.reopen()

    async def reopen(self) -> None:
        opened = await open_writer(self._connection, SLOT, self._numbers)
        assert opened is not None
        self.writer = opened[0]
        router = Router(self.rules)
        for table in TABLES:
            router.know(table, (0,))
        self.writer.lookups = Lookups(self._connection, router)
        await self.writer.lookups.open()
        self.batch = self.writer.batch()

    def transactions(self, changes: list[Change], rng: random.Random) -> list[Transaction]:
        """One, in one piece or in several."""
        self.lsn += 10
        cut = sorted(
            {0, len(changes), *(rng.randrange(len(changes) + 1) for _ in range(rng.choice((0, 1, 3))))}
        )
        pieces = [changes[a:b] for a, b in pairwise(cut)] or [[]]
        made = [Transaction(1, Lsn(self.lsn), 0, piece) for piece in pieces]
        made[-1].end_lsn = Lsn(self.lsn + 5)
        return made

    async def append(self, pieces: Iterable[Transaction], now: float) -> None:
        for piece in pieces:
            self.sent.append((piece, now))
            assert not self.batch.covers(piece)
            await self.batch.append(piece, piece.changes, now)

    async def commit(self) -> float:
        """Answers the time at which rows are where they are."""
        self.batch = await self.batch.commit(lambda checkpoint: None)
        await self.writer.settle()
        self.sent.clear()
        clock = (await self._row("SELECT clock FROM replicator.checkpoints"))[0]
        assert clock >= self.clock, "the clock went back"
        self.clock = clock
        return self.clock

    async def fail(self) -> None:
        """End in the middle, and go on from what is stored: the source sends the rest again."""
        await self.writer.abandon()
        await self._connection.execute(b"ROLLBACK")
        await self._connection.execute(b"SELECT pg_advisory_unlock_all()")
        again, self.sent = self.sent, []
        await self.reopen()
        for piece, now in again:
            await self.append([piece], now)

    async def _row(self, query: str) -> tuple[float, ...]:
        cursor = await self._connection.execute(query.encode())
        found = await cursor.fetchone()
        assert found is not None
        return found

    # ── Copying again ────────────────────────────────────────────────────────────────────────────

    async def want(self, oid: int) -> None:
        names = {"namespace": "public", "name": f"t{oid}", "membership": "", "columns": "", "form": ""}
        await self.batch.note(_copy.want, oid, for_rules=None, rows=0, **names)

    async def copied(self, oid: int) -> None:
        """The copy has come to its end: what is older is swept, as `Weaver` has it done."""
        ((begun, may_be_stale),) = await self.batch.note(_copy.finish_copy, oid)
        if may_be_stale:
            await self.batch.sweep(f"{oid}/", begun)

    # ── Comparing ────────────────────────────────────────────────────────────────────────────────

    def held(self, op_id: int) -> dict[Place, Shown]:
        return {
            (bucket, kind, row_id, subkey): without_at(json.loads(data))
            for bucket, kind, row_id, subkey, op, data in self._database.execute(_HELD, [op_id])
            if op == "PUT"
        }

    def compare(self, moment: Moment) -> None:
        assert self.held(moment.op_id) == moment.held
        standing = self._database.execute(_STANDING, {"at": moment.op_id})
        assert len(set(standing)) == len(standing), "an entry stands twice"
        assert set(standing) == moment.entries


@asynccontextmanager
async def opened(database: Database, rules: Rules) -> AsyncIterator[Store]:
    async with (
        connected(database.dsn, "write", schema="replicator") as connection,
        connected(database.dsn, "numbers", schema="replicator") as other,
    ):
        store = Store(connection, Numbers(other), database, rules)
        await store.begin()
        try:
            yield store
        finally:
            await store.writer.abandon()


def expected(store: Store, world: World, clock: float) -> Moment:
    must = FromScratch(store.rules, world.known(), clock)
    entries = {(lookup, key, keys.pack(json.loads(value)), s) for lookup, key, value, s in must.entries}
    held = {place: without_at(shown) for place, shown in must.held().items()}
    return Moment(store.writer.checkpoint.op_id, held, entries)


@pytest.mark.parametrize("number", range(40))
async def test_every_checkpoint_is_what_the_rules_say(
    number: int, storage: Database, rng: random.Random
) -> None:
    world = World(rng)
    with bounded(TIGHT if rng.random() < 0.8 else {}):
        async with opened(storage, make_rules(rng)) as store:
            moments: list[Moment] = []
            for _ in range(rng.choice((5, 15, 30))):
                step = world.step()
                pieces = store.transactions(step.changes, rng)
                # The clocks of two machines do not agree.
                await store.append(pieces, step.now + rng.choice((0, 0, 0, -1.5)))
                if rng.random() < 0.1:
                    await store.fail()
                if rng.random() < 0.6:
                    moments.append(expected(store, world, await store.commit()))
                    store.compare(moments[-1])
            for moment in moments:
                store.compare(moment)


@pytest.mark.parametrize("number", range(25))
async def test_a_table_copied_again_leaves_nothing_behind(
    number: int, storage: Database, rng: random.Random
) -> None:
    """Some changes are never seen; the table they are of is copied while others change."""
    world = World(rng)
    with bounded(TIGHT if rng.random() < 0.8 else {}):
        async with opened(storage, make_rules(rng)) as store:
            for table in TABLES:
                await store.want(table.oid)
                await store.batch.note(_copy.begin_copy, table.oid)
                await store.copied(table.oid)
            for _ in range(3):
                await _traffic(store, world, rng, rng.choice((2, 8)))
                for _ in range(6):
                    world.step()  # unseen
                wanted = [table.oid for table in TABLES]
                rng.shuffle(wanted)
                for oid in wanted:
                    await store.want(oid)
                await _traffic(store, world, rng, 2, commits=True)
                await _copy_all(store, world, rng, wanted)
                clock = await store.commit()
                store.compare(expected(store, world, clock))


async def _traffic(store: Store, world: World, rng: random.Random, steps: int, commits: bool = True) -> None:
    for _ in range(steps):
        step = world.step()
        await store.append(store.transactions(step.changes, rng), step.now)
        if commits and rng.random() < 0.5:
            await store.commit()


async def _copy_all(store: Store, world: World, rng: random.Random, wanted: list[int]) -> None:
    """All tables at once or one after the other, each row as it is when it is read."""
    overlaps = rng.random() < 0.5
    if overlaps:
        for oid in wanted:
            await store.batch.note(_copy.begin_copy, oid)
    for oid in wanted:
        if not overlaps:
            await store.batch.note(_copy.begin_copy, oid)
        for row_id in sorted(world.rows[oid]):
            if rng.random() < 0.5:
                await _traffic(store, world, rng, 1)
            row = world.rows[oid].get(row_id)
            if row is not None:
                change = Change(Kind.INSERT, TABLES[oid], None, row, 0)
                await store.append(store.transactions([change], rng), world.now)
        # Rows that came under a key that was read already came with the log.
        await store.copied(oid)


async def test_rows_leave_and_enter_when_their_time_comes(storage: Database, rng: random.Random) -> None:
    rules = read(
        "SELECT request.jwt() ->> 'x' AS x",
        "SELECT id FROM t0 WHERE b = bucket.x AND at > now() - interval '10 seconds'",
        "SELECT id FROM t1 WHERE b = bucket.x AND at <= now()",
    )
    row = ("1", None, "u", None, "1970-01-01 00:00:20.0000015+00")
    with bounded(TIGHT):
        async with opened(storage, rules) as store:
            changes = [Change(Kind.INSERT, TABLES[at], None, row, 0) for at in (0, 1)]
            seen = []
            for now in (0.0, 20.000001, 20.0000014, 20.0000016, 19.0, 30.000001, 30.0000016, 30.0):
                await store.append(store.transactions(changes if now == 0 else [], rng), now)
                due = store.writer.lookups.next_due  # type: ignore[union-attr]  # it has been opened
                clock = await store.commit()
                assert due is None or due > clock
                seen.append((clock, {place[1] for place in store.held(10**9)}))
                await store.fail()
    early, both, late = {"t0"}, {"t0", "t1"}, {"t1"}
    times = (0.0, 20.000001, 20.0000014, 20.0000016, 20.0000016, 30.000001, 30.0000016, 30.0000016)
    # A moment has six digits after the point, as Postgres has it; the seventh is cut off.
    assert seen == list(zip(times, (early, both, both, both, both, late, late, late), strict=True))


async def test_a_batch_that_begins_with_a_note_moves_on_with_the_time(
    storage: Database, rng: random.Random
) -> None:
    where = "SELECT id FROM t0 WHERE b = bucket.x AND at > now()"
    async with opened(storage, read("SELECT request.jwt() ->> 'x' AS x", where)) as store:
        row = ("1", None, "u", None, "1970-01-01 00:00:20+00")
        change = Change(Kind.INSERT, TABLES[0], None, row, 0)
        await store.append(store.transactions([change], rng), 1.0)
        await store.commit()
        assert len(store.held(10**9)) == 1
        await store.want(2)
        await store.append(store.transactions([], rng), 21.0)
        assert await store.commit() == 21.0
        assert store.held(10**9) == {}


def inserted(oid: int, row_id: str, a: str | None, b: str | None = None) -> Change:
    return Change(Kind.INSERT, TABLES[oid], None, (row_id, a, b, None, None), 0)


async def test_keys_of_any_length_are_equal_to_themselves_alone(
    storage: Database, rng: random.Random
) -> None:
    rules = read(
        "SELECT request.jwt() ->> 'x' AS x",
        "SELECT id FROM t0 WHERE a IN (SELECT a FROM t1 WHERE b = bucket.x)",
        "SELECT id FROM t2 WHERE b = bucket.x",
    )
    # What does not compress, in characters of four bytes; only the last ones differ.
    long = "".join(chr(rng.randrange(0x10000, 0x20000)) for _ in range(10_000))
    keys_of = {"1": long + "1", "2": long + "2", "3": long[:3000]}
    async with opened(storage, rules) as store:
        changes = [inserted(0, row_id, key) for row_id, key in keys_of.items()]
        changes += [inserted(1, long, keys_of["2"], "u"), inserted(1, "i", keys_of["3"], long[:3000])]
        changes += [inserted(2, "1", None, long), inserted(2, "2", None, "u")]
        await store.append(store.transactions(changes, rng), 0.0)
        await store.commit()
        assert {place[:3] for place in store.held(10**9)} == {('d["u"]', "t0", "2"), ('d["u"]', "t2", "2")}
        row = inserted(1, long, keys_of["1"], "u").new
        moved = changes[3]._replace(kind=Kind.UPDATE, old=changes[3].new, new=row)
        await store.append(store.transactions([moved], rng), 0.0)
        await store.commit()
        assert {place[:3] for place in store.held(10**9)} == {('d["u"]', "t0", "1"), ('d["u"]', "t2", "2")}


async def test_what_is_held_does_not_grow_with_the_rows_behind_a_key(
    storage: Database, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thousands of rows are the reason for one thing, and thousands look up a key, while a few change."""
    rules = read(
        "SELECT request.jwt() ->> 'x' AS x",
        "SELECT id FROM t0 WHERE a IN (SELECT a FROM t1 WHERE b = bucket.x)",
    )
    held: list[int] = []
    real = Lookups._view

    async def watched(self: Lookups, *args: Any) -> View:
        view = await real(self, *args)
        reasons = sum(len(rows) for values in view.reasons.values() for rows in values.values())
        held.append(reasons + sum(map(len, view.outer.values())))
        return view

    monkeypatch.setattr(Lookups, "_view", watched)
    monkeypatch.setattr("replicator.buckets.lookups.MOST_HELD", 100)
    async with opened(storage, rules) as store:
        inner = [inserted(1, f"i{n}", "k", "u") for n in range(3000)]
        outer = [inserted(0, f"o{n}", "k" if n < 1000 else f"k{n % 20}") for n in range(2000)]
        for rows in (inner[i : i + 500] for i in range(0, len(inner), 500)):
            await store.append([Transaction(1, Lsn(store.lsn), 0, rows)], 0.0)
        for rows in (outer[i : i + 500] for i in range(0, len(outer), 500)):
            await store.append([Transaction(1, Lsn(store.lsn), 0, rows)], 0.0)
        assert max(held) < 600
        held.clear()
        # Of the last rows that are the reason, each alone changes nothing; all of them do.
        gone = [one._replace(kind=Kind.DELETE, old=one.new, new=None) for one in inner]
        few = [inserted(1, f"j{n}", f"k{n}", "u") for n in range(20)]
        for rows in (gone[:1500], gone[1500:2999], few, gone[2999:]):
            await store.append(store.transactions(rows, random.Random(0)), 0.0)
        await store.commit()
        assert len(store.held(10**9)) == 1000
        assert max(held) < 1600
