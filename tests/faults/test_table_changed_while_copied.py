"""A table is altered, renamed or dropped in the middle of its first copy: the copy is of what it is now."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.clinic import Clinic, rules_over
from tests.fixtures.children import StartChild
from tests.fixtures.postgres import Database
from tests.oracle.tight import TIGHT

pytestmark = [pytest.mark.faults, pytest.mark.migrated]

TABLES = """
CREATE TABLE visits (id integer PRIMARY KEY, code text NOT NULL, patient text, n integer);
CREATE UNIQUE INDEX by_code ON visits (code);
CREATE TABLE orders (id integer PRIMARY KEY, patient text);
INSERT INTO visits SELECT i, 'c' || i, 'p' || i % 3, i FROM generate_series(1, 60) AS i;
INSERT INTO orders SELECT i, 'p' || i % 2 FROM generate_series(1, 20) AS i;
CREATE PUBLICATION powersync FOR ALL TABLES;
"""
CHANGES = [
    "ALTER TABLE visits DROP COLUMN n",
    "ALTER TABLE visits RENAME COLUMN n TO m",
    "ALTER TABLE visits ADD COLUMN more integer DEFAULT 7",
    "ALTER TABLE visits ALTER COLUMN n TYPE text USING 'n' || n",
    "ALTER TABLE visits ALTER COLUMN patient TYPE text USING 'p' || n % 2",
    "ALTER TABLE visits ALTER COLUMN patient TYPE varchar(9) USING 'q' || n % 2",
    "ALTER TABLE visits ALTER COLUMN id TYPE text USING 'v' || id",
    "ALTER TABLE visits DROP CONSTRAINT visits_pkey, ADD PRIMARY KEY (code)",
    "ALTER TABLE visits REPLICA IDENTITY USING INDEX by_code",
    "ALTER TABLE visits RENAME TO visits_old",
    "ALTER TABLE visits RENAME TO aside; ALTER TABLE orders RENAME TO visits; "
    "ALTER TABLE aside RENAME TO orders",
    "DROP TABLE visits",
    "DROP TABLE visits; CREATE TABLE visits (id integer PRIMARY KEY, patient text, more text); "
    "INSERT INTO visits VALUES (1, 'p1', 'anew'), (70, 'p2', 'anew')",
    "TRUNCATE visits",
]


@pytest.mark.parametrize("changes", CHANGES)
@pytest.mark.parametrize(("identity", "is_written"), [("DEFAULT", True), ("FULL", True), ("FULL", False)])
async def test_the_copy_is_of_the_table_as_it_is(
    database: Database, tmp_path: Path, children: StartChild, changes: str, identity: str, is_written: bool
) -> None:
    rules = rules_over(visits="patient", orders="patient")
    clinic = Clinic(database, tmp_path, children, rules=rules, bounds=TIGHT)
    await clinic.build(tables=f"{TABLES} ALTER TABLE visits REPLICA IDENTITY {identity}")
    running = clinic.run(block_at=("read", 6))
    running.wait_for("read", n=6)
    database.execute(f"DO $$ BEGIN {changes}; END $$")
    (name,) = database.execute("SELECT coalesce(to_regclass('visits'), to_regclass('visits_old'))::text")[0]
    if is_written and name is not None:
        database.execute(f"UPDATE {name} SET patient = 'p' || length(patient) WHERE patient LIKE '_1'")
    running.go_on()
    clinic.become_equal()
