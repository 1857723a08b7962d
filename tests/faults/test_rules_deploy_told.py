"""`rules deploy --dry-run` and `rules list` say what would be, and what is."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from replicator import queries
from replicator.database import connected, migrate
from replicator.observe.copies import Missed
from tests.faults.clinic import rules_over
from tests.faults.test_rules_deployed import BEFORE, MINE, OTHER, Story, story, text
from tests.fixtures.children import StartChild
from tests.fixtures.postgres import Database
from tests.oracle.tight import bounded

__all__ = ["story"]
pytestmark = [pytest.mark.faults, pytest.mark.migrated]


def told(story: Story, children: StartChild, *verb: str) -> tuple[int, str]:
    child = children(*verb, "--config", story.clinic.path)
    return child.wait(), child.stdout


async def test_a_dry_run_estimates_and_changes_nothing(story: Story, children: StartChild) -> None:
    story.database.execute("ANALYZE")
    path = story.folder / "other.yaml"
    path.write_text(text(OTHER | {"beds": (MINE, "SELECT * FROM wards AS beds WHERE doctor = bucket.x")}))
    code, said = told(story, children, "rules", "deploy", str(path), "--dry-run", "--json")
    facts = json.loads(said)
    assert code == 0
    assert facts["definitions"] == {"mine": "changed", "all": "kept", "beds": "new"}
    assert [(table["table"], table["rows"], table["buckets_per_row"]) for table in facts["tables"]] == [
        ("visits", 30, 1),
        ("wards", 30, 1),
    ]
    assert facts["rows"] == 60 and facts["bytes"] > 60 * 100 and facts["rows_per_second"] == 30_000
    code, said = told(story, children, "rules", "deploy", str(path), "--dry-run")
    assert code == 0 and "visits  about 30 rows" in said and "Rules 1 stay in force" in said
    path.write_text(rules_over(wards="patient"))
    code, said = told(story, children, "rules", "deploy", str(path), "--dry-run", "--json")
    assert json.loads(said)["definitions"] == {"mine": "changed", "all": "dropped"}
    path.write_text("# new\n" + text(BEFORE))
    code, said = told(story, children, "rules", "deploy", str(path), "--dry-run")
    assert "Nothing has to be read" in said
    assert story.sets() == [(1, "active")]


async def test_tables_that_were_never_looked_at_are_estimated_by_their_size(
    story: Story, children: StartChild
) -> None:
    """As they are after a restore, before autovacuum has been there."""
    story.database.execute("ALTER TABLE visits SET (autovacuum_enabled = false)")
    story.database.execute("INSERT INTO visits SELECT i, 'p', 'd', 'n' FROM generate_series(31, 20000) AS i")
    story.database.execute(
        "CREATE TABLE measured (id integer, day date, value float8, PRIMARY KEY (id, day))"
        "  PARTITION BY RANGE (day);"
        "CREATE TABLE measured_early PARTITION OF measured FOR VALUES FROM (MINVALUE) TO ('2020-01-01')"
        "  WITH (autovacuum_enabled = false);"
        "CREATE TABLE measured_late PARTITION OF measured FOR VALUES FROM ('2020-01-01') TO (MAXVALUE)"
        "  WITH (autovacuum_enabled = false);"
        "ALTER PUBLICATION powersync SET (publish_via_partition_root = true);"
        "INSERT INTO measured SELECT i, date '2019-07-01' + i % 365, i FROM generate_series(1, 5000) AS i"
    )
    never = (
        "SELECT count(*) FROM pg_class "
        "WHERE relname ~ '^(visits|measured_early|measured_late)$' AND reltuples < 0"
    )
    assert story.database.execute(never) == [(3,)]
    path = story.folder / "other.yaml"
    data = [
        "SELECT * FROM visits WHERE doctor = bucket.x",
        "SELECT * FROM measured WHERE id::text = bucket.x",
    ]
    path.write_text(json.dumps({"bucket_definitions": {"mine": {"parameters": MINE, "data": data}}}))
    code, said = told(story, children, "rules", "deploy", str(path), "--dry-run", "--json")
    assert code == 0, said
    rows = {table["table"]: table["rows"] for table in json.loads(said)["tables"]}
    assert 5_000 <= rows["visits"] <= 40_000 and 2_500 <= rows["measured"] <= 10_000


async def test_a_deploy_is_told_to_people_and_programs(story: Story, children: StartChild) -> None:
    path: Path = story.folder / "other.yaml"
    path.write_text(text(OTHER))
    code, said = told(story, children, "rules", "deploy", str(path))
    assert code == 0 and said.splitlines()[-1] == "rules 2 are in force"
    path.write_text(text(BEFORE))
    code, said = told(story, children, "rules", "deploy", str(path), "--json")
    assert code == 0
    assert json.loads(said) == {
        "rules": 3,
        "state": "active",
        "why": None,
        "definitions": {"mine": "changed", "all": "kept"},
    }
    code, said = told(story, children, "rules", "list", "--json")
    sets = {one["rules"]: one for one in json.loads(said)["rules"]}
    assert {number: one["state"] for number, one in sets.items()} == {1: "retired", 2: "retired", 3: "active"}
    assert sets[3]["definitions"] == {"mine": 3, "all": 1} and sets[3]["origin"] == "command"
    code, said = told(story, children, "rules", "list")
    assert code == 0 and "3  in force  from rules deploy" in said and "1#all, 3#mine" in said


async def test_a_bucket_is_found_by_its_name_in_the_rules(story: Story, children: StartChild) -> None:
    assert story.deploy(text(OTHER)) == 0
    for name in ('mine["d1"]', '2#mine["d1"]'):
        code, said = told(story, children, "tail", "--bucket", name, "--from-start", "--limit", "1")
        assert code == 0 and '2#mine["d1"]' in said
        assert told(story, children, "compact", "--bucket", name)[0] == 0
    assert told(story, children, "compact", "--bucket", '1#all["d1"]')[0] == 2


async def test_what_the_source_lacks_is_named_by_its_place(story: Story, children: StartChild) -> None:
    path = story.folder / "other.yaml"
    path.write_text("""bucket_definitions:
  mine:
    parameters: SELECT request.user_id() AS x
    data:
      - SELECT * FROM visits WHERE nurse = bucket.x
      - SELECT * FROM visit WHERE doctor = bucket.x
