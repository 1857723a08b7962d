"""Tables come and go under a name that ends in %: each is copied when it comes, and leaves when it goes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.clinic import Clinic
from tests.fixtures.children import StartChild
from tests.fixtures.postgres import Database
from tests.oracle.tight import TIGHT

pytestmark = [pytest.mark.faults, pytest.mark.migrated]

RULES = """
bucket_definitions:
  ward:
    parameters: SELECT request.jwt() ->> 'ward' AS ward
    data:
      - SELECT id, note, _table_suffix AS month FROM "visits_%" WHERE ward = bucket.ward
"""
TABLES = """
CREATE TABLE visits_may (id integer PRIMARY KEY, ward text, note text);
CREATE TABLE visitsxjune (id integer PRIMARY KEY, ward text, note text);
INSERT INTO visits_may SELECT i, 'w' || i % 2, 'a visit' FROM generate_series(1, 20) AS i;
INSERT INTO visitsxjune VALUES (1, 'w1', 'not of these');
CREATE PUBLICATION powersync FOR ALL TABLES;
"""
_HELD = """
SELECT bucket, object_type, data::jsonb ->> 'month', count(*) FROM (
    SELECT DISTINCT ON (bucket, object_type, object_id, subkey) bucket, object_type, op, data
    FROM replicator.history ORDER BY bucket, object_type, object_id, subkey, op_id DESC) AS newest
WHERE op = 'PUT' GROUP BY 1, 2, 3 ORDER BY 2, 1
"""


async def test_tables_come_and_go(database: Database, tmp_path: Path, children: StartChild) -> None:
    clinic = Clinic(database, tmp_path, children, rules=RULES, bounds=TIGHT)
    await clinic.build(tables=TABLES)
    running = clinic.run()
    clinic.catch_up()
    may = [('1#ward["w0"]', "visits_may", "may", 10), ('1#ward["w1"]', "visits_may", "may", 10)]
    assert database.execute(_HELD) == may
    database.execute("CREATE TABLE visits_july (id integer PRIMARY KEY, ward text, note text)")
    database.execute("INSERT INTO visits_july VALUES (1, 'w0', 'new'), (2, NULL, 'of no ward')")
    running.wait_for("copied", n=2)
    clinic.catch_up()
    assert database.execute(_HELD) == [('1#ward["w0"]', "visits_july", "july", 1), *may]
    database.execute("ALTER TABLE visits_may RENAME TO gone")
    running.wait_for("table gone")
    clinic.catch_up()
    assert database.execute(_HELD) == [('1#ward["w0"]', "visits_july", "july", 1)]
