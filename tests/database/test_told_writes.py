"""Numbers of clients' writes that rows tell: they are reached with the checkpoint that holds their row."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from replicator.buckets import told_writes
from replicator.buckets.told_writes import ToldWrites
from replicator.buckets.write_checkpoints import Client, newest
from replicator.database import connected, migrate
from replicator.rules.route import Written
from replicator.wal.lsn import Lsn
from tests.database.served import Served
from tests.database.test_tail_user import tail, until
from tests.fixtures.children import StartChild
from tests.fixtures.postgres import Database
from tests.fixtures.tokens import token as token_of

pytestmark = pytest.mark.migrated

TABLES = """
CREATE TABLE notes (id text PRIMARY KEY, owner text, body text);
CREATE TABLE checkpoints (user_id text, client_id text, checkpoint bigint, PRIMARY KEY (user_id, client_id));
CREATE PUBLICATION powersync FOR TABLE notes, checkpoints;
INSERT INTO checkpoints VALUES ('ann', 'c1', 3);
"""
RULES = {
    "bucket_definitions": {
        "mine": {
            "parameters": "SELECT request.user_id() AS owner",
            "data": ["SELECT id, body FROM notes WHERE owner = bucket.owner"],
        }
    },
    "event_definitions": {
        "write_checkpoints": {"payloads": ["SELECT user_id, client_id, checkpoint FROM checkpoints"]}
    },
}


@pytest.fixture
async def clinic(database: Database, tmp_path: Path, children: StartChild) -> AsyncIterator[Served]:
    served = Served(database, tmp_path, children, rules=json.dumps(RULES))
    await served.build(tables=TABLES)
    served.replicate()
    await asyncio.to_thread(served.catch_up)
    yield served


def numbers(clinic: Served) -> dict[tuple[str, str], tuple[int, bool]]:
    """By user and client: the number, and whether readers see what was written."""
    found = clinic.database.execute(
        """SELECT user_id, client_id, id, w.lsn <= shown_lsn
           FROM replicator.write_checkpoints AS w, replicator.checkpoints"""
    )
    return {(user, client): (number, is_seen) for user, client, number, is_seen in found}


def test_a_row_tells_a_number_that_only_grows(clinic: Served) -> None:
    execute = clinic.database.execute
    assert numbers(clinic) == {("ann", "c1"): (3, True)}, "one that the first copy brought"
    execute("INSERT INTO checkpoints VALUES ('ann', 'c2', 10), ('bob', 'c1', 1)")
    execute("UPDATE checkpoints SET checkpoint = 7 WHERE (user_id, client_id) = ('ann', 'c1')")
    clinic.catch_up()
    expected = {("ann", "c1"): (7, True), ("ann", "c2"): (10, True), ("bob", "c1"): (1, True)}
    assert numbers(clinic) == expected
    execute("UPDATE checkpoints SET checkpoint = 2")
    execute("DELETE FROM checkpoints")
    clinic.catch_up()
    assert numbers(clinic) == expected | {("bob", "c1"): (2, True)}


def test_a_number_is_stored_with_what_was_written_before_it(clinic: Served) -> None:
    clinic.database.execute("INSERT INTO notes VALUES ('n1', 'ann', 'x')")
    clinic.catch_up()
    assert clinic._last is not None
    clinic._last.kill()
    clinic.database.execute(
        """WITH noted AS (INSERT INTO notes VALUES ('n2', 'ann', 'y'))
           UPDATE checkpoints SET checkpoint = 4 WHERE user_id = 'ann'"""
    )
    # Killed between the two, neither is stored.
    child = clinic.start_child(
        "run", "--only", "replicate", "--config", clinic.config, kill_at=("appended", 1)
    )
    assert child.wait() == -9
    assert numbers(clinic) == {("ann", "c1"): (3, True)}
    assert clinic.database.execute("SELECT count(*) FROM replicator.ops") == [(1,)]
    clinic.replicate()
    clinic.catch_up()
    assert numbers(clinic) == {("ann", "c1"): (4, True)}
    assert clinic.database.execute("SELECT count(*) FROM replicator.ops") == [(2,)]


async def test_a_client_is_told_the_number_its_backend_wrote(clinic: Served) -> None:
    await asyncio.to_thread(clinic.serve)
    await asyncio.to_thread(clinic.until_ready)
    child = tail(clinic, "--user", "ann", "--json", "--client", "c1")
    await asyncio.to_thread(until, child, "checkpoint", write_checkpoint=3)
    clinic.database.execute("UPDATE checkpoints SET checkpoint = 4")
    await asyncio.to_thread(until, child, "checkpoint", write_checkpoint=4)
    # Who asks the server for a number gets one after it.
    status, body = clinic.request("/write-checkpoint2.json?client_id=c1", token=token_of("ann"))
    assert (status, body) == (200, {"data": {"write_checkpoint": "5"}})
    await asyncio.to_thread(until, child, "checkpoint", write_checkpoint=5)


def test_the_table_must_be_published(clinic: Served) -> None:
    validate = ("rules", "validate", "--source", "--config", clinic.config)
    assert clinic.start_child(*validate).wait() == 0
    clinic.database.execute("ALTER PUBLICATION powersync DROP TABLE checkpoints")
    child = clinic.start_child(*validate)
    assert child.wait() == 1 and "checkpoints is not in publication" in child.stdout
    child = clinic.start_child("rules", "explain", "--config", clinic.config)
    assert child.wait() == 0 and "checkpoints" in child.stdout


async def test_more_clients_than_are_held_at_once_are_told(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(told_writes, "_HELD", 2)
    await migrate(database.dsn, "replicator")
    async with connected(database.dsn, "test", schema="replicator") as storage:
        writes = ToldWrites()
        async with storage.transaction():
            writes.add([Written(f"u{n}", "c", 5) for n in range(3)])
            was_full = writes.is_full
            await writes.send(storage)
            assert (was_full, writes.is_full) == (True, False)
            writes.add([Written("u1", "c", 4), Written("u9", "c", 1)])
            await writes.send(storage, Lsn(500))
        clients = [Client(f"u{n}", "c") for n in (0, 1, 2, 9)]
        assert await newest(storage, clients, Lsn(499)) == dict.fromkeys(clients)
        assert await newest(storage, clients, Lsn(500)) == dict(zip(clients, (5, 5, 5, 1), strict=True))
