"""The process is killed after storage has committed, before the source was told: sent twice, stored once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.clinic import Clinic
from tests.fixtures.children import StartChild
from tests.fixtures.postgres import Database

pytestmark = [pytest.mark.faults, pytest.mark.migrated]


@pytest.mark.parametrize("mark", ["appended", "stored"])
@pytest.mark.parametrize("nth", [1, 3])
async def test_what_was_committed_once_is_stored_once(
    database: Database, tmp_path: Path, children: StartChild, mark: str, nth: int
) -> None:
    clinic = Clinic(database, tmp_path, children)
    await clinic.build()
    copied = clinic.run()
    clinic.catch_up()
    copied.terminate()
    assert copied.wait() == 0
    killed = clinic.run(kill_at=(mark, nth))
    killed.wait_for("streaming")
    while killed.code is None:
        clinic.measure("once")
    assert killed.wait() == -9
    clinic.measure("once")
    clinic.run()
    clinic.catch_up()
    clinic.assert_equal()
    stored = database.execute("SELECT count(*) FROM replicator.ops WHERE object_type = 'vital_signs'")
    assert stored == database.execute("SELECT count(*) FROM vital_signs")


async def test_the_slot_never_passes_what_is_stored(
    database: Database, tmp_path: Path, children: StartChild
) -> None:
    clinic = Clinic(database, tmp_path, children)
    await clinic.build()
    for nth in (2, 4):
        killed = clinic.run(kill_at=("appended", nth))
        while killed.code is None:
            clinic.measure("more")
        assert killed.wait() == -9
        ahead = database.execute(
            "SELECT confirmed_flush_lsn > lsn FROM pg_replication_slots, replicator.checkpoints "
            "WHERE slot_name = %s",
            [clinic.slot],
        )
        assert ahead == [(False,)]
