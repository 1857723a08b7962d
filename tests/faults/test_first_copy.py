"""The first copy of tables, killed, overtaken and refused: it goes on where it was, and misses no row."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.faults.clinic import Clinic, rules_over
from tests.fixtures.children import StartChild
from tests.fixtures.postgres import Database
from tests.oracle.tight import TIGHT

pytestmark = [pytest.mark.faults, pytest.mark.migrated]

TABLES = """
CREATE TABLE visits (ward text, id integer, patient text, note text, PRIMARY KEY (ward, id));
CREATE TABLE orders (id integer PRIMARY KEY, patient text, note text);
INSERT INTO visits SELECT chr(65 + i % 5), i, 'p' || i % 3, 'visit ' || i FROM generate_series(1, 60) AS i;
INSERT INTO orders SELECT i, 'p' || i % 2, 'order ' || i FROM generate_series(1, 40) AS i;
CREATE PUBLICATION powersync FOR TABLE visits, orders;
"""
FULL = "ALTER TABLE visits REPLICA IDENTITY FULL; ALTER TABLE orders REPLICA IDENTITY FULL;"
RULES = rules_over(visits="patient", orders="patient")


@pytest.mark.parametrize("mark", ["appended", "stored"])
@pytest.mark.parametrize("nth", [3, 5, 8])
async def test_killed_at_a_chunk_it_goes_on_at_that_chunk(
    database: Database, tmp_path: Path, children: StartChild, mark: str, nth: int
) -> None:
    clinic = Clinic(database, tmp_path, children, rules=RULES, bounds=TIGHT)
    await clinic.build(tables=TABLES + FULL)
    # Each chunk has a storage transaction, in which the next one may begin.
    killed = clinic.run(kill_at=(mark, nth))
    assert killed.wait() == -9
    stored = database.execute("SELECT count(*) FROM replicator.ops")[0][0]
    assert 0 < stored < 100
    running = clinic.run()
    clinic.catch_up()
    clinic.assert_equal()
    clinic.assert_told_once()
    # Copied once, and not again from the beginning.
    assert database.execute("SELECT count(*) FROM replicator.ops") == [(100,)]
    again = sum(int(str(running.wait_for("chunk", n=n + 1)["rows"])) for n in range(running.count("chunk")))
    assert again == 100 - stored


@pytest.mark.parametrize("identity", ["", FULL], ids=["default", "full"])
async def test_rows_move_between_chunks_while_it_copies(
    database: Database, tmp_path: Path, children: StartChild, identity: str, rng: random.Random
) -> None:
    clinic = Clinic(database, tmp_path, children, rules=RULES, bounds=TIGHT)
    await clinic.build(tables=TABLES + identity)
    for mark, nth in (("read", 2), ("chunk", 1), ("read", 1), ("chunk", 2)):
        running = clinic.run(block_at=(mark, nth))
        # Between the marks of a chunk, when what it holds has been read; then between two chunks.
        running.wait_for(mark, n=nth)
        move(database, rng)
        running.go_on()
        running.wait_for("chunk", n=nth)
        move(database, rng)
        assert running.kill() == -9
    clinic.run()
    clinic.catch_up()
    clinic.assert_equal()


def move(database: Database, rng: random.Random) -> None:
    """Rows go to where the copy has been, and to where it has not; some change hands on the way."""
    for _ in range(10):
        ward, patient, n = rng.choice("ABCDEZ"), f"p{rng.randrange(3)}", rng.randrange(1, 61)
        database.execute("UPDATE visits SET ward = %s, patient = %s WHERE id = %s", [ward, patient, n])
        database.execute("UPDATE orders SET id = -id, note = %s WHERE abs(id) = %s", [patient, n])
    database.execute("DELETE FROM visits WHERE id = %s", [rng.randrange(1, 61)])
    database.execute("INSERT INTO orders SELECT max(abs(id)) + 1, 'p1' FROM orders")


async def test_a_table_without_a_key_is_refused_until_it_has_one(
    database: Database, tmp_path: Path, children: StartChild
) -> None:
    clinic = Clinic(database, tmp_path, children, rules=RULES, bounds=TIGHT)
    await clinic.build(tables=TABLES + FULL + "ALTER TABLE orders DROP CONSTRAINT orders_pkey")
    refused = clinic.run()
    assert refused.wait() == 1
    assert "public.orders has no primary key" in refused.stderr
    assert "ALTER TABLE public.orders ADD PRIMARY KEY" in refused.stderr
    database.execute("UPDATE orders SET patient = 'p9' WHERE id < 5")
    database.execute("ALTER TABLE public.orders ADD PRIMARY KEY (id)")
    clinic.run()
    clinic.catch_up()
    clinic.assert_equal()


async def test_a_key_that_two_rows_may_have_for_a_moment_is_none(
    database: Database, tmp_path: Path, children: StartChild
) -> None:
    """UPDATE … SET id = 3 - id is told row by row: in between, both rows are one."""
    clinic = Clinic(database, tmp_path, children, rules=RULES, bounds=TIGHT)
    late = "ALTER TABLE orders DROP CONSTRAINT orders_pkey, ADD PRIMARY KEY (id) DEFERRABLE"
    await clinic.build(tables=TABLES + FULL + late)
    assert clinic.ask("check") == 1
    refused = clinic.run()
    assert refused.wait() == 1
    assert "public.orders has no primary key, or one that is DEFERRABLE" in refused.stderr
    database.execute("ALTER TABLE public.orders DROP CONSTRAINT orders_pkey, ADD PRIMARY KEY (id)")
    running = clinic.run()
    clinic.catch_up()
    # Made so again while it runs.
    database.execute(late)
    assert running.wait() == 1 and "DEFERRABLE" in running.stderr
