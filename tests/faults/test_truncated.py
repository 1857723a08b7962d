"""Tables are emptied at once, alone or with those that refer to them: their rows leave the buckets."""

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
CREATE TABLE findings (id integer PRIMARY KEY, visit integer REFERENCES visits, patient text);
CREATE TABLE orders (id integer PRIMARY KEY, patient text);
INSERT INTO visits SELECT i, 'p' || i % 3, 'visit ' || i FROM generate_series(1, 20) AS i;
INSERT INTO findings SELECT i, i, 'p' || i % 3 FROM generate_series(1, 20) AS i;
INSERT INTO orders SELECT i, 'p' || i % 3 FROM generate_series(1, 20) AS i;
CREATE PUBLICATION powersync FOR TABLE visits, findings, orders;
ALTER TABLE findings REPLICA IDENTITY FULL;
"""
AROUND = """DO $$ BEGIN
INSERT INTO visits SELECT i, 'p1', 'before' FROM generate_series(101, 105) AS i;
{truncate};
INSERT INTO visits SELECT i, 'p2', 'after' FROM generate_series(1, 5) AS i ON CONFLICT DO NOTHING;
UPDATE visits SET patient = 'p1' WHERE id = 3;
END $$"""


@pytest.mark.parametrize(
    "truncate", ["TRUNCATE findings", "TRUNCATE visits CASCADE", "TRUNCATE visits, findings"]
)
@pytest.mark.parametrize("around", ["{truncate}", AROUND], ids=["alone", "among rows"])
async def test_rows_leave_in_the_same_transaction(
    database: Database, tmp_path: Path, children: StartChild, truncate: str, around: str
) -> None:
    rules = rules_over(visits="patient", findings="patient", orders=None)
    clinic = Clinic(database, tmp_path, children, rules=rules, bounds=TIGHT)
    await clinic.build(tables=TABLES)
    running = clinic.run()
    clinic.catch_up()
    clinic.assert_equal()
    database.execute(around.format(truncate=truncate))
    clinic.catch_up()
    clinic.assert_equal()
    assert running.count("copied") == 3


async def test_emptied_while_it_is_copied(database: Database, tmp_path: Path, children: StartChild) -> None:
    rules = rules_over(visits="patient", findings="patient", orders=None)
    clinic = Clinic(database, tmp_path, children, rules=rules, bounds=TIGHT)
    await clinic.build(tables=TABLES)
    running = clinic.run(block_at=("read", 4))
    running.wait_for("read", n=4)
    database.execute("TRUNCATE visits, findings")
    database.execute("INSERT INTO visits VALUES (4, 'p1', 'anew'), (40, 'p2', 'anew')")
    running.go_on()
    clinic.catch_up()
    clinic.assert_equal()
