"""What `replicator check` says of tables and publications; above all, that its SQL does no harm."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import psycopg
import pytest

from replicator.observe.publication import plan
from tests.database.clinics import build_tables, configure, found, look, rules_for, wrong

if TYPE_CHECKING:
    from replicator.wal.finding import Finding
    from tests.fixtures.postgres import Database


@pytest.fixture
def slot(database: Database) -> str:
    """A name no other test of this server has."""
    return f"s_{database.name}"


async def test_a_misspelt_table_or_column_is_told_with_what_was_meant(database: Database) -> None:
    database.execute("CREATE TABLE vital_signs (id int PRIMARY KEY, patient_id int)")
    database.execute("CREATE SCHEMA lab CREATE TABLE results (id int PRIMARY KEY)")
    rules = rules_for("vital_sign", "results", "vital_signs", column="patientid")
    report = await look(configure(database.dsn), rules)
    assert {finding.what for finding in found(report, "table.missing")} == {
        "there is no table public.vital_sign; did you mean public.vital_signs?",
        "there is no table public.results; did you mean lab.results?",
    }
    (column,) = found(report, "table.column")
    assert column.what == "public.vital_signs has no column patientid; did you mean patient_id?"


@pytest.mark.parametrize(
    ("create", "what"),
    [
        ("CREATE VIEW t AS SELECT 1 AS id", "public.t is a view"),
        ("CREATE MATERIALIZED VIEW t AS SELECT 1 AS id", "public.t is a materialized view"),
    ],
)
async def test_what_is_not_in_the_log_is_refused(database: Database, create: str, what: str) -> None:
    database.execute(create)
    report = await look(configure(database.dsn), rules_for("t"))
    assert [(finding.what, finding.sql) for finding in found(report, "table.kind")] == [(what, "")]


#: Tables and publications that are hard to have right; each is followed by UPDATEs of the application.
SITUATIONS = {
    "an ordinary table": "CREATE TABLE t (id int PRIMARY KEY, a text)",
    "no key": "CREATE TABLE t (id int NOT NULL, a text)",
    "nothing": "CREATE TABLE t (id int PRIMARY KEY, a text); ALTER TABLE t REPLICA IDENTITY NOTHING",
    "an index": """CREATE TABLE t (id int PRIMARY KEY, a text NOT NULL UNIQUE);
        ALTER TABLE t REPLICA IDENTITY USING INDEX t_a_key""",
    "unlogged": "CREATE UNLOGGED TABLE t (id int PRIMARY KEY, a text)",
    "an odd name": """CREATE TABLE "Odd Name" (id int PRIMARY KEY, a text)""",
    "a reserved word": """CREATE TABLE "user" (id int PRIMARY KEY, a text)""",
    "published insert only": """CREATE TABLE t (id int PRIMARY KEY, a text);
        CREATE PUBLICATION powersync FOR TABLE t WITH (publish = 'insert')""",
    "published without the other table": """CREATE TABLE t (id int PRIMARY KEY, a text);
        CREATE TABLE u (id int PRIMARY KEY, a text); CREATE PUBLICATION powersync FOR TABLE u""",
    "all tables": "CREATE TABLE t (id int NOT NULL, a text); CREATE PUBLICATION powersync FOR ALL TABLES",
    "insert only, with a table that has no identity": """CREATE TABLE t (id int PRIMARY KEY, a text);
        CREATE TABLE other (id int, a text);
        CREATE PUBLICATION powersync FOR TABLE t, other WITH (publish = 'insert')""",
    "partitioned": """CREATE TABLE t (id int PRIMARY KEY, a text) PARTITION BY RANGE (id);
        CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (10);
        CREATE PUBLICATION powersync FOR TABLE t""",
    "generated": "CREATE TABLE t (id int PRIMARY KEY, a text, g int GENERATED ALWAYS AS (id * 2) STORED)",
    "generated and published": """
        CREATE TABLE t (id int PRIMARY KEY, a text, g int GENERATED ALWAYS AS (id) STORED);
        CREATE PUBLICATION powersync FOR TABLE t""",
    "generated and published by somebody else": """CREATE TABLE t (id int PRIMARY KEY, a text,
            g int GENERATED ALWAYS AS (id * 2) STORED);
        CREATE PUBLICATION theirs FOR TABLE t""",
}
SINCE_15 = {
    "a column list": """CREATE TABLE t (id int PRIMARY KEY, a text, b text);
        CREATE PUBLICATION powersync FOR TABLE t (id, a)""",
    "somebody else's column list": """CREATE TABLE t (id int PRIMARY KEY, a text, b text);
        CREATE PUBLICATION theirs FOR TABLE t (id, a)""",
    "a row filter": """CREATE TABLE t (id int PRIMARY KEY, a text);
        CREATE PUBLICATION powersync FOR TABLE t WHERE (id > 0)""",
    "a column list and a row filter": """CREATE TABLE t (id int PRIMARY KEY, a text, b text);
        CREATE PUBLICATION powersync FOR TABLE t (id, a) WHERE (id > 0)""",
    "a schema": """CREATE TABLE t (id int NOT NULL, a text);
        CREATE PUBLICATION powersync FOR TABLES IN SCHEMA public""",
}
SINCE_18 = {
    "virtual": "CREATE TABLE t (id int PRIMARY KEY, a text, g int GENERATED ALWAYS AS (id * 2) VIRTUAL)",
    "virtual and published": """
        CREATE TABLE t (id int PRIMARY KEY, a text, g int GENERATED ALWAYS AS (id) VIRTUAL);
        CREATE PUBLICATION powersync FOR TABLE t""",
}
#: What nothing but a decision of the DBA can mend, by code of what is left.
LEFT = {
    "insert only, with a table that has no identity": {"publication.operations"},
    "a column list and a row filter": {"table.column_list"},
    "virtual": {"table.generated"},
    "virtual and published": {"table.generated"},
}


def tables(database: Database) -> list[str]:
    """The application's tables, in SQL."""
    query = """
        SELECT oid::regclass::text FROM pg_class
        WHERE relkind IN ('r', 'p') AND NOT relispartition AND relnamespace = 'public'::regnamespace"""
    return [name for (name,) in database.execute(query)]


