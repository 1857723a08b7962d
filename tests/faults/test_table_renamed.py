"""Tables are renamed, swapped, dropped and made again: buckets hold what stands under the rules' names."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from tests.faults.clinic import Clinic, rules_over
from tests.faults.weather import wait_until
from tests.fixtures.children import Child, StartChild
from tests.fixtures.postgres import Database
from tests.oracle.tight import TIGHT

pytestmark = [pytest.mark.faults, pytest.mark.migrated]

TABLES = """
CREATE TABLE visits (id integer PRIMARY KEY, patient text, note text);
CREATE TABLE orders (id integer PRIMARY KEY, patient text, note text);
INSERT INTO visits SELECT i, 'p' || i % 3, 'visit ' || i FROM generate_series(1, 20) AS i;
INSERT INTO orders SELECT i, 'p' || i % 2, 'order ' || i FROM generate_series(11, 30) AS i;
CREATE PUBLICATION powersync FOR ALL TABLES;
"""
written = pytest.mark.parametrize("is_written", [True, False], ids=["written", "quiet"])


async def replicating(database: Database, tmp_path: Path, children: StartChild) -> tuple[Clinic, Child]:
    rules = rules_over(visits="patient", orders="patient")
    clinic = Clinic(database, tmp_path, children, rules=rules, bounds=TIGHT)
    await clinic.build(tables=TABLES)
    running = clinic.run()
    clinic.catch_up()
    clinic.assert_equal()
    return clinic, running


def write(database: Database, table: str, is_written: bool) -> None:
    """A row changes hands; if it is to be, for then the log tells the table's name."""
    if is_written:
        database.execute(f"UPDATE {table} SET patient = 'p' || (id + 1) % 3 WHERE id % 4 = 0")


@written
async def test_renamed_away_and_back(
    database: Database, tmp_path: Path, children: StartChild, is_written: bool
) -> None:
    clinic, running = await replicating(database, tmp_path, children)
    database.execute("ALTER TABLE visits RENAME TO visits_old")
    write(database, "visits_old", is_written)
    running.wait_for("table gone")
    clinic.catch_up()
    clinic.assert_equal()
    write(database, "visits_old", True)
    database.execute("ALTER TABLE visits_old RENAME TO visits")
    write(database, "visits", is_written)
    running.wait_for("copied", n=3)
    clinic.catch_up()
    clinic.assert_equal()


async def test_renamed_away_and_back_before_anybody_looks(
    database: Database, tmp_path: Path, children: StartChild
) -> None:
    clinic, running = await replicating(database, tmp_path, children)
    running.terminate()
    assert running.wait() == 0
    database.execute("ALTER TABLE visits RENAME TO visits_old")
    write(database, "visits_old", True)
    database.execute("ALTER TABLE visits_old RENAME TO visits")
    clinic.run().wait_for("copied")
    clinic.catch_up()
    clinic.assert_equal()


@written
async def test_two_swapped_in_one_transaction(
    database: Database, tmp_path: Path, children: StartChild, is_written: bool
) -> None:
    clinic, running = await replicating(database, tmp_path, children)
    database.execute(
        "DO $$ BEGIN ALTER TABLE visits RENAME TO aside; ALTER TABLE orders RENAME TO visits; "
        "ALTER TABLE aside RENAME TO orders; END $$"
    )
    write(database, "visits", is_written)
    running.wait_for("copied", n=4)
    clinic.catch_up()
    clinic.assert_equal()


@written
async def test_another_put_in_its_place(
    database: Database, tmp_path: Path, children: StartChild, is_written: bool
) -> None:
    clinic, running = await replicating(database, tmp_path, children)
    database.execute("CREATE TABLE visits_new (LIKE visits INCLUDING ALL)")
    database.execute("INSERT INTO visits_new SELECT id + 5, patient, 'new' FROM visits")
    database.execute(
        "DO $$ BEGIN ALTER TABLE visits RENAME TO visits_old; ALTER TABLE visits_new RENAME TO visits; END $$"
    )
    write(database, "visits", is_written)
    running.wait_for("copied", n=3)
    running.wait_for("table gone")
    clinic.catch_up()
    clinic.assert_equal()


@written
async def test_dropped_and_made_again(
    database: Database, tmp_path: Path, children: StartChild, is_written: bool
) -> None:
    clinic, running = await replicating(database, tmp_path, children)
    database.execute("DROP TABLE visits")
    running.wait_for("table gone")
    clinic.catch_up()
    clinic.assert_equal()
    database.execute("CREATE TABLE visits (id integer PRIMARY KEY, patient text, other integer)")
    if is_written:
        database.execute("INSERT INTO visits SELECT i, 'p1', i FROM generate_series(1, 30) AS i")
    running.wait_for("copied", n=3)
    clinic.catch_up()
    clinic.assert_equal()


