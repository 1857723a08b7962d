"""Slots are listed, made without leaving halves behind, and dropped only when nobody reads them."""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from replicator.cli import main
from replicator.database import connected, migrate
from replicator.errors import ConfigError, SourceUnready
from replicator.wal.lsn import Lsn
from replicator.wal.slots import Blocker, create_slot, drop_slot, find_slot, read_slots
from replicator.wal.stream import Stream

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.fixtures.postgres import Connection, Database


@pytest.fixture
def slot(database: Database) -> str:
    """A name no other test of this server has."""
    return f"s_{database.name}"


async def make(
    database: Database,
    slot: str,
    *,
    timeout_s: float = 30,
    failover: bool = False,
    told: list[list[Blocker]] | None = None,
    then: Callable[[], object] | None = None,
) -> Lsn:
    """Make a slot; `then` is called as soon as somebody is told of being waited for."""

    def waiting(blockers: list[Blocker]) -> None:
        if told is not None:
            told.append(blockers)
        if then is not None:
            then()

    async with AsyncExitStack() as stack:
        source = await stack.enter_async_context(connected(database.dsn, "test"))
        watcher = await stack.enter_async_context(connected(database.dsn, "test watcher"))
        return await create_slot(
            source, watcher, slot, failover=failover, timeout_s=timeout_s, waiting=waiting
        )


def a_writer(database: Database) -> tuple[Connection, int]:
    """A session with an open transaction that writes, and its pid."""
    writer = database.connect(application_name="forgotten session")
    writer.execute("BEGIN")
    writer.execute("CREATE TABLE secret_of_a_patient (id int)")
    return writer, writer.info.backend_pid


def exists(database: Database, slot: str) -> bool:
    return bool(database.execute("SELECT 1 FROM pg_replication_slots WHERE slot_name = %s", [slot]))


async def test_a_slot_is_made_and_listed_with_what_it_holds_back(database: Database, slot: str) -> None:
    lsn = await make(database, slot)
    async with connected(database.dsn, "test") as source:
        before = await find_slot(source, slot)
        database.execute("CREATE TABLE t AS SELECT generate_series(1, 10000) AS n")
        after = await find_slot(source, slot)
    assert before is not None and after is not None
    assert (before.plugin, before.database, before.is_logical) == ("pgoutput", database.name, True)
    assert before.confirmed_lsn == lsn and before.active_pid is None and before.wal_status == "reserved"
    assert before.lag_bytes is not None and after.lag_bytes is not None
    assert after.lag_bytes > before.lag_bytes + 100_000
    assert after.kept_bytes is not None and after.kept_bytes >= after.lag_bytes
    assert (after.failover is None) == (database.server.version < 17)


async def test_who_is_in_the_way_is_named_and_nothing_is_left_behind(database: Database, slot: str) -> None:
    writer, pid = a_writer(database)
    with pytest.raises(SourceUnready, match=r"could not be made within 0\.5 s") as caught:
        await make(database, slot, timeout_s=0.5)
    assert f"pid {pid} (forgotten session)" in caught.value.hint
    database.grant("pg_read_all_stats")
    with pytest.raises(SourceUnready) as caught:
        await make(database, slot, timeout_s=0.5)
    assert f"pid {pid} (forgotten session), idle in transaction, open for " in caught.value.hint
    assert "secret_of_a_patient" not in str(caught.value) + caught.value.hint
    assert not exists(database, slot)
    writer.execute("ROLLBACK")
    await make(database, slot)


async def test_a_prepared_transaction_in_the_way_is_named(database: Database, slot: str) -> None:
    database.execute("BEGIN; CREATE TABLE t (id int); PREPARE TRANSACTION 'half done'")
    with pytest.raises(SourceUnready) as caught:
        await make(database, slot, timeout_s=0.5)
    assert "prepared transaction ('half done' of postgres in " in caught.value.hint
    database.execute("ROLLBACK PREPARED 'half done'")


async def test_it_is_made_as_soon_as_the_transaction_in_its_way_ends(database: Database, slot: str) -> None:
    writer, pid = a_writer(database)
    told: list[list[Blocker]] = []
    await make(database, slot, told=told, then=lambda: writer.execute("COMMIT"))
    assert [[blocker.pid for blocker in blockers] for blockers in told] == [[pid]]
    assert exists(database, slot)


