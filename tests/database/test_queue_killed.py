"""A worker is killed, or stands still and wakes up late: every record holds each change once, in order."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from replicator.ehr.job import Job, Operation
from replicator.ehr.sandbox.server import Sandbox
from tests.database.queue_forge import Forge
from tests.database.queue_worker import TARGET
from tests.database.queued import (
    Clinic,
    delivered,
    held,
    prepared,
    reading,
    sandbox_with_template,
    write_config,
)
from tests.fixtures.children import StartChild
from tests.fixtures.postgres import Database

pytestmark = [pytest.mark.faults, pytest.mark.migrated]

#: Short, because the one that takes over has to wait for its end.
_LEASE_S = 0.5
_MARKS = (
    *("jobs laying out", "jobs laid out", "lanes taken", "ehr sending", "ehr sent", "ehr answered"),
    *("jobs recording", "jobs recorded", "lane releasing"),
)
#: When it is killed, one worker after another: of what all that waits passes at once, there may be no second.
_NTHS = {"jobs laying out": (1,) * 5, "jobs laid out": (1,) * 5}
_CODES = {Operation.CREATE: "249", Operation.UPDATE: "251", Operation.DELETE: "523"}


@pytest.fixture
async def sandbox(database: Database) -> AsyncIterator[Sandbox]:
    await prepared(database)
    async with sandbox_with_template(database.owner_dsn) as sandbox:
        yield sandbox


def history(clinic: Clinic, seed: str, changes: int = 40) -> list[Job]:
    """A few patients' readings, made, changed, deleted and made again, as chance will have it."""
    chance, jobs, there = random.Random(seed), list[Job](), set[tuple[str, str]]()
    for number in range(changes):
        patient = f"p{chance.randrange(3)}"
        id = f"{patient}-{chance.randrange(3)}"
        if (patient, id) in there and chance.random() < 0.35:
            there.discard((patient, id))
            jobs += clinic.drop("readings", id)
        else:
            there.add((patient, id))
            jobs += clinic.put("readings", reading(id, patient, rate=40 + number))
    return jobs


def expected(jobs: list[Job]) -> dict[str, list[tuple[int, str, str | None]]]:
    """Every version there has to be: one for each job, in order."""
    found: dict[str, list[tuple[int, str, str | None]]] = {}
    for job in jobs:
        versions = found.setdefault(str(job.composition), [])
        again = versions and job.operation is Operation.CREATE
        code = "251" if again else _CODES[job.operation]
        change = None if job.operation is Operation.DELETE else str(job.change)
        versions.append((len(versions) + 1, code, change))
    return found


def stored(database: Database) -> dict[str, list[tuple[int, str, str | None]]]:
    return {name: [version[:3] for version in versions] for name, versions in held(database).items()}


@pytest.mark.parametrize("mark", _MARKS)
async def test_killed_at_any_step_it_delivers_each_change_once(
    sandbox: Sandbox, database: Database, tmp_path: Path, mark: str, seed: int
) -> None:
    """Of creating, changing and deleting, each of which comes to each of these steps."""
    clinic = Clinic(database.dsn)
    jobs = list[Job]()
    with Forge(write_config(tmp_path, database, sandbox.url), _LEASE_S) as forge:
        for round, nth in enumerate(_NTHS.get(mark, (1, 2, 3, 5, 8))):
            more = history(clinic, f"{seed} {mark} {round}", changes=12)
            jobs += more
            await clinic.append(more)
            assert await asyncio.to_thread(forge.work, (mark, nth)) == -signal.SIGKILL
        assert await asyncio.to_thread(forge.work) == 0
    assert stored(database) == expected(jobs)
    assert undone(database) == []


@pytest.mark.timeout(0)
async def test_killed_again_and_again_it_comes_to_the_end(
    sandbox: Sandbox, database: Database, tmp_path: Path, kills: int, seed: int
) -> None:
    """Wherever chance will have it, as often as `--kills` says: a thousand times before a release."""
    clinic, jobs, killed, round = Clinic(database.dsn), list[Job](), 0, 0
    with Forge(write_config(tmp_path, database, sandbox.url), _LEASE_S) as forge:
        while killed < kills:
            round += 1
            chance = random.Random(f"{seed} {round}")
            more = history(clinic, f"{seed} {round}", changes=10)
            jobs += more
            await clinic.append(more)
            killed += await asyncio.to_thread(forge.work_through, chance, 60, kills - killed)
            assert stored(database) == expected(jobs), f"round {round}"
            assert undone(database) == []
    print(f"killed {killed} times in {round} rounds, {len(jobs)} changes, seed {seed}")


