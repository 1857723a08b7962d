"""Changes without old rows, on a real storage: they are made whole, and storage holds each row as it is."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from random import Random

import pytest

from replicator.buckets.kept import Form
from replicator.buckets.numbers import Numbers
from replicator.buckets.rows import RowStates
from replicator.buckets.write import Batch, Source, Writer, begin, open_writer
from replicator.database import Connection, connected, migrate
from replicator.wal.lsn import Lsn
from replicator.wal.messages import UNCHANGED, Column, Relation, Row
from replicator.wal.transactions import Change, Kind
from tests.fixtures.postgres import Database
from tests.oracle.tight import bounded

pytestmark = pytest.mark.migrated

SLOT = "s"
LETTERS = Relation(
    7, "public", "letters", "d", tuple(Column(n, 25, -1, n == "id") for n in ("id", "note", "scan"))
)
OTHERS = LETTERS._replace(oid=70, name="others")
COPIED = frozenset((7, 70))
#: So little room that hardly anything is at hand, and storage is told in the middle of batches.
TIGHT = {
    "replicator.buckets.kept.GENERATION_BYTES": 900,
    "replicator.buckets.rows.MOST_BYTES": 1500,
}


class Store:
    """A writer, its open batch and the rows it keeps; and what every row should be by now."""

    def __init__(self, connection: Connection, numbers: Numbers) -> None:
        self._connection, self._numbers = connection, numbers
        self._lsn = 1
        self.rows: dict[tuple[int, str], Row] = {}
        self.holes: list[object] = []
        self.writer: Writer
        self.batch: Batch
        self.states: RowStates

    async def open(self) -> None:
        opened = await open_writer(self._connection, SLOT, self._numbers)
        assert opened is not None
        self.writer = opened[0]
        self.batch, self.states = self.writer.batch(), RowStates(self._connection, SLOT)

    async def fail(self) -> None:
        """The open batch ends as with a lost connection; what follows begins from what is stored."""
        await self.writer.settle()
        await self.writer.abandon()
        await self._connection.execute("ROLLBACK")
        await self.open()

    async def complete(self, *changes: Change, copied: frozenset[int] = COPIED) -> list[Change]:
        """The changes made whole; each carries the row as it was."""
        rest: Sequence[Change] = changes
        whole: list[Change] = []
        while rest:
            done, holes, rest = await self.states.complete(rest, self.batch, copied)
            whole += done
            self.holes += holes
        return whole

    async def commit(self) -> None:
        """Begin to store the batch; the next one is filled meanwhile."""
        self._lsn += 10
        self.batch.is_empty = False
        self.batch = await self.batch.commit(lambda _: None, Lsn(self._lsn))

    async def stored(self) -> dict[tuple[int, str], Row]:
        await self.writer.settle()
        cursor = await self._connection.execute("SELECT oid, key, row FROM row_states")
        return {(oid, json.loads(key)[0]): tuple(json.loads(row)[2:]) async for oid, key, row in cursor}

    def put(self, kind: Kind, old: str | None, row: Row | None, of: Relation = LETTERS) -> Change:
        """A change as the log has it, of the row of this key."""
        new = row
        if row is not None and kind is Kind.UPDATE:
            there = self.rows[of.oid, old or str(row[0])]
            new = tuple([t if n is UNCHANGED else n for t, n in zip(there, row, strict=True)])
        if kind is not Kind.INSERT and (old is not None or new is not None):
            del self.rows[of.oid, old or str((new or ())[0])]
        if new is not None:
            self.rows[of.oid, str(new[0])] = new
        return Change(kind, of, None if old is None else (old, None, None), row, 0)

    def insert(self, key: str, note: str, scan: str | None = "wide", of: Relation = LETTERS) -> Change:
        return self.put(Kind.INSERT, None, (key, note, scan), of)

    def update(self, key: str, note: str, of: Relation = LETTERS) -> Change:
        return self.put(Kind.UPDATE, None, (key, note, UNCHANGED), of)

    def move(self, key: str, to: str, note: str, of: Relation = LETTERS) -> Change:
        return self.put(Kind.UPDATE, key, (to, note, UNCHANGED), of)

    def delete(self, key: str, of: Relation = LETTERS) -> Change:
        return self.put(Kind.DELETE, key, None, of)

    def truncate(self, of: Relation = LETTERS) -> Change:
        self.rows = {place: row for place, row in self.rows.items() if place[0] != of.oid}
        return Change(Kind.TRUNCATE, of, None, None, 0)


@pytest.fixture
async def store(database: Database) -> AsyncIterator[Store]:
    await migrate(database.dsn, "replicator")
    async with (
        connected(database.dsn, "write", schema="replicator") as connection,
        connected(database.dsn, "numbers", schema="replicator") as other,
    ):
        await begin(connection, SLOT, Lsn(1), Source("1", 1))
        made = Store(connection, Numbers(other))
        await made.open()
        yield made
        await made.writer.abandon()


def told(changes: Sequence[Change]) -> list[tuple[Kind, Row | None, Row | None]]:
    return [(change.kind, change.old, change.new) for change in changes]


async def test_storage_is_told_when_the_batch_is_stored_and_of_each_row_once(store: Store) -> None:
    await store.complete(
        store.insert("1", "a"), store.update("1", "b"), store.insert("2", "c"), store.delete("2")
    )
    await store.batch.rest()
    assert await store.stored() == {}
    await store.commit()
    assert await store.stored() == store.rows == {(7, "1"): ("1", "b", "wide")}


async def test_a_row_is_whole_while_the_batch_that_brought_it_is_being_stored(store: Store) -> None:
    await store.complete(store.insert("1", "a"))
    await store.commit()
    whole = await store.complete(store.update("1", "b"))
    assert told(whole) == [(Kind.UPDATE, ("1", "a", "wide"), ("1", "b", "wide"))]
    await store.commit()
    assert await store.stored() == store.rows


@pytest.mark.parametrize("is_tight", [False, True])
async def test_rows_are_whole_when_they_are_at_hand_no_more(store: Store, is_tight: bool) -> None:
    with bounded(TIGHT if is_tight else {}):
        for key in range(50):
            await store.complete(store.insert(str(key), "a" * key))
            await store.commit()
        whole = await store.complete(*[store.update(str(key), "b") for key in range(50)])
    assert [change.old for change in whole] == [(str(key), "a" * key, "wide") for key in range(50)]
    await store.commit()
    assert await store.stored() == store.rows


async def test_what_was_not_stored_is_not_at_hand_afterwards(store: Store) -> None:
    await store.complete(store.insert("1", "a"), store.insert("2", "a"))
    await store.commit()
    await store.writer.settle()
    before = dict(store.rows)
    await store.complete(store.update("1", "lost"), store.delete("2"), store.insert("3", "lost"))
    await store.states.flush(store.batch)
    await store.fail()
    store.rows = before
    # The source sends again what had not been stored, and more.
    whole = await store.complete(store.update("1", "b"), store.delete("2"), store.insert("3", "c"))
    assert [change.old for change in whole] == [("1", "a", "wide"), ("2", "a", "wide"), None]
    await store.commit()
    assert await store.stored() == store.rows


@pytest.mark.parametrize("is_flushed", [False, True])
async def test_nothing_is_known_of_a_table_that_was_emptied(store: Store, is_flushed: bool) -> None:
    await store.complete(store.insert("1", "stored"), store.insert("1", "other", of=OTHERS))
    await store.commit()
    await store.complete(
        store.insert("2", "changed"), store.update("1", "changed"), store.update("1", "b", OTHERS)
    )
    if is_flushed:
        await store.states.flush(store.batch)
    await store.complete(store.truncate(), store.insert("1", "anew", None))
    whole = await store.complete(store.update("1", "again"), store.update("1", "c", OTHERS))
    assert [change.old for change in whole] == [("1", "anew", None), ("1", "b", "wide")]
    await store.commit()
    assert await store.stored() == store.rows


async def test_what_is_forgotten_is_not_stored_and_an_update_without_it_is_a_hole(store: Store) -> None:
    await store.complete(store.insert("1", "stored"))
    await store.commit()
    await store.complete(store.update("1", "changed"), store.insert("2", "changed"))
    await store.states.forget(7, store.batch)
    assert await store.complete(store.update("1", "unknown"), copied=frozenset()) == []
    assert store.holes == [(7, ("1",))]
    await store.commit()
    assert await store.stored() == {}


async def test_rows_larger_than_what_may_be_at_hand(store: Store) -> None:
    wide = "abcdefgh" * 1000
    with bounded(TIGHT):
        for key in "1234":
            await store.complete(store.insert(key, "a", wide + key))
        await store.commit()
        first = await store.states.complete([store.update(key, "b") for key in "1234"], store.batch, COPIED)
        assert len(first.changes) == 1 and len(first.rest) == 3
        whole = first.changes + await store.complete(*first.rest)
    assert [change.old for change in whole] == [(key, "a", wide + key) for key in "1234"]
    await store.commit()
    assert await store.stored() == store.rows


@pytest.mark.parametrize("is_tight", [False, True])
async def test_two_rows_exchange_their_keys_in_one_transaction(store: Store, is_tight: bool) -> None:
    await store.complete(store.insert("1", "one", "wide one"), store.insert("2", "two", "wide two"))
    await store.commit()
    with bounded(TIGHT if is_tight else {}):
        steps = [store.move("1", "9", "x"), store.move("2", "1", "y"), store.move("9", "2", "z")]
        whole = await store.complete(*steps)
    assert [change.old for change in whole] == [
        ("1", "one", "wide one"),
        ("2", "two", "wide two"),
        ("9", "x", "wide one"),
    ]
    await store.commit()
    assert (
        await store.stored()
        == store.rows
        == {(7, "1"): ("1", "y", "wide two"), (7, "2"): ("2", "z", "wide one")}
    )


async def test_a_key_that_is_deleted_and_comes_again_has_its_new_row(store: Store) -> None:
    await store.complete(store.insert("1", "a"))
    await store.commit()
    whole = await store.complete(store.delete("1"), store.insert("1", "b", None), store.update("1", "c"))
    assert told(whole)[1:] == [
        (Kind.INSERT, None, ("1", "b", None)),
        (Kind.UPDATE, ("1", "b", None), ("1", "c", None)),
    ]
    await store.commit()
    assert await store.stored() == store.rows


async def test_while_a_table_is_copied_the_row_in_the_place_of_one_inserted_is_known(store: Store) -> None:
    await store.complete(store.insert("1", "from the log"))
    await store.commit()
    store.states = RowStates(store._connection, SLOT)  # nothing is at hand
    whole = await store.complete(store.insert("1", "from the chunk"), copied=frozenset())
    assert [change.old for change in whole] == [("1", "from the log", "wide")]
    await store.commit()
    assert await store.stored() == store.rows


async def test_a_row_that_storage_has_unexpectedly_is_replaced(store: Store, database: Database) -> None:
    form = Form(LETTERS)
    for key in ("1", '2\\"\t'):
        values = [SLOT, form.place((key,)).decode().split("\t")[1], form.pack((key, "old", None)).decode()]
        database.execute("INSERT INTO replicator.row_states VALUES (%s, 7, %s, %s)", values)
    await store.complete(store.insert("1", "a"), store.insert('2\\"\t', "b\n\\"), store.insert("3", "c"))
    await store.commit()
    assert await store.stored() == store.rows


@pytest.mark.parametrize("is_tight", [False, True])
async def test_any_changes_in_any_batches(store: Store, rng: Random, is_tight: bool) -> None:
    with bounded(TIGHT if is_tight else {}):
        kept = dict(store.rows)
        for _ in range(60):
            expected: list[Row | None] = []
            changes = [_any(store, rng, expected) for _ in range(rng.randrange(1, 9))]
            is_copied = rng.random() < 0.7
            whole = await store.complete(*changes, copied=COPIED if is_copied else frozenset())
            assert [change.old for change in whole] == expected
            if rng.random() < 0.1:
                await store.fail()
                store.rows = dict(kept)
            elif rng.random() < 0.5:
                await store.commit()
                kept = dict(store.rows)
            if rng.random() < 0.2:
                await store.writer.settle()
                await store.commit()
                kept = dict(store.rows)
                assert await store.stored() == store.rows
    assert not store.holes


def _any(store: Store, rng: Random, expected: list[Row | None]) -> Change:
    of = rng.choice((LETTERS, OTHERS))
    note = rng.choice(("", "n", "\\\t\n", "größer"))
    present = sorted(key for oid, key in store.rows if oid == of.oid)
    absent = sorted({str(key) for key in range(25)} - set(present))
    kind = rng.choice(
        ("insert", "insert", "update", "move", "delete", "truncate" if rng.random() < 0.1 else "insert")
    )
    if kind == "truncate":
        expected.append(None)
        return store.truncate(of)
    if (kind == "insert" and absent) or not present:
        expected.append(None)
        return store.insert(rng.choice(absent), note, rng.choice((None, "w" * rng.randrange(400))), of)
    key = rng.choice(present)
    expected.append(store.rows[of.oid, key])
    if kind == "delete":
        return store.delete(key, of)
    return (
        store.move(key, rng.choice(absent), note, of)
        if kind == "move" and absent
        else store.update(key, note, of)
    )


async def test_a_row_is_found_whose_key_is_told_though_it_has_not_changed(store: Store) -> None:
    """Postgres tells a key that lies out of line with each update: the row leaves the place it comes to."""
    await store.complete(store.insert("1", "a"))
    await store.commit()
    await store.writer.settle()
    await store.open()  # nothing is at hand
    whole = await store.complete(store.move("1", "1", "b"))
    assert told(whole) == [(Kind.UPDATE, ("1", "a", "wide"), ("1", "b", "wide"))]
    await store.commit()
    assert await store.stored() == store.rows
