"""The slot is invalidated or dropped, also under a running replicator: a remedy, or a copy beside."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from tests.faults.weather import Weather, bounds, wait_until
from tests.fixtures.children import Child, StartChild
from tests.fixtures.postgres import Database, MakeDatabase, Server

pytestmark = pytest.mark.faults

ON_LOSS = pytest.mark.parametrize("on_slot_loss", ["stop", "resync"])


def invalidate(clinic: Weather) -> None:
    """Write more than the server may keep, until it has thrown the slot's part away."""
    fill = "SELECT pg_logical_emit_message(false, 'test', repeat('x', 1000000)) FROM generate_series(1, 20)"

    def is_lost() -> bool:
        for statement in (fill, "SELECT pg_switch_wal()", "SET statement_timeout = '30s'", "CHECKPOINT"):
            clinic.source.execute(statement)
        return [status for _, _, status in clinic.slot_stands()] == ["lost"]

    wait_until(is_lost)


def drop(clinic: Weather) -> None:
    """Drop the slot of a running replicator, as often as it takes to be faster than it."""

    def is_dropped() -> bool:
        clinic.source.execute(
            "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = %s",
            [clinic.slot],
        )
        try:
            clinic.source.execute("SELECT pg_drop_replication_slot(%s)", [clinic.slot])
        except psycopg.errors.ObjectInUse:
            return False
        return True

    wait_until(is_dropped)


def assert_remedied(clinic: Weather, running: Child, on_slot_loss: str, said: str) -> None:
    """It stops with words that lead on, or it goes on; either way, what was in the gap arrives."""
    if on_slot_loss == "stop":
        assert running.wait() == 1
        assert said in running.stderr and "replicator snapshot --all" in running.stderr
        assert clinic.verb("snapshot", "--all", "--no-wait").code == 0
        clinic.run()
    else:
        running.wait_for("beginning again", why=lambda why: said in why)
    clinic.catch_up()
    clinic.assert_equal()


async def followed(
    source: Database, storage: Database, tmp_path: Path, children: StartChild, on_slot_loss: str
) -> tuple[Weather, Child]:
    clinic = Weather(
        source, tmp_path, children, storage=storage, on_slot_loss=on_slot_loss, bounds=bounds(_STUCK_S=0.5)
    )
    await clinic.build()
    running = clinic.run()
    clinic.measure("seen", times=2)
    clinic.catch_up()
    return clinic, running


@ON_LOSS
async def test_invalidated_while_running(
    own_server: Callable[..., Server],
    make_database: MakeDatabase,
    tmp_path: Path,
    children: StartChild,
    on_slot_loss: str,
) -> None:
    source = make_database(on=own_server(max_slot_wal_keep_size="16MB", max_wal_size="32MB"))
    clinic, running = await followed(source, make_database(), tmp_path, children, on_slot_loss)
    blocking = clinic.storage.connect()
    with blocking.transaction():
        # So that it acknowledges nothing, and after a while reads nothing: a sender whose client does not
        # read cannot end, and until it has, no checkpoint of the source goes on.
        blocking.execute("SELECT FROM replicator.checkpoints FOR UPDATE")
        clinic.measure("on the way")
        source.execute("DELETE FROM vital_signs WHERE notes = 'seen'")
        invalidate(clinic)
    clinic.measure("in the gap")
    assert_remedied(clinic, running, on_slot_loss, "was invalidated")


@ON_LOSS
async def test_invalidated_while_stopped(
    own_server: Callable[..., Server],
    make_database: MakeDatabase,
    tmp_path: Path,
    children: StartChild,
    on_slot_loss: str,
) -> None:
    source = make_database(on=own_server(max_slot_wal_keep_size="16MB", max_wal_size="32MB"))
    clinic, running = await followed(source, make_database(), tmp_path, children, on_slot_loss)
    running.terminate()
    assert running.wait() == 0
    source.execute("DELETE FROM vital_signs WHERE notes = 'seen'")
    invalidate(clinic)
    assert_remedied(clinic, clinic.run(), on_slot_loss, "was invalidated")


@ON_LOSS
async def test_dropped_while_running(
    database: Database, tmp_path: Path, children: StartChild, on_slot_loss: str
) -> None:
    clinic, running = await followed(database, database, tmp_path, children, on_slot_loss)
    drop(clinic)
    database.execute("DELETE FROM vital_signs WHERE notes = 'seen'")
    clinic.measure("in the gap")
    assert_remedied(clinic, running, on_slot_loss, "does not exist any more")


@ON_LOSS
async def test_dropped_between_being_looked_at_and_being_read(
    database: Database, tmp_path: Path, children: StartChild, on_slot_loss: str
) -> None:
    clinic, running = await followed(database, database, tmp_path, children, on_slot_loss)
    running.terminate()
    assert running.wait() == 0
    running = clinic.run(block_at=("agreed", 1))
    running.wait_for("agreed")
    clinic.measure("in the gap")
    drop(clinic)
    running.go_on()
    assert_remedied(clinic, running, on_slot_loss, "does not exist any more")


async def test_made_again_between_being_looked_at_and_being_read(
    database: Database, tmp_path: Path, children: StartChild
) -> None:
    clinic, running = await followed(database, database, tmp_path, children, "stop")
    running.terminate()
    assert running.wait() == 0
    running = clinic.run(block_at=("agreed", 1))
    running.wait_for("agreed")
    clinic.measure("in the gap")
    drop(clinic)
    database.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [clinic.slot])
    running.go_on()
    assert_remedied(clinic, running, "stop", "has confirmed")
