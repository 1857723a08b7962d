"""The publication's row filter fails on a row: it ends, saying where, and nothing of the row."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.clinic import Clinic, rules_over
from tests.fixtures.children import StartChild
from tests.fixtures.postgres import Database

pytestmark = [pytest.mark.faults, pytest.mark.migrated]

TABLES = """
CREATE TABLE visits (id integer PRIMARY KEY, patient text, y integer, m integer, d integer);
ALTER TABLE visits REPLICA IDENTITY FULL;
CREATE PUBLICATION powersync FOR TABLE visits WHERE (make_date(y, m, d) > '1900-01-01');
"""


async def test_it_ends_and_repeats_no_value(database: Database, tmp_path: Path, children: StartChild) -> None:
    clinic = Clinic(database, tmp_path, children, rules=rules_over(visits="patient"))
    await clinic.build(tables=TABLES)
    running = clinic.run()
    clinic.catch_up()
    database.execute("INSERT INTO visits VALUES (1, 'p1', 1987, 2, 31)")
    assert running.wait() == 1
    assert "row filter" in running.stderr and "SQLSTATE 22008" in running.stderr
    assert "1987" not in running.stderr
