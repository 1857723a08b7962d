"""`replicator publication` plans the way to what the rules need, and goes it without being in the way."""

from __future__ import annotations

import asyncio
import json
import os
from typing import TYPE_CHECKING

import psycopg
import pytest
from click.testing import CliRunner, Result
from psycopg import sql

from replicator.cli import main
from replicator.database import check_migrated, connected, migrate
from replicator.errors import ReplicatorError, SourceUnready, Unavailable
from replicator.observe import publication
from tests.database.clinics import RULES, a_role, build_tables, configure, look, rules_for, wrong

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.fixtures.postgres import Database, MakeDatabase, Server


def published(database: Database) -> list[str]:
    return [name for (name,) in database.execute("SELECT tablename FROM pg_publication_tables ORDER BY 1")]


async def test_what_was_planned_and_done_leaves_nothing_to_do(database: Database) -> None:
    build_tables(database)
    config = configure(database.owner_dsn, slot=f"s_{database.name}")
    planned = await publication.plan(config, RULES, None)
    assert {step.code for step in planned.plan.steps} == {"publication.missing"}
    await publication.apply(config, planned, quiet=True)
    assert len(published(database)) == 7
    again = await publication.plan(config, RULES, None)
    assert again.plan.steps == () and "-- nothing to do" in publication.text_of(again)
    assert wrong(await look(config)) == []


async def test_the_text_of_a_plan_is_sql_that_does_it(database: Database) -> None:
    build_tables(database)
    database.execute(
        "CREATE TABLE more (id int PRIMARY KEY); CREATE PUBLICATION powersync FOR TABLE users, more"
    )
    config = configure(database.owner_dsn, slot=f"s_{database.name}")
    text = publication.text_of(await publication.plan(config, RULES, None, whole_rows=True))
    assert text.index("SET lock_timeout = '3s';") < text.index("REPLICA IDENTITY FULL")
    assert text.index("REPLICA IDENTITY FULL") < text.index("ADD TABLE public.vital_signs")
    assert (
        "DROP" not in text
        and "-- note: publication powersync also holds what no rule needs: public.more" in text
    )
    database.execute(text)
    assert len(published(database)) == 8
    assert (await publication.plan(config, RULES, None, whole_rows=True)).plan.steps == ()


async def test_the_role_that_was_planned_can_do_its_work_and_nothing_else(database: Database) -> None:
    role = f"r_{database.name}"
    build_tables(database)
    database.execute("CREATE TABLE diary (id int); REVOKE ALL ON SCHEMA public FROM PUBLIC")
    database.execute(f"REVOKE ALL ON DATABASE {database.name} FROM PUBLIC")
    database.execute("ALTER TABLE users ENABLE ROW LEVEL SECURITY")
    config = configure(database.owner_dsn, slot=f"s_{database.name}")
    planned = await publication.plan(config, RULES, role)
    codes = {step.code for step in planned.plan.steps if step.group in ("role", "storage")}
    names = ("missing", "connect", "usage", "select", "row_security")
    assert codes == {"storage.rights", *(f"role.{name}" for name in names)}
    await publication.apply(config, planned, quiet=True)
    try:
        database.execute(f"ALTER ROLE {role} PASSWORD 'a password'")
        dsn = database.server.dsn(database.name, user=role, password="a password")
        theirs = configure(dsn, slot=f"s_{database.name}")
        assert wrong(await look(theirs)) == []
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("CREATE TABLE replicator.anything (id int)")
            for forbidden in (
                "SELECT FROM diary",
                "DELETE FROM users",
                "CREATE TABLE public.anything (id int)",
            ):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute(forbidden)
    finally:
        name = sql.Identifier(role)
        with psycopg.connect(database.owner_dsn, autocommit=True) as admin:
            admin.execute(sql.SQL("DROP OWNED BY {}").format(name))
            admin.execute(sql.SQL("DROP ROLE {}").format(name))


