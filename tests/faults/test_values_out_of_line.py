"""Rows whose wide values the log leaves out change hands and keys: they stay whole, and in one place."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.clinic import Clinic, rules_over
from tests.fixtures.children import Child, StartChild
from tests.fixtures.postgres import Database
from tests.oracle.tight import TIGHT

pytestmark = [pytest.mark.faults, pytest.mark.migrated]

# Twelve kilobytes that do not compress, out of line: an update that does not touch them leaves them out.
TABLES = """
CREATE TABLE scans (id integer PRIMARY KEY, patient text, image text, n integer);
ALTER TABLE scans ALTER COLUMN image SET STORAGE EXTERNAL;
INSERT INTO scans
SELECT i, 'p' || i % 3, (SELECT string_agg(md5(i || ' ' || j), '') FROM generate_series(1, 400) AS j), 0
FROM generate_series(1, 20) AS i;
CREATE PUBLICATION powersync FOR TABLE scans;
"""
identities = pytest.mark.parametrize("identity", ["DEFAULT", "FULL"])
moves = pytest.mark.parametrize(
    "move",
    [
        "id = id + 100",
        "id = id + 100, patient = 'p' || (id + 1) % 3",
        "patient = 'p' || (id + 1) % 3",
        "n = n + 1",
    ],
)


async def built(database: Database, tmp_path: Path, children: StartChild, identity: str) -> Clinic:
    clinic = Clinic(database, tmp_path, children, rules=rules_over(scans="patient"), bounds=TIGHT)
    await clinic.build(tables=f"{TABLES} ALTER TABLE scans REPLICA IDENTITY {identity}")
    outside = "SELECT pg_relation_size(reltoastrelid) > 200000 FROM pg_class WHERE relname = 'scans'"
    assert database.execute(outside) == [(True,)]
    return clinic


def stop(running: Child) -> None:
    running.terminate()
    assert running.wait() == 0


@identities
@moves
async def test_applied_again_after_a_crash(
    database: Database, tmp_path: Path, children: StartChild, identity: str, move: str
) -> None:
    clinic = await built(database, tmp_path, children, identity)
    running = clinic.run()
    clinic.catch_up()
    stop(running)
    database.execute(f"UPDATE scans SET {move} WHERE id <= 7")
    # Before storage has committed, and after it has, but the source was not told.
    for mark in ("appended", "stored"):
        killed = clinic.run(kill_at=(mark, 1))
        assert killed.wait() == -9
    database.execute("UPDATE scans SET patient = 'p9' WHERE id IN (2, 3, 102, 103)")
    clinic.run()
    clinic.catch_up()
    clinic.assert_equal()
    clinic.assert_told_once()


@identities
@moves
@pytest.mark.parametrize("nth", [1, 3])
async def test_overlapping_the_first_copy(
    database: Database, tmp_path: Path, children: StartChild, identity: str, move: str, nth: int
) -> None:
    clinic = await built(database, tmp_path, children, identity)
    running = clinic.run(block_at=("chunk", nth))
    running.wait_for("chunk", n=nth)
    # Seen by the chunks that are still to be read, and then told by the log as well.
    database.execute(f"UPDATE scans SET {move} WHERE id % 2 = 0")
    database.execute("UPDATE scans SET n = n + 1 WHERE id % 3 = 0")
    running.go_on()
    clinic.catch_up()
    clinic.assert_equal()


@identities
async def test_changed_before_the_copy_has_begun(
    database: Database, tmp_path: Path, children: StartChild, identity: str
) -> None:
    clinic = await built(database, tmp_path, children, identity)
    running = clinic.run(block_at=("streaming", 1))
    running.wait_for("streaming")
    database.execute("UPDATE scans SET id = id + 100, patient = 'p' || (id + 1) % 3 WHERE id % 2 = 0")
    database.execute("UPDATE scans SET id = id - 100 WHERE id > 110")
    running.go_on()
    clinic.catch_up()
    clinic.assert_equal()
