"""The slot is gone, or another of its name stands there: the gap is never passed over in silence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.faults.clinic import Clinic
from tests.fixtures.children import StartChild
from tests.fixtures.postgres import Database

pytestmark = [pytest.mark.faults, pytest.mark.migrated]


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
    database.drop_slot(clinic.slot)
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


async def test_a_slot_that_is_lost_before_the_first_copy_is_complete_is_come_back_from(
    database: Database, tmp_path: Path, children: StartChild
) -> None:
    clinic = Clinic(database, tmp_path, children)
    await clinic.build()
    killed = clinic.run(kill_at=("stored", 1))
    assert killed.wait() == -9
    assert database.execute("SELECT shown_lsn FROM replicator.checkpoints") == [(None,)]
    database.drop_slot(clinic.slot)
    clinic.measure("in the gap")
    assert clinic.run().wait() == 1
    assert clinic.ask("snapshot", "--all", "--no-wait") == 0
    clinic.run()
    clinic.catch_up()
    clinic.assert_equal()


async def test_resync_goes_on_by_itself(database: Database, tmp_path: Path, children: StartChild) -> None:
    clinic = await stopped_with_a_gap(database, tmp_path, children, recreate=False, on_slot_loss="resync")
    clinic.run()
    clinic.catch_up()
    clinic.assert_equal()


@pytest.mark.parametrize("while_it_runs", [True, False])
async def test_all_asked_for_while_nothing_is_lost_permits_nothing_later(
    database: Database, tmp_path: Path, children: StartChild, while_it_runs: bool
) -> None:
    clinic = Clinic(database, tmp_path, children)
    await clinic.build()
    running = clinic.run()
    clinic.measure("seen")
    clinic.catch_up()
    if while_it_runs:
        assert clinic.ask("snapshot", "--all") == 0
    running.terminate()
    assert running.wait() == 0
    if not while_it_runs:
        assert clinic.ask("snapshot", "--all", "--no-wait") == 0
    database.drop_slot(clinic.slot)
    clinic.measure("in the gap")
    refused = clinic.run()
    assert refused.wait() == 1
    assert "does not exist any more" in refused.stderr


async def test_what_was_given_up_is_one_loss_and_not_the_next(
    database: Database, tmp_path: Path, children: StartChild
) -> None:
    clinic = await stopped_with_a_gap(database, tmp_path, children, recreate=False)
    assert clinic.ask("snapshot", "--all", "--no-wait") == 0
    database.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [clinic.slot])
    refused = clinic.run()
    assert refused.wait() == 1
    assert "has confirmed" in refused.stderr
    # Nor does it last: once begun again, it permits nothing.
    assert clinic.ask("snapshot", "--all", "--no-wait") == 0
    running = clinic.run()
    clinic.catch_up()
    running.terminate()
    assert running.wait() == 0
    database.drop_slot(clinic.slot)
    assert clinic.run().wait() == 1
