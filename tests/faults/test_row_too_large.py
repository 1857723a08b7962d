"""A row too large for any client is left out of the buckets, by its key; smaller again, it returns."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.faults.clinic import Clinic, rules_over
from tests.fixtures.children import StartChild
from tests.fixtures.postgres import Database

pytestmark = pytest.mark.migrated

_NEWEST = """
SELECT object_id, (data::json) ->> 'text' FROM (
    SELECT DISTINCT ON (object_id) * FROM replicator.history ORDER BY object_id, op_id DESC) AS newest
WHERE op = 'PUT'
"""


@pytest.mark.parametrize("identity", ["FULL", "DEFAULT"])
async def test_it_leaves_the_buckets_and_returns(
    identity: str, database: Database, tmp_path: Path, children: StartChild
) -> None:
    clinic = Clinic(database, tmp_path, children, rules=rules_over(notes=None))
    config = tmp_path / "replicator.yaml"
    config.write_text(json.dumps({**json.loads(config.read_text()), "replicate": {"row_bytes": 9000}}))
    await clinic.build(
        tables=f"""
        CREATE TABLE notes (id text PRIMARY KEY, text text);
        ALTER TABLE notes REPLICA IDENTITY {identity};
        CREATE PUBLICATION powersync FOR TABLE notes;
        INSERT INTO notes VALUES ('copied', repeat('secret words ', 2000)), ('small', 'words')"""
    )
    child = clinic.run()

    def becomes(**texts: str) -> None:
        clinic.catch_up()
        assert dict(database.execute(_NEWEST)) == texts

    becomes(small="words")
    database.execute("UPDATE notes SET text = repeat('secret words ', 1000) WHERE id = 'small'")
    becomes()
    database.execute("UPDATE notes SET text = 'few words'")
    becomes(small="few words", copied="few words")
    child.terminate()
    assert child.wait() == 0
    said = [json.loads(line) for line in child.stderr.splitlines() if "row too large" in line]
    assert [(one["row"], one["times"]) for one in said] == [("notes/copied", 1), ("notes/small", 2)]
    assert "secret" not in child.stderr
