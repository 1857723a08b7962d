"""Publications of every form → the tables they mean, as Postgres says it, without a lock on any."""

from __future__ import annotations

import asyncio

import pytest

from replicator.database import connected
from replicator.wal.snapshot import Table, read_chunk, read_tables
from tests.fixtures.postgres import Database

TABLES = """
CREATE SCHEMA other;
CREATE TABLE plain (id integer PRIMARY KEY, name text, gone text,
    twice integer GENERATED ALWAYS AS (id * 2) STORED);
ALTER TABLE plain DROP COLUMN gone;
CREATE UNLOGGED TABLE unlogged (id integer PRIMARY KEY);
CREATE TABLE heir (more text) INHERITS (plain);
CREATE VIEW seen AS SELECT 1 AS id;
CREATE TABLE whole (id integer, at date, note text, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
CREATE TABLE early PARTITION OF whole FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
CREATE TABLE other.late PARTITION OF whole FOR VALUES FROM ('2021-01-01') TO ('2023-01-01')
    PARTITION BY RANGE (at);
CREATE TABLE other.later PARTITION OF other.late FOR VALUES FROM ('2021-01-01') TO ('2022-01-01');
CREATE TABLE latest PARTITION OF other.late FOR VALUES FROM ('2022-01-01') TO ('2023-01-01');
CREATE TABLE other.plain (id integer PRIMARY KEY, name text);
"""
MEANT = [
    "FOR ALL TABLES",
    "FOR TABLE plain, ONLY other.plain, whole",
    "FOR TABLE early, whole",
    "FOR TABLE other.late",
    "FOR TABLE other.later, other.late (id, at)",
    "FOR TABLE plain (id, name), other.plain WHERE (id > 3 AND name IS NOT NULL)",
    "FOR TABLE whole WHERE (at > '2020-06-01'), other.later",
    "FOR TABLES IN SCHEMA other",
    "FOR TABLES IN SCHEMA public",
    "FOR TABLES IN SCHEMA other, TABLE whole, TABLE other.later",
    "FOR TABLES IN SCHEMA other, TABLE other.plain",
]


@pytest.mark.parametrize("via_root", [False, True], ids=["by partition", "by root"])
@pytest.mark.parametrize("meant", MEANT)
async def test_what_is_published_is_what_postgres_says(
    database: Database, meant: str, via_root: bool
) -> None:
    if not via_root and ("whole WHERE" in meant or "late (id" in meant):
        pytest.skip("Postgres refuses rows and columns of a table that goes by its partitions")
    database.execute(TABLES)
    database.execute(f"CREATE PUBLICATION p {meant} WITH (publish_via_partition_root = {via_root})")
    told = database.execute(
        # Postgres 15 names generated columns here, and does not send them.
        "SELECT schemaname, tablename, array(SELECT unnest(attnames) EXCEPT SELECT 'twice' ORDER BY 1), "
        "rowfilter FROM pg_publication_tables WHERE pubname = 'p' ORDER BY 1, 2"
    )
    async with connected(database.dsn, "test") as source:
        found = await read_tables(source, "p", [("public", "%"), ("other", "%")])
    assert [_shown(table) for table in found] == told


def _shown(table: Table) -> tuple[str, str, list[str], str | None]:
    names = sorted(column.name for column in table.relation.columns)
    return table.relation.namespace, table.relation.name, names, table.row_filter


async def test_generated_columns_are_sent_where_the_publication_says_so(database: Database) -> None:
    if database.server.version < 18:
        pytest.skip("generated columns are published from Postgres 18 on")
    database.execute(TABLES)
    database.execute("CREATE PUBLICATION p FOR TABLE plain WITH (publish_generated_columns = stored)")
    database.execute("CREATE PUBLICATION q FOR TABLE plain (id, twice)")
    async with connected(database.dsn, "test") as source:
        ((p,), (q,)) = [await read_tables(source, name, [("public", "plain")]) for name in ("p", "q")]
    assert _shown(p)[2] == ["id", "name", "twice"]
    assert _shown(q)[2] == ["id", "twice"]


async def test_the_catalogue_is_read_while_tables_are_locked(database: Database) -> None:
    """Somebody who truncates a table keeps nobody from reading another, and never meets us in a deadlock."""
    database.execute(TABLES)
    database.execute("CREATE PUBLICATION p FOR TABLE plain, other.plain, whole")
    database.execute("INSERT INTO plain VALUES (1, 'a'), (2, 'b')")
    dsn = database.dsn  # whoever makes its role has to lock the tables, too
    with database.connect() as application:
        application.execute("BEGIN; TRUNCATE other.plain, whole")
        async with connected(dsn, "test") as source:
            await source.execute("SET lock_timeout = '20s'")
            tables = {table.label: table for table in await read_tables(source, "p", [("%", "%")])}
            assert set(tables) >= {"public.plain", "other.plain", "public.latest"}
            chunk = await read_chunk(source, "p", tables["public.plain"], after=None, limit=10)
            assert len(chunk.rows) == 2
        application.execute("ROLLBACK")


async def test_nothing_is_held_while_a_table_is_waited_for(database: Database) -> None:
    """Of a table and its partitions, all are locked at once or none is."""
    database.execute(TABLES)
    database.execute("CREATE PUBLICATION p FOR TABLE whole WITH (publish_via_partition_root = true)")
    database.execute("INSERT INTO whole VALUES (1, '2020-02-02', 'a')")
    with database.connect() as application:
        async with connected(database.dsn, "test") as source:
            (table,) = await read_tables(source, "p", [("public", "whole")])
            application.execute("BEGIN; LOCK TABLE latest IN ACCESS EXCLUSIVE MODE")
            reading = asyncio.create_task(read_chunk(source, "p", table, after=None, limit=10))
            while not database.execute(
                "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND query ~ 'LOCK TABLE|ROLLBACK'",
                [source.info.backend_pid],
            ):
                await asyncio.sleep(0.01)
            # Had the reader kept what it had while it waits, these two would wait for each other.
            application.execute(
                "SET LOCAL lock_timeout = '20s'; LOCK TABLE whole, early IN ACCESS EXCLUSIVE MODE"
            )
            application.execute("COMMIT")
            assert len((await reading).rows) == 1