async def test_interrupting_the_making_leaves_nothing_behind(database: Database, slot: str) -> None:
    writer, _ = a_writer(database)
    waiting = asyncio.Event()
    making = asyncio.create_task(make(database, slot, then=waiting.set))
    await waiting.wait()
    making.cancel()
    await asyncio.wait({making})
    assert making.cancelled() and not exists(database, slot)
    writer.execute("ROLLBACK")


async def test_a_slot_that_is_there_is_not_made_again(database: Database, slot: str) -> None:
    await make(database, slot)
    with pytest.raises(SourceUnready, match="exists already"):
        await make(database, slot)


async def test_a_slot_follows_a_promotion_only_where_postgres_can(database: Database, slot: str) -> None:
    if database.server.version < 17:
        with pytest.raises(ConfigError, match="cannot follow a promotion"):
            await make(database, slot, failover=True)
        assert not exists(database, slot)
    else:
        await make(database, slot, failover=True)
        async with connected(database.dsn, "test") as source:
            assert [one.failover for one in await read_slots(source) if one.name == slot] == [True]


async def test_a_slot_that_is_read_is_not_dropped(database: Database, slot: str) -> None:
    lsn = await make(database, slot)
    async with connected(database.dsn, "test") as source:
        async with Stream(database.dsn, slot, "powersync", lsn, timeout_s=60):
            with pytest.raises(SourceUnready, match=rf"slot {slot} is being read by pid \d+ \(replicator"):
                await drop_slot(source, slot)
        assert exists(database, slot)


async def test_only_a_logical_slot_that_exists_is_dropped(database: Database, slot: str) -> None:
    async with connected(database.dsn, "test") as source:
        with pytest.raises(SourceUnready, match="there is no slot"):
            await drop_slot(source, slot)
        await source.execute(f"SELECT pg_create_physical_replication_slot('{slot}')".encode())
        try:
            with pytest.raises(SourceUnready, match="physical standby"):
                await drop_slot(source, slot)
        finally:
            await source.execute(f"SELECT pg_drop_replication_slot('{slot}')".encode())


def test_the_verbs_in_a_terminal(database: Database, slot: str, tmp_path: Path) -> None:
    file = tmp_path / "replicator.yaml"
    file.write_text(f"source: {{dsn: '${{SOURCE_DSN}}', slot: {slot}}}\n")
    environment = {**os.environ, "SOURCE_DSN": database.dsn}

    def run(*arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(main, ["slot", *arguments, "--config", str(file)], env=environment)
        return result.exit_code, result.output

    code, said = run("create", "--json")
    assert code == 0 and json.loads(said)["slot"] == slot
    code, said = run("create", "--timeout", "1")
    assert code == 1 and "exists already" in said

    code, said = run("list")
    assert code == 0 and [line.split()[:3] for line in said.splitlines() if slot in line] == [
        ["*", slot, "pgoutput"]
    ]
    code, said = run("list", "--json")
    (ours,) = [one for one in json.loads(said)["slots"] if one["is_ours"]]
    assert ours["name"] == slot and isinstance(ours["lag_bytes"], int) and "/" in ours["confirmed_lsn"]

    code, said = run("drop")
    assert code == 2 and "Add --yes" in said and exists(database, slot)
    code, said = run("drop", "--yes")
    assert code == 0 and "gives up" in said and not exists(database, slot)
    code, said = run("drop", "--yes")
    assert code == 1 and "there is no slot" in said


async def test_dropping_says_that_what_is_stored_loses_its_way_on(database: Database, slot: str) -> None:
    from replicator.observe.slots import loss
    from tests.database.clinics import configure

    await make(database, slot)
    config = configure(database.dsn, slot=slot)
    assert "is stored" not in await loss(config, slot)
    await migrate(database.dsn, "replicator")
    database.execute(
        "INSERT INTO replicator.checkpoints (slot, op_id, lsn, fence, system_id, timeline, recorded_at) "
        "VALUES (%s, 0, '0/1F', 1, '1', 1, now())",
        [slot],
    )
    assert "up to 0/1F is stored" in await loss(config, slot)
