"""Storage answers nothing for longer than the source is patient: the source goes on hearing from us."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.faults.weather import Weather, wait_until
from tests.fixtures.children import StartChild
from tests.fixtures.postgres import MakeDatabase, Server

pytestmark = pytest.mark.faults

_PATIENCE = timedelta(seconds=3)


@pytest.mark.parametrize("rows", [1, 30_000], ids=["little to read", "more than is read ahead"])
async def test_the_walsender_stays(
    own_server: Callable[..., Server],
    make_database: MakeDatabase,
    tmp_path: Path,
    children: StartChild,
    rows: int,
) -> None:
    source = make_database(on=own_server(wal_sender_timeout="3s"))
    clinic = Weather(source, tmp_path, children, storage=make_database())
    await clinic.build()
    running = clinic.run()
    clinic.catch_up()

    def walsender() -> tuple[Any, ...]:
        query = "SELECT pid, reply_time FROM pg_stat_replication WHERE application_name = %s"
        (found,) = source.execute(query, [f"replicator {clinic.slot}"])
        return found

    blocking = clinic.storage.connect()
    with blocking.transaction():
        blocking.execute("SELECT FROM replicator.checkpoints FOR UPDATE")
        source.execute(
            "INSERT INTO vital_signs (patient_id, notes) "
            "SELECT (SELECT id FROM users LIMIT 1), repeat('x', 1000) FROM generate_series(1, %s)",
            [rows],
        )
        waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = %s"
        wait_until(lambda: clinic.storage.execute(waits, [clinic.storage.name]) == [(1,)])
        pid, before = walsender()
        wait_until(lambda: walsender()[1] - before > 3 * _PATIENCE)
        assert walsender()[0] == pid
        assert clinic.storage.execute(waits, [clinic.storage.name]) == [(1,)]
        clinic.assert_not_ahead()
    clinic.catch_up()
    assert walsender()[0] == pid
    assert running.count("streaming") == 1 and running.count("waiting") == 0
    clinic.assert_equal()
    clinic.assert_stored_once()
