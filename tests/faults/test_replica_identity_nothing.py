"""A table with REPLICA IDENTITY NOTHING: rows come, Postgres lets none change, and nothing is missed."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from tests.faults.clinic import Clinic, rules_over
from tests.fixtures.children import StartChild
from tests.fixtures.postgres import Database
from tests.oracle.tight import TIGHT

pytestmark = [pytest.mark.faults, pytest.mark.migrated]

TABLES = """
CREATE TABLE visits (id integer PRIMARY KEY, patient text, note text);
INSERT INTO visits SELECT i, 'p' || i % 3, 'note ' || i FROM generate_series(1, 30) AS i;
ALTER TABLE visits REPLICA IDENTITY NOTHING;
CREATE PUBLICATION powersync FOR TABLE visits;
"""


async def test_rows_come_and_none_can_change(
    database: Database, tmp_path: Path, children: StartChild
) -> None:
    clinic = Clinic(database, tmp_path, children, rules=rules_over(visits="patient"), bounds=TIGHT)
    await clinic.build(tables=TABLES)
    running = clinic.run()
    clinic.catch_up()
    clinic.assert_equal()
    database.execute("INSERT INTO visits SELECT i, 'p1', 'later' FROM generate_series(31, 35) AS i")
    for refused in ("UPDATE visits SET patient = 'p2'", "DELETE FROM visits"):
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="replica identity"):
            database.execute(refused)
    clinic.catch_up()
    clinic.assert_equal()
    clinic.assert_told_once()
    database.execute("ALTER TABLE visits REPLICA IDENTITY DEFAULT")
    database.execute("UPDATE visits SET patient = 'p' || (id + 1) % 3 WHERE id % 4 < 2")
    running.wait_for("copied", n=2)
    database.execute("DELETE FROM visits WHERE id % 10 = 1")
    clinic.catch_up()
    clinic.assert_equal()
