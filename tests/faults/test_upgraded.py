"""A release comes with one more migration: storage with data, and a live slot, go on from where they are."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from replicator.database import migrate, migrations
from tests.faults.clinic import Clinic
from tests.fixtures.children import StartChild
from tests.fixtures.postgres import Database

pytestmark = pytest.mark.faults

#: The columns that a table has in both, but for those that compute themselves.
_COMMON = """
SELECT c.table_name, array_agg(c.column_name::text ORDER BY c.ordinal_position)
FROM information_schema.columns AS c
JOIN information_schema.columns AS o USING (table_name, column_name)
JOIN information_schema.tables AS t ON (t.table_schema, t.table_name) = (c.table_schema, c.table_name)
WHERE c.table_schema = 'replicator' AND o.table_schema = 'newer' AND t.table_type = 'BASE TABLE'
  AND c.is_generated = 'NEVER' AND c.table_name <> 'migrations'
GROUP BY 1
"""
#: What counts the rows of a table, which rows that are copied do not move.
_SEQUENCES = """
SELECT sequence, table_name::text, column_name::text FROM information_schema.columns,
       pg_get_serial_sequence('replicator.' || quote_ident(table_name), column_name) AS sequence
WHERE table_schema = 'replicator' AND sequence IS NOT NULL
"""
_HISTORY = "SELECT count(*), max(op_id) FROM replicator.history"
_COPIED = "SELECT sum(rows_copied) FROM replicator.tables"


async def as_the_release_before(database: Database) -> str:
    """Storage as it would be if the newest migration did not exist: its data in the tables of before."""
    database.execute("ALTER SCHEMA replicator RENAME TO newer")
    database.allow_storage("replicator")
    known = migrations()
    await migrate(database.dsn, "replicator", known=known[:-1])
    with psycopg.connect(database.owner_dsn) as connection:
        connection.execute("SET session_replication_role = replica")  # no foreign keys, no triggers
        for table, columns in connection.execute(_COMMON).fetchall():
            names = sql.SQL(", ").join(map(sql.Identifier, columns))
            into, beside = sql.Identifier("replicator", table), sql.Identifier("newer", table)
            connection.execute(sql.SQL("DELETE FROM {}").format(into))
            copy = sql.SQL("INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM {}")
            connection.execute(copy.format(into, names, names, beside))
        for sequence, table, column in connection.execute(_SEQUENCES).fetchall():
            found = sql.SQL("SELECT setval({}, coalesce(max({}), 0) + 1) FROM {}")
            place = sql.Identifier("replicator", table)
            connection.execute(found.format(sql.Literal(sequence), sql.Identifier(column), place))
    database.execute("DROP SCHEMA newer CASCADE")
    return known[-1].name


async def test_it_is_migrated_and_goes_on(database: Database, tmp_path: Path, children: StartChild) -> None:
    clinic = Clinic(database, tmp_path, children)
    await clinic.build()
    before = clinic.run()
    clinic.measure("before", times=5)
    clinic.catch_up()
    clinic.assert_equal()
    before.terminate()
    assert before.wait() == 0
    newest = await as_the_release_before(database)
    held, copied = database.execute(_HISTORY), database.execute(_COPIED)
    assert held[0][0] > 0
    clinic.measure("while it is upgraded")
    # It says what to do, and touches nothing.
    refused = clinic.run()
    assert refused.wait() == 1
    assert newest in refused.stderr and "replicator migrate" in refused.stderr
    assert database.execute(_HISTORY) == held
    assert clinic.ask("migrate") == 0
    after = clinic.run()
    clinic.measure("after")
    clinic.catch_up()
    clinic.assert_equal()
    clinic.assert_told_once()
    # From the slot, and not by copying once more.
    assert database.execute(_COPIED) == copied and after.count("copying") == 0
    assert database.execute(_HISTORY)[0][0] > held[0][0]


async def test_a_newer_storage_is_left_alone(
    database: Database, tmp_path: Path, children: StartChild
) -> None:
    clinic = Clinic(database, tmp_path, children)
    await clinic.build()
    database.execute(
        "INSERT INTO replicator.migrations SELECT max(number) + 1, 'later' FROM replicator.migrations"
    )
    running = clinic.run()
    assert running.wait() == 1
    assert "newer than this release" in running.stderr
