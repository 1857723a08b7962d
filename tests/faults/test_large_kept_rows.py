"""A few bytes of log name hundreds of large rows that are kept: they are completed in little memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.clinic import Clinic, rules_over
from tests.fixtures.children import StartChild
from tests.fixtures.postgres import Database
from tests.oracle.tight import TIGHT

pytestmark = [pytest.mark.faults, pytest.mark.migrated]

_MEMORY_MB = 250
TABLES = """
CREATE TABLE scans (id integer PRIMARY KEY, patient text, image text, n integer);
ALTER TABLE scans ALTER COLUMN image SET STORAGE EXTERNAL;
CREATE PUBLICATION powersync FOR TABLE scans;
"""


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE scans SET n = 1",
        "DELETE FROM scans",
        # One row over and over again: it is kept once, and brought once for each.
        "DO 'BEGIN FOR i IN 1..300 LOOP UPDATE scans SET n = i WHERE id = 7; END LOOP; END'",
    ],
)
async def test_they_are_completed_in_little_memory(
    database: Database, tmp_path: Path, children: StartChild, change: str
) -> None:
    clinic = Clinic(database, tmp_path, children, rules=rules_over(scans="patient"))
    await clinic.build(tables=TABLES)
    running = clinic.run(is_fresh=True)
    clinic.catch_up()
    for begin in range(0, 300, 20):
        database.execute(
            "INSERT INTO scans SELECT i, 'p' || i %% 3, repeat('abcdefgh', 131072), 0 "
            "FROM generate_series(%s::integer, %s) AS i",
            [begin, begin + 19],
        )
        clinic.catch_up()
    database.execute(change)
    clinic.catch_up()
    assert running.peak_mb < _MEMORY_MB
    wrong = (
        "SELECT count(*) FROM scans FULL JOIN (SELECT object_id, data::json FROM ("
        "SELECT DISTINCT ON (object_id) * FROM replicator.ops ORDER BY object_id, op_id DESC) AS newest "
        "WHERE op = 'PUT') AS held ON object_id = id::text "
        "WHERE (data ->> 'n')::integer IS DISTINCT FROM n OR data ->> 'image' IS DISTINCT FROM image"
    )
    assert database.execute(wrong) == [(0,)]


@pytest.mark.parametrize("most", [1, 20_000, 60_000])
async def test_rows_that_change_often_in_one_transaction_end_as_they_are(
    database: Database, tmp_path: Path, children: StartChild, most: int
) -> None:
    """Parts of every size: a row is brought back as the part before it has left it."""
    bounds = {
        **TIGHT,
        "replicator.buckets.rows.MOST_BYTES": most,
        "replicator.wal.stream._DRAIN_BYTES": 100_000,
        "replicator.wal.stream._HANDED_BYTES": 100_000,
    }
    clinic = Clinic(database, tmp_path, children, rules=rules_over(scans="patient"), bounds=bounds)
    filled = (
        "INSERT INTO scans SELECT i, 'p' || i % 3, "
        "(SELECT string_agg(md5(i || ' ' || j), '') FROM generate_series(1, 400) AS j), 0 "
        "FROM generate_series({}, {}) AS i;"
    )
    await clinic.build(tables=TABLES + filled.format(1, 20))
    clinic.run()
    clinic.catch_up()
    database.execute(
        "BEGIN; UPDATE scans SET n = n + 1; UPDATE scans SET patient = 'p' || (id + 1) % 3 WHERE id % 2 = 0;"
        "UPDATE scans SET id = id + 100 WHERE id % 3 = 0; DELETE FROM scans WHERE id IN (4, 106);"
        "UPDATE scans SET n = n + 1, id = id - 100 WHERE id > 110; COMMIT"
    )
    clinic.catch_up()
    clinic.assert_equal()
    database.execute(
        f"BEGIN; UPDATE scans SET n = 5; TRUNCATE scans; {filled.format(1, 9)} UPDATE scans SET n = 6; COMMIT"
    )
    clinic.catch_up()
    clinic.assert_equal()
    clinic.assert_told_once()
