"""Any reader of a bucket, however often interrupted, ends with its rows and its checksum."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from typing import Any

import pytest

from replicator import queries
from replicator.buckets.model import Op, OpId, Told
from replicator.buckets.read import read_bucket, told, totals
from replicator.database import Connect, Connection, connected, migrate
from replicator.database import rows as as_rows
from tests.fixtures.postgres import Database

pytestmark = pytest.mark.migrated

BUCKET = 'mine["u1"]'
_INSERT = "INSERT INTO ops VALUES (%s, %s, %s, %s, %s, %s, %s, %s)"


class Client:
    """What a client keeps of one bucket, by the rules of the published ones: it never looks into a row."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str, str], tuple[int, str]] = {}
        self.added = 0
        self.after = 0
        self.seen: list[Op] = []

    def take(self, op: Op) -> None:
        assert op.op_id > self.after, "ops come in their order"
        self.after = op.op_id
        self.seen.append(op)
        if op.op == "CLEAR":
            self.rows, self.added = {}, op.checksum
            return
        row = op.object_type, op.object_id, op.subkey
        if op.op in ("PUT", "REMOVE") and row in self.rows:
            self.added += self.rows.pop(row)[0]
        if op.op == "PUT":
            assert op.data is not None
            self.rows[row] = op.checksum, op.data
        else:
            self.added += op.checksum

    @property
    def checksum(self) -> int:
        return (self.added + sum(checksum for checksum, _ in self.rows.values())) % (1 << 32)


