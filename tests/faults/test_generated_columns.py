"""A table with a generated column, which the publication sends or not: it is copied once, and is whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.clinic import Clinic, rules_over
from tests.fixtures.children import StartChild
from tests.fixtures.postgres import Database
from tests.oracle.tight import TIGHT

pytestmark = [pytest.mark.faults, pytest.mark.migrated]

TABLES = """
CREATE TABLE visits (id integer PRIMARY KEY, patient text, n integer,
                     double integer GENERATED ALWAYS AS (n * 2) STORED);
INSERT INTO visits SELECT i, 'p' || i % 3, i FROM generate_series(1, 30) AS i;
CREATE PUBLICATION powersync FOR TABLE visits
"""


@pytest.mark.parametrize("is_sent", [True, False], ids=["sent", "not sent"])
async def test_it_is_copied_once(
    database: Database, tmp_path: Path, children: StartChild, is_sent: bool
) -> None:
    if is_sent and database.server.version < 18:
        pytest.skip("Postgres sends generated columns from 18 on")
    clinic = Clinic(database, tmp_path, children, rules=rules_over(visits="patient"), bounds=TIGHT)
    await clinic.build(tables=TABLES + (" WITH (publish_generated_columns = stored)" if is_sent else ""))
    running = clinic.run()
    clinic.catch_up()
    database.execute("UPDATE visits SET n = n + 100 WHERE id % 4 = 0")
    clinic.catch_up()
    running.terminate()
    assert running.wait() == 0
    running = clinic.run()
    running.wait_for("streaming")
    database.execute("UPDATE visits SET n = n + 100, patient = 'p1' WHERE id % 5 = 0")
    clinic.catch_up()
    clinic.assert_equal()
    assert running.count("copying") == 0 and running.count("columns changed") == 0
