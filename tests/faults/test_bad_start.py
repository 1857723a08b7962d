"""Something is wrong from the start: it says what and where, changes nothing, and goes on once mended."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from psycopg.conninfo import make_conninfo

from replicator.wal.lsn import Lsn
from replicator.wal.stream import Stream
from tests.faults.weather import Weather, make_tables
from tests.fixtures.children import StartChild
from tests.fixtures.postgres import Database, MakeDatabase, Server

pytestmark = pytest.mark.faults

_SECRET = "correct-horse-battery"


def assert_refused(clinic: Weather, code: int, *said: str) -> str:
    """It ends with this code and these words, having begun nothing and told no secret; its errors."""
    slots = clinic.source.execute(
        "SELECT slot_name, confirmed_flush_lsn FROM pg_replication_slots ORDER BY 1"
    )
    refused = clinic.run()
    assert refused.wait() == code, refused.stderr
    for words in said:
        assert words in refused.stderr, refused.stderr
    assert _SECRET not in refused.stdout + refused.stderr and "Traceback" not in refused.stderr
    assert slots == clinic.source.execute(
        "SELECT slot_name, confirmed_flush_lsn FROM pg_replication_slots ORDER BY 1"
    )
    if clinic.storage.execute("SELECT to_regclass('replicator.checkpoints') IS NOT NULL") == [(True,)]:
        assert clinic.checkpoint() == []
    return refused.stderr


def assert_goes_on(clinic: Weather) -> None:
    clinic.run()
    clinic.catch_up()
    clinic.measure("after")
    clinic.catch_up()
    clinic.assert_equal()
    clinic.assert_stored_once()


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
async def test_what_is_said_of_encodings_elsewhere_is_no_concern(
    database: Database, tmp_path: Path, children: StartChild, encoding: str
) -> None:
    dsn = make_conninfo(database.dsn, client_encoding=encoding)
    clinic = Weather(database, tmp_path, children, source_dsn=dsn, storage_dsn=dsn)
    await clinic.build()
    clinic.measure("\N{GREEK SMALL LETTER MU}g/l, copied")
    clinic.run()
    clinic.catch_up()
    clinic.measure("\N{GREEK SMALL LETTER MU}g/l, streamed")
    clinic.catch_up()
    clinic.assert_equal()


async def test_a_server_that_is_not_there_yet_is_waited_for(
    own_server: Callable[..., Server], make_database: MakeDatabase, tmp_path: Path, children: StartChild
) -> None:
    server = own_server(fsync=True)
    clinic = Weather(make_database(on=server), tmp_path, children, storage=make_database())
    await clinic.build()
    server.stop()
    running = clinic.run()
    waits = [running.wait_for("waiting", n=n) for n in (1, 5)]
    for wait in waits:
        assert f":{server.port}" in str(wait["why"])
    assert float(str(waits[1]["seconds"])) > float(str(waits[0]["seconds"]))
    server.start()
    running.wait_for("streaming")
    clinic.catch_up()
    clinic.assert_equal()


async def test_a_wrong_password(
    own_server: Callable[..., Server], make_database: MakeDatabase, tmp_path: Path, children: StartChild
) -> None:
    server = own_server()
    source = make_database(on=server)
    wrong = make_conninfo(source.dsn, password=_SECRET)
    clinic = Weather(source, tmp_path, children, storage=make_database(), source_dsn=wrong)
    await clinic.build()
    assert_refused(clinic, 2, f":{server.port}", "password authentication failed", "Check the DSN")
    clinic.keys["source"]["dsn"] = source.dsn
    clinic.write()
    assert_goes_on(clinic)


@pytest.mark.parametrize("key", ["source", "storage"])
@pytest.mark.parametrize(
    "dsn", [f"postgresql://somebody:{_SECRET}@host:port/x", f"password={_SECRET} nonsense", "nonsense"]
)
async def test_a_connection_string_that_cannot_be_meant(
    database: Database, tmp_path: Path, children: StartChild, key: str, dsn: str
) -> None:
    clinic = Weather(database, tmp_path, children)
    clinic.keys[key]["dsn"] = dsn
    clinic.write()
    assert_refused(clinic, 2, f"{key}.dsn")


async def test_a_role_that_may_not_replicate(
    own_server: Callable[..., Server], make_database: MakeDatabase, tmp_path: Path, children: StartChild
) -> None:
    source = make_database(on=own_server())
    make_tables(source)
    source.execute(f"CREATE ROLE reader LOGIN PASSWORD '{_SECRET}'")
    source.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader")
    dsn = make_conninfo(source.dsn, user="reader", password=_SECRET)
    clinic = Weather(source, tmp_path, children, storage=make_database(), source_dsn=dsn)
    await clinic.build(tables=False)
    said = assert_refused(clinic, 1, "may not replicate")
    source.execute(remedy(said, "ALTER ROLE .*;"))
    assert_goes_on(clinic)


async def test_a_log_that_does_not_say_enough(
    own_server: Callable[..., Server], make_database: MakeDatabase, tmp_path: Path, children: StartChild
) -> None:
    server = own_server(wal_level="replica", fsync=True)
    source = make_database(on=server)
    clinic = Weather(source, tmp_path, children, storage=make_database())
    await clinic.build()
    said = assert_refused(clinic, 1, "wal_level is replica", "restart the server")
    source.execute(remedy(said, "ALTER SYSTEM .*;"))
    server.restart()
    assert_goes_on(clinic)


async def test_a_publication_that_is_missing(
    database: Database, tmp_path: Path, children: StartChild
) -> None:
    clinic = Weather(database, tmp_path, children)
    await clinic.build()
    database.execute("DROP PUBLICATION powersync")
    said = assert_refused(clinic, 1, "no publication powersync", "source.publication")
    database.execute(remedy(said, "CREATE PUBLICATION .*;"))
    assert_goes_on(clinic)


async def test_storage_that_was_not_migrated(
    database: Database, other_database: Database, tmp_path: Path, children: StartChild
) -> None:
    clinic = Weather(database, tmp_path, children, storage=other_database)
    make_tables(database)
    clinic.admit("p0")
    assert_refused(clinic, 1, "the storage schema replicator lacks", "replicator migrate")
    assert clinic.verb("migrate").code == 0
    assert_goes_on(clinic)


async def test_storage_of_a_newer_release(database: Database, tmp_path: Path, children: StartChild) -> None:
    clinic = Weather(database, tmp_path, children)
    await clinic.build()
    database.execute(
        "INSERT INTO replicator.migrations (number, name) "
        "SELECT max(number) + 1, 'from_the_future' FROM replicator.migrations"
    )
    assert_refused(clinic, 1, "newer than this release", "Run the release that migrated it")


async def test_storage_that_holds_what_another_slot_has_brought(
    database: Database, tmp_path: Path, children: StartChild
) -> None:
    clinic = Weather(database, tmp_path, children)
    await clinic.build()
    running = clinic.run()
    clinic.catch_up()
    running.terminate()
    assert running.wait() == 0
    was, stood = clinic.slot, clinic.checkpoint()
    clinic.keys["source"]["slot"] = clinic.slot = f"{was}_renamed"
    clinic.write()
    assert_refused(clinic, 1, f"what slot {was} has brought", f"Set source.slot to {was}")
    assert clinic.slot_stands() == [], "no slot keeps log that nobody will read"
    clinic.keys["source"]["slot"] = clinic.slot = was
    clinic.write()
    assert clinic.checkpoint() == stood
    assert_goes_on(clinic)


async def test_a_slot_that_somebody_else_reads(
    database: Database, tmp_path: Path, children: StartChild
) -> None:
    clinic = Weather(database, tmp_path, children)
    await clinic.build()
    database.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [clinic.slot])
    async with Stream(database.dsn, clinic.slot, "powersync", Lsn(0), timeout_s=60) as theirs:
        assert_refused(clinic, 1, f"is being read by pid {theirs.sender_pid}", "source.slot")
    assert_goes_on(clinic)


async def test_a_slot_of_another_database(
    database: Database, other_database: Database, tmp_path: Path, children: StartChild
) -> None:
    clinic = Weather(database, tmp_path, children)
    await clinic.build()
    other_database.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [clinic.slot])
    assert_refused(clinic, 1, f"belongs to the database {other_database.name}", "source.slot")


async def test_a_slot_that_was_lost_before_anything_was_stored(
    own_server: Callable[..., Server], make_database: MakeDatabase, tmp_path: Path, children: StartChild
) -> None:
    source = make_database(on=own_server(max_slot_wal_keep_size="1MB", max_wal_size="32MB"))
    clinic = Weather(source, tmp_path, children, storage=make_database())
    await clinic.build()
    source.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [clinic.slot])
    while clinic.slot_stands()[0][2] != "lost":
        source.execute("SELECT pg_logical_emit_message(false, 'test', repeat('x', 20000000))")
        source.execute("SELECT pg_switch_wal()")
        source.execute("CHECKPOINT")
    assert_refused(clinic, 1, "has lost its log", f"replicator slot drop {clinic.slot} --yes")
    assert clinic.verb("slot", "drop", clinic.slot, "--yes").code == 0
    assert_goes_on(clinic)


def remedy(said: str, pattern: str) -> str:
    """The SQL in what was said, to be run as it stands."""
    found = re.search(pattern, said)
    assert found is not None, said
    return found[0]
