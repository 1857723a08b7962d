"""What `replicator check` says of the slot, and of where buckets are kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from replicator.database import migrate
from tests.database.clinics import a_role, build_tables, configure, found, look, rules_for

if TYPE_CHECKING:
    from tests.fixtures.postgres import Database, MakeDatabase, Server


@pytest.fixture
def slot(database: Database) -> str:
    """A name no other test of this server has."""
    return f"s_{database.name}"


async def test_a_slot_of_another_database_is_not_ours(
    database: Database, other_database: Database, slot: str
) -> None:
    other_database.execute(f"SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')")
    (finding,) = found(await look(configure(database.dsn, slot=slot), rules_for("t")), "slot.foreign")
    assert finding.what == f"slot {slot} belongs to database {other_database.name}" and not finding.sql


async def test_a_physical_slot_is_not_ours(database: Database, slot: str) -> None:
    database.execute(f"SELECT pg_create_physical_replication_slot('{slot}')")
    try:
        (finding,) = found(await look(configure(database.dsn, slot=slot), rules_for("t")), "slot.foreign")
    finally:
        database.execute(f"SELECT pg_drop_replication_slot('{slot}')")
    assert finding.what == f"slot {slot} keeps log for a physical standby" and not finding.sql


async def test_a_slot_ahead_of_what_is_stored_or_gone_is_an_error(database: Database, slot: str) -> None:
    config = configure(database.dsn, slot=slot)
    await migrate(database.dsn, "replicator")
    database.execute(f"SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')")
    system = database.execute(
        "SELECT system_identifier::text, timeline_id FROM pg_control_system(), pg_control_checkpoint()"
    )
    database.execute(
        "INSERT INTO replicator.checkpoints (slot, op_id, lsn, fence, system_id, timeline, recorded_at) "
        "VALUES (%s, 0, '0/1', 1, %s, %s, now())",
        [slot, *system[0]],
    )
    report = await look(config, rules_for("t"))
    assert found(report, "slot.ahead") and not found(report, "slot.other_source")

    database.execute("UPDATE replicator.checkpoints SET lsn = pg_current_wal_lsn(), timeline = timeline + 1")
    report = await look(config, rules_for("t"))
    assert found(report, "slot.other_source") and not found(report, "slot.ahead")

    database.execute("UPDATE replicator.checkpoints SET timeline = timeline - 1")
    assert not [
        f for f in (await look(config, rules_for("t"))).findings if f.group == "slot" and f.level == "error"
    ]

    database.execute(f"SELECT pg_drop_replication_slot('{slot}')")
    assert found(await look(config, rules_for("t")), "slot.gone")


async def test_a_lost_slot_is_told_with_its_reason(
    own_server: Callable[..., Server], make_database: MakeDatabase
) -> None:
    database = make_database(
        on=own_server(max_slot_wal_keep_size="1MB", min_wal_size="32MB", max_wal_size="32MB")
    )
    database.execute("SELECT pg_create_logical_replication_slot('replicator', 'pgoutput')")
    database.execute("CREATE TABLE filler (n int)")
    # Once its log is beyond the limit, the next checkpoint of Postgres gives the slot up.
    for _ in range(4):
        database.execute("INSERT INTO filler SELECT generate_series(1, 1000)")
        database.execute("SELECT pg_switch_wal()")
    database.execute("CHECKPOINT")
    (finding,) = found(await look(configure(database.dsn), rules_for("filler")), "slot.lost")
    assert finding.level == "error"
    database.execute(finding.sql)
    assert database.execute("SELECT 1 FROM pg_replication_slots") == []


async def test_what_somebody_else_owns_in_the_storage_schema_is_handed_over(
    database: Database, slot: str
) -> None:
    await migrate(database.dsn, "replicator")
    with a_role(database, slot, "LOGIN REPLICATION") as dsn:
        (finding,) = found(await look(configure(dsn, slot=slot), rules_for("t")), "storage.owner")
        assert finding.sql.startswith(f"ALTER SCHEMA replicator OWNER TO {slot};\n")
        database.execute(finding.sql)
        report = await look(configure(dsn, slot=slot), rules_for("t"))
        (storage,) = [group for group in report.groups if group.name == "storage"]
        assert storage.is_ok and "is up to date" in storage.facts


async def test_a_schema_of_somebody_else_is_refused(database: Database) -> None:
    database.execute("CREATE SCHEMA replicator CREATE TABLE patients (id int)")
    (finding,) = found(await look(configure(database.dsn), rules_for("t")), "storage.schema")
    assert "holds patients" in finding.what


async def test_storage_beside_the_source_is_told_apart_from_storage_within(
    database: Database, other_database: Database
) -> None:
    build_tables(database)
    within = await look(configure(database.dsn))
    assert found(within, "storage.same_database") and not found(within, "storage.same_server")
    beside = await look(configure(database.dsn, storage_dsn=other_database.dsn))
    assert found(beside, "storage.same_server") and not found(beside, "storage.same_database")
