"""Migrations and schema.sql arrive at the same storage, and nothing else is touched."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg import sql

from replicator import queries
from replicator.database import Migration, check_migrated, connected, migrate, migrations
from replicator.errors import StorageUnready

if TYPE_CHECKING:
    from tests.fixtures.postgres import Database

_CATALOGUE = """
SELECT 'column', c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull::text,
       coalesce(pg_get_expr(d.adbin, d.adrelid), ''), coalesce(l.collname, '')
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
LEFT JOIN pg_collation l ON l.oid = a.attcollation
WHERE c.relnamespace = %(schema)s::text::regnamespace AND a.attnum > 0 AND NOT a.attisdropped
UNION ALL
SELECT 'constraint', conrelid::regclass::text, conname, pg_get_constraintdef(oid), '', '', ''
FROM pg_constraint WHERE connamespace = %(schema)s::text::regnamespace
UNION ALL
SELECT 'index', tablename, indexname, indexdef, '', '', '' FROM pg_indexes WHERE schemaname = %(schema)s::text
UNION ALL
SELECT 'routine', proname, '', pg_get_functiondef(oid), '', '', ''
FROM pg_proc WHERE pronamespace = %(schema)s::text::regnamespace
UNION ALL
SELECT 'view', viewname, definition, '', '', '', '' FROM pg_views WHERE schemaname = %(schema)s::text
UNION ALL
SELECT 'trigger', c.relname, t.tgname, pg_get_triggerdef(t.oid), '', '', ''
FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
WHERE c.relnamespace = %(schema)s::text::regnamespace AND NOT t.tgisinternal
ORDER BY 1, 2, 3, 4
"""


def catalogue(connection: psycopg.Connection, schema: str) -> list[tuple[str, ...]]:
    """Everything a schema holds, as text that does not name the schema."""
    connection.execute(sql.SQL("SET search_path TO {}").format(sql.Identifier(schema)))
    rows = connection.execute(_CATALOGUE, {"schema": schema}).fetchall()
    return [
        tuple(str(value).replace(f"{schema}.", "").replace(f"'{schema}'", "") for value in row)
        for row in rows
    ]


async def test_migrations_arrive_at_schema_sql(database: Database) -> None:
    await migrate(database.owner_dsn, "by_steps", known=migrations())
    await migrate(database.owner_dsn, "all_new")
    with psycopg.connect(database.owner_dsn, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA at_once")
        connection.execute("SET search_path TO at_once")
        connection.execute((queries.house("sql") / "schema.sql").read_bytes())
        steps, once = catalogue(connection, "by_steps"), catalogue(connection, "at_once")
        new = catalogue(connection, "all_new")
        history = "SELECT number, name FROM {}.migrations ORDER BY number"
        histories = [
            connection.execute(history.format(name).encode()).fetchall() for name in ("by_steps", "all_new")
        ]
    assert steps == once == new
    assert histories[0] == histories[1] and len(histories[0]) == len(migrations())
    assert any(row[1] == "ops" for row in once)


async def test_who_may_read_a_view_may_do_what_is_in_it(database: Database) -> None:
    """Also where new functions are taken from everybody."""
    database.execute("ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC")
    for schema, known in (("new", None), ("by_steps", migrations())):
        await migrate(database.owner_dsn, schema, known=known)
        found = database.execute(
            f"""SELECT proname, has_function_privilege('public', oid, 'EXECUTE') FROM pg_proc
            WHERE pronamespace = '{schema}'::regnamespace
              AND proname IN ('ehr_jobs_of', 'ehr_key', 'ehr_row')"""
        )
        assert sorted(found) == [("ehr_jobs_of", True), ("ehr_key", True), ("ehr_row", True)]


async def test_a_role_that_may_not_read_storage_is_told_so_and_what_would_let_it(database: Database) -> None:
    await migrate(database.owner_dsn, "replicator")
    name = f"looker_{database.name}"
    database.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'p'")
    try:
        dsn = psycopg.conninfo.make_conninfo(database.owner_dsn, user=name, password="p")
        async with connected(dsn, "test") as storage:
            with pytest.raises(StorageUnready, match=f"role {name} may not read the storage") as refused:
                await check_migrated(storage, "replicator")
        database.execute(refused.value.hint.partition("needs: ")[2])
        async with connected(dsn, "test") as storage:
            await check_migrated(storage, "replicator")
    finally:
        database.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")


async def test_migrating_creates_only_its_own_schema(database: Database) -> None:
    outside = (
        "SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
        "WHERE n.nspname NOT IN ('replicator', 'pg_toast') "
        "UNION ALL SELECT 'schema', nspname FROM pg_namespace WHERE nspname <> 'replicator' ORDER BY 1, 2"
    )
    before = database.execute(outside)
    await migrate(database.dsn, "replicator")
    assert database.execute(outside) == before


async def test_migrating_twice_changes_nothing_the_second_time(database: Database) -> None:
    first = await migrate(database.dsn, "replicator")
    again = await migrate(database.dsn, "replicator")
    assert len(first.pending) == len(migrations())
    assert again.pending == () and again.statements() == []


async def test_two_migrations_at_once_run_one_after_the_other(database: Database) -> None:
    plans = await asyncio.gather(*(migrate(database.dsn, "replicator") for _ in range(4)))
    assert sorted(len(plan.pending) for plan in plans) == [0, 0, 0, len(migrations())]


async def test_a_dry_run_shows_the_sql_and_does_nothing(database: Database) -> None:
    plan = await migrate(database.owner_dsn, "replicator", dry_run=True)
    shown = "\n".join(plan.statements())
    assert 'CREATE SCHEMA "replicator";' in shown and "CREATE TABLE ops" in shown
    assert database.execute("SELECT 1 FROM pg_namespace WHERE nspname = 'replicator'") == []


async def test_a_newer_schema_is_refused_and_left_alone(database: Database) -> None:
    later = [
        *migrations(),
        Migration(len(migrations()) + 1, "later", "CREATE TABLE later (n int);"),
    ]
    await migrate(database.dsn, "replicator", known=later)
    with pytest.raises(StorageUnready, match="newer than this release"):
        await migrate(database.dsn, "replicator")
    async with connected(database.dsn, "test") as connection:
        with pytest.raises(StorageUnready, match="newer than this release"):
            await check_migrated(connection, "replicator")


async def test_a_storage_that_lacks_a_migration_says_which_and_what_to_run(
    database: Database,
) -> None:
    async with connected(database.dsn, "test") as connection:
        with pytest.raises(StorageUnready, match="lacks") as caught:
            await check_migrated(connection, "replicator")
    assert "replicator migrate" in caught.value.hint


async def test_a_schema_of_somebody_else_is_refused(database: Database) -> None:
    database.execute("CREATE SCHEMA clinic CREATE TABLE patients (id int)")
    with pytest.raises(StorageUnready, match="holds patients"):
        await migrate(database.dsn, "clinic")


async def test_a_failing_migration_leaves_no_trace(database: Database) -> None:
    broken = [*migrations(), Migration(len(migrations()) + 1, "broken", "SELECT 1/0;")]
    with pytest.raises(Exception, match="division by zero"):
        await migrate(database.owner_dsn, "replicator", known=broken)
    assert database.execute("SELECT 1 FROM pg_namespace WHERE nspname = 'replicator'") == []


def test_migrations_are_numbered_without_gaps(tmp_path: Path) -> None:
    (tmp_path / "0002_second.sql").write_text("SELECT 1;")
    with pytest.raises(AssertionError):
        migrations(tmp_path)
