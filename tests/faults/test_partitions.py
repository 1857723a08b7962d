"""Partitions come, go and are emptied with rows in them, which no log tells: the table is copied again."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.clinic import Clinic, rules_over
from tests.fixtures.children import Child, StartChild
from tests.fixtures.postgres import Database
from tests.oracle.tight import TIGHT

pytestmark = [pytest.mark.faults, pytest.mark.migrated]

TABLES = """
CREATE TABLE visits (id integer, ward integer, patient text, note text, PRIMARY KEY (ward, id))
    PARTITION BY LIST (ward);
CREATE TABLE visits_1 PARTITION OF visits FOR VALUES IN (1);
CREATE TABLE visits_2 PARTITION OF visits FOR VALUES IN (2);
CREATE TABLE visits_3 (LIKE visits INCLUDING ALL);
INSERT INTO visits SELECT i, 1 + i % 2, 'p' || i % 3, 'note ' || i FROM generate_series(1, 20) AS i;
INSERT INTO visits_3 SELECT i, 3, 'p' || i % 3, 'note ' || i FROM generate_series(21, 30) AS i;
CREATE PUBLICATION powersync FOR TABLE visits WITH (publish_via_partition_root = true);
"""
FULL = "".join(f"ALTER TABLE {name} REPLICA IDENTITY FULL;" for name in ("visits", "visits_1", "visits_2"))
identities = pytest.mark.parametrize("identity", ["DEFAULT", "FULL"])


async def replicating(
    database: Database, tmp_path: Path, children: StartChild, identity: str
) -> tuple[Clinic, Child]:
    clinic = Clinic(database, tmp_path, children, rules=rules_over(visits="patient"), bounds=TIGHT)
    await clinic.build(tables=TABLES + (FULL if identity == "FULL" else ""))
    running = clinic.run()
    clinic.catch_up()
    clinic.assert_equal()
    write(database)
    clinic.catch_up()
    clinic.assert_equal()
    return clinic, running


def write(database: Database) -> None:
    """Rows change hands, and some of them the partition as well."""
    database.execute("UPDATE visits SET patient = 'p' || (id + 1) % 3 WHERE id % 4 = 0")
    database.execute("UPDATE visits SET ward = 3 - ward WHERE id % 5 = 0 AND ward < 3")
    database.execute("DELETE FROM visits WHERE id = (SELECT min(id) FROM visits)")


@identities
@pytest.mark.parametrize(
    "what",
    [
        "ALTER TABLE visits ATTACH PARTITION visits_3 FOR VALUES IN (3)",
        "ALTER TABLE visits DETACH PARTITION visits_2",
        "DROP TABLE visits_2",
        "TRUNCATE visits_2",
    ],
)
async def test_the_table_is_copied_again(
    database: Database, tmp_path: Path, children: StartChild, what: str, identity: str
) -> None:
    clinic, running = await replicating(database, tmp_path, children, identity)
    database.execute(f"ALTER TABLE visits_3 REPLICA IDENTITY {identity}")
    database.execute(what)
    running.wait_for("copied", n=2)
    clinic.catch_up()
    clinic.assert_equal()
    database.execute("UPDATE visits SET patient = 'p' || id % 2")
    clinic.catch_up()
    clinic.assert_equal()


async def test_a_partition_that_tells_less_than_the_table_is_refused(
    database: Database, tmp_path: Path, children: StartChild
) -> None:
    clinic, running = await replicating(database, tmp_path, children, "FULL")
    database.execute("ALTER TABLE visits ATTACH PARTITION visits_3 FOR VALUES IN (3)")
    assert running.wait() == 1
    assert "public.visits_3, a partition of" in running.stderr
    assert "ALTER TABLE public.visits_3 REPLICA IDENTITY FULL" in running.stderr
    database.execute("UPDATE visits SET patient = 'p1' WHERE ward = 3 AND id < 25")
    database.execute("ALTER TABLE visits_3 REPLICA IDENTITY FULL")
    database.execute("UPDATE visits SET patient = 'p2' WHERE ward = 3 AND id > 23")
    clinic.run()
    clinic.catch_up()
    clinic.assert_equal()


async def test_what_it_has_told_too_little_of_is_not_passed_on(
    database: Database, tmp_path: Path, children: StartChild
) -> None:
    clinic, running = await replicating(database, tmp_path, children, "FULL")
    running.terminate()
    assert running.wait() == 0
    # Nobody looks while it is so, and nothing of it is left to be seen: only the log has it.
    database.execute("ALTER TABLE visits_1 REPLICA IDENTITY DEFAULT")
    database.execute("UPDATE visits SET patient = 'p' || (id + 1) % 3 WHERE ward = 1")
    database.execute("ALTER TABLE visits_1 REPLICA IDENTITY FULL")
    refused = clinic.run()
    assert refused.wait() == 1
    assert "what a row was before" in refused.stderr and "replicator snapshot public.visits" in refused.stderr
    assert clinic.ask("snapshot", "visits", "--no-wait") == 0
    clinic.run()
    clinic.catch_up()
    clinic.assert_equal()
