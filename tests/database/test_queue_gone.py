"""A row goes while its creation is on the way to the record: in the end the record does not hold it.

A deletion stands for what is queued before it; but what somebody has begun to send may arrive after it.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from replicator.database import connected
from replicator.ehr.pace import Pace
from replicator.ehr.queue_people import Chosen, decide
from replicator.ehr.sandbox.server import Sandbox
from tests.database.queue_forge import Forge
from tests.database.queue_worker import TARGET
from tests.database.queued import (
    Clinic,
    Worker,
    delivered,
    held,
    prepared,
    reading,
    sandbox_with_template,
    states,
    write_config,
)
from tests.fixtures.children import StartChild
from tests.fixtures.postgres import Database
from tests.fixtures.signals import Signals

pytestmark = [pytest.mark.faults, pytest.mark.migrated]

_LEASE_S = 0.5


@pytest.fixture
async def sandbox(database: Database) -> AsyncIterator[Sandbox]:
    await prepared(database)
    async with sandbox_with_template(database.owner_dsn) as sandbox:
        yield sandbox


def codes(database: Database) -> list[list[str]]:
    """What each version of each composition was."""
    return [[version[1] for version in versions] for versions in held(database).values()]


@pytest.mark.parametrize(
    ("before", "versions"),
    [
        ([70], ["249", "523"]),
        ([70, 71], ["249", "523"]),
        ([70, None, 71], ["249", "523", "251", "523"]),
    ],
    ids=["a creation", "an update that stands for it", "one that brings it back"],
)
async def test_who_wakes_up_late_brings_nothing_back(
    sandbox: Sandbox,
    database: Database,
    tmp_path: Path,
    children: StartChild,
    before: list[int | None],
    versions: list[str],
) -> None:
    clinic, config = Clinic(database.dsn), write_config(tmp_path, database, sandbox.url)
    if None in before:
        told, before = before[: before.index(None)], before[before.index(None) + 1 :]
        async with Worker(tmp_path, database, sandbox.url):
            for rate in told:
                await clinic.append(clinic.put("merging", reading("1", rate=rate)))
                await delivered(database)
            await clinic.append(clinic.drop("merging", "1"))
            await delivered(database)
    await clinic.append(*(clinic.put("merging", reading("1", rate=rate)) for rate in before))
    late = children(config, str(_LEASE_S), target=TARGET, block_at=("ehr sending", 1))
    await asyncio.to_thread(late.wait_for, "ehr sending")
    await clinic.append(clinic.drop("merging", "1"))
    other = children(config, str(_LEASE_S), target=TARGET)
    await delivered(database)
    assert codes(database) == [versions]
    late.go_on()
    await asyncio.to_thread(late.wait_for, "jobs recorded", lanes=0)
    late.terminate()
    other.terminate()
    assert await asyncio.to_thread(late.wait) == 0, late.stderr
    assert codes(database) == [versions]


@pytest.mark.parametrize(
    "at", [("lanes taken", 1), ("ehr sending", 1), ("ehr sending", 2), ("jobs recording", 1)], ids=str
)
async def test_what_was_killed_while_it_sent_a_creation_leaves_nothing_behind_its_deletion(
    sandbox: Sandbox, database: Database, tmp_path: Path, at: tuple[str, int]
) -> None:
    """Before it was sent, and after; and nothing was recorded."""
    clinic = Clinic(database.dsn)
    with Forge(write_config(tmp_path, database, sandbox.url), _LEASE_S) as forge:
        await clinic.append(clinic.put("merging", reading("1")), clinic.put("merging", reading("2")))
        assert await asyncio.to_thread(forge.work, at) == -signal.SIGKILL
        await clinic.append(clinic.drop("merging", "1"))
        assert await asyncio.to_thread(forge.work) == 0
    assert sorted(codes(database)) == [["249"], ["249", "523"]]
    assert {state for _, _, state in states(database)} == {"done"}


async def test_what_was_stopped_before_the_server_had_answered_leaves_nothing_behind_its_deletion(
    sandbox: Sandbox, database: Database, tmp_path: Path, signals: Signals
) -> None:
    clinic = Clinic(database.dsn)
    await clinic.append(clinic.put("users", reading("p1")))
    async with Worker(tmp_path, database, sandbox.url):
        await delivered(database)
    await clinic.append(clinic.put("merging", reading("1")))
    with database.connect() as other, other.transaction():
        other.execute("LOCK TABLE sandbox.versions IN EXCLUSIVE MODE")
        async with Worker(tmp_path, database, sandbox.url, Pace(stop_s=0.0)):
            await signals.wait("ehr sending", operation="create")
        tried = "SELECT state, attempts, error_message FROM replicator.ehr_sync_queue_open"
        why = "its worker was stopped before the server had answered"
        assert database.execute(tried) == [("retrying", 1, why)]
        async with connected(database.dsn, "people", schema="replicator") as storage:
            await decide(storage, "retry", Chosen(table="merging"), "ann", "it does not hurt")
        assert database.execute(tried) == [("waiting", 1, None)]
        await clinic.append(clinic.drop("merging", "1"))
    async with Worker(tmp_path, database, sandbox.url):
        await delivered(database)
    assert codes(database) == [["249", "523"]]


async def test_what_was_never_sent_does_not_come_into_the_record_to_be_deleted_there(
    sandbox: Sandbox, database: Database, tmp_path: Path
) -> None:
    clinic = Clinic(database.dsn)
    await clinic.append(clinic.put("merging", reading("1")), clinic.drop("merging", "1"))
    async with Worker(tmp_path, database, sandbox.url):
        await delivered(database)
    assert codes(database) == []
