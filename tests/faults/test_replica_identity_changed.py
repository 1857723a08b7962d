"""What the log tells of the row as it was changes mid-stream: no bucket keeps a row that has left it."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import pytest

from tests.faults.clinic import Clinic, rules_over
from tests.fixtures.children import StartChild
from tests.fixtures.postgres import Database
from tests.oracle.tight import TIGHT

pytestmark = [pytest.mark.faults, pytest.mark.migrated]

TABLES = """
CREATE SEQUENCE ids START 1000;
CREATE TABLE visits (id integer PRIMARY KEY, code text NOT NULL, patient text, scan text);
CREATE UNIQUE INDEX by_code ON visits (code);
ALTER TABLE visits ALTER COLUMN scan SET STORAGE EXTERNAL;
INSERT INTO visits SELECT i, 'c' || i, 'p' || i % 3, repeat(md5(i::text), 300)
FROM generate_series(1, 20) AS i;
CREATE PUBLICATION powersync FOR TABLE visits;
"""
IDENTITIES = {"default": "DEFAULT", "full": "FULL", "index": "USING INDEX by_code", "nothing": "NOTHING"}
IS = "ALTER TABLE visits REPLICA IDENTITY "


@pytest.mark.parametrize("was, now", list(permutations(IDENTITIES, 2)))
async def test_no_row_stays_with_whom_it_was(
    database: Database, tmp_path: Path, children: StartChild, was: str, now: str
) -> None:
    clinic = Clinic(database, tmp_path, children, rules=rules_over(visits="patient"), bounds=TIGHT)
    await clinic.build(tables=f"{TABLES} {IS} {IDENTITIES[was]}")
    running = clinic.run()
    clinic.catch_up()
    database.execute("INSERT INTO visits SELECT i, 'c' || i, 'p1', 'later' FROM generate_series(21, 25) AS i")
    write(database, was)
    clinic.catch_up()
    clinic.assert_equal()
    database.execute(IS + IDENTITIES[now])
    write(database, now)
    running.wait_for("copied", n=2)
    write(database, now)
    clinic.catch_up()
    clinic.assert_equal()


def write(database: Database, identity: str) -> None:
    """Rows come; where they may, they change hands, keys and codes, and go."""
    database.execute("INSERT INTO visits SELECT nextval('ids'), 'c' || currval('ids'), 'p0', 'more'")
    if identity == "nothing":
        return
    database.execute("UPDATE visits SET patient = 'p' || (id + 1) % 3 WHERE id % 5 = 0 OR id > 21")
    database.execute("UPDATE visits SET code = 'new ' || code WHERE id % 7 = 0")
    database.execute("UPDATE visits SET id = nextval('ids'), patient = 'p0' WHERE id % 6 = 0")
    database.execute("DELETE FROM visits WHERE id = (SELECT min(id) FROM visits)")