async def test_tables_are_found_by_how_their_names_begin(database: Database) -> None:
    role = f"r_{database.name}"
    config = configure(database.owner_dsn, slot=f"s_{database.name}")
    wild = rules_for("visits_%")
    planned = await publication.plan(config, wild, None)
    assert [problem.code for problem in planned.plan.problems] == ["publication.missing"]
    assert "table.none" in {note.code for note in planned.plan.notes}
    database.execute(
        "CREATE TABLE visits_may (id int PRIMARY KEY, ward text) PARTITION BY RANGE (id);"
        "CREATE TABLE visits_may_1 PARTITION OF visits_may FOR VALUES FROM (1) TO (9);"
        "CREATE TABLE visits_june (id int PRIMARY KEY, ward text);"
        "CREATE TABLE visitsxjuly (id int PRIMARY KEY, ward text)"
    )
    text = publication.text_of(await publication.plan(config, wild, role))
    assert "    public.visits_june,\n    public.visits_may\n" in text
    assert f"GRANT SELECT ON public.visits_june TO {role};" in text
    assert "visitsxjuly" not in text and "visits_may_1" not in text
    database.execute("CREATE PUBLICATION powersync FOR ALL TABLES")
    assert [one for one in wrong(await look(config, wild)) if not one.startswith("publication.")] == []


async def test_a_role_gets_the_storage_that_somebody_else_has_made(database: Database) -> None:
    build_tables(database)
    await migrate(database.owner_dsn, "replicator")
    with a_role(database, f"r_{database.name}", "LOGIN REPLICATION") as dsn:
        config, theirs = configure(database.owner_dsn), configure(dsn, slot=f"s_{database.name}")
        planned = await publication.plan(config, RULES, f"r_{database.name}")
        for statement in ("SELECT", f"GRANT USAGE ON SCHEMA replicator TO r_{database.name}"):
            database.execute(statement)
            with pytest.raises(ReplicatorError, match="may not read the storage schema") as caught:
                async with connected(dsn, "test", schema="replicator") as connection:
                    await check_migrated(connection, "replicator")
            assert "replicator check" in caught.value.hint
        await publication.apply(config, planned, quiet=True)
        async with connected(dsn, "test", schema="replicator") as connection:
            await check_migrated(connection, "replicator")
        assert wrong(await look(theirs)) == []
        again = await publication.plan(config, RULES, f"r_{database.name}")
        assert again.plan.steps == ()


async def test_a_plan_tells_of_a_level_of_the_log_that_takes_a_restart(
    own_server: Callable[..., Server], make_database: MakeDatabase
) -> None:
    database = make_database(on=own_server(wal_level="replica"))
    build_tables(database)
    config = configure(database.owner_dsn)
    text = publication.text_of(await publication.plan(config, RULES, None))
    note = "-- note: wal_level is replica: ALTER SYSTEM SET wal_level = 'logical'; -- then: restart Postgres"
    assert note in text.splitlines() and "--role NAME" in text
    database.execute(text)


async def test_a_table_in_use_is_not_waited_for_and_its_user_is_named(database: Database) -> None:
    build_tables(database)
    config = configure(database.owner_dsn)
    planned = await publication.plan(config, RULES, None, whole_rows=True)
    reader = database.connect(application_name="long report")
    reader.execute("BEGIN")
    reader.execute("SELECT FROM vital_signs")
    with pytest.raises(Unavailable, match="vital_signs is in use") as caught:
        await publication.apply(config, planned, quiet=True)
    assert f"in use by pid {reader.info.backend_pid} (long report)" in caught.value.hint
    # Whoever comes while we wait is not locked out for longer than that; afterwards nobody waits for us.
    assert (
        database.execute("SELECT 1 FROM pg_locks WHERE NOT granted AND relation = 'vital_signs'::regclass")
        == []
    )
    reader.execute("ROLLBACK")
    rest = await publication.plan(config, RULES, None, whole_rows=True)
    assert 0 < len(rest.plan.steps) < len(planned.plan.steps)
    await publication.apply(config, rest, quiet=True)
    assert (await publication.plan(config, RULES, None, whole_rows=True)).plan.steps == ()


async def test_a_role_that_may_not_is_told_to_hand_the_plan_over(database: Database) -> None:
    build_tables(database)
    with a_role(database, f"r_{database.name}") as dsn:
        config = configure(dsn)
        planned = await publication.plan(config, RULES, None, whole_rows=True)
        with pytest.raises(SourceUnready, match="must be owner") as caught:
            await publication.apply(config, planned, quiet=True)
    assert "replicator publication plan | psql" in caught.value.hint


