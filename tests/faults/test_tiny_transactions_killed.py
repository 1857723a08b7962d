"""A thousand transactions of a row each, and a writer killed again and again: all stored once, in order."""

from __future__ import annotations

import random
from pathlib import Path

import psycopg
import pytest

from tests.faults.clinic import Clinic, rules_over
from tests.fixtures.children import Child, StartChild
from tests.fixtures.postgres import Connection, Database
from tests.oracle.tight import TIGHT

pytestmark = [pytest.mark.faults, pytest.mark.migrated]

TRANSACTIONS = 1_000
TABLES = """
CREATE TABLE notes (id integer PRIMARY KEY, patient text, n integer);
ALTER TABLE notes REPLICA IDENTITY {};
CREATE PUBLICATION powersync FOR ALL TABLES;
"""
TOLD = "SELECT op, object_id, (data::json ->> 'n')::integer FROM replicator.history ORDER BY op_id"
#: Where it stands, and whether it has acknowledged more than that.
STOOD = """
SELECT op_id, (lsn - '0/0')::bigint, confirmed_flush_lsn > lsn,
       (SELECT count(*) FROM replicator.ops AS o WHERE o.op_id > c.op_id)
FROM replicator.checkpoints AS c JOIN pg_replication_slots ON slot_name = slot
"""

#: An op, whose row it is, and what the row says.
Told = tuple[str, str, int | None]


class Traffic:
    """Transactions of one row each, and the op that each must become."""

    def __init__(self, connection: Connection, rng: random.Random) -> None:
        self._connection, self._rng = connection, rng
        self._there: list[int] = []
        self.told: list[Told] = []

    def go_on(self) -> None:
        number, kind = len(self.told), self._rng.choice("iiuud")
        if kind == "i" or not self._there:
            self._connection.execute("INSERT INTO notes VALUES (%s, 'p1', %s)", [number, number])
            self._there.append(number)
            self.told.append(("PUT", str(number), number))
            return
        chosen = self._rng.choice(self._there)
        if kind == "u":
            self._connection.execute("UPDATE notes SET n = %s WHERE id = %s", [number, chosen])
            self.told.append(("PUT", str(chosen), number))
        else:
            self._connection.execute("DELETE FROM notes WHERE id = %s", [chosen])
            self._there.remove(chosen)
            self.told.append(("REMOVE", str(chosen), None))

    @property
    def is_over(self) -> bool:
        return len(self.told) >= TRANSACTIONS


@pytest.mark.parametrize("identity", ["FULL", "DEFAULT"])
async def test_each_is_stored_once_and_in_its_order(
    database: Database, tmp_path: Path, children: StartChild, rng: random.Random, identity: str
) -> None:
    clinic = Clinic(database, tmp_path, children, rules=rules_over(notes="patient"), bounds=TIGHT)
    await clinic.build(tables=TABLES.format(identity))
    copied = clinic.run()
    clinic.catch_up()
    copied.terminate()
    assert copied.wait() == 0
    stood = (0, 0)
    kills = 0
    with psycopg.connect(database.owner_dsn, autocommit=True) as connection:
        traffic = Traffic(connection, rng)
        while not traffic.is_over:
            killed = killed_somewhere(clinic, traffic, rng)
            assert killed.code == -9, killed.stderr
            kills += 1
            [(op_id, lsn, is_ahead, beyond)] = database.execute(STOOD)
            assert (op_id, lsn) >= stood and not is_ahead and beyond == 0
            stood = op_id, lsn
    clinic.run()
    clinic.catch_up()
    clinic.assert_equal()
    assert database.execute(TOLD) == traffic.told
    assert kills >= TRANSACTIONS / 200


def killed_somewhere(clinic: Clinic, traffic: Traffic, rng: random.Random) -> Child:
    """Go on until it is killed: as it begins, before a commit, after one, or wherever it may be."""
    mark = rng.choice(("writing", "appended", "stored", None))
    at = None if mark is None else (mark, 1 if mark == "writing" else rng.randrange(1, 5))
    running = clinic.run(kill_at=at)
    traffic.go_on()
    if mark != "writing":
        running.wait_for("streaming")
    for _ in range(rng.randrange(1, 200)):
        if running.code is None and not traffic.is_over:
            traffic.go_on()
    running.kill()
    return running
