"""Other rules are built beside those in force, which go on; what means what it meant keeps its buckets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.faults.clinic import Clinic, rules_over
from tests.fixtures.children import Child, StartChild
from tests.fixtures.postgres import Database
from tests.oracle.tight import TIGHT

pytestmark = [pytest.mark.faults, pytest.mark.migrated]

TABLES = """
CREATE TABLE visits (id integer PRIMARY KEY, patient text, doctor text, note text);
CREATE TABLE wards (id integer PRIMARY KEY, patient text, doctor text);
ALTER TABLE visits REPLICA IDENTITY FULL;
INSERT INTO visits SELECT i, 'p' || i % 3, 'd' || i % 4, 'n' FROM generate_series(1, 30) AS i;
INSERT INTO wards SELECT i, 'p' || i % 3, 'd' || i % 4 FROM generate_series(1, 30) AS i;
CREATE PUBLICATION powersync FOR ALL TABLES;
"""
MINE = "SELECT request.user_id() AS x"
BEFORE: dict[str, tuple[str | None, str]] = {
    "mine": (MINE, "SELECT * FROM visits WHERE patient = bucket.x"),
    "all": (None, "SELECT * FROM wards"),
}
OTHER = BEFORE | {"mine": (MINE, "SELECT * FROM visits WHERE doctor = bucket.x")}
SETS = "SELECT id, state FROM replicator.rule_sets ORDER BY id"
KEPT = "SELECT count(*) FROM replicator.history WHERE bucket = '1#all[]'"
SHOWN = "SELECT shown_rules FROM replicator.checkpoints"
#: So that what is over is removed soon, where a test waits for that.
SOON = {"replicator.buckets.retire.GRACE_S": 0.0}


def text(definitions: dict[str, tuple[str | None, str]]) -> str:
    found: dict[str, Any] = {}
    for name, (asked, data) in definitions.items():
        found[name] = {"data": [data]} | ({"parameters": asked} if asked else {})
    return json.dumps({"bucket_definitions": found})


class Story:
    """A clinic with rules in force, and files that are to be."""

    def __init__(self, database: Database, folder: Path, children: StartChild) -> None:
        self.database, self.folder = database, folder
        bounds = {**TIGHT, **SOON}
        self.clinic = Clinic(database, folder, children, rules=text(BEFORE), bounds=bounds)
        self.running: Child

    async def begin(self) -> None:
        await self.clinic.build(tables=TABLES)
        self.running = self.clinic.run()
        self.clinic.catch_up()
        self.clinic.assert_equal()

    def stop(self) -> None:
        self.running.terminate()
        assert self.running.wait() == 0, self.running.stderr

    def write(self, rules: str) -> None:
        """Into the configured file."""
        self.clinic.rules.write_text(rules)

    def deploy(self, rules: str, *options: str) -> int:
        """By hand; from here on the comparison is with this file."""
        path = self.folder / f"other{len(list(self.folder.iterdir()))}.yaml"
        path.write_text(rules)
        code = self.clinic.ask("rules", "deploy", str(path), *options)
        self.clinic.rules = path
        return code

    def sets(self) -> list[tuple[Any, ...]]:
        return self.database.execute(SETS)


@pytest.fixture
async def story(database: Database, tmp_path: Path, children: StartChild) -> Story:
    made = Story(database, tmp_path, children)
    await made.begin()
    return made


async def test_what_is_in_force_goes_on_until_everything_is_there(story: Story) -> None:
    database = story.database
    story.stop()
    story.write(text(OTHER))
    kept = database.execute(KEPT)
    database.execute("UPDATE visits SET note = 'before' WHERE id % 3 = 0")
    story.running = story.clinic.run(block_at=("chunk", 3))
    story.running.wait_for("chunk", n=3)
    assert database.execute(SHOWN) == [(1,)] and story.sets() == [(1, "active"), (2, "preparing")]
    database.execute("UPDATE visits SET doctor = 'd9', note = 'meanwhile' WHERE id % 5 = 0")
    database.execute("DELETE FROM visits WHERE id % 7 = 0")
    story.running.go_on()
    story.clinic.catch_up()
    story.clinic.assert_equal()
    assert story.sets() == [(1, "retired"), (2, "active")]
    assert database.execute(KEPT) == kept
    assert story.running.count("copying", table="public.wards") == 0
    database.execute("UPDATE visits SET doctor = 'd8' WHERE id = 1")
    story.clinic.catch_up()
    story.clinic.assert_equal()


async def test_rules_are_deployed_by_hand_while_it_runs(story: Story) -> None:
    assert story.deploy(text(OTHER)) == 0
    story.clinic.catch_up()
    story.clinic.assert_equal()
    assert story.sets() == [(1, "retired"), (2, "active")]
    # They stay over a restart, until the file is another.
    story.stop()
    story.running = story.clinic.run()
    story.clinic.catch_up()
    story.clinic.assert_equal()
    assert story.sets() == [(1, "retired"), (2, "active")]


@pytest.mark.parametrize("mark", [("chunk", 2), ("copied", 1), ("rules switched", 1), ("rules begun", 1)])
async def test_killed_in_the_middle_it_goes_on(story: Story, mark: tuple[str, int]) -> None:
    story.stop()
    story.write(text(OTHER | {"wards": (MINE, "SELECT * FROM wards AS mine WHERE doctor = bucket.x")}))
    killed = story.clinic.run(kill_at=mark)
    assert killed.wait() == -9
    story.database.execute("UPDATE visits SET doctor = 'd7' WHERE id % 2 = 0")
    story.database.execute("UPDATE wards SET doctor = 'd7' WHERE id % 2 = 0")
    story.running = story.clinic.run()
    story.clinic.catch_up()
    story.clinic.assert_equal()
    assert [state for _, state in story.sets()] == ["retired", "active"]


@pytest.mark.parametrize(
    "same",
    [
        "# a comment\n" + text(BEFORE),
        text(BEFORE).replace("SELECT * FROM visits", "SELECT  *  FROM visits"),
        text(BEFORE).replace('"data"', '"priority": 1, "data"'),
        text(BEFORE).replace("request.user_id()", "request.jwt() ->> 'x'"),
    ],
)
async def test_what_changes_no_bucket_copies_nothing(story: Story, same: str) -> None:
    ops = story.database.execute("SELECT count(*) FROM replicator.ops")
    assert story.deploy(same) == 0
    story.clinic.catch_up()
    story.clinic.assert_equal()
    assert story.clinic.in_force()[2].buckets() == {"1#mine", "1#all"}
    assert story.running.count("copying") == 2  # at the very first
    assert story.database.execute("SELECT count(*) FROM replicator.ops") == ops


async def test_a_table_that_is_not_there_keeps_the_rules_that_are_in_force(story: Story) -> None:
    story.stop()
    story.write(text(OTHER | {"beds": (None, "SELECT * FROM beds")}))
    story.running = story.clinic.run()
    story.running.wait_for("rules failed")
    story.clinic.rules = story.folder / "before.yaml"
    story.clinic.rules.write_text(text(BEFORE))
    story.database.execute("UPDATE visits SET patient = 'p9' WHERE id < 9")
    story.clinic.catch_up()
    story.clinic.assert_equal()
    ((why,),) = story.database.execute("SELECT why FROM replicator.rule_sets WHERE id = 2")
    assert why == "the source has no table public.beds"
    # It is tried once more by each process, and succeeds when what was missing is there.
    story.stop()
    story.database.execute("CREATE TABLE beds (id integer PRIMARY KEY)")
    story.database.execute("INSERT INTO beds VALUES (1)")
    story.clinic.rules = story.folder / "rules.yaml"
    story.running = story.clinic.run()
    story.clinic.catch_up()
    story.clinic.assert_equal()
    assert story.sets() == [(1, "retired"), (2, "failed"), (3, "active")]


async def test_a_table_without_a_key_keeps_the_rules_that_are_in_force(story: Story) -> None:
    story.stop()
    story.database.execute("CREATE TABLE beds (id integer)")
    story.write(text(OTHER | {"beds": (None, "SELECT * FROM beds")}))
    story.running = story.clinic.run()
    story.running.wait_for("rules failed")
    assert story.sets() == [(1, "active"), (2, "failed")]
    story.clinic.rules = story.folder / "before.yaml"
    story.clinic.rules.write_text(text(BEFORE))
    story.clinic.catch_up()
    story.clinic.assert_equal()


async def test_a_table_that_may_not_be_read_keeps_the_rules_that_are_in_force(
    story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    story.stop()
    # An owner may read every table.
    monkeypatch.setattr(Database, "with_least_role", True)
    role, keys = story.database.role, json.loads(story.clinic.path.read_text())
    keys["source"]["dsn"] = story.database.dsn
    story.clinic.path.write_text(json.dumps(keys))
    story.database.execute("CREATE TABLE beds (id integer PRIMARY KEY)")
    story.database.execute(f"REVOKE SELECT ON beds FROM {role}")
    story.write(text(OTHER | {"beds": (None, "SELECT * FROM beds")}))
    story.running = story.clinic.run()
    story.running.wait_for("rules failed")
    assert story.sets() == [(1, "active"), (2, "failed")]
    ((why,),) = story.database.execute("SELECT why FROM replicator.rule_sets WHERE id = 2")
    assert why == f"role {role} may not read public.beds"
    story.clinic.rules = story.folder / "before.yaml"
    story.clinic.rules.write_text(text(BEFORE))
    story.clinic.catch_up()
    story.clinic.assert_equal()


@pytest.mark.parametrize("when", ["before", "meanwhile"])
async def test_a_column_that_is_not_there_keeps_the_rules_that_are_in_force(story: Story, when: str) -> None:
    story.stop()
    story.database.execute("CREATE TABLE beds (id integer PRIMARY KEY, nurse text)")
    if when == "before":
        story.database.execute("ALTER TABLE beds DROP nurse")
    story.write(text(OTHER | {"beds": (MINE, "SELECT * FROM beds WHERE nurse = bucket.x")}))
    if when == "meanwhile":
        killed = story.clinic.run(kill_at=("rules begun", 1))
        assert killed.wait() == -9
        story.database.execute("ALTER TABLE beds DROP nurse")
        story.database.execute("INSERT INTO beds VALUES (1)")
    story.running = story.clinic.run()
    story.running.wait_for("rules failed")
    assert story.sets() == [(1, "active"), (2, "failed")]
    ((why,),) = story.database.execute("SELECT why FROM replicator.rule_sets WHERE id = 2")
    assert why == 'table "public"."beds" has no column "nurse", which the rules need'
    story.clinic.rules = story.folder / "before.yaml"
    story.clinic.rules.write_text(text(BEFORE))
    story.database.execute("UPDATE visits SET patient = 'p9' WHERE id < 9")
    story.clinic.catch_up()
    story.clinic.assert_equal()


async def test_a_column_dropped_under_rules_that_name_it_is_come_back_from_by_adding_it_again(
    story: Story,
) -> None:
    story.database.execute("ALTER TABLE visits DROP patient")
    story.database.execute("INSERT INTO visits VALUES (31, 'd1', 'n')")
    assert story.running.wait() == 1
    assert "With rules that do not need it" in story.running.stderr
    story.database.execute("ALTER TABLE visits ADD patient text")
    assert story.clinic.ask("slot", "drop", "--yes") == 0
    assert story.clinic.ask("snapshot", "--all", "--no-wait") == 0
    story.write(text(OTHER))
    story.running = story.clinic.run()
    story.clinic.catch_up()
    story.clinic.assert_equal()
    assert story.sets() == [(1, "retired"), (2, "active")]
    # Until it has opened anew, it still works by the rules that it had before as well.
    story.running.wait_for("rules in force", rules=2)
    story.database.execute("ALTER TABLE visits DROP patient")
    story.database.execute("INSERT INTO visits VALUES (32, 'd1', 'n')")
    story.clinic.catch_up()
    story.clinic.assert_equal()


async def test_the_verb_refuses_what_cannot_be_and_says_why(story: Story) -> None:
    assert story.deploy(text({"beds": (None, "SELECT * FROM beds")})) == 1
    assert story.deploy(text(OTHER | {"all": (MINE, "SELECT * FROM wards WHERE nurse = bucket.x")})) == 1
    assert story.deploy("bucket_definitions: {mine: {data: [SELEC]}}") == 2
    assert story.sets() == [(1, "active")]


async def test_a_second_deploy_takes_the_place_of_the_first(story: Story) -> None:
    story.stop()
    assert story.deploy(text(OTHER), "--no-wait") == 0
    killed = story.clinic.run(kill_at=("chunk", 2))
    assert killed.wait() == -9
    assert story.deploy(text(OTHER | {"all": (None, "SELECT * FROM wards AS rooms")}), "--no-wait") == 0
    story.running = story.clinic.run()
    story.clinic.catch_up()
    story.clinic.assert_equal()
    assert story.sets() == [(1, "retired"), (2, "retired"), (3, "active")]
    assert story.clinic.in_force()[2].buckets() == {"3#mine", "3#all"}


async def test_a_table_is_copied_again_for_everybody_in_the_middle(story: Story) -> None:
    story.stop()
    story.write(text(OTHER))
    killed = story.clinic.run(kill_at=("chunk", 2))
    assert killed.wait() == -9
    assert story.clinic.ask("snapshot", "visits", "--no-wait") == 0
    story.database.execute("UPDATE visits SET doctor = 'd7' WHERE id % 2 = 0")
    story.running = story.clinic.run()
    story.clinic.catch_up()
    story.clinic.assert_equal()


async def test_everything_is_begun_again_in_the_middle(story: Story) -> None:
    story.stop()
    story.write(text(OTHER))
    killed = story.clinic.run(kill_at=("chunk", 2))
    assert killed.wait() == -9
    story.database.drop_slot(story.clinic.slot)
    story.database.execute("UPDATE visits SET doctor = 'd7', patient = 'p7' WHERE id % 2 = 0")
    assert story.clinic.ask("snapshot", "--all", "--no-wait") == 0
    story.running = story.clinic.run()
    story.clinic.catch_up()
    story.clinic.assert_equal()


async def test_readers_do_not_wait_for_a_table_that_only_new_rules_read(story: Story) -> None:
    story.stop()
    story.database.execute("CREATE TABLE beds (id integer PRIMARY KEY, ward text)")
    story.database.execute("INSERT INTO beds SELECT i, 'w' || i % 3 FROM generate_series(1, 40) AS i")
    story.write(text(BEFORE | {"beds": (MINE, "SELECT * FROM beds WHERE ward = bucket.x")}))
    killed = story.clinic.run(kill_at=("chunk", 3))
    assert killed.wait() == -9
    lagging = "SELECT shown_op_id = op_id AND shown_lsn = lsn, shown_rules FROM replicator.checkpoints"
    assert story.database.execute(lagging) == [(True, 1)]
    assert story.database.execute("SELECT state FROM replicator.tables WHERE name = 'beds'") == [("copying",)]
    story.running = story.clinic.run()
    story.clinic.catch_up()
    story.clinic.assert_equal()


async def test_what_only_rules_that_are_over_needed_is_removed(story: Story) -> None:
    looked = "SELECT * FROM visits WHERE doctor IN (SELECT doctor FROM wards WHERE patient = bucket.x)"
    assert story.deploy(text(BEFORE | {"mine": (MINE, looked)})) == 0
    story.running.wait_for("rules cleaned", n=1)
    assert story.deploy(rules_over(wards="patient")) == 0
    story.running.wait_for("rules cleaned", n=2)
    story.running.wait_for("table gone")
    story.clinic.catch_up()
    story.clinic.assert_equal()
    buckets = "SELECT DISTINCT split_part(bucket, '[', 1) FROM replicator.history"
    assert story.database.execute(buckets) == [("3#mine",)]
    assert story.database.execute("SELECT lookup FROM replicator.lookups") == []
    assert story.database.execute("SELECT name FROM replicator.tables") == [("wards",)]


@pytest.mark.parametrize("read", [1, 2, 4, 5])
async def test_rows_that_change_while_they_are_read_are_entered_and_put(story: Story, read: int) -> None:
    story.stop()
    joined = "SELECT * FROM visits WHERE id IN (SELECT id FROM wards WHERE patient = bucket.x)"
    story.write(text(BEFORE | {"mine": (MINE, joined)}))
    story.running = story.clinic.run(block_at=("read", read))
    story.running.wait_for("read", n=read)
    # Between the marks of a chunk: what it holds gives way to this, which changes nothing.
    story.database.execute("UPDATE wards SET id = id")
    story.database.execute("UPDATE visits SET id = id")
    story.running.go_on()
    story.clinic.catch_up()
    held = """
        SELECT DISTINCT ON (bucket, object_id) bucket, object_id, op FROM replicator.history
        WHERE bucket LIKE '2#mine%' ORDER BY bucket, object_id, op_id DESC"""
    granted = """
        SELECT '2#mine["' || w.patient || '"]', v.id::text, 'PUT' FROM visits v JOIN wards w USING (id)"""
    assert set(story.database.execute(held)) == set(story.database.execute(granted))
