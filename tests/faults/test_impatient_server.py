"""The server ends sessions that are slow, by settings of the database: those of ours are not meant."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from tests.faults.clinic import Clinic, rules_over
from tests.fixtures.children import StartChild
from tests.fixtures.postgres import Database

pytestmark = [pytest.mark.faults, pytest.mark.migrated]

TABLES = """
CREATE TABLE visits (id integer PRIMARY KEY, patient text);
CREATE TABLE bulk (id integer PRIMARY KEY);
CREATE PUBLICATION powersync FOR TABLE visits;
"""
_IMPATIENT = [
    "statement_timeout",
    "lock_timeout",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
    "transaction_timeout",
]


async def test_a_row_and_then_nothing_for_long(
    database: Database, tmp_path: Path, children: StartChild
) -> None:
    clinic = Clinic(database, tmp_path, children, rules=rules_over(visits="patient"))
    await clinic.build(tables=TABLES)
    for (name,) in database.execute("SELECT name FROM pg_settings WHERE name = ANY (%s)", [_IMPATIENT]):
        database.execute(f"ALTER DATABASE {database.name} SET {name} = '50ms'")
    running = clinic.run()
    running.wait_for("copied")
    # The sessions that are open keep what they began with; those of the test are not to be ended.
    database.execute(f"ALTER DATABASE {database.name} RESET ALL")
    with psycopg.connect(database.owner_dsn) as connection:
        connection.execute("INSERT INTO visits VALUES (1, 'p1')")
        # Read by the server for us, and of no concern to us.
        connection.execute("INSERT INTO bulk SELECT generate_series(1, 500000)")
        connection.execute("INSERT INTO visits VALUES (2, 'p1')")
    clinic.catch_up()
    clinic.assert_equal()
    assert running.count("waiting") == 0
