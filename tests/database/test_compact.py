"""However often and whenever a bucket is compacted, every reader ends with its rows and its checksum."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, aclosing
from typing import LiteralString

import pytest
from psycopg.rows import TupleRow

from replicator import queries
from replicator.buckets.compact import Step, candidates, compact_bucket, horizon, lock
from replicator.buckets.compact_rest import forget_changes, forget_entries
from replicator.buckets.model import OpId
from replicator.buckets.read import read_bucket, told, totals
from replicator.database import Connection, connected, rows
from replicator.errors import StandingBy, Unavailable
from tests.database.test_read_bucket import BUCKET, Client, History, lent, storage, store
from tests.fixtures.postgres import Database
from tests.oracle.tight import bounded

pytestmark = pytest.mark.migrated

_retire = queries.load("retire")

#: Few ops meet every bound.
TIGHT = {
    "replicator.buckets.compact.STEP_OPS": 7,
    "replicator.buckets.compact.ROUND_OPS": 40,
    "replicator.buckets.merge.MERGED_MAX": 5,
}


class Overtaken(Exception):
    """A page said that its checkpoint cannot be completed any more."""


async def compact_some(
    connection: Connection, number: int, upto: int, rng: random.Random, most: int | None = None
) -> None:
    """Some steps, and then whatever ends it may come; or all of them."""
    async with aclosing(compact_bucket(connection, number, OpId(upto))) as steps:
        async for _ in steps:
            if most is not None and rng.randrange(most) == 0:
                return


async def read_on(
    connection: Connection,
    client: Client,
    upto: int,
    rows: int,
    between: AsyncIterator[Step] | None = None,
) -> None:
    """Read to the end; between two pages, compaction may go a step on."""
    async for page in read_bucket(lent(connection), BUCKET, OpId(client.after), OpId(upto), page_rows=rows):
        for op in page.ops:
            client.take(op)
        if page.is_overtaken:
            raise Overtaken
        if not page.has_more:
            return
        if between is not None:
            await anext(between, None)
    raise AssertionError("the last page says that it is the last")


def agrees(client: Client, history: History, upto: int) -> None:
    assert client.checksum == history.checksum(upto)
    assert {row: data for row, (_, data) in client.rows.items()} == history.rows(upto)


async def sum_up(connection: Connection, number: int) -> None:
    """As the writer does with the ops it stores: by what the sum before it says, and the ops since."""
    await connection.execute(
        b"""INSERT INTO totals (bucket, op_id, checksum, count)
            SELECT was.bucket, max(o.op_id),
                   mod(was.checksum + sum(o.checksum::bigint & 4294967295), 4294967296), was.count + count(*)
            FROM (SELECT * FROM totals UNION ALL SELECT %(bucket)s::integer, 0, 0, 0
                  ORDER BY op_id DESC LIMIT 1) AS was
            JOIN ops AS o ON o.bucket = was.bucket AND o.op_id > was.op_id
            GROUP BY was.bucket, was.checksum, was.count""",
        {"bucket": number},
    )


async def fetched(connection: Connection, query: LiteralString) -> list[TupleRow]:
    return await (await connection.execute(query)).fetchall()


async def count_ops(connection: Connection, upto: int) -> int:
    [[count]] = await (
        await connection.execute("SELECT count(*) FROM ops WHERE op_id <= %s", [upto])
    ).fetchall()
    return int(count)


@pytest.mark.parametrize("are_bounds_tight", [True, False], ids=["tight", "wide"])
async def test_readers_anywhere_end_with_the_rows_and_the_checksum(
    database: Database, rng: random.Random, are_bounds_tight: bool
) -> None:
    async with storage(database) as (connection, number):
        with bounded(TIGHT if are_bounds_tight else {}):
            history = History(rng)
            clients = [Client()]
            compacted = 0
            for _ in range(25):
                await store(connection, number, history.grow(rng.randrange(1, 60), rng.choice((3, 20, 60))))
                upto = history.ops[-1].op_id
                if rng.random() < 0.4:
                    await sum_up(connection, number)
                if rng.random() < 0.5:
                    known = [0] * (not compacted) + [op.op_id for op in history.ops if op.op_id >= compacted]
                    compacted = rng.choice(known)
                    await compact_some(connection, number, compacted, rng, rng.choice((None, 2, 4)))
                clients.append(Client())
                # Where a client stands says nothing of where compaction does.
                for client in rng.sample(clients, min(len(clients), 12)):
                    upto = history.ops[-1].op_id
                    if rng.random() < 0.4:
                        stops = [op.op_id for op in history.ops if op.op_id >= max(compacted, client.after)]
                        upto = rng.choice(stops or [upto])
                    await read_on(connection, client, upto, rng.choice((1, 2, 7, 50)))
                    agrees(client, history, upto)
                    found = await totals(connection, [BUCKET], OpId(upto))
                    assert found == {BUCKET: (history.checksum(upto), await count_ops(connection, upto))}


async def test_a_bucket_that_is_taken_away_meanwhile_is_left_alone(
    database: Database, rng: random.Random
) -> None:
    """Between what a step reads and what it stores, some of the ops would be gone."""
    remove = {"name": BUCKET.partition("[")[0], "limit": 9}
    async with (
        storage(database) as (connection, number),
        connected_beside(database) as beside,
        connected_beside(database) as holding,
    ):
        with bounded(TIGHT):
            history = History(rng)
            await store(connection, number, history.grow(60, 5))
            async with aclosing(compact_bucket(connection, number, history.ops[-1].op_id)) as steps:
                async with holding.transaction():
                    await holding.execute("SELECT FROM ops ORDER BY op_id LIMIT 1 FOR UPDATE")
                    removing = asyncio.create_task(beside.execute(_retire.remove_ops, remove))
                    await _until_waiting(holding, 1)
                    stepping = asyncio.ensure_future(anext(steps, None))
                    await _until_waiting(holding, 2)
                await asyncio.gather(removing, stepping)
                while await rows(beside, _retire.remove_ops, **remove) != [(0, 0)]:
                    pass
                await beside.execute(_retire.remove_buckets, remove)
                assert [step async for step in steps] == []
            assert await fetched(connection, "SELECT * FROM totals") == []


async def _until_waiting(connection: Connection, count: int) -> None:
    """Until so many others wait for what somebody else has locked."""
    waiting: LiteralString = """
        SELECT count(*) FROM pg_stat_activity
        WHERE wait_event_type = 'Lock' AND datname = current_database()"""
    async with asyncio.timeout(30):
        while await fetched(connection, waiting) != [(count,)]:
            await asyncio.sleep(0.01)


async def test_a_download_goes_on_while_the_bucket_is_compacted(
    database: Database, rng: random.Random
) -> None:
    overtaken = 0
    async with storage(database) as (connection, number), connected_beside(database) as beside:
        with bounded(TIGHT):
            history = History(rng)
            clients = [Client()]
            for _ in range(50):
                await store(connection, number, history.grow(rng.randrange(20, 60), rng.choice((3, 20, 60))))
                newest = history.ops[-1].op_id
                clients.append(Client())
                for client in rng.sample(clients, min(len(clients), 5)):
                    upto = rng.choice(
                        [op.op_id for op in history.ops if op.op_id >= client.after] or [newest]
                    )
                    goal = rng.choice([op.op_id for op in history.ops])
                    async with aclosing(compact_bucket(beside, number, OpId(goal))) as steps:
                        try:
                            await read_on(connection, client, upto, rng.choice((1, 2, 7)), steps)
                        except Overtaken:
                            overtaken += 1
                            upto = newest
                            await read_on(connection, client, upto, rng.choice((1, 2, 7)))
                    agrees(client, history, upto)
    assert overtaken, "some checkpoint was compacted past while it was read"


def connected_beside(database: Database) -> AbstractAsyncContextManager[Connection]:
    return connected(database.dsn, "test", schema="replicator")


async def test_nothing_of_what_is_dead_is_left(database: Database, rng: random.Random) -> None:
    async with storage(database) as (connection, number):
        history = History(rng)
        await store(connection, number, history.grow(3000, 40))
        upto = history.ops[-1].op_id
        await compact_some(connection, number, upto, rng)
        found = await (await connection.execute("SELECT op, data FROM ops ORDER BY op_id")).fetchall()
        assert {data for op, data in found if op == "PUT"} == set(history.rows(upto).values())
        assert found[0][0] == "CLEAR"
        assert len(found) < 150
        # And once more changes nothing.
        before = await (await connection.execute("SELECT * FROM ops ORDER BY op_id")).fetchall()
        await compact_some(connection, number, upto, rng)
        assert await (await connection.execute("SELECT * FROM ops ORDER BY op_id")).fetchall() == before


async def test_small_steps_and_one_large_come_to_the_same_rows(
    database: Database, rng: random.Random
) -> None:
    async with storage(database) as (connection, number):
        history = History(rng)
        for _ in range(20):
            await store(connection, number, history.grow(100, rng.choice((3, 50))))
            with bounded(TIGHT):
                await compact_some(connection, number, history.ops[-1].op_id, rng)
        upto = history.ops[-1].op_id
        dead = "SELECT count(*) FROM ops WHERE op = 'PUT'"
        [[puts]] = await (await connection.execute(dead.encode())).fetchall()
        assert puts == len(history.rows(upto))
        client = Client()
        await read_on(connection, client, upto, 1000)
        agrees(client, history, upto)


async def test_a_checkpoint_that_was_compacted_past_is_refused(
    database: Database, rng: random.Random
) -> None:
    async with storage(database) as (connection, number):
        history = History(rng)
        await store(connection, number, history.grow(100, 5))
        last = history.ops[-1].op_id
        await compact_some(connection, number, last, rng)
        for upto in (last - 1, history.ops[50].op_id, 1):
            with pytest.raises(Unavailable, match="compacted past"):
                await totals(connection, [BUCKET], OpId(upto))
            [page] = [p async for p in read_bucket(lent(connection), BUCKET, OpId(0), OpId(upto))]
            assert page.is_overtaken and not page.ops


async def test_only_one_compacts(database: Database) -> None:
    async with storage(database) as (connection, _), connected_beside(database) as beside:
        await lock(connection)
        with pytest.raises(StandingBy, match="another process"):
            await lock(beside)


async def test_checkpoints_of_the_last_minutes_are_kept_away_from(database: Database) -> None:
    async with storage(database) as (connection, _):
        assert await horizon(connection, "s") is None
        await connection.execute(
            b"""INSERT INTO changes
                VALUES (3, NULL, NULL, now() - interval '1 hour'), (5, NULL, NULL, now())"""
        )
        insert = (
            "INSERT INTO checkpoints (slot, op_id, lsn, shown_op_id, shown_lsn, fence, system_id, timeline, "
            "recorded_at) VALUES ('s', 5, '0/1', %s, '0/1', 1, '1', 1, now())"
        )
        await connection.execute(insert, [4])
        assert await horizon(connection, "s") == 3
        assert await horizon(connection, "s", 0) == 4, "nor beyond what is shown"


async def test_buckets_with_much_that_is_new_are_due(database: Database, rng: random.Random) -> None:
    async with storage(database) as (connection, number):
        history = History(rng)
        sizes = []
        for grown in (999, 1, 400, 600, 100):
            await store(connection, number, history.grow(grown, 10))
            upto = OpId(history.ops[-1].op_id)
            [[one]] = [page async for page in candidates(connection, upto, BUCKET)]
            sizes.append(one.is_due)
            if one.is_due:
                await compact_some(connection, number, upto, rng)
        assert sizes == [False, True, False, True, False]


async def test_an_interrupted_compaction_is_due(database: Database, rng: random.Random) -> None:
    async with storage(database) as (connection, number):
        history = History(rng)
        await store(connection, number, history.grow(100, 10))
        upto = OpId(history.ops[-1].op_id)
        with bounded(TIGHT):
            async with aclosing(compact_bucket(connection, number, upto)) as steps:
                await anext(steps)
        [[one]] = [page async for page in candidates(connection, upto)]
        assert one.is_begun and one.is_due


async def test_killed_between_two_statements_it_changes_nothing(
    database: Database, rng: random.Random
) -> None:
    """Whatever statement it was in, what it has committed is whole."""
    failing = rng.sample(range(1, 60), 12)
    async with storage(database) as (connection, number):
        history = History(rng)
        for nth in failing:
            await store(connection, number, history.grow(60, 10))
            upto = history.ops[-1].op_id
            with bounded(TIGHT):
                await killed_at(database, number, upto, nth)
            client = Client()
            await read_on(connection, client, upto, 5)
            agrees(client, history, upto)
            found = await totals(connection, [BUCKET], OpId(upto))
            assert found == {BUCKET: (history.checksum(upto), await count_ops(connection, upto))}


async def killed_at(database: Database, number: int, upto: int, nth: int) -> None:
    """Compact, and lose the connection at the nth thing that is said to storage."""
    async with connected_beside(database) as connection:
        said = 0
        execute = connection.execute

        async def counted(*args, **options):  # type: ignore[no-untyped-def]  # whatever `execute` takes
            nonlocal said
            said += 1
            if said == nth:
                await connection.close()
                raise ConnectionError
            return await execute(*args, **options)

        connection.execute = counted  # type: ignore[method-assign]  # the test's own connection
        try:
            async for _ in compact_bucket(connection, number, OpId(upto)):
                pass
        except ConnectionError:
            pass


async def test_times_are_kept_of_the_changes_that_are_forgotten(database: Database) -> None:
    async with storage(database) as (connection, _):
        await connection.execute(
            b"""INSERT INTO changes
                SELECT n, '{}', '{}', date_trunc('minute', now()) - interval '1 hour' + n * interval '10 s'
                FROM generate_series(1, 354) AS n"""
        )
        forgotten = [count async for count in forget_changes(connection)]
        left = [op_id for (op_id,) in await fetched(connection, "SELECT op_id FROM changes ORDER BY op_id")]
        assert sum(forgotten) == 354 - len(left)
        assert left == list(range(left[0], 355)) and 300 <= left[0] <= 306
        moments = [
            op_id for (op_id,) in await fetched(connection, "SELECT op_id FROM moments ORDER BY op_id")
        ]
        assert moments == [1, *range(6, 355, 6)]
        assert (await told(connection, OpId(left[0]), OpId(354))).buckets == frozenset()
        assert (await told(connection, OpId(left[0] - 1), OpId(354))).buckets is None
        assert [count async for count in forget_changes(connection)] == []


async def test_entries_that_ended_long_ago_are_forgotten(database: Database) -> None:
    async with storage(database) as (connection, _):
        await connection.execute(
            b"""INSERT INTO lookups
                SELECT 'l', n::text, 'v', '7/' || n, n, CASE WHEN mod(n, 2) = 0 THEN n + 10 END
                FROM generate_series(1, 5000) AS n"""
        )
        with bounded({"replicator.buckets.compact_rest._BLOCKS_AT_ONCE": 3}):
            steps = [count async for count in forget_entries(connection, OpId(2010))]
        assert sum(steps) == 1000 and len(steps) > 5
        left = b"SELECT count(*), count(until_op_id), min(until_op_id) FROM lookups"
        assert await (await connection.execute(left)).fetchall() == [(4000, 1500, 2012)]