""")
    for options in ((), ("--dry-run",)):
        child = children("rules", "deploy", str(path), *options, "--config", story.clinic.path)
        assert child.wait() == 1
        assert f"error: {path}:5:36: mine.data[0]: visits has no column nurse" in child.stderr
        assert "; and 1 more like it\n  What is in force goes on. Nothing was deployed." in child.stderr
    assert story.sets() == [(1, "active")]


async def test_a_table_that_may_not_be_read_is_named_with_what_mends_it(
    story: Story, children: StartChild, monkeypatch: pytest.MonkeyPatch
) -> None:
    # An owner may read every table.
    monkeypatch.setattr(Database, "with_least_role", True)
    role, keys = story.database.role, json.loads(story.clinic.path.read_text())
    keys["source"]["dsn"] = story.database.dsn
    story.clinic.path.write_text(json.dumps(keys))
    story.database.execute("CREATE TABLE beds (id integer PRIMARY KEY)")
    story.database.execute(f"REVOKE SELECT ON beds FROM {role}")
    path = story.folder / "other.yaml"
    path.write_text(text(OTHER | {"beds": (None, "SELECT * FROM beds")}))
    for options in ((), ("--dry-run",)):
        child = children("rules", "deploy", str(path), *options, "--config", story.clinic.path)
        assert child.wait() == 1
        assert (
            f"error: role {role} may not read public.beds\n  GRANT SELECT ON public.beds TO {role};"
            in child.stderr
        )
    assert story.sets() == [(1, "active")]


async def test_whoever_takes_up_the_work_a_little_later_is_not_missed(
    database: Database,
) -> None:
    """As after a start, or when one that stood by takes over."""
    await migrate(database.dsn, "replicator")
    dsn = database.dsn
    with bounded({"replicator.observe.copies._MISSED_S": 60.0, "replicator.observe.copies._LOOK_S": 0.01}):
        async with (
            connected(dsn, "test", schema="replicator") as storage,
            connected(dsn, "test", schema="replicator") as writer,
        ):
            waiting = asyncio.create_task(Missed(storage, "a slot").is_missed())
            news = [await Missed(writer, "a slot").is_news() for _ in range(20)]
            await writer.execute(queries.load("buckets").lock_writer, {"slot": "a slot"})
            assert await waiting is False and not any(news)
    with bounded({"replicator.observe.copies._MISSED_S": 0.0}):
        async with connected(dsn, "test", schema="replicator") as storage:
            missed = Missed(storage, "another slot")
            assert await missed.is_news() and not await missed.is_news()


async def test_where_nothing_runs_that_is_said(story: Story, children: StartChild) -> None:
    story.stop()
    path = story.folder / "other.yaml"
    path.write_text(text(OTHER))
    child = children("rules", "deploy", str(path), "--no-wait", "--config", story.clinic.path)
    assert child.wait() == 0
    assert "the next `replicator run` does it" in child.stderr
    code, said = told(story, children, "rules", "list")
    assert code == 0 and "2  being prepared" in said
