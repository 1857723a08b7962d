"""Somebody else writes messages under our prefix: whatever they say, replication goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.clinic import Clinic, rules_over
from tests.fixtures.children import StartChild
from tests.fixtures.postgres import Database

pytestmark = [pytest.mark.faults, pytest.mark.migrated]

TABLES = """
CREATE TABLE visits (id integer PRIMARY KEY, patient text);
CREATE PUBLICATION powersync FOR TABLE visits;
"""
_SAID = [
    "",
    "hello",
    "[1, 2]",
    "null",
    '{"mark": "done"}',
    '{"mark": "done", "name": 7}',
    '{"mark": "low", "name": "0/1", "oid": "x"}',
    "[" * 100_000,
]


async def test_it_goes_on(database: Database, tmp_path: Path, children: StartChild) -> None:
    clinic = Clinic(database, tmp_path, children, rules=rules_over(visits="patient"))
    await clinic.build(tables=TABLES)
    clinic.run()
    clinic.catch_up()
    for content in _SAID:
        database.execute("SELECT pg_logical_emit_message(true, 'replicator', %s)", [content])
    database.execute("SELECT pg_logical_emit_message(true, 'replicator', '\\xff00'::bytea)")
    database.execute("INSERT INTO visits VALUES (1, 'p1')")
    clinic.catch_up()
    clinic.assert_equal()
