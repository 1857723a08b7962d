"""The publication is dropped, made again, or altered: what it left out of the log is never passed over."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.clinic import Clinic, rules_over
from tests.fixtures.children import Child, StartChild
from tests.fixtures.postgres import Database
from tests.oracle.tight import TIGHT

pytestmark = [pytest.mark.faults, pytest.mark.migrated]

TABLES = """
CREATE TABLE visits (id integer PRIMARY KEY, patient text, note text);
CREATE TABLE orders (id integer PRIMARY KEY, patient text, note text);
INSERT INTO visits SELECT i, 'p' || i % 3, 'visit ' || i FROM generate_series(1, 20) AS i;
INSERT INTO orders SELECT i, 'p' || i % 2, 'order ' || i FROM generate_series(1, 10) AS i;
"""
PUBLISH = "CREATE PUBLICATION powersync FOR TABLE visits, orders"


async def replicating(
    database: Database, tmp_path: Path, children: StartChild, publish: str = PUBLISH
) -> tuple[Clinic, Child]:
    rules = rules_over(visits="patient", orders="patient")
    clinic = Clinic(database, tmp_path, children, rules=rules, bounds=TIGHT)
    await clinic.build(tables=TABLES + publish)
    running = clinic.run()
    clinic.catch_up()
    clinic.assert_equal()
    return clinic, running


def write(database: Database) -> None:
    """A change of every kind."""
    database.execute("DELETE FROM visits WHERE id = (SELECT min(id) FROM visits)")
    database.execute("UPDATE orders SET patient = 'p' || (id + 1) % 2 WHERE id % 3 = 0")
    database.execute("INSERT INTO visits SELECT max(id) + 1, 'p1', 'unseen' FROM visits")


async def heals(clinic: Clinic, verb: str) -> None:
    assert clinic.ask("snapshot", verb, "--no-wait") == 0
    clinic.run()
    clinic.catch_up()
    clinic.assert_equal()
    write(clinic.database)
    clinic.catch_up()
    clinic.assert_equal()


async def test_dropped_and_made_again_while_nobody_looked(
    database: Database, tmp_path: Path, children: StartChild
) -> None:
    clinic, running = await replicating(database, tmp_path, children)
    running.terminate()
    assert running.wait() == 0
    database.execute("DROP PUBLICATION powersync")
    write(database)
    database.execute(PUBLISH)
    write(database)
    refused = clinic.run()
    assert refused.wait() == 1
    assert "publication powersync was dropped and made again" in refused.stderr
    assert "replicator snapshot --all" in refused.stderr
    await heals(clinic, "--all")


async def test_dropped_while_it_runs(database: Database, tmp_path: Path, children: StartChild) -> None:
    clinic, running = await replicating(database, tmp_path, children)
    database.execute("DROP PUBLICATION powersync")
    write(database)
    assert running.wait() == 1
    assert "publication" in running.stderr and "powersync" in running.stderr
    missing = clinic.run()
    assert missing.wait() == 1
    assert "no publication powersync" in missing.stderr and "CREATE PUBLICATION" in missing.stderr
    database.execute(PUBLISH)
    refused = clinic.run()
    assert refused.wait() == 1
    assert "made again" in refused.stderr and "replicator snapshot --all" in refused.stderr
    await heals(clinic, "--all")


async def test_dropped_and_made_again_while_it_runs(
    database: Database, tmp_path: Path, children: StartChild
) -> None:
    clinic, running = await replicating(database, tmp_path, children)
    database.execute("DROP PUBLICATION powersync")
    write(database)
    database.execute(PUBLISH)
    assert running.wait() == 1
    await heals(clinic, "--all")


async def test_what_it_publishes_is_cut_down(
    database: Database, tmp_path: Path, children: StartChild
) -> None:
    clinic, running = await replicating(database, tmp_path, children)
    database.execute("ALTER PUBLICATION powersync SET (publish = 'insert')")
    write(database)
    assert running.wait() == 1
    assert "leaves out" in running.stderr and "SET (publish = 'insert, update" in running.stderr
    database.execute("ALTER PUBLICATION powersync SET (publish = 'insert, update, delete, truncate')")
    clinic.run().wait_for("copied", n=2)
    clinic.catch_up()
    clinic.assert_equal()


async def test_a_schema_left_it_and_came_back(
    database: Database, tmp_path: Path, children: StartChild
) -> None:
    publish = "CREATE PUBLICATION powersync FOR TABLES IN SCHEMA public"
    clinic, running = await replicating(database, tmp_path, children, publish)
    running.terminate()
    assert running.wait() == 0
    database.execute("ALTER PUBLICATION powersync DROP TABLES IN SCHEMA public")
    write(database)
    database.execute("ALTER PUBLICATION powersync ADD TABLES IN SCHEMA public")
    refused = clinic.run()
    assert refused.wait() == 1
    assert "came back" in refused.stderr and "replicator snapshot public." in refused.stderr
    await heals(clinic, "--all")
