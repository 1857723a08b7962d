"""Many rows written at one position of the log, killed and sent again: each is stored, and stored once."""

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
ALTER TABLE visits REPLICA IDENTITY FULL;
CREATE PUBLICATION powersync FOR TABLE visits;
"""
_ROWS = 500


@pytest.mark.parametrize("mark", ["appended", "stored"])
@pytest.mark.parametrize("how", ["COPY", "INSERT"])
async def test_each_is_stored_once(
    database: Database, tmp_path: Path, children: StartChild, mark: str, how: str
) -> None:
    clinic = Clinic(database, tmp_path, children, rules=rules_over(visits="patient"), bounds=TIGHT)
    await clinic.build(tables=TABLES)
    running = clinic.run()
    clinic.catch_up()
    running.terminate()
    assert running.wait() == 0
    for first in (1, 1 + _ROWS):
        write(database, how, first)
    assert clinic.run(kill_at=(mark, 1)).wait() == -9
    clinic.run()
    clinic.catch_up()
    clinic.assert_equal()
    clinic.assert_told_once()
    stored = database.execute("SELECT count(*) FROM replicator.ops")
    assert stored == database.execute("SELECT count(*) FROM visits")


def write(database: Database, how: str, first: int) -> None:
    """Hundreds of rows in one statement: Postgres writes many of them in one record of the log."""
    if how == "INSERT":
        many = ", ".join(f"({i}, 'p{i % 3}', 'note')" for i in range(first, first + _ROWS))
        database.execute(f"INSERT INTO visits VALUES {many}")
        return
    with psycopg.connect(database.owner_dsn) as connection:
        with connection.cursor().copy("COPY visits FROM STDIN") as copy:
            for i in range(first, first + _ROWS):
                copy.write_row((i, f"p{i % 3}", "note"))
