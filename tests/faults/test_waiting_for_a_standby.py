"""A transaction that waits for a standby is in the log, and nobody sees it: no copy misses what it did."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from threading import Thread

import psycopg
import pytest

from tests.faults.clinic import Clinic, rules_over
from tests.faults.weather import wait_until
from tests.fixtures.children import StartChild
from tests.fixtures.postgres import MakeDatabase, Server
from tests.oracle.tight import TIGHT

pytestmark = pytest.mark.faults

TABLES = """
CREATE TABLE visits (id integer PRIMARY KEY, patient text, note text);
ALTER TABLE visits REPLICA IDENTITY FULL;
INSERT INTO visits SELECT i, 'p' || i % 3, 'visit ' || i FROM generate_series(1, 60) AS i;
CREATE PUBLICATION powersync FOR TABLE visits;
"""


def wait_for_standby(server: Server, name: str) -> None:
    """Whoever commits from here on waits for this standby, unless they do not want to."""
    with psycopg.connect(server.dsn("postgres"), autocommit=True) as admin:
        admin.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{name}'".encode())
        admin.execute("SELECT pg_reload_conf()")


async def test_what_passed_before_a_copy_began_and_is_not_visible_is_in_it(
    own_server: Callable[..., Server], make_database: MakeDatabase, tmp_path: Path, children: StartChild
) -> None:
    server = own_server()
    database = make_database(on=server)
    # Nobody else waits: neither the replicator nor the test.
    database.execute(f"ALTER DATABASE {database.name} SET synchronous_commit = local")
    database.execute("SET synchronous_commit = local")
    clinic = Clinic(database, tmp_path, children, rules=rules_over(visits="patient"), bounds=TIGHT)
    await clinic.build(tables=TABLES)
    running = clinic.run()
    clinic.catch_up()

    def write() -> None:
        with psycopg.connect(
            database.owner_dsn, autocommit=True, options="-c synchronous_commit=on"
        ) as connection:
            connection.execute("UPDATE visits SET note = 'new', patient = 'p9' WHERE id < 5")

    wait_for_standby(server, "none")
    writing = Thread(target=write)
    writing.start()
    try:
        waiting = "SELECT true FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
        wait_until(lambda: database.execute(waiting) == [(True,)], lambda: "nobody waits for the standby")
        clinic.catch_up()
        read = running.count("read")
        asked = children("snapshot", "public.visits", "--config", clinic.path)
        running.wait_for("read", n=read + 3)
    finally:
        wait_for_standby(server, "")
        writing.join()
    assert asked.wait() == 0
    clinic.catch_up()
    clinic.assert_equal()
