"""Lines handed to storage beside the making of others: all of them, none of them, or the reason why not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg
import pytest

from replicator.buckets import inflow
from replicator.buckets.encode import number_ops
from replicator.buckets.inflow import Inflow
from replicator.buckets.model import Checkpoint, OpId
from replicator.buckets.numbers import Numbers
from replicator.buckets.write import Writer
from replicator.database import Connection, connected, migrate
from replicator.database import rows as as_rows
from replicator.rules.model import Put
from replicator.rules.printed import print_all
from replicator.wal.lsn import Lsn
from tests.fixtures.postgres import Database

pytestmark = pytest.mark.migrated


@asynccontextmanager
async def storage(database: Database) -> AsyncIterator[Connection]:
    await migrate(database.dsn, "replicator")
    async with connected(database.dsn, "write", schema="replicator") as connection:
        await connection.execute("INSERT INTO buckets (id, name) OVERRIDING SYSTEM VALUE VALUES (1, 'b')")
        yield connection


def blocks(first: int, count: int) -> list[bytes]:
    puts = [Put("b", "t", str(n), f"1/{n}", '{"n":1}') for n in range(count)]
    return [number_ops(print_all(puts), first, [1] * count)]


async def stored(connection: Connection) -> int:
    return int((await as_rows(connection, b"SELECT count(*) FROM ops"))[0][0])


async def test_what_is_sent_is_stored_when_it_rests_however_little_may_wait(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inflow, "_WAITING_BYTES", 1000)
    monkeypatch.setattr(inflow, "_TURN_BYTES", 100)
    async with storage(database) as connection:
        into = Inflow(connection)
        async with connection.transaction():
            for first in range(0, 1000, 100):
                await into.send(blocks(first, 100))
            await into.rest()
            await into.send(blocks(1000, 50))  # and once more, in the same transaction
            await into.rest()
            await into.rest()  # with nothing to wait for
        assert await stored(connection) == 1050


@pytest.mark.parametrize("most", [10, 8 << 20])
async def test_what_storage_refuses_is_said_by_the_next_who_asks(
    database: Database, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(inflow, "_WAITING_BYTES", most)
    async with storage(database) as connection:
        into = Inflow(connection)
        await connection.execute("BEGIN")
        with pytest.raises(psycopg.errors.BadCopyFileFormat):
            await into.send([b"this is no op\n"])
            await into.send(blocks(0, 10))
            await into.rest()
        await into.abandon()
        await connection.rollback()
        assert await stored(connection) == 0


@pytest.mark.parametrize("turns", [0, 1, 100])
async def test_what_is_given_up_is_not_stored(database: Database, turns: int) -> None:
    async with storage(database) as connection:
        into = Inflow(connection)
        await connection.execute("BEGIN")
        await into.send(blocks(0, 100))
        for _ in range(turns):
            await asyncio.sleep(0)
        await into.abandon()
    assert database.execute("SELECT count(*) FROM replicator.ops") == [(0,)]


async def test_who_waits_for_storage_that_goes_away_hears_of_it(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inflow, "_WAITING_BYTES", 10)
    async with storage(database) as connection:
        into = Inflow(connection)
        await connection.execute("BEGIN")
        await into.send(blocks(0, 10))
        database.execute("SELECT pg_terminate_backend(%s, 10000)", [connection.info.backend_pid])
        with pytest.raises(psycopg.Error):
            for first in range(10, 100_000, 100):
                await into.send(blocks(first, 100))
            await into.rest()
        await into.abandon()


async def test_a_commit_goes_on_while_the_next_batch_is_made(database: Database) -> None:
    """However many changes come at once, and with whatever is made of them."""
    turns = 0

    async def commit() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with storage(database) as connection:
        writer = Writer(connection, "a", 1, Checkpoint(OpId(0), Lsn(0)), Numbers(connection))
        await writer.make_way(1_000_000)  # there is nothing to make way for
        writer.commit(commit())
        await writer.make_way(1)
        assert turns == 0
        await writer.make_way(1_000_000)
        assert turns == 2
        for _ in range(1000):
            await writer.make_way(10)
        assert turns > 10
        await writer.abandon()