async def test_dropped_and_made_again_at_once(
    database: Database, tmp_path: Path, children: StartChild
) -> None:
    clinic, running = await replicating(database, tmp_path, children)
    database.execute(
        "DO $$ BEGIN DROP TABLE visits; CREATE TABLE visits (id integer PRIMARY KEY, patient text); "
        "INSERT INTO visits SELECT i, 'p2' FROM generate_series(5, 25) AS i; END $$"
    )
    running.wait_for("copied", n=3)
    running.wait_for("table gone")
    clinic.catch_up()
    clinic.assert_equal()


async def test_renamed_in_a_transaction_that_wrote_to_it_before(
    database: Database, tmp_path: Path, children: StartChild
) -> None:
    clinic, running = await replicating(database, tmp_path, children)
    with psycopg.connect(database.owner_dsn) as connection:
        connection.execute("INSERT INTO visits VALUES (100, 'p1', 'before')")
        connection.execute("ALTER TABLE visits RENAME TO visits_old")
        connection.execute("INSERT INTO visits_old VALUES (101, 'p1', 'after')")
    running.wait_for("table gone")
    clinic.catch_up()
    clinic.assert_equal()
    assert database.execute("SELECT FROM replicator.row_states WHERE oid = 'visits_old'::regclass") == []


async def test_renamed_back_and_copied_before_the_notice_that_it_is_gone(
    database: Database, tmp_path: Path, children: StartChild
) -> None:
    clinic, running = await replicating(database, tmp_path, children)
    witness = f"{clinic.slot}_witness"
    database.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [witness])
    chunks = running.count("read")
    with psycopg.connect(database.owner_dsn) as connection:
        # Nothing is stored meanwhile: what the catalogue says overtakes what the log says.
        connection.execute("SELECT FROM replicator.checkpoints FOR UPDATE")
        database.execute("INSERT INTO visits VALUES (100, 'p1')")
        database.execute("ALTER TABLE visits RENAME TO visits_old")
        wait_until(lambda: database.execute(_NOTICED, [witness]) != [(0,)])
        database.execute("ALTER TABLE visits_old RENAME TO visits")
        database.execute("UPDATE replicator.tables SET state = 'wanted' WHERE name = 'visits'")
        running.wait_for("read", n=chunks + 1)
    running.wait_for("copied", n=3)
    clinic.catch_up()
    clinic.assert_equal()


async def test_of_a_table_that_nobody_asked_for_no_row_is_kept(
    database: Database, tmp_path: Path, children: StartChild
) -> None:
    clinic, _ = await replicating(database, tmp_path, children)
    database.execute("CREATE TABLE diary (id integer PRIMARY KEY, line text)")
    database.execute("INSERT INTO diary VALUES (1, 'dear diary')")
    clinic.catch_up()
    assert database.execute("SELECT FROM replicator.row_states WHERE oid = 'diary'::regclass") == []


async def test_nobody_is_shown_a_part_of_a_new_table(
    database: Database, tmp_path: Path, children: StartChild
) -> None:
    clinic, running = await replicating(database, tmp_path, children)
    database.execute("DROP TABLE visits")
    running.wait_for("table gone")
    clinic.catch_up()
    running.terminate()
    assert running.wait() == 0
    database.execute(_WATCH)
    running = clinic.run()
    running.wait_for("streaming")
    database.execute("CREATE TABLE visits_new (id integer PRIMARY KEY, patient text)")
    database.execute("INSERT INTO visits_new SELECT i, 'p1' FROM generate_series(1, 60) AS i")
    database.execute("ALTER TABLE visits_new RENAME TO visits")
    database.execute("UPDATE visits SET patient = 'p2' WHERE id < 5")
    running.wait_for("copied")
    clinic.catch_up()
    clinic.assert_equal()
    assert {count for (count,) in database.execute(_SHOWN)} == {0, 60}


#: How often it has been written into the log that a table is gone.
_NOTICED = """
SELECT count(*) FROM pg_logical_slot_peek_binary_changes(
    %s, NULL, NULL, 'proto_version', '1', 'publication_names', 'powersync', 'messages', 'true') AS message
WHERE position('"gone"'::bytea IN data) > 0
"""
#: Every checkpoint that readers are shown is written down.
_WATCH = """
CREATE TABLE shown (op_id bigint);
CREATE FUNCTION write_down() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN INSERT INTO public.shown VALUES (new.shown_op_id); RETURN new; END $$;
CREATE TRIGGER write_down AFTER UPDATE ON replicator.checkpoints FOR EACH ROW EXECUTE FUNCTION write_down()
"""
#: How many visits are held at each of them.
_SHOWN = """
SELECT (SELECT count(*) FILTER (WHERE op = 'PUT') FROM (
            SELECT DISTINCT ON (bucket, object_id, subkey) op FROM replicator.ops
            WHERE object_type = 'visits' AND ops.op_id <= shown.op_id
            ORDER BY bucket, object_id, subkey, ops.op_id DESC) AS newest)
FROM (SELECT DISTINCT op_id FROM shown) AS shown
"""
