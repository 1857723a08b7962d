"""Another server stands behind the DSN: it is not followed, unless an operator who has seen it says so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.weather import Weather, make_tables
from tests.fixtures.children import StartChild
from tests.fixtures.postgres import Database, MakeDatabase, Server

pytestmark = pytest.mark.faults


async def test_all_asked_for_of_one_server_does_not_permit_another(
    database: Database,
    own_server: Callable[..., Server],
    make_database: MakeDatabase,
    tmp_path: Path,
    children: StartChild,
) -> None:
    clinic = Weather(database, tmp_path, children, storage=make_database())
    await clinic.build()
    running = clinic.run()
    clinic.measure("seen")
    clinic.catch_up()
    running.terminate()
    assert running.wait() == 0
    assert clinic.verb("snapshot", "--all", "--no-wait").code == 0
    there = make_database(on=own_server())
    make_tables(there)
    clinic.source, clinic.keys["source"]["dsn"] = there, there.dsn
    clinic.write()
    clinic.admit("somebody else")

    refused = clinic.run()
    assert refused.wait() == 1
    assert "the source is now system" in refused.stderr and "replicator snapshot --all" in refused.stderr
    asked = clinic.verb("snapshot", "--all", "--no-wait")
    assert asked.code == 0 and "given up: slot" in asked.stderr
    # Until then, what is shown carries a position of the other log.
    clinic.run().wait_for("streaming")
    clinic.catch_up()
    clinic.assert_equal()
