"""Names of buckets and the numbers storage gives them: each its own, for good, however it is come by."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg
import pytest

from replicator.buckets import held, numbers
from replicator.buckets.numbers import Numbers
from replicator.buckets.write import Source, begin, open_writer
from replicator.database import Connection, connected, migrate
from replicator.database import rows as as_rows
from replicator.rules.model import Put
from replicator.wal.lsn import Lsn
from tests.fixtures.postgres import Database

pytestmark = pytest.mark.migrated

NAMES = [f'1#b["{number}"]' for number in range(40)]


@asynccontextmanager
async def storage(database: Database) -> AsyncIterator[Connection]:
    await migrate(database.dsn, "replicator")
    async with connected(database.dsn, "numbers", schema="replicator") as connection:
        yield connection


async def stored(connection: Connection) -> dict[str, int]:
    return dict(await as_rows(connection, b"SELECT name, id FROM buckets"))


async def test_whatever_is_known_meanwhile_a_name_has_one_number(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(numbers, "_MOST", 8)  # so that much of it is forgotten again
    async with storage(database) as connection:
        ours = Numbers(connection)
        for first, last in ((0, 5), (3, 9), (0, 40), (20, 22), (0, 1), (0, 40)):
            names = [*NAMES[first:last], *reversed(NAMES[first:last])]
            found = await ours.of(names)
            there = await stored(connection)
            assert found == [there[name] for name in names]
        assert sorted(there) == sorted(NAMES)
        assert await Numbers(connection).of(NAMES) == [there[name] for name in NAMES]


async def test_who_has_read_what_there_is_asks_for_nothing(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(numbers, "_READ", 7)
    names = [*NAMES, r'1#b["\\x41","\t"]', '1#b["Zürich","診療"]', "1#b[]"]
    async with storage(database) as connection:
        found = await Numbers(connection).of(names)
        ours = Numbers(connection)
        assert ours.known(names) is None
        await ours.read()
        assert ours.known(names) == found
        assert ours.known(['1#b["new"]']) is None


async def test_of_more_than_there_is_room_for_the_newest_are_read(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(numbers, "_READ", 5)
    monkeypatch.setattr(numbers, "MOST", 12)
    async with storage(database) as connection:
        for name in NAMES:
            await Numbers(connection).of([name])
        there = await stored(connection)
        ours = Numbers(connection)
        await ours.read()
        assert ours.known(NAMES[-12:]) == [there[name] for name in NAMES[-12:]]
        assert ours.known(NAMES[:1]) is None
        assert await ours.of(NAMES) == [there[name] for name in NAMES]


async def test_nothing_is_read_where_there_is_nothing(database: Database) -> None:
    async with storage(database) as connection:
        ours = Numbers(connection)
        await ours.read()
        assert ours.known(NAMES) is None


async def test_what_is_foreseen_is_known_once_somebody_asks(database: Database) -> None:
    async with storage(database) as connection:
        ours = Numbers(connection)
        assert ours.known(NAMES) is None
        ours.foresee(NAMES)
        others = await ours.of(NAMES[5:6])
        assert ours.known(NAMES) == [(await stored(connection))[name] for name in NAMES]
        assert ours.known(NAMES[5:6]) == others


async def test_what_was_foreseen_and_given_up_says_nothing(database: Database) -> None:
    async with storage(database) as connection:
        ours = Numbers(connection)
        ours.foresee(NAMES)
        await ours.abandon()
        assert ours.known(NAMES) is None
        found = await ours.of(NAMES)
        there = await stored(connection)
        assert found == [there[name] for name in NAMES]


async def test_what_goes_wrong_with_it_is_told_to_who_asks(database: Database) -> None:
    async with storage(database) as connection:
        ours = Numbers(connection)
        await connection.execute("DROP VIEW history; ALTER TABLE buckets RENAME TO others")
        ours.foresee(NAMES)
        with pytest.raises(psycopg.errors.UndefinedTable):
            await ours.of(NAMES)


async def test_ops_stand_as_they_came_whichever_buckets_had_to_be_looked_up(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held, "_NUMBERED", 3)
    monkeypatch.setattr(numbers, "_MOST", 7)
    async with (
        storage(database) as other,
        connected(database.dsn, "write", schema="replicator") as connection,
    ):
        await begin(connection, "slot", Lsn(1), Source("1", 1))
        opened = await open_writer(connection, "slot", Numbers(other))
        assert opened is not None
        writer, _ = opened
        batch, expected = writer.batch(), []
        for number in range(200):
            puts = [Put(NAMES[(number * 7 + n) % 40], "t", f"{number}.{n}", "1/x", "{}") for n in range(2)]
            expected += [(put.bucket, put.object_id) for put in puts]
            await batch.add(puts)
            await batch._hand_on()  # as after every slice of changes
        await batch.commit(lambda stored: None)
        await writer.settle()
        found = await as_rows(connection, b"SELECT bucket, object_id FROM history ORDER BY op_id")
        assert found == expected
        await connection.rollback()
