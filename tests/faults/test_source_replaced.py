"""Behind the DSN there is another system, or another timeline of it: refused, until it is to start over."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.weather import Weather, make_tables, wait_until
from tests.fixtures.children import StartChild
from tests.fixtures.postgres import Database, MakeDatabase, Server

pytestmark = pytest.mark.faults


def assert_refused_and_remedied(clinic: Weather, said: str) -> None:
    held = clinic.storage.execute("SELECT count(*), max(op_id) FROM replicator.ops")
    before = clinic.checkpoint()
    refused = clinic.run()
    assert refused.wait() == 1
    assert said in refused.stderr and "replicator snapshot --all" in refused.stderr
    assert clinic.checkpoint() == before
    assert clinic.storage.execute("SELECT count(*), max(op_id) FROM replicator.ops") == held
    assert clinic.verb("snapshot", "--all", "--no-wait").code == 0
    # Until it has begun again, what is shown is at a position of the other log, which means nothing here.
    clinic.run().wait_for("streaming")
    clinic.catch_up()
    clinic.assert_equal()
    clinic.measure("after")
    clinic.catch_up()
    clinic.assert_equal()


async def stopped(clinic: Weather) -> None:
    await clinic.build()
    running = clinic.run()
    clinic.measure("seen")
    clinic.catch_up()
    running.terminate()
    assert running.wait() == 0


@pytest.mark.parametrize("has_slot", [False, True], ids=["without a slot", "with a slot of that name"])
async def test_another_system(
    database: Database,
    own_server: Callable[..., Server],
    make_database: MakeDatabase,
    tmp_path: Path,
    children: StartChild,
    has_slot: bool,
) -> None:
    clinic = Weather(database, tmp_path, children, storage=make_database())
    await stopped(clinic)
    clinic.source = make_database(on=own_server())
    clinic.keys["source"]["dsn"] = clinic.source.dsn
    clinic.write()
    make_tables(clinic.source)
    clinic.admit("somebody else")
    clinic.measure("of another system")
    if has_slot:
        clinic.source.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [clinic.slot])
    assert_refused_and_remedied(clinic, "the source is now system")


async def test_another_timeline(
    own_server: Callable[..., Server], make_database: MakeDatabase, tmp_path: Path, children: StartChild
) -> None:
    server = own_server()
    source = make_database(on=server)
    clinic = Weather(source, tmp_path, children, storage=make_database())
    await stopped(clinic)
    server.stop()
    signal = server.data / "standby.signal"
    signal.touch()
    signal.chmod(0o666)
    server.start()
    source.execute("SELECT pg_promote(wait => true)")
    wait_until(lambda: source.execute("SELECT pg_is_in_recovery()") == [(False,)])
    clinic.measure("on the new timeline")
    assert_refused_and_remedied(clinic, "timeline 2")
