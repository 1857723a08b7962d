"""The source crashes in the middle of a first copy: the copy goes on when it is back, and misses nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from replicator.demo.postgres import Server
from tests.faults.clinic import Clinic, rules_over
from tests.fixtures.children import StartChild
from tests.fixtures.postgres import MakeDatabase
from tests.oracle.tight import TIGHT

pytestmark = pytest.mark.faults

TABLES = """
CREATE TABLE visits (id integer PRIMARY KEY, patient text, note text);
INSERT INTO visits SELECT i, 'p' || i % 3, 'visit ' || i FROM generate_series(1, 80) AS i;
CREATE PUBLICATION powersync FOR TABLE visits;
"""


@pytest.mark.parametrize("nth", [1, 4])
async def test_the_copy_goes_on(
    own_server: Callable[..., Server],
    make_database: MakeDatabase,
    tmp_path: Path,
    children: StartChild,
    nth: int,
) -> None:
    server = own_server()
    database = make_database(on=server)
    clinic = Clinic(database, tmp_path, children, rules=rules_over(visits="patient"), bounds=TIGHT)
    await clinic.build(tables=TABLES)
    running = clinic.run(block_at=("chunk", nth))
    running.wait_for("chunk", n=nth)
    database.execute("UPDATE visits SET id = id + 100 WHERE id % 7 = 0")
    server.restart("immediate")
    database.execute("UPDATE visits SET patient = 'p' || (id + 1) % 3 WHERE id % 5 = 0")
    running.go_on()
    clinic.catch_up()
    clinic.assert_equal()
    assert running.count("streaming") >= 2
