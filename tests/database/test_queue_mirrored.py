"""`ehr_sync_status` says of every job what the queue says, from when somebody wants it until nobody does."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from replicator.cli import main
from replicator.database import connected, pooled
from replicator.ehr.lanes_taken import Lanes
from replicator.ehr.queue_mirrored import Mirrored, mirror
from replicator.ehr.queue_people import Action, Chosen, JobId, decide
from replicator.ehr.sandbox.server import Sandbox
from tests.database.queued import (
    Clinic,
    Worker,
    delivered,
    prepared,
    reading,
    sandbox_with_template,
    write_config,
)
from tests.database.test_queue_whole import MIRRORED, SAID
from tests.fixtures.postgres import Database
from tests.fixtures.signals import Signals

pytestmark = pytest.mark.migrated

_PATIENTS = "SELECT id, seq, patient_id FROM replicator.ehr_sync_status ORDER BY 1"
_OF_JOBS = """
SELECT lane || '.' || seq, seq, patient FROM replicator.ehr_sync_queue WHERE state <> 'merged' ORDER BY 1
"""


@pytest.fixture
async def clinic(database: Database) -> Clinic:
    return await prepared(database)


@pytest.fixture
async def sandbox(database: Database, clinic: Clinic) -> AsyncIterator[Sandbox]:
    async with sandbox_with_template(database.owner_dsn) as sandbox:
        yield sandbox


async def ask(database: Database, *, is_kept: bool) -> Mirrored:
    async with connected(database.dsn, "mirror", schema="replicator") as storage:
        return await mirror(storage, is_kept=is_kept)


def same(database: Database) -> int:
    """It is what the queue says, but of what was merged; how many rows it has."""
    found = database.execute(MIRRORED)
    assert found == database.execute(SAID)
    assert database.execute(_PATIENTS) == database.execute(_OF_JOBS)
    return len(found)


def at_random(rng: random.Random) -> tuple[str, dict[str, str | None]]:
    table = rng.choice(["readings", "merging", "urgent", "users", "other"])
    patient = rng.choice(["p0", "p1", "p2", "p3", None])
    return table, reading(f"{rng.randrange(12)}", patient, rng.choice([70, 71, 72, "fast"]))


async def test_whatever_happens_to_jobs_it_says_what_the_queue_says(
    clinic: Clinic, sandbox: Sandbox, database: Database, tmp_path: Path, rng: random.Random
) -> None:
    await clinic.append(*(clinic.put("readings", reading(f"before{n}", f"p{n % 3}")) for n in range(20)))
    assert await ask(database, is_kept=True) == (True, 20)

    async def decided(action: Action, *states: str) -> None:
        async with connected(database.dsn, "decide", schema="replicator") as storage:
            query = "SELECT lane, seq FROM replicator.ehr_sync_queue WHERE state = ANY (%s)"
            found = database.execute(query, [list(states)])
            ids = tuple(JobId(*row) for row in rng.sample(found, min(3, len(found))))
            if ids:
                await decide(storage, action, Chosen(ids), "somebody", "chance")

    seen = set[str]()
    for _ in range(12):
        # Some cannot be delivered, some are of nobody, some wait for a template.
        await clinic.append(*(clinic.put(*at_random(rng)) for _ in range(rng.randrange(1, 8))))
        same(database)
        async with Worker(tmp_path, database, sandbox.url):
            await asyncio.sleep(rng.random() * 0.3)
        same(database)
        seen.update(row[0] for row in database.execute("SELECT sync_status FROM replicator.ehr_sync_status"))
        await decided("park", "waiting", "retrying", "held")
        await decided("skip", "waiting", "retrying", "parked")
        await decided("retry", "parked", "held", "skipping")
        await decided("replay", "done", "skipped", "merged")
        assert same(database) > 20
    assert seen == {"completed", "failed", "skipped", "pending"}


async def test_what_is_let_go_is_let_go_of_there_as_well(
    clinic: Clinic, sandbox: Sandbox, database: Database, tmp_path: Path
) -> None:
    await ask(database, is_kept=True)
    await clinic.append(clinic.put("readings", reading("1")), clinic.put("readings", reading("2", "p2")))
    async with Worker(tmp_path, database, sandbox.url):
        await delivered(database)
    assert same(database) == 2
    database.execute(
        "UPDATE replicator.ehr_jobs_done SET finished_at = now() - interval '2 days' WHERE patient = 'p2'"
    )
    async with pooled(database.dsn, "forget", schema="replicator") as connect:
        assert await Lanes(connect, "here:1", 60.0).forget_done(86_400, 100) == 1
    assert database.execute("SELECT patient_id FROM replicator.ehr_sync_status") == [("p1",)]


async def test_nobody_pays_for_it_who_has_not_asked(clinic: Clinic, database: Database) -> None:
    triggers = "SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'ehr%'"
    await clinic.append(clinic.put("readings", reading("1")))
    assert database.execute(MIRRORED) == [] and database.execute(triggers) == [(0,)]
    assert await ask(database, is_kept=True) == (True, 1)
    assert await ask(database, is_kept=True) == (False, 1)
    assert database.execute(triggers) == [(5,)]
    await clinic.append(clinic.put("readings", reading("2")))
    assert same(database) == 2
    assert await ask(database, is_kept=False) == (True, 0)
    assert await ask(database, is_kept=False) == (False, 0)
    await clinic.append(clinic.put("readings", reading("3")))
    assert database.execute(MIRRORED) == [] and database.execute(triggers) == [(0,)]


async def test_it_is_asked_for_while_everything_goes_on(
    clinic: Clinic, sandbox: Sandbox, database: Database, tmp_path: Path
) -> None:
    """No job is missing that came while the rows were written, and none says what it was before."""

    async def feed() -> None:
        for number in range(150):
            await clinic.append(clinic.put("readings", reading(f"{number}", f"p{number % 5}")))

    async with Worker(tmp_path, database, sandbox.url):
        feeding = asyncio.create_task(feed())
        for is_kept in (True, False, True, False, True):
            await asyncio.sleep(0.1)
            assert (await ask(database, is_kept=is_kept)).is_new
        await feeding
        await delivered(database)
    assert same(database) == 150


def told(config: Path, *argv: str, code: int = 0) -> Any:
    result = CliRunner().invoke(main, ["queue", "mirror", "--config", str(config), *argv])
    assert result.exit_code == code, result.output
    return json.loads(result.stdout) if "--json" in argv else result.output


async def test_a_person_says_so(
    clinic: Clinic, sandbox: Sandbox, database: Database, tmp_path: Path, signals: Signals
) -> None:
    config = write_config(tmp_path, database, sandbox.url)
    await clinic.append(clinic.put("readings", reading("1")))
    said = await asyncio.to_thread(told, config)
    assert said.startswith("replicator.ehr_sync_status is kept: 1 row\nRules can name it: ")
    assert "1 row, as before\n" in await asyncio.to_thread(told, config)
    assert await asyncio.to_thread(told, config, "--off", "--json") == {
        "is_kept": False,
        "is_new": True,
        "rows": 0,
    }
    assert (
        await asyncio.to_thread(told, config, "--off")
        == "replicator.ehr_sync_status is not kept, as before\n"
    )


async def test_where_no_app_could_get_it_it_is_not_kept(
    clinic: Clinic, sandbox: Sandbox, database: Database, other_database: Database, tmp_path: Path
) -> None:
    config = write_config(tmp_path, database, sandbox.url)
    keys = json.loads(config.read_text())
    config.write_text(
        json.dumps({**keys, "storage": {"dsn": database.dsn}, "source": {"dsn": other_database.dsn}})
    )
    await asyncio.to_thread(told, config, "--off")
    assert "storage is not in the source's database" in await asyncio.to_thread(told, config, code=2)
    assert database.execute("SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'ehr%'") == [(0,)]
