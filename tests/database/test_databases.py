"""Every test has a database of its own, which goes whatever the test left in it."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from tests.fixtures import room
from tests.fixtures.postgres import Cluster, Database, MakeDatabase, Server
from tests.fixtures.servers import Found, place_for_data


def databases(server: Cluster) -> set[str]:
    with psycopg.connect(server.dsn("postgres")) as connection:
        return {row[0] for row in connection.execute("SELECT datname FROM pg_database")}


def test_a_database_is_empty_and_of_the_version_asked_for(database: Database, server: Cluster) -> None:
    assert database.execute("SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace") == [
        (0,)
    ]
    assert database.execute("SELECT current_database()::text") == [(database.name,)]
    assert database.execute("SHOW server_version_num")[0][0].startswith(str(server.version))
    assert database.execute("SHOW wal_level") == [("logical",)]


def test_statements_without_rows_give_none_and_several_may_come_at_once(database: Database) -> None:
    assert database.execute("CREATE TABLE t (n int); INSERT INTO t VALUES (1), (2)") == []
    assert database.execute("SELECT n FROM t WHERE n > %s", [1]) == [(2,)]


def test_the_other_database_is_another_one(database: Database, other_database: Database) -> None:
    database.execute("CREATE TABLE t (n int)")
    assert other_database.execute("SELECT to_regclass('t')") == [(None,)]
    assert other_database.server is database.server


def test_what_a_test_leaves_does_not_keep_its_database(server: Cluster) -> None:
    name = server.create()
    left = Database(server, name)
    left.execute("CREATE TABLE t (n int)")
    left.execute("SELECT pg_create_logical_replication_slot('left_idle', 'pgoutput')")
    left.execute("SELECT pg_create_logical_replication_slot('left_busy', 'pgoutput')")
    left.execute("CREATE PUBLICATION p FOR TABLE t")
    streaming = psycopg.connect(server.dsn(name, replication="database"), autocommit=True)
    start = b"START_REPLICATION SLOT left_busy LOGICAL 0/0 (proto_version '1', publication_names 'p')"
    streaming.pgconn.send_query(start)
    active = "SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'left_busy' AND active"
    while left.execute(active) != [(1,)]:
        pass
    if left.execute("SHOW max_prepared_transactions") != [("0",)]:
        left.execute("BEGIN; INSERT INTO t VALUES (1); PREPARE TRANSACTION 'left'")
    in_transaction = left.connect()
    in_transaction.execute("BEGIN; CREATE TABLE u (n int)")
    server.drop(name)
    assert name not in databases(server)
    with psycopg.connect(server.dsn("postgres")) as admin:
        assert admin.execute("SELECT 1 FROM pg_replication_slots WHERE slot_name ~ '^left_'").fetchall() == []
        assert admin.execute("SELECT 1 FROM pg_prepared_xacts WHERE gid = 'left'").fetchall() == []
    streaming.close()
    left.close()


def test_a_template_is_built_once_and_copied(server: Cluster, make_database: MakeDatabase) -> None:
    built = []

    def build(database: Database) -> None:
        built.append(database.name)
        database.execute("CREATE TABLE t AS SELECT 7 AS n")

    names = {server.template("test_databases", build) for _ in range(2)}
    assert names == set(built)
    for _ in range(2):
        copy = make_database(template=names.copy().pop())
        assert copy.execute("SELECT n FROM t") == [(7,)]
        copy.execute("DROP TABLE t")


def test_tables_are_in_memory_where_there_is_enough_and_go_with_who_made_them(
    pg: Found, monkeypatch: pytest.MonkeyPatch
) -> None:
    if pg.binaries is None:
        pytest.skip("nothing is known of where a given server keeps its tables")
    monkeypatch.setattr(room, "MEMORY", place_for_data())
    monkeypatch.setattr(room, "ENOUGH", 0)
    with pg.open() as dsn, closing(Cluster(pg.version, dsn)) as cluster:
        name = cluster.create()
        with psycopg.connect(dsn(name)) as connection:
            asked = "SELECT pg_tablespace_location(dattablespace) FROM pg_database WHERE datname = %s"
            ((folder,),) = connection.execute(asked, [name]).fetchall()
        assert Path(folder).parent == place_for_data() and Path(folder).is_dir()
        cluster.drop(name)
    assert not Path(folder).exists()
    monkeypatch.setattr(room, "ENOUGH", 1 << 60)
    with room.room_in_memory(pg.binaries) as found:
        assert found is None
    assert room.spare(Path("/nowhere")) == 0


@pytest.mark.migrated
def test_a_migrated_one_has_a_storage_with_nothing_in_it(database: Database) -> None:
    """As the role that is tested has made it, and may go on with it."""
    with psycopg.connect(database.dsn) as connection:
        assert connection.execute("SELECT count(*) FROM replicator.migrations").fetchone() != (0,)
        assert connection.execute("SELECT count(*) FROM replicator.ops").fetchone() == (0,)
        connection.execute("DROP SCHEMA replicator CASCADE")


def test_a_server_of_ones_own_has_its_settings_and_databases(
    own_server: Callable[..., Server], make_database: MakeDatabase
) -> None:
    server = own_server(wal_level="replica", wal_sender_timeout="3s")
    database = make_database(on=server)
    assert database.execute("SHOW wal_level") == [("replica",)]
    assert database.execute("SHOW wal_sender_timeout") == [("3s",)]


def test_execute_goes_on_after_a_restart(
    own_server: Callable[..., Server], make_database: MakeDatabase
) -> None:
    server = own_server()
    database = make_database(on=server)
    database.execute("CREATE TABLE t AS SELECT 7 AS n")
    server.restart("immediate")
    assert database.execute("SELECT n FROM t") == [(7,)]
    server.kill()
    with pytest.raises(psycopg.OperationalError):
        database.execute("SELECT n FROM t")
    server.start()
    assert database.execute("SELECT n FROM t") == [(7,)]


def test_chance_is_the_same_for_the_same_seed_and_test(
    rng: random.Random, seed: int, request: pytest.FixtureRequest
) -> None:
    again = random.Random(seed ^ zlib.crc32(request.node.nodeid.encode()))
    assert [rng.random() for _ in range(3)] == [again.random() for _ in range(3)]