def undone(database: Database) -> list[tuple[object, ...]]:
    """Jobs that are not done; or out of their lane's order, by the versions they became.

    Which version a deletion became is not known to one who comes too late for it.
    """
    return database.execute(
        "SELECT lane, seq FROM (SELECT *, row_number() OVER (PARTITION BY composition_id ORDER BY lane, seq) "
        "AS nth FROM replicator.ehr_sync_queue) AS q "
        "WHERE state <> 'done' OR coalesce(version, CASE operation WHEN 'delete' THEN nth END, 0) <> nth"
    )


@pytest.mark.parametrize("nth", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("mark", ["ehr sending", "ehr answered"])
async def test_one_that_wakes_up_late_changes_nothing(
    sandbox: Sandbox, database: Database, tmp_path: Path, children: StartChild, mark: str, nth: int
) -> None:
    clinic = Clinic(database.dsn)
    jobs = [
        *clinic.put("readings", reading("1", rate=61)),
        *clinic.put("readings", reading("1", rate=62)),
        *clinic.drop("readings", "1"),
        *clinic.put("readings", reading("1", rate=63)),
        *clinic.put("readings", reading("1", rate=64)),
    ]
    await clinic.append(jobs)
    config = write_config(tmp_path, database, sandbox.url)
    late = children(config, str(_LEASE_S), target=TARGET, block_at=(mark, nth + (mark == "ehr answered")))
    await asyncio.to_thread(late.wait_for, mark, n=nth + (mark == "ehr answered"))
    other = children(config, str(_LEASE_S), target=TARGET)
    await delivered(database)
    before = database.execute("SELECT * FROM replicator.ehr_sync_queue ORDER BY seq")
    assert stored(database) == expected(jobs)
    late.go_on()
    await asyncio.to_thread(late.wait_for, "jobs recorded", lanes=0)
    late.terminate()
    other.terminate()
    assert await asyncio.to_thread(late.wait) == 0, late.stderr
    assert stored(database) == expected(jobs)
    assert database.execute("SELECT * FROM replicator.ehr_sync_queue ORDER BY seq") == before


async def test_told_to_stop_it_finishes_or_gives_back_what_it_holds(
    sandbox: Sandbox, database: Database, tmp_path: Path, children: StartChild, seed: int
) -> None:
    clinic = Clinic(database.dsn)
    jobs = history(clinic, str(seed), changes=60)
    await clinic.append(jobs)
    config = write_config(tmp_path, database, sandbox.url)
    worker = children(config, "3600", target=TARGET, block_at=("ehr answered", 4))
    await asyncio.to_thread(worker.wait_for, "ehr answered", n=4)
    worker.terminate()
    worker.go_on()
    assert await asyncio.to_thread(worker.wait) == 0, worker.stderr
    assert database.execute("SELECT count(*) FROM replicator.ehr_lanes WHERE lease_until IS NOT NULL") == [
        (0,)
    ]
    children(config, str(_LEASE_S), target=TARGET)
    await delivered(database)
    assert stored(database) == expected(jobs)


async def test_a_later_version_is_not_sent_before_the_earlier_one_is_recorded(
    sandbox: Sandbox, database: Database, tmp_path: Path, children: StartChild
) -> None:
    clinic = Clinic(database.dsn)
    jobs = [
        *clinic.put("readings", reading("1")),
        *clinic.put("readings", reading("2")),
        *clinic.drop("readings", "1"),
    ]
    await clinic.append(jobs)
    config = write_config(tmp_path, database, sandbox.url)
    killed = children(config, str(_LEASE_S), target=TARGET, block_at=("ehr sending", 1))
    await asyncio.to_thread(killed.wait_for, "ehr sending")
    with database.connect() as other, other.transaction():
        other.execute("SELECT FROM replicator.ehr_lanes FOR UPDATE")  # nothing of this lane is recorded
        killed.go_on()
        await asyncio.to_thread(killed.wait_for, "ehr sending", n=2)
        more = clinic.put("readings", reading("3", "p2"))
        await clinic.append(more)
        await asyncio.to_thread(killed.wait_for, "ehr sending", change=str(more[0].change))
        killed.kill()
        # The server would still carry out what it was told before.
        other.execute(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity "
            "WHERE datname = current_database() AND application_name = 'replicator work'"
        )
    children(config, str(_LEASE_S), target=TARGET)
    await delivered(database)
    assert stored(database) == expected([*jobs, *more])
