"""The rules are others at the next start: rows go where these say, and no others are copied."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.faults.clinic import Clinic, rules_over
from tests.fixtures.children import Child, StartChild
from tests.fixtures.postgres import Database
from tests.oracle.tight import TIGHT

pytestmark = pytest.mark.faults

TABLES = """
CREATE TABLE visits (id integer PRIMARY KEY, patient text, doctor text);
CREATE TABLE wards (id integer PRIMARY KEY, patient text, doctor text);
ALTER TABLE visits REPLICA IDENTITY FULL;
INSERT INTO visits SELECT i, 'p' || i % 3, 'd' || i % 4 FROM generate_series(1, 30) AS i;
INSERT INTO wards SELECT i, 'p' || i % 3, 'd' || i % 4 FROM generate_series(1, 30) AS i;
CREATE PUBLICATION powersync FOR ALL TABLES;
"""
SHOWN = "SELECT shown_op_id FROM replicator.checkpoints"
LEFT = "SELECT lookup, subkey FROM replicator.lookups WHERE until_op_id IS NULL"


async def copied(
    database: Database, tmp_path: Path, children: StartChild, rules: str
) -> tuple[Clinic, Child]:
    clinic = Clinic(database, tmp_path, children, rules=rules, bounds=TIGHT)
    await clinic.build(tables=TABLES)
    running = clinic.run()
    clinic.catch_up()
    return clinic, running


def stop(running: Child) -> None:
    running.terminate()
    assert running.wait() == 0


def definition(parameters: str, *data: str) -> str:
    return json.dumps({"bucket_definitions": {"mine": {"parameters": parameters, "data": data}}})


async def test_rows_move_and_readers_see_none_of_it_before_all_have(
    database: Database, tmp_path: Path, children: StartChild
) -> None:
    clinic, running = await copied(database, tmp_path, children, rules_over(visits="patient", wards=None))
    clinic.assert_equal()
    stop(running)
    (tmp_path / "rules.yaml").write_text(rules_over(visits="doctor", wards=None))
    before = database.execute(SHOWN)
    running = clinic.run(block_at=("chunk", 2))
    running.wait_for("chunk", n=2)
    assert database.execute(SHOWN) == before
    database.execute("UPDATE visits SET doctor = 'd9' WHERE id % 5 = 0")
    database.execute("DELETE FROM visits WHERE id % 7 = 0")
    running.go_on()
    clinic.catch_up()
    clinic.assert_equal()
    # What the rules say of the other table is as it was.
    assert running.count("rules changed", tables="public.visits") == 1
    assert running.count("copying") == 1


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
    assert running.count("copying") == 0


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
    if not names_wards:
        running.wait_for("table gone")
    clinic.become_equal()
    assert database.execute(LEFT) == []


@pytest.mark.parametrize(
    "parameters",
    ["SELECT  request.user_id()  AS patient", "SELECT request.jwt() ->> 'patient' AS patient"],
)
async def test_rules_that_put_rows_where_they_are_copy_nothing(
    database: Database, tmp_path: Path, children: StartChild, parameters: str
) -> None:
    clinic, running = await copied(
        database,
        tmp_path,
        children,
        definition(
            "SELECT request.user_id() AS patient", "SELECT * FROM visits WHERE patient = bucket.patient"
        ),
    )
    stop(running)
    (tmp_path / "rules.yaml").write_text(
        definition(parameters, "SELECT *  FROM visits  WHERE bucket.patient = visits.patient")
    )
    running = clinic.run()
    clinic.catch_up()
    clinic.assert_equal()
    assert running.count("rules changed") == 0 and running.count("copying") == 0


async def test_what_was_stored_before_rules_were_kept_is_copied_again(
    database: Database, tmp_path: Path, children: StartChild
) -> None:
    clinic, running = await copied(database, tmp_path, children, rules_over(visits="patient"))
    stop(running)
    database.execute("UPDATE replicator.tables SET rules = NULL")
    (tmp_path / "rules.yaml").write_text(rules_over(visits="doctor"))
    running = clinic.run()
    clinic.catch_up()
    clinic.assert_equal()
    assert running.count("rules changed") == 1
