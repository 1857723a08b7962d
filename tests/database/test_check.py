"""`replicator check` finds what stands in the way of replication, and the SQL it gives mends it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from click.testing import CliRunner, Result
from psycopg.conninfo import make_conninfo

from replicator.cli import main
from replicator.database import migrate
from replicator.observe.report import facts_of, script_of, text_of
from tests.database.clinics import a_role, build_tables, configure, found, look, rules_for, run_all, wrong
from tests.database.pooler import pooled

if TYPE_CHECKING:
    from tests.fixtures.postgres import Database, MakeDatabase, Server


@pytest.fixture
def slot(database: Database) -> str:
    """A name no other test of this server has."""
    return f"s_{database.name}"


# ── The loop ─────────────────────────────────────────────────────────────────────────────────────


async def test_a_bare_server_is_ready_once_every_sql_was_run_and_it_was_restarted(
    own_server: Callable[..., Server], make_database: MakeDatabase
) -> None:
    server = own_server(wal_level="replica", max_wal_senders=0, max_replication_slots=0, wal_sender_timeout=0)
    database = make_database(on=server)
    build_tables(database)
    # What Postgres gives to everybody, and a careful DBA takes back.
    database.execute("REVOKE ALL ON SCHEMA public FROM PUBLIC")
    database.execute(f"REVOKE ALL ON DATABASE {database.name} FROM PUBLIC")
    database.execute("REVOKE ALL ON FUNCTION pg_logical_emit_message(boolean, text, text) FROM PUBLIC") if (
        server.version < 17
    ) else database.execute(
        "REVOKE ALL ON FUNCTION pg_logical_emit_message(boolean, text, text, boolean) FROM PUBLIC"
    )
    database.execute("ALTER TABLE vital_signs ENABLE ROW LEVEL SECURITY")
    with a_role(database, "lowly") as dsn:
        database.execute(f"GRANT CONNECT ON DATABASE {database.name} TO lowly")
        config = configure(dsn)
        before = await look(config)
        codes = {finding.code for finding in before.findings if finding.level != "note"}
        assert codes == {
            "server.wal_level",
            "server.slots",
            "server.senders",
            "server.sender_timeout",
            "role.replication",
            "role.usage",
            "role.select",
            "role.row_security",
            "role.messages",
            "publication.missing",
            "slot.keep",
            "storage.rights",
        }
        assert before.exit_code == 1
        run_all(database.owner_dsn, before)
        server.restart()

        after = await look(config)
        assert [finding for finding in after.findings if finding.level != "note"] == []
        assert after.exit_code == 0
        assert "not yet" not in text_of(after) and "ok" in text_of(after)

        # And it is true: the role migrates, makes its slot, and is still told that all is well.
        await migrate(dsn, config.storage.schema_name)
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as source:
            await source.execute("SELECT pg_create_logical_replication_slot('replicator', 'pgoutput')")
        last = await look(config)
        assert wrong(last) == [] and not found(last, "slot.keep") and not found(last, "storage.new")


async def test_the_script_says_all_of_it_in_order(database: Database) -> None:
    build_tables(database)
    report = await look(configure(database.dsn))
    script = script_of(report)
    places = [script.index(finding.sql) for finding in report.findings if finding.sql]
    assert len(places) > 1 and places == sorted(places)
    assert script.startswith("SET lock_timeout = '3s';"), "nobody queues behind what locks a table"
    comments = [line for line in script.splitlines() if not line.startswith(("--", " ", "ALTER", "CREATE"))]
    timeout = "SET lock_timeout = '3s';  -- rather give up than let the application queue behind us"
    assert set(comments) <= {"", "SELECT pg_reload_conf();", timeout}


# ── Doing no harm ────────────────────────────────────────────────────────────────────────────────


async def test_it_changes_nothing_and_waits_for_no_table(database: Database) -> None:
    build_tables(database)
    locker = database.connect()
    locker.execute("BEGIN")
    locker.execute("LOCK TABLE users, vital_signs IN ACCESS EXCLUSIVE MODE")
    before = database.execute("SELECT pg_current_wal_insert_lsn()")
    report = await look(configure(database.dsn))
    locker.execute("ROLLBACK")
    assert len(found(report, "table.identity")) == 7
    state = "SELECT count(*) FROM pg_publication UNION ALL SELECT count(*) FROM pg_namespace"
    assert database.execute(state) == [(0,), database.execute("SELECT count(*) FROM pg_namespace")[0]]
    assert before  # the shared server may write meanwhile, so how far the log came proves nothing


# ── The way to it ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("changed", "code", "exit_code"),
    [
        ({"port": "1"}, "connection.unreachable", 1),
        ({"password": "wrong"}, "connection.refused", 2),
        ({"dbname": "not_there"}, "connection.refused", 2),
        ({"user": "not_there"}, "connection.refused", 2),
    ],
)
async def test_a_server_that_cannot_be_reached_is_one_finding(
    database: Database, changed: dict[str, str], code: str, exit_code: int
) -> None:
    report = await look(configure(make_conninfo(database.dsn, **changed)))
    (finding,) = report.findings
    assert (finding.level, finding.code, report.exit_code) == ("error", code, exit_code)
    assert finding.why
    assert "a password" not in finding.what and "wrong" not in finding.what


async def test_a_storage_that_cannot_be_reached_does_not_hide_the_source(database: Database) -> None:
    build_tables(database)
    config = configure(database.dsn, storage_dsn=make_conninfo(database.dsn, port="1"))
    report = await look(config)
    assert found(report, "storage.unreachable") and len(found(report, "table.identity")) == 7
    assert not found(await look(config, source_only=True), "storage.unreachable")


async def test_a_pooler_in_the_way_is_told_from_a_pooler_beside_it(database: Database) -> None:
    build_tables(database)
    async with pooled(database.dsn) as dsn:
        report = await look(configure(dsn))
        (finding,) = found(report, "connection.pooler")
        assert finding.level == "error" and "unsupported startup parameter: replication" in finding.why
        assert not found(report, "connection.replication") and len(found(report, "table.identity")) == 7
    async with pooled(database.dsn, passes_replication=True) as dsn:
        (finding,) = found(await look(configure(dsn)), "connection.pooler")
        assert finding.level == "warning"
    async with pooled(database.dsn) as dsn:
        report = await look(configure(database.dsn, storage_dsn=dsn))
        assert found(report, "storage.pooler") and not found(report, "connection.pooler")


# ── The role ─────────────────────────────────────────────────────────────────────────────────────


async def test_a_role_is_asked_for_nothing_it_has(database: Database, slot: str) -> None:
    build_tables(database)
    with a_role(database, slot, "LOGIN REPLICATION BYPASSRLS") as dsn:
        database.execute("ALTER TABLE users ENABLE ROW LEVEL SECURITY")
        database.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {slot}")
        database.execute(f"CREATE SCHEMA replicator AUTHORIZATION {slot}")
        report = await look(configure(dsn, slot=slot))
        groups = {group.name: group for group in report.groups}
        assert groups["role"].findings == () and groups["connection"].findings == ()
        assert not found(report, "storage.rights")


async def test_whose_transactions_are_open_is_told_to_who_may_know(database: Database, slot: str) -> None:
    build_tables(database)
    writer = database.connect()
    writer.execute("BEGIN")
    writer.execute("CREATE TABLE unfinished (id int)")
    with a_role(database, slot, "LOGIN REPLICATION") as dsn:
        (note,) = found(await look(configure(dsn, slot=slot)), "server.hidden_transactions")
        assert note.level == "note" and note.sql == f"GRANT pg_read_all_stats TO {slot};"
        database.execute(note.sql)
        assert not found(await look(configure(dsn, slot=slot)), "server.hidden_transactions")
    writer.execute("ROLLBACK")


# ── In a terminal ────────────────────────────────────────────────────────────────────────────────


def run(tmp_path: Path, database: Database, *arguments: str, rules: str = "t") -> Result:
    file = tmp_path / "replicator.yaml"
    (tmp_path / "rules.yaml").write_text(f"bucket_definitions: {{all: {{data: [SELECT * FROM {rules}]}}}}\n")
    file.write_text(f"source: {{dsn: '${{SOURCE_DSN}}', slot: s_{database.name}}}\n")
    environment = {**os.environ, "SOURCE_DSN": database.dsn}
    return CliRunner().invoke(main, [*arguments, "--config", str(file)], env=environment)


def test_json_is_a_list_of_findings_and_a_summary(database: Database, tmp_path: Path) -> None:
    database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    result = run(tmp_path, database, "check", "--json", "--sample", "0")
    facts = json.loads(result.stdout)
    assert result.exit_code == 1 and facts["ok"] is False
    levels = {finding["code"]: finding["level"] for finding in facts["findings"]}
    assert levels["publication.missing"] == "error" and facts["summary"]["errors"] == 1
    assert levels["table.identity"] == "note", "a table with a key works without FULL, too"
    assert {"level", "code", "about", "what", "why", "sql"} == set(facts["findings"][0])


def test_its_sql_alone_mends_it(database: Database, tmp_path: Path) -> None:
    database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    script = run(tmp_path, database, "check", "--sql", "--source-only", "--sample", "0")
    assert script.exit_code == 1
    # ALTER SYSTEM is for the whole server, which is not ours alone.
    text = "\n".join(line for line in script.stdout.splitlines() if "ALTER SYSTEM" not in line)
    database.execute(text)
    again = run(tmp_path, database, "check", "--source-only", "--sample", "0")
    assert again.exit_code == 0, again.stdout
    assert "ok: this source can be replicated" in again.stdout


def test_a_wrong_password_ends_with_2_and_is_not_shown(database: Database, tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text("bucket_definitions: {all: {data: [SELECT * FROM t]}}\n")
    (tmp_path / "replicator.yaml").write_text("source: {dsn: '${SOURCE_DSN}'}\n")
    dsn = make_conninfo(database.dsn, password="not-this-one")
    result = CliRunner().invoke(
        main, ["check", "--config", str(tmp_path / "replicator.yaml")], env={**os.environ, "SOURCE_DSN": dsn}
    )
    assert result.exit_code == 2 and "not-this-one" not in result.output


async def test_no_name_can_break_out_of_a_comment(database: Database) -> None:
    database.execute(
        'CREATE TABLE "x\nDROP TABLE important; --" (id int PRIMARY KEY); CREATE TABLE important (id int)'
    )
    report = await look(
        configure(database.dsn), rules_for("x\nDROP TABLE important; --", "y\nDROP TABLE important;")
    )
    database.execute("\n".join(line for line in script_of(report).splitlines() if "ALTER SYSTEM" not in line))
    assert database.execute("SELECT count(*) FROM important") == [(0,)]
    assert facts_of(report)["ok"] is False
