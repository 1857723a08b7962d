"""A writer that has been replaced wakes late: it stores nothing any more, and says why."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.weather import Weather, backends, wait_until
from tests.fixtures.children import StartChild
from tests.fixtures.postgres import Database

pytestmark = [pytest.mark.faults, pytest.mark.migrated]


@pytest.mark.parametrize("at", ["appended", "stored"])
async def test_one_whose_sessions_are_gone_stands_by(
    database: Database, tmp_path: Path, children: StartChild, at: str
) -> None:
    clinic = Weather(database, tmp_path, children)
    await clinic.build()
    copied = clinic.run()
    clinic.catch_up()
    copied.terminate()
    assert copied.wait() == 0
    first = clinic.run(block_at=(at, 1))
    first.wait_for("streaming")
    clinic.measure("under way")
    first.wait_for(at)
    # As when its machine loses the network for a while: its sessions end, and it does not hear of it.
    for pid in backends(database).values():
        database.execute("SELECT pg_terminate_backend(%s)", [pid])
    wait_until(lambda: not backends(database))
    second = clinic.run()
    second.wait_for("streaming")
    clinic.measure("meanwhile", times=3)
    clinic.catch_up()
    stored = clinic.checkpoint()
    first.go_on()
    first.wait_for("waiting", why=lambda why: "terminating connection" in why or "closed" in why)
    first.wait_for("waiting", why=lambda why: "standing by" in why)
    assert clinic.checkpoint() == stored
    clinic.measure("after")
    clinic.catch_up()
    assert first.count("stored") == (0 if at == "appended" else 1)
    assert second.code is None and second.count("waiting") == 0
    clinic.assert_equal()
    clinic.assert_stored_once()


async def test_one_that_lost_only_its_lock_ends(
    database: Database, tmp_path: Path, children: StartChild
) -> None:
    clinic = Weather(database, tmp_path, children)
    await clinic.build()
    copied = clinic.run()
    clinic.catch_up()
    copied.terminate()
    assert copied.wait() == 0
    first = clinic.run(block_at=("agreed", 1))
    first.wait_for("agreed")
    # What a second writer does first. Locks are lost where storage fails over, or sits behind a pooler.
    database.execute("UPDATE replicator.checkpoints SET fence = fence + 1")
    clinic.measure("not to be stored by the first")
    stored = clinic.checkpoint()
    first.go_on()
    assert first.wait() == 1
    assert f"another replicator has taken over slot {clinic.slot}" in first.stderr
    assert "Nothing it had not committed is stored" in first.stderr
    assert clinic.checkpoint() == stored
    assert database.execute("SELECT max(op_id) FROM replicator.ops") == [(stored[0][0],)]
    clinic.run()
    clinic.catch_up()
    clinic.assert_equal()
    clinic.assert_stored_once()
