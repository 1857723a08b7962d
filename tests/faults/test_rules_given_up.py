"""A column that rules in force name is gone: others take over that do not need it, with nothing half done."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.test_rules_deployed import BEFORE, KEPT, MINE, OTHER, SHOWN, Story, text
from tests.fixtures.children import StartChild
from tests.fixtures.postgres import Database

pytestmark = [pytest.mark.faults, pytest.mark.migrated]

#: The rows that readers see, in every bucket.
SEEN = """
SELECT bucket, object_id, data FROM (
    SELECT DISTINCT ON (bucket, object_type, object_id, subkey) ops.* FROM replicator.history AS ops,
        replicator.checkpoints WHERE ops.op_id <= shown_op_id
    ORDER BY bucket, object_type, object_id, subkey, ops.op_id DESC) AS newest
WHERE op = 'PUT' ORDER BY 1, 2
"""
WHY = 'table "public"."visits" has no column "patient", which the rules need'


@pytest.fixture(params=["FULL", "DEFAULT"])
async def story(
    request: pytest.FixtureRequest, database: Database, tmp_path: Path, children: StartChild
) -> Story:
    made = Story(database, tmp_path, children)
    await made.begin()
    database.execute(f"ALTER TABLE visits REPLICA IDENTITY {request.param}")
    made.clinic.become_equal()
    return made


def write(story: Story) -> None:
    """Changes of every kind, in both tables."""
    story.database.execute("UPDATE visits SET doctor = 'd' || (id + 1) % 4, note = 'moved' WHERE id % 4 = 0")
    story.database.execute("DELETE FROM visits WHERE id % 9 = 0")
    story.database.execute("INSERT INTO visits (id, doctor) SELECT max(id) + 1, 'd2' FROM visits")
    story.database.execute("UPDATE wards SET doctor = 'd3' WHERE id % 5 = 0")


async def test_stopped_by_it_it_goes_on_with_the_corrected_file(story: Story) -> None:
    write(story)
    story.database.execute("ALTER TABLE visits DROP patient")
    write(story)
    assert story.running.wait() == 1
    assert WHY in story.running.stderr and story.sets() == [(1, "active")]
    seen, kept = story.database.execute(SEEN), story.database.execute(KEPT)
    story.write(text(OTHER))
    story.running = story.clinic.run(block_at=("chunk", 3))
    story.running.wait_for("chunk", n=3)
    write(story)
    # Readers see what they saw, by the rules that they saw it by.
    assert story.database.execute(SEEN) == seen and story.database.execute(SHOWN) == [(1,)]
    assert story.sets() == [(1, "retired"), (2, "preparing")]
    story.running.go_on()
    story.clinic.catch_up()
    story.clinic.assert_equal()
    assert story.sets() == [(1, "retired"), (2, "active")]
    assert story.database.execute("SELECT why FROM replicator.rule_sets WHERE id = 1") == [(WHY,)]
    # What means what it meant keeps its buckets.
    assert story.clinic.in_force()[2].buckets() == {"2#mine", "1#all"}
    assert story.database.execute(KEPT) >= kept
    story.running.wait_for("rules cleaned", rules="1")
    write(story)
    story.clinic.catch_up()
    story.clinic.assert_equal()


async def test_it_reads_the_corrected_file_before_it_stops(story: Story) -> None:
    story.write(text(OTHER))
    story.database.execute("ALTER TABLE visits DROP patient")
    write(story)
    story.clinic.catch_up()
    story.clinic.assert_equal()
    assert story.running.code is None and story.sets() == [(1, "retired"), (2, "active")]


async def test_rules_that_name_it_otherwise_pass_by_what_was_written_before(story: Story) -> None:
    story.stop()
    write(story)
    story.database.execute("ALTER TABLE visits RENAME patient TO person")
    write(story)
    story.write(text(BEFORE | {"mine": (MINE, "SELECT * FROM visits WHERE person = bucket.x")}))
    story.running = story.clinic.run()
    story.clinic.catch_up()
    story.clinic.assert_equal()
    assert story.clinic.in_force()[2].buckets() == {"2#mine", "1#all"}


@pytest.mark.parametrize("mark", [("rules given up", 1), ("chunk", 2), ("copied", 1), ("rules switched", 1)])
async def test_killed_while_it_goes_over_it_goes_on(story: Story, mark: tuple[str, int]) -> None:
    story.stop()
    seen = story.database.execute(SEEN)
    write(story)
    story.database.execute("ALTER TABLE visits DROP patient")
    write(story)
    story.write(text(OTHER))
    killed = story.clinic.run(kill_at=mark)
    assert killed.wait() == -9
    if mark[0] != "rules switched":
        assert story.database.execute(SHOWN) == [(1,)]
    if mark[0] == "rules given up":
        assert story.database.execute(SEEN) == seen
    write(story)
    story.running = story.clinic.run()
    story.clinic.catch_up()
    story.clinic.assert_equal()
    assert story.sets() == [(1, "retired"), (2, "active")]


async def test_dropped_while_others_are_prepared_these_go_on_alone(story: Story) -> None:
    story.stop()
    story.write(text(OTHER | {"wards": (MINE, "SELECT * FROM wards AS mine WHERE doctor = bucket.x")}))
    story.running = story.clinic.run(block_at=("chunk", 3))
    story.running.wait_for("chunk", n=3)
    story.database.execute("ALTER TABLE visits DROP patient")
    write(story)
    story.running.go_on()
    story.clinic.catch_up()
    story.clinic.assert_equal()
    assert story.running.count("rules given up") == 1
    assert story.sets() == [(1, "retired"), (2, "active")]


async def test_others_that_lack_it_too_do_not_end_those_in_force(story: Story) -> None:
    story.stop()
    story.database.execute("ALTER TABLE visits DROP patient")
    write(story)
    story.write(text(BEFORE | {"all": (MINE, "SELECT * FROM wards WHERE doctor = bucket.x")}))
    running = story.clinic.run()
    assert running.wait() == 1 and WHY in running.stderr
    assert story.sets() == [(1, "active"), (2, "failed")]
    # And others that replace those by which it is going over begin with nothing that was kept.
    story.write(text(OTHER))
    killed = story.clinic.run(kill_at=("chunk", 2))
    assert killed.wait() == -9
    write(story)
    story.write(text(OTHER | {"wards": (MINE, "SELECT * FROM wards AS mine WHERE doctor = bucket.x")}))
    story.running = story.clinic.run()
    story.clinic.catch_up()
    story.clinic.assert_equal()
    assert story.clinic.in_force()[2].buckets() == {"4#mine", "4#all", "4#wards"}
