"""Rules that name what we store ourselves are refused, wherever they come from: they would never end."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.faults.clinic import Clinic
from tests.faults.test_rules_deployed import BEFORE, TABLES, Story, text
from tests.fixtures.children import StartChild
from tests.fixtures.postgres import Database

pytestmark = [pytest.mark.faults, pytest.mark.migrated]

OPS: dict[str, tuple[str | None, str]] = {"ops": (None, "SELECT op_id AS id, * FROM replicator.ops")}
MANY: dict[str, tuple[str | None, str]] = {"many": (None, 'SELECT * FROM "re%"."%"')}
SLOTS = "SELECT count(*) FROM pg_replication_slots WHERE database = current_database()"


@pytest.fixture
async def story(database: Database, tmp_path: Path, children: StartChild) -> Story:
    made = Story(database, tmp_path, children)
    await made.begin()
    return made


async def test_nothing_is_begun_with_them(database: Database, tmp_path: Path, children: StartChild) -> None:
    clinic = Clinic(database, tmp_path, children, rules=text({**BEFORE, **OPS}))
    await clinic.build(tables=TABLES)
    running = clinic.run()
    assert await asyncio.to_thread(running.wait) != 0
    assert "the rules name replicator.ops, a table of the storage" in running.stderr
    assert database.execute(SLOTS) == [(0,)]


async def test_those_in_force_stay_when_a_file_names_it(story: Story) -> None:
    story.stop()
    story.write(text({**BEFORE, **OPS}))
    story.running = story.clinic.run()
    story.running.wait_for("rules failed")
    story.clinic.rules = story.folder / "before.yaml"
    story.clinic.rules.write_text(text(BEFORE))
    story.database.execute("UPDATE visits SET patient = 'p9' WHERE id < 9")
    story.clinic.catch_up()
    story.clinic.assert_equal()
    ((why,),) = story.database.execute("SELECT why FROM replicator.rule_sets WHERE id = 2")
    assert why == "the rules name replicator.ops, a table of the storage"


async def test_it_is_not_deployed_by_hand(story: Story) -> None:
    assert story.deploy(text({**BEFORE, **OPS})) == 1
    assert story.sets() == [(1, "active")]


async def test_those_who_look_say_so(database: Database, tmp_path: Path, children: StartChild) -> None:
    clinic = Clinic(database, tmp_path, children, rules=text({**BEFORE, **OPS}))
    await clinic.build(tables=TABLES)
    check = children("check", "--config", clinic.path)
    assert await asyncio.to_thread(check.wait) == 1
    assert "replicator.ops is a table of the storage" in check.stdout
    plan = children("publication", "plan", "--config", clinic.path)
    assert await asyncio.to_thread(plan.wait) == 1
    assert "-- BY HAND: replicator.ops is a table of the storage" in plan.stdout
    assert "ADD TABLE" not in plan.stdout
    validate = children("rules", "validate", "--source", "--config", clinic.path)
    assert await asyncio.to_thread(validate.wait) == 1
    assert "replicator.ops is a table of the storage" in validate.stdout


async def test_a_name_that_may_mean_many_means_nothing_of_it(story: Story) -> None:
    """Also where the publication sends everything."""
    story.database.execute("CREATE SCHEMA records CREATE TABLE beds (id integer PRIMARY KEY, note text)")
    story.database.execute("INSERT INTO records.beds VALUES (1, 'n')")
    assert story.deploy(text(MANY)) == 0
    story.running.wait_for("rules in force", rules=2)
    story.database.execute("UPDATE records.beds SET note = 'n2'")
    story.database.execute("INSERT INTO records.beds VALUES (2, 'n')")
    story.clinic.catch_up()
    followed = "SELECT namespace, name FROM replicator.tables WHERE for_rules IS NULL"
    assert story.database.execute(followed) == [("records", "beds")]
    held = "SELECT count(*) FROM replicator.history WHERE bucket LIKE '2#many%'"
    assert story.database.execute(held) == [(3,)]
    assert story.clinic.ask("verify") == 0
