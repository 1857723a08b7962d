"""Rules that follow others before those were ever complete, and tables that no rule names any more."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.faults.clinic import Clinic, rules_over
from tests.fixtures.children import Child, StartChild
from tests.fixtures.postgres import Database
from tests.oracle.tight import TIGHT

pytestmark = [pytest.mark.faults, pytest.mark.migrated]

TABLES = """
CREATE TABLE visits (id integer PRIMARY KEY, patient text, doctor text);
CREATE TABLE wards (id integer PRIMARY KEY, patient text, doctor text);
ALTER TABLE visits REPLICA IDENTITY FULL;
INSERT INTO visits SELECT i, 'p' || i % 3, 'd' || i % 4 FROM generate_series(1, 30) AS i;
INSERT INTO wards SELECT i, 'p' || i % 3, 'd' || i % 4 FROM generate_series(1, 30) AS i;
CREATE PUBLICATION powersync FOR ALL TABLES;
"""
LEFT = "SELECT lookup, subkey FROM replicator.lookups"
#: What is over is removed at once.
SOON = {"replicator.buckets.retire.GRACE_S": 0.0}


async def copied(
    database: Database, tmp_path: Path, children: StartChild, rules: str
) -> tuple[Clinic, Child]:
    clinic = Clinic(database, tmp_path, children, rules=rules, bounds={**TIGHT, **SOON})
    await clinic.build(tables=TABLES)
    running = clinic.run()
    clinic.catch_up()
    return clinic, running


def stop(running: Child) -> None:
    running.terminate()
    assert running.wait() == 0


def definition(parameters: str, *data: str) -> str:
    return json.dumps({"bucket_definitions": {"mine": {"parameters": parameters, "data": data}}})


async def test_rules_change_again_before_a_table_was_first_copied(
    database: Database, tmp_path: Path, children: StartChild
) -> None:
    rules = rules_over(visits="patient", wards="patient")
    clinic = Clinic(database, tmp_path, children, rules=rules, bounds=TIGHT)
    await clinic.build(tables=TABLES + "ALTER TABLE wards REPLICA IDENTITY FULL")
    killed = clinic.run(block_at=("chunk", 1), kill_at=("copying", 2))
    killed.wait_for("chunk")
    # It streams past, and is put where it belongs, long before the copy of its table begins.
    database.execute("INSERT INTO wards VALUES (100, 'p1', 'd1')")
    killed.go_on()
    assert killed.wait() == -9
    (tmp_path / "rules.yaml").write_text(rules_over(visits="patient", wards="doctor"))
    clinic.run()
    clinic.catch_up()
    clinic.assert_equal()


async def test_a_table_that_no_rule_names_any_more_leaves(
    database: Database, tmp_path: Path, children: StartChild
) -> None:
    clinic, running = await copied(
        database, tmp_path, children, rules_over(visits="patient", wards="patient")
    )
    stop(running)
    (tmp_path / "rules.yaml").write_text(rules_over(visits="patient"))
    database.execute("UPDATE wards SET patient = 'p9' WHERE id < 5")
    running = clinic.run()
    running.wait_for("table gone", table="public.wards")
    clinic.become_equal()
    assert database.execute("SELECT name FROM replicator.tables") == [("visits",)]


async def test_a_table_is_forgotten_before_its_changes_pass_by(
    database: Database, tmp_path: Path, children: StartChild
) -> None:
    clinic, running = await copied(
        database, tmp_path, children, rules_over(visits="patient", wards="patient")
    )
    stop(running)
    (tmp_path / "rules.yaml").write_text(rules_over(visits="patient"))
    # First with both sets, then with the new one alone.
    killed = clinic.run(kill_at=("streaming", 2))
    assert killed.wait() == -9
    assert database.execute("SELECT name FROM replicator.tables") == [("visits",)]
    assert database.execute("SELECT FROM replicator.row_states") == []


async def test_a_table_that_was_left_out_for_a_while_comes_back_as_it_is(
    database: Database, tmp_path: Path, children: StartChild
) -> None:
    both = rules_over(visits="patient", wards="patient")
    clinic, running = await copied(database, tmp_path, children, both)
    stop(running)
    (tmp_path / "rules.yaml").write_text(rules_over(visits="patient"))
    running = clinic.run()
    running.wait_for("table gone", table="public.wards")
    clinic.catch_up()
    database.execute("UPDATE wards SET patient = 'p9' WHERE id < 5")
    database.execute("DELETE FROM wards WHERE id > 20")
    clinic.catch_up()
    stop(running)
    (tmp_path / "rules.yaml").write_text(both)
    clinic.run()
    clinic.catch_up()
    clinic.assert_equal()


@pytest.mark.parametrize("names_wards", [True, False])
async def test_what_removed_rules_looked_up_stands_no_more(
    database: Database, tmp_path: Path, children: StartChild, names_wards: bool
) -> None:
    rules = definition(
        "SELECT patient FROM wards WHERE doctor = request.user_id()",
        "SELECT * FROM visits WHERE doctor IN (SELECT doctor FROM wards WHERE patient = bucket.patient)",
    )
    clinic, running = await copied(database, tmp_path, children, rules)
    assert len(database.execute(LEFT)) > 30
    stop(running)
    (tmp_path / "rules.yaml").write_text(rules_over(visits="patient", wards=None))
    if not names_wards:
        (tmp_path / "rules.yaml").write_text(rules_over(visits="patient"))
    running = clinic.run()
    running.wait_for("rules cleaned")
    clinic.catch_up()
    clinic.assert_equal()
    assert database.execute(LEFT) == []


async def test_what_was_stored_before_rules_had_versions_is_copied_again(
    database: Database, tmp_path: Path, children: StartChild
) -> None:
    clinic, running = await copied(database, tmp_path, children, rules_over(visits="patient"))
    stop(running)
    database.execute("UPDATE replicator.buckets SET name = split_part(name, '#', 2)")
    database.execute("DELETE FROM replicator.rule_sets")
    database.execute("UPDATE replicator.checkpoints SET shown_rules = NULL")
    (tmp_path / "rules.yaml").write_text(rules_over(visits="doctor"))
    clinic.run()
    clinic.catch_up()
    clinic.assert_equal()
