"""A second replicator is started on the same slot: it stands by, and takes over when the first is killed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.clinic import Clinic
from tests.fixtures.children import StartChild
from tests.fixtures.postgres import Database

pytestmark = [pytest.mark.faults, pytest.mark.migrated]


async def test_the_second_stands_by_and_takes_over(
    database: Database, tmp_path: Path, children: StartChild
) -> None:
    clinic = Clinic(database, tmp_path, children)
    await clinic.build()
    first = clinic.run()
    first.wait_for("streaming")
    second = clinic.run()
    second.wait_for("waiting", why=lambda why: "standing by" in why)
    clinic.measure("while two are there")
    clinic.catch_up()
    assert first.code is None and second.count("streaming") == 0
    first.kill()
    second.wait_for("streaming")
    clinic.measure("after the first is gone")
    clinic.catch_up()
    clinic.assert_equal()
