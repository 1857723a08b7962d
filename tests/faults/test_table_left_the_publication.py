"""A table is taken out of the publication and put back: what was written meanwhile is not in the log."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.clinic import Clinic
from tests.fixtures.children import StartChild
from tests.fixtures.postgres import Database
from tests.oracle.tight import TIGHT

pytestmark = [pytest.mark.faults, pytest.mark.migrated]


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
    heals(clinic)


def heals(clinic: Clinic) -> None:
    assert clinic.ask("snapshot", "vital_signs", "--no-wait") == 0
    clinic.run()
    clinic.catch_up()
    clinic.assert_equal()


@pytest.mark.parametrize("is_back_at_once", [False, True])
async def test_it_stops_when_it_happens_while_it_runs(
    database: Database, tmp_path: Path, children: StartChild, is_back_at_once: bool
) -> None:
    clinic = Clinic(database, tmp_path, children, bounds=TIGHT)
    await clinic.build()
    running = clinic.run()
    clinic.measure("seen")
    clinic.catch_up()
    database.execute("ALTER PUBLICATION powersync DROP TABLE vital_signs")
    database.execute("DELETE FROM vital_signs WHERE id = (SELECT id FROM vital_signs LIMIT 1)")
    clinic.measure("unseen")
    if not is_back_at_once:
        assert running.wait() == 1
        assert "public.vital_signs is in the rules, but not in publication" in running.stderr
        assert "ALTER PUBLICATION powersync ADD TABLE" in running.stderr
    database.execute("ALTER PUBLICATION powersync ADD TABLE vital_signs")
    stopped = running if is_back_at_once else clinic.run()
    assert stopped.wait() == 1
    if "came back" not in stopped.stderr:
        # It was looked at in the moment between: the next start says the rest.
        assert "not in publication powersync" in stopped.stderr
        assert clinic.run().wait() == 1
    heals(clinic)