class History:
    """A bucket that grows at random, and what it holds after each of its ops."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.ops: list[Op] = []

    def grow(self, count: int, rows: int) -> list[Op]:
        made = []
        last = self.ops[-1].op_id if self.ops else 0
        for _ in range(count):
            last += self._rng.choice((1, 1, 1, 5))
            row = str(self._rng.randrange(rows))
            is_put = self._rng.random() < 0.7
            data = f'{{"version": {last}}}' if is_put else None
            checksum = self._rng.randrange(-(1 << 31), 1 << 31)
            op = "PUT" if is_put else "REMOVE"
            made.append(Op(OpId(last), BUCKET, op, "visits", row, f"7/{row}", checksum, data))
        self.ops += made
        return made

    def rows(self, upto: int) -> dict[tuple[str, str, str], str]:
        held: dict[tuple[str, str, str], str] = {}
        for op in self.ops:
            if op.op_id <= upto:
                held.pop((op.object_type, op.object_id, op.subkey), None)
                if op.data is not None:
                    held[op.object_type, op.object_id, op.subkey] = op.data
        return held

    def checksum(self, upto: int) -> int:
        return sum(op.checksum for op in self.ops if op.op_id <= upto) % (1 << 32)


@asynccontextmanager
async def storage(database: Database) -> AsyncIterator[tuple[Connection, int]]:
    await migrate(database.dsn, "replicator")
    async with connected(database.dsn, "test", schema="replicator") as connection:
        found = await connection.execute("INSERT INTO buckets (name) VALUES (%s) RETURNING id", [BUCKET])
        [[number]] = await found.fetchall()
        yield connection, number


def lent(connection: Connection) -> Connect:
    return lambda: nullcontext(connection)


async def store(connection: Connection, number: int, ops: list[Op]) -> None:
    async with connection.cursor() as cursor:
        await cursor.executemany(
            _INSERT,
            [
                (op.op_id, number, op.checksum, op.op, op.object_type, op.object_id, op.subkey, op.data)
                for op in ops
            ],
        )


async def read(connection: Connection, client: Client, upto: int, rows: int, pages: int = -1) -> bool:
    """Whether it was read to its end, not only so many pages."""
    async for page in read_bucket(lent(connection), BUCKET, OpId(client.after), OpId(upto), page_rows=rows):
        for op in page.ops:
            client.take(op)
        assert client.after == page.next_after or not page.ops
        if not page.has_more:
            return True
        pages -= 1
        if pages == 0:
            return False
    raise AssertionError("the last page says that it is the last")


async def test_any_reader_ends_with_the_rows_and_the_checksum(database: Database, rng: random.Random) -> None:
    async with storage(database) as (connection, number):
        history = History(rng)
        clients = [Client()]
        for _ in range(40):
            await store(connection, number, history.grow(rng.randrange(1, 60), rng.choice((3, 20, 200))))
            upto = history.ops[-1].op_id
            clients.append(Client())
            for client in clients:
                if rng.random() < 0.3:
                    continue
                if rng.random() < 0.4 and not await read(connection, client, upto, rng.randrange(1, 9), 2):
                    assert client.checksum == history.checksum(client.after), "every prefix sums up, too"
                    continue
                assert await read(connection, client, upto, rng.choice((1, 2, 7, 50, 5000)))
                assert client.checksum == history.checksum(upto)
                assert {row: data for row, (_, data) in client.rows.items()} == history.rows(upto)
                assert len([op for op in client.seen if op.op == "CLEAR"]) <= 1


async def test_what_was_said_before_does_not_travel(database: Database, rng: random.Random) -> None:
    async with storage(database) as (connection, number):
        history = History(rng)
        await store(connection, number, history.grow(300, 20))
        upto = history.ops[-1].op_id
        for rows in (3, 1000):
            client = Client()
            await read(connection, client, upto, rows)
            sent = {op.data for op in client.seen if op.data is not None}
            assert sent == set(history.rows(upto).values())
            assert {op.op for op in client.seen} == {"CLEAR", "MOVE", "PUT"}


async def test_one_large_op_is_a_page(database: Database) -> None:
    async with storage(database) as (connection, number):
        rows = [(n, "x" * 700_000) for n in range(1, 6)]
        await store(
            connection, number, [Op(OpId(n), "", "PUT", "t", str(n), f"7/{n}", n, text) for n, text in rows]
        )
        pages = [page async for page in read_bucket(lent(connection), BUCKET, OpId(0), OpId(9))]
        assert [len(page.ops) for page in pages] == [2, 2, 1]
        assert [page.has_more for page in pages] == [True, True, False]


async def test_a_page_costs_as_much_in_a_large_bucket_as_in_a_small_one(database: Database) -> None:
    """For a while each page of a bucket read all that follows it, and a download its square."""
    async with storage(database) as (connection, _):
        await connection.execute(b"INSERT INTO buckets (name) VALUES ('large'), ('small')")
        await connection.execute(
            b"INSERT INTO ops SELECT n, b.id, n, 'PUT', 'notes', n::text, n::text, repeat('x', 400)"
            b" FROM generate_series(1, 20000) AS n JOIN buckets AS b"
            b" ON b.name = CASE WHEN n % 40 = 0 THEN 'small' ELSE 'large' END"
        )
        await connection.execute(b"ANALYZE ops")
        asked = {"after": 0, "upto": 20_000, "limit": 100, "large": 2048}
        read = {}
        for name in ("large", "small"):
            explained = b"EXPLAIN (ANALYZE, TIMING off, FORMAT json) " + queries.load("buckets").read_plain
            [(plans,)] = await as_rows(connection, explained, name=name, **asked)
            read[name] = most_rows(plans[0]["Plan"])
    assert read == {"large": 100, "small": 100}


def most_rows(plan: dict[str, Any]) -> float:
    """The most rows that any part of a plan has handed on."""
    handed: float = plan["Actual Rows"] * plan["Actual Loops"]
    return max([handed, *map(most_rows, plan.get("Plans", []))])


async def test_a_bucket_without_ops_is_one_empty_page(database: Database) -> None:
    async with storage(database) as (connection, _):
        for bucket in (BUCKET, "nobody's[]"):
            [page] = [page async for page in read_bucket(lent(connection), bucket, OpId(0), OpId(9))]
            assert (page.ops, page.has_more, page.next_after) == ([], False, 0)
        assert await totals(connection, [BUCKET, "nobody's[]"], OpId(9)) == {}


async def test_what_is_overtaken_by_a_later_checkpoint_says_so(database: Database) -> None:
    async with storage(database) as (connection, number):
        compacted = [
            Op(OpId(1), "", "MOVE", "", "", "", 5, "9"),
            Op(OpId(9), "", "PUT", "t", "1", "7/1", 6, "{}"),
        ]
        await store(connection, number, compacted)
        [early] = [page async for page in read_bucket(lent(connection), BUCKET, OpId(0), OpId(8))]
        assert early.is_overtaken
        [whole] = [page async for page in read_bucket(lent(connection), BUCKET, OpId(0), OpId(9))]
        assert not whole.is_overtaken
        assert [op.op for op in whole.ops] == ["CLEAR", "PUT"]


async def test_a_total_counts_on_from_any_sum_before_it(database: Database, rng: random.Random) -> None:
    async with storage(database) as (connection, number):
        history = History(rng)
        await store(connection, number, history.grow(100, 10))
        for op in rng.sample(history.ops, 7):
            earlier = [o for o in history.ops if o.op_id <= op.op_id]
            await connection.execute(
                "INSERT INTO totals VALUES (%s, %s, %s, %s)",
                [number, op.op_id, history.checksum(op.op_id), len(earlier)],
            )
        for upto in (0, *(op.op_id for op in history.ops)):
            found = await totals(connection, [BUCKET], OpId(upto))
            earlier = [o for o in history.ops if o.op_id <= upto]
            expected = {BUCKET: (history.checksum(upto), len(earlier))} if earlier else {}
            assert found == expected


async def test_what_has_changed_is_told_or_everything_has(database: Database) -> None:
    async with storage(database) as (connection, number):
        await connection.execute(
            b"""
            INSERT INTO changes VALUES (3, '{}', '{}', now()), (5, ARRAY[%d], ARRAY['l\tk'], now()),
                                       (8, NULL, '{}', now()), (9, '{}', NULL, now())"""
            % number
        )
        assert await told(connection, OpId(3), OpId(5)) == Told(frozenset({BUCKET}), frozenset({"l\tk"}))
        assert await told(connection, OpId(5), OpId(7)) == Told(frozenset(), frozenset())
        assert await told(connection, OpId(3), OpId(8)) == Told(None, frozenset({"l\tk"}))
        assert await told(connection, OpId(8), OpId(9)) == Told(frozenset(), None)
        assert await told(connection, OpId(2), OpId(5)) == Told(None, None), "what came before is forgotten"
