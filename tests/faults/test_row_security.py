"""A policy would hide rows from the copy that the stream sends: it is refused, not obeyed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from psycopg.conninfo import make_conninfo

from tests.faults.clinic import Clinic, rules_over
from tests.fixtures.children import StartChild
from tests.fixtures.postgres import Database

pytestmark = pytest.mark.faults

TABLES = """
CREATE TABLE visits (id integer PRIMARY KEY, patient text);
INSERT INTO visits VALUES (1, 'p1'), (2, 'p2');
ALTER TABLE visits ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON visits USING (patient = 'p1');
CREATE PUBLICATION powersync FOR TABLE visits;
"""


@pytest.fixture
def role(database: Database) -> Iterator[str]:
    name = f"role_{database.name}"
    database.execute(f"CREATE ROLE {name} LOGIN REPLICATION PASSWORD 'x'")
    yield name
    database.execute(f"DROP OWNED BY {name}")
    database.execute(f"DROP ROLE {name}")


async def test_a_role_that_may_not_see_every_row(
    database: Database, tmp_path: Path, children: StartChild, role: str
) -> None:
    clinic = Clinic(database, tmp_path, children, rules=rules_over(visits="patient"))
    await clinic.build(tables=TABLES)
    database.execute(f"GRANT USAGE ON SCHEMA public, replicator TO {role}")
    database.execute(f"GRANT SELECT ON visits TO {role}")
    database.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA replicator TO {role}")
    dsn = make_conninfo(database.dsn, user=role, password="x")
    path = tmp_path / "replicator.yaml"
    keys = json.loads(path.read_text())
    path.write_text(json.dumps({**keys, "source": {**keys["source"], "dsn": dsn}}))
    running = clinic.run()
    assert running.wait() == 1
    assert "row-level security" in running.stderr and "replicator check" in running.stderr
    database.execute("DROP POLICY own ON visits")
    database.execute("ALTER TABLE visits DISABLE ROW LEVEL SECURITY")
    clinic.run()
    clinic.catch_up()
    clinic.assert_equal()
