"""The slot is gone, or another of its name stands there: the gap is never passed over in silence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.faults.clinic import Clinic
from tests.fixtures.children import StartChild
from tests.fixtures.postgres import Database

pytestmark = pytest.mark.faults


async def stopped_with_a_gap(
    database: Database, tmp_path: Path, children: StartChild, *, recreate: bool, **source: Any
) -> Clinic:
    """A clinic whose replicator was ended, and whose slot was dropped before more was written."""
    clinic = Clinic(database, tmp_path, children, **source)
    await clinic.build()
    running = clinic.run()
    clinic.measure("seen")
    clinic.catch_up()
    running.terminate()
    assert running.wait() == 0
    database.execute("SELECT pg_drop_replication_slot(%s)", [clinic.slot])
    clinic.measure("in the gap")
    database.execute("DELETE FROM vital_signs WHERE notes = 'seen'")
    if recreate:
        database.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [clinic.slot])
    return clinic


@pytest.mark.parametrize(("recreate", "said"), [(False, "does not exist any more"), (True, "has confirmed")])
async def test_it_stops_names_the_remedy_and_the_remedy_heals(
    database: Database, tmp_path: Path, children: StartChild, recreate: bool, said: str
) -> None:
    clinic = await stopped_with_a_gap(database, tmp_path, children, recreate=recreate)
    refused = clinic.run()
    assert refused.wait() == 1
    assert said in refused.stderr and "replicator snapshot --all" in refused.stderr
    assert clinic.ask("snapshot", "--all", "--no-wait") == 0
    clinic.run()
    clinic.catch_up()
    clinic.assert_equal()


async def test_resync_goes_on_by_itself(database: Database, tmp_path: Path, children: StartChild) -> None:
    clinic = await stopped_with_a_gap(database, tmp_path, children, recreate=False, on_slot_loss="resync")
    clinic.run()
    clinic.catch_up()
    clinic.assert_equal()