def writable(database: Database, names: list[str]) -> set[str]:
    """Where the application may change what it has written."""
    fine = set()
    for name in names:
        with contextlib.suppress(
            psycopg.errors.ObjectNotInPrerequisiteState, psycopg.errors.InvalidColumnReference
        ):
            database.execute(f"UPDATE {name} SET a = a || '+'; DELETE FROM {name}")
            fine.add(name)
        database.execute(f"INSERT INTO {name} (id, a) SELECT 1, 'a' WHERE NOT EXISTS (SELECT FROM {name})")
    return fine


@pytest.mark.parametrize("whole_rows", [False, True], ids=["keep", "full"])
@pytest.mark.parametrize("situation", [*SITUATIONS, *SINCE_15, *SINCE_18])
async def test_no_sql_it_gives_ends_the_writes_of_the_application(
    database: Database, slot: str, situation: str, whole_rows: bool
) -> None:
    version = database.server.version
    if (situation in SINCE_15 and version < 15) or (situation in SINCE_18 and version < 18):
        pytest.skip(f"Postgres {version} does not have this")
    database.execute((SITUATIONS | SINCE_15 | SINCE_18)[situation])
    names = tables(database)
    for name in names:
        database.execute(f"INSERT INTO {name} (id, a) VALUES (1, 'a')")
    fine = writable(database, names)
    ours = "Odd Name" if situation == "an odd name" else "user" if situation == "a reserved word" else "t"
    config, rules = configure(database.dsn, slot=slot), rules_for(ours)

    async def findings() -> AsyncIterator[Finding]:
        for finding in (await look(config, rules)).findings:
            yield finding
        if whole_rows:
            for finding in (await plan(config, rules, None, whole_rows=True)).plan.steps:
                yield finding

    async for finding in findings():
        if finding.sql and "ALTER SYSTEM" not in finding.sql:
            database.execute(finding.sql)
            now = writable(database, names)
            assert now >= fine, f"after {finding.sql}"
            fine = now
    assert fine == set(names)
    left = {problem.partition(":")[0] for problem in wrong(await look(config, rules))}
    expected = LEFT.get(situation, set())
    if situation.startswith("generated") and version < 18:
        expected = {"table.generated"}
    assert left == expected


async def test_partitions_and_whole_tables_are_asked_for_under_the_name_they_are_sent(
    database: Database,
) -> None:
    database.execute("""
        CREATE TABLE t (id int PRIMARY KEY, a text) PARTITION BY RANGE (id);
        CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (10);
        CREATE PUBLICATION powersync FOR TABLE t WITH (publish_via_partition_root = true)""")
    config = configure(database.dsn)
    assert not found(await look(config, rules_for("t")), "publication.via_root")
    (leaf,) = found(await look(config, rules_for("t1")), "publication.via_root")
    assert leaf.sql == "ALTER PUBLICATION powersync SET (publish_via_partition_root = false);"
    database.execute(leaf.sql)
    assert not found(await look(config, rules_for("t1")), "publication.via_root")
    (root,) = found(await look(config, rules_for("t")), "publication.via_root")
    assert root.sql == "ALTER PUBLICATION powersync SET (publish_via_partition_root = true);"
    (both,) = found(await look(config, rules_for("t", "t1")), "publication.via_root")
    assert both.sql == ""


async def test_a_statement_is_spoken_of_only_where_there_is_one(database: Database) -> None:
    database.execute("CREATE TABLE t (id int); CREATE TABLE audit_log (at timestamptz)")
    report = await look(configure(database.dsn), rules_for("t", "audit_log"))
    other, one = sorted(found(report, "table.key"), key=lambda finding: finding.about)
    assert one.sql == "ALTER TABLE public.t ADD PRIMARY KEY (id);" and "The statement" in one.why
    assert other.sql == "" and "The statement" not in other.why and "ADD PRIMARY KEY (…)" in other.why


async def test_a_deferrable_key_is_an_error_that_its_statement_mends(database: Database) -> None:
    database.execute("CREATE TABLE t (a text, id int, PRIMARY KEY (id, a) DEFERRABLE)")
    (late,) = found(await look(configure(database.dsn), rules_for("t")), "table.key")
    assert late.level == "error" and late.what == "the primary key of public.t is DEFERRABLE"
    database.execute(late.sql)
    assert not found(await look(configure(database.dsn), rules_for("t")), "table.key")


async def test_what_is_published_and_not_needed_is_worth_a_note_only(database: Database) -> None:
    build_tables(database)
    database.execute("CREATE TABLE more (id int PRIMARY KEY)")
    database.execute("CREATE PUBLICATION powersync FOR TABLE users, more")
    (note,) = found(await look(configure(database.dsn)), "publication.unneeded")
    assert note.level == "note" and note.what.endswith("what no rule needs: public.more") and not note.sql
    database.execute("DROP PUBLICATION powersync; CREATE PUBLICATION powersync FOR ALL TABLES")
    report = await look(configure(database.dsn))
    assert found(report, "publication.own_tables") and found(report, "publication.unneeded")
