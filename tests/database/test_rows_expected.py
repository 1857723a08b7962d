"""How many rows a table is expected to have before it is copied, also where nobody has analysed it yet."""

from __future__ import annotations

from replicator.database import connected
from replicator.wal.snapshot import read_tables
from tests.fixtures.postgres import Database

#: Nobody but the test analyses them.
_MADE = """
CREATE TABLE counted (id int PRIMARY KEY) WITH (autovacuum_enabled = false);
CREATE TABLE empty (LIKE counted INCLUDING ALL) WITH (autovacuum_enabled = false);
CREATE TABLE analysed (LIKE counted INCLUDING ALL) WITH (autovacuum_enabled = false);
CREATE TABLE divided (id int PRIMARY KEY) PARTITION BY RANGE (id);
CREATE TABLE low PARTITION OF divided FOR VALUES FROM (0) TO (40) WITH (autovacuum_enabled = false);
CREATE TABLE high PARTITION OF divided FOR VALUES FROM (40) TO (1000) WITH (autovacuum_enabled = false);
CREATE PUBLICATION powersync FOR TABLE counted, empty, analysed, divided
    WITH (publish_via_partition_root = true);
INSERT INTO counted SELECT generate_series(1, 500);
INSERT INTO analysed SELECT generate_series(1, 200);
INSERT INTO divided SELECT generate_series(1, 300);
DELETE FROM counted WHERE id > 490
"""


def make_tables(database: Database) -> None:
    database.execute(_MADE)
    database.execute("ANALYZE analysed; ANALYZE low")
    # What a session has counted is otherwise told to others a while later.
    database.execute("SELECT pg_stat_force_next_flush()")


async def expected(database: Database) -> dict[str, int]:
    async with connected(database.dsn, "test") as source:
        names = [("public", name) for name in ("counted", "empty", "analysed", "divided")]
        found = await read_tables(source, "powersync", names)
        return {table.relation.name: table.rows_estimated for table in found}


async def test_rows_are_counted_where_nobody_has_analysed_them(database: Database) -> None:
    make_tables(database)
    assert await expected(database) == {"analysed": 200, "counted": 490, "divided": 300, "empty": 0}


async def test_rows_that_were_analysed_are_known_when_what_was_counted_is_lost(database: Database) -> None:
    make_tables(database)
    database.execute("SELECT pg_stat_reset()")
    assert await expected(database) == {"analysed": 200, "counted": 0, "divided": 39, "empty": 0}
