"""A table is taken out of the publication and put back: what was written meanwhile is not in the log."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.clinic import Clinic
from tests.fixtures.children import StartChild
from tests.fixtures.postgres import Database

pytestmark = pytest.mark.faults


async def test_it_stops_names_the_table_and_a_copy_heals(
    database: Database, tmp_path: Path, children: StartChild
) -> None:
    clinic = Clinic(database, tmp_path, children)
    await clinic.build()
    running = clinic.run()
    clinic.measure("seen")
    clinic.catch_up()
    running.terminate()
    assert running.wait() == 0
    database.execute("ALTER PUBLICATION powersync DROP TABLE vital_signs")
    clinic.measure("unseen")
    out = clinic.run()
    assert out.wait() == 1 and "not in publication powersync" in out.stderr
    database.execute("ALTER PUBLICATION powersync ADD TABLE vital_signs")
    back = clinic.run()
    assert back.wait() == 1 and "came back" in back.stderr
    assert "replicator snapshot public.vital_signs" in back.stderr
    assert clinic.ask("snapshot", "vital_signs", "--no-wait") == 0
    clinic.run()
    clinic.catch_up()
    clinic.assert_equal()
