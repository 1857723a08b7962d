"""An administrator ends our sessions, one after another and all at once: each time it comes back."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.weather import Weather, backends
from tests.fixtures.children import StartChild
from tests.fixtures.postgres import Database
from tests.oracle.tight import TIGHT

pytestmark = pytest.mark.faults


async def test_each_of_them_and_all_of_them(
    database: Database, other_database: Database, tmp_path: Path, children: StartChild
) -> None:
    # In the tight bounds every session is used all the time, so that none is missed for long.
    clinic = Weather(database, tmp_path, children, storage=other_database, bounds=TIGHT)
    await clinic.build()
    running = clinic.run()
    clinic.catch_up()
    names = ["replicator copy", f"replicator {clinic.slot}", "replicator write", "replicator tables"]
    for n, chosen in enumerate([*([name] for name in names), names], start=2):
        clinic.measure("just before", times=3)
        both = backends(database) | backends(other_database)
        assert set(names) <= set(both)
        for name in chosen:
            database.execute("SELECT pg_terminate_backend(%s)", [both[name]])
        clinic.measure("just after", times=3)
        running.wait_for("streaming", n=n)
        clinic.catch_up()
        clinic.assert_equal()
        clinic.assert_stored_once()
    assert running.code is None
