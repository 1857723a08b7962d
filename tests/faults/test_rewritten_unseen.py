"""What rows say changes without a word in the log, and the catalogue gives it away: they are copied again."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.clinic import Clinic, rules_over
from tests.fixtures.children import StartChild
from tests.fixtures.postgres import Database
from tests.oracle.tight import TIGHT

pytestmark = [pytest.mark.faults, pytest.mark.migrated]

TABLES = """
CREATE TABLE visits (id integer PRIMARY KEY, patient text, note text);
ALTER TABLE visits REPLICA IDENTITY FULL;
INSERT INTO visits SELECT i, 'p' || i % 3, 'note ' || i FROM generate_series(1, 30) AS i;
"""
published = pytest.mark.parametrize("published", ["ALL TABLES", "TABLES IN SCHEMA public"])


@published
@pytest.mark.parametrize("is_running", [True, False])
async def test_a_table_was_unlogged_for_a_while(
    database: Database, tmp_path: Path, children: StartChild, published: str, is_running: bool
) -> None:
    clinic = Clinic(database, tmp_path, children, rules=rules_over(visits="patient"), bounds=TIGHT)
    await clinic.build(tables=f"{TABLES} CREATE PUBLICATION powersync FOR {published}")
    running = clinic.run()
    clinic.catch_up()
    if not is_running:
        running.terminate()
        assert running.wait() == 0
    # In one transaction, so that no look falls in between.
    database.execute(
        "BEGIN; ALTER TABLE visits SET UNLOGGED; UPDATE visits SET patient = 'p9' WHERE id < 5; "
        "DELETE FROM visits WHERE id = 9; ALTER TABLE visits SET LOGGED; COMMIT"
    )
    running = running if is_running else clinic.run()
    running.wait_for("rewritten", table="public.visits")
    clinic.become_equal()


@published
async def test_one_that_was_emptied_and_filled_again_is_the_same_in_the_end(
    database: Database, tmp_path: Path, children: StartChild, published: str
) -> None:
    clinic = Clinic(database, tmp_path, children, rules=rules_over(visits="patient"), bounds=TIGHT)
    await clinic.build(tables=f"{TABLES} CREATE PUBLICATION powersync FOR {published}")
    clinic.run()
    clinic.catch_up()
    database.execute("TRUNCATE visits")
    database.execute("INSERT INTO visits SELECT i, 'p' || i % 3, 'again' FROM generate_series(10, 40) AS i")
    clinic.become_equal()


ENUMS = """
CREATE TYPE mood AS ENUM ('ok', 'bad');
CREATE DOMAIN state AS mood;
CREATE TYPE felt AS (at integer, moods mood[]);
"""


@pytest.mark.parametrize(
    ("sql_type", "value"),
    [("mood", "bad"), ("mood[]", "{ok,bad}"), ("state", "bad"), ("felt", '(1,"{bad}")')],
)
async def test_a_label_of_an_enum_is_renamed(
    database: Database, tmp_path: Path, children: StartChild, sql_type: str, value: str
) -> None:
    clinic = Clinic(database, tmp_path, children, rules=rules_over(visits="patient"), bounds=TIGHT)
    column = f"ALTER TABLE visits ADD mood {sql_type} DEFAULT '{value}';"
    await clinic.build(tables=f"{ENUMS} {TABLES} {column} CREATE PUBLICATION powersync FOR TABLE visits")
    running = clinic.run()
    clinic.catch_up()
    # One more is no reason to copy anything.
    database.execute("ALTER TYPE mood ADD VALUE 'critical' BEFORE 'bad'")
    database.execute("INSERT INTO visits (id, patient) VALUES (100, 'p1')")
    clinic.catch_up()
    before = database.execute("SELECT data FROM replicator.ops WHERE data LIKE '%bad%'")
    assert before
    running.terminate()
    assert running.wait() == 0
    running = clinic.run()
    running.wait_for("streaming")
    assert running.count("rewritten") == 0
    database.execute("ALTER TYPE mood RENAME VALUE 'bad' TO 'worse'")
    running.wait_for("rewritten", table="public.visits")
    running.wait_for("copied")
    clinic.catch_up()
    left = (
        "SELECT object_id FROM (SELECT DISTINCT ON (object_id) * FROM replicator.ops "
        "ORDER BY object_id, op_id DESC) AS newest WHERE data NOT LIKE '%worse%'"
    )
    assert database.execute(left) == []
