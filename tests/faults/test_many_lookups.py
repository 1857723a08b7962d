"""Very many lookup entries: they are in storage, and the memory of the process knows nothing of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.clinic import Clinic
from tests.fixtures.children import StartChild
from tests.fixtures.postgres import Database

pytestmark = [pytest.mark.faults, pytest.mark.migrated]

TABLES = """
CREATE TABLE members (id bigint PRIMARY KEY, who text, org integer);
CREATE TABLE projects (id bigint PRIMARY KEY, org integer);
CREATE TABLE visits (id bigint PRIMARY KEY, member text);
CREATE PUBLICATION powersync FOR ALL TABLES
"""
RULES = """
bucket_definitions:
  org:
    parameters: SELECT org FROM members WHERE who = request.user_id()
    data: [SELECT * FROM projects WHERE org = bucket.org]
  mine:
    parameters: SELECT request.user_id() AS who
    data: [SELECT * FROM visits WHERE member IN (SELECT id::text FROM members WHERE who = bucket.who)]
"""
STEP, STEPS = 5_000, 10
#: Each row makes two entries; a hundred thousand would take almost twice this if each were a tuple of text.
GROWTH_MB = 20


async def test_lookup_entries_fit_the_storage_and_not_the_memory(
    database: Database, tmp_path: Path, children: StartChild
) -> None:
    clinic = Clinic(database, tmp_path, children, rules=RULES)
    await clinic.build(tables=TABLES)
    insert = (
        "INSERT INTO members SELECT n, 'user' || n %% 1000, n %% 500 "
        "FROM generate_series(%s::integer, %s::integer) AS n"
    )
    database.execute(insert, [1, STEP])
    database.execute("INSERT INTO visits SELECT n, (7 * n)::text FROM generate_series(1, 100) AS n")
    running = clinic.run(is_fresh=True)
    clinic.catch_up()
    before = running.peak_mb
    for step in range(1, STEPS):
        database.execute(insert, [step * STEP + 1, (step + 1) * STEP])
        clinic.catch_up()
    # As many entries go as come, in one transaction.
    database.execute("UPDATE members SET who = who || 'x' WHERE id <= %s", [3 * STEP])
    clinic.catch_up()
    entries = "SELECT count(*) FROM replicator.lookups WHERE until_op_id IS NULL AND lookup NOT LIKE '@%'"
    assert database.execute(entries) == [(2 * STEP * STEPS,)]
    growth = running.peak_mb - before
    print(f"{before:.1f} MB before, {growth:.1f} MB more after")
    assert growth < GROWTH_MB
