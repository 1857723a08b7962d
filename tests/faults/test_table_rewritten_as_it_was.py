"""A table is written to another file, row by row as it was: nothing follows, and nothing is copied again."""

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
INSERT INTO visits SELECT i, 'p' || i % 3, 'note ' || i FROM generate_series(1, 30) AS i;
CREATE PUBLICATION powersync FOR TABLE visits;
"""


@pytest.mark.parametrize(
    "what",
    [
        "VACUUM FULL visits",
        "CLUSTER visits USING visits_pkey",
        "ALTER TABLE visits ALTER COLUMN note SET STATISTICS 50",
        "ALTER TABLE visits ALTER COLUMN note SET STORAGE EXTERNAL",
        "ALTER TABLE visits ALTER COLUMN note SET DEFAULT 'none'",
        "CREATE INDEX ON visits (note)",
    ],
)
async def test_it_is_not_copied_again(
    database: Database, tmp_path: Path, children: StartChild, what: str
) -> None:
    clinic = Clinic(database, tmp_path, children, rules=rules_over(visits="patient"), bounds=TIGHT)
    await clinic.build(tables=TABLES)
    running = clinic.run()
    clinic.catch_up()
    form = "SELECT form FROM replicator.tables"
    before = database.execute(form)
    database.execute(what)
    running.terminate()
    assert running.wait() == 0
    # The next start looks before anything else.
    running = clinic.run()
    running.wait_for("streaming")
    database.execute("UPDATE visits SET patient = 'p' || (id + 1) % 3 WHERE id % 4 = 0")
    clinic.catch_up()
    clinic.assert_equal()
    assert running.count("copying") == 0 and running.count("rewritten") == 0
    assert (database.execute(form) == before) == what.startswith("CREATE INDEX")