async def test_what_locks_for_long_or_cannot_be_done_is_left_to_a_person(database: Database) -> None:
    database.execute("""
        CREATE TABLE fine (id int PRIMARY KEY);
        CREATE TABLE no_key (id int);
        CREATE UNLOGGED TABLE fleeting (id int PRIMARY KEY);
        CREATE VIEW seen AS SELECT 1 AS id""")
    config, rules = configure(database.owner_dsn), rules_for("fine", "no_key", "fleeting", "seen", "gone")
    planned = await publication.plan(config, rules, None)
    assert {problem.code for problem in planned.plan.problems} == {
        "table.key",
        "table.unlogged",
        "table.kind",
        "table.missing",
    }
    text = publication.text_of(planned)
    assert (
        "-- BY HAND: public.fleeting is unlogged\n" in text
        and "\n-- ALTER TABLE public.fleeting SET LOGGED;" in text
    )
    await publication.apply(config, planned, quiet=True)
    assert published(database) == ["fine", "no_key"]
    assert database.execute("SELECT relpersistence::text FROM pg_class WHERE relname = 'fleeting'") == [
        ("u",)
    ]


async def test_two_who_apply_at_once_do_not_break_anything(database: Database) -> None:
    build_tables(database)
    config = configure(database.owner_dsn)
    planned = await publication.plan(config, RULES, None, whole_rows=True)
    done = await asyncio.gather(
        *(publication.apply(config, planned, quiet=True) for _ in range(3)), return_exceptions=True
    )
    assert any(result is None for result in done)
    assert (await publication.plan(config, RULES, None, whole_rows=True)).plan.steps == ()


# ── In a terminal ────────────────────────────────────────────────────────────────────────────────


def run(tmp_path: Path, database: Database, *arguments: str) -> Result:
    file = tmp_path / "replicator.yaml"
    (tmp_path / "rules.yaml").write_text("bucket_definitions: {all: {data: [SELECT * FROM t]}}\n")
    file.write_text("source: {dsn: '${SOURCE_DSN}'}\n")
    environment = {**os.environ, "SOURCE_DSN": database.owner_dsn}
    return CliRunner().invoke(main, ["publication", *arguments, "--config", str(file)], env=environment)


def test_apply_does_nothing_unasked(database: Database, tmp_path: Path) -> None:
    database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    result = run(tmp_path, database, "apply")
    assert result.exit_code == 2 and "Add --yes" in result.output
    assert published(database) == []
    result = run(tmp_path, database, "apply", "--yes")
    assert result.exit_code == 0 and published(database) == ["t"]
    assert "done CREATE PUBLICATION powersync FOR TABLE" in result.output
    result = run(tmp_path, database, "plan")
    assert result.exit_code == 0 and "-- nothing to do" in result.output


def test_a_plan_in_json_has_every_statement(database: Database, tmp_path: Path) -> None:
    database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    facts = json.loads(run(tmp_path, database, "plan", "--identity", "full", "--json").stdout)
    assert facts["notes"] == []
    assert [step["sql"] for step in facts["steps"]] == [
        "ALTER TABLE public.t REPLICA IDENTITY FULL;",
        "CREATE PUBLICATION powersync FOR TABLE\n    public.t;",
    ]
    database.execute("DROP TABLE t")
    result = run(tmp_path, database, "plan", "--json")
    assert result.exit_code == 1 and json.loads(result.stdout)["problems"][0]["code"] == "table.missing"


def test_what_rules_need_is_published_before_they_are_deployed(database: Database, tmp_path: Path) -> None:
    database.execute("CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE more (id int PRIMARY KEY)")
    assert run(tmp_path, database, "apply", "--yes").exit_code == 0
    new = tmp_path / "new.yaml"
    new.write_text("bucket_definitions: {all: {data: [SELECT * FROM more]}}\n")
    result = run(tmp_path, database, "plan", "--rules", str(new))
    assert "ALTER PUBLICATION powersync ADD TABLE public.more" in result.output
    assert run(tmp_path, database, "apply", "--rules", str(new), "--yes").exit_code == 0
    assert sorted(published(database)) == ["more", "t"]
    assert run(tmp_path, database, "plan", "--rules", str(tmp_path / "no.yaml")).exit_code == 2
