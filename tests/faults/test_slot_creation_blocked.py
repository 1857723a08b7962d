"""An open transaction stands in the way of the slot: it is named, and nothing is left behind by waiting."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.weather import Weather, bounds
from tests.fixtures.children import StartChild
from tests.fixtures.postgres import Database

pytestmark = pytest.mark.faults


async def test_it_says_who_retries_and_goes_on_when_the_transaction_ends(
    database: Database, tmp_path: Path, children: StartChild
) -> None:
    clinic = Weather(database, tmp_path, children, bounds=bounds(_SLOT_TIMEOUT_S=0.5))
    await clinic.build()
    database.grant("pg_read_all_stats")
    forgotten = database.connect(application_name="a forgotten session")
    with forgotten.transaction():
        forgotten.execute("INSERT INTO users (firebase_uid) VALUES ('not yet there')")
        running = clinic.run()
        who = f"pid {forgotten.info.backend_pid} (a forgotten session), idle in transaction"
        running.wait_for("slot waits", behind=lambda behind: who in behind)
        running.wait_for("waiting", why=lambda why: "open transactions are in its way" in why)
        running.wait_for("slot waits", n=2)
        assert clinic.checkpoint() == []
    running.wait_for("streaming")
    clinic.measure("after")
    clinic.catch_up()
    clinic.assert_equal()


async def test_it_ends_when_asked_while_it_waits(
    database: Database, tmp_path: Path, children: StartChild
) -> None:
    clinic = Weather(database, tmp_path, children)
    await clinic.build()
    forgotten = database.connect()
    with forgotten.transaction():
        forgotten.execute("INSERT INTO users (firebase_uid) VALUES ('not yet there')")
        running = clinic.run()
        running.wait_for("slot waits")
        running.terminate()
        assert running.wait() == 0
        assert clinic.slot_stands() == [] and clinic.checkpoint() == []
