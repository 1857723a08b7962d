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
from replicator.config import load
from replicator.database import connected, pooled
from replicator.ehr.lanes_taken import Lanes
from replicator.ehr.mapping import mapping_of
from replicator.ehr.queue import append
from replicator.ehr.queue_mirrored import Mirrored, mirror
from replicator.ehr.queue_people import Action, Chosen, JobId, decide
from replicator.ehr.sandbox.server import Sandbox
from replicator.errors import ConfigError
from tests.database.queued import (
    MAPPING,
    Clinic,
    Worker,
    delivered,
    forget,
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


async def test_who_feeds_need_not_know_of_it(clinic: Clinic, database: Database) -> None:
    """Neither has to own anything, nor to have rights that came with it."""
    feeder = f"feeder_{database.name}"
    database.execute(f"""CREATE ROLE "{feeder}"; GRANT USAGE ON SCHEMA replicator TO "{feeder}";
        GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA replicator TO "{feeder}";
        GRANT USAGE ON ALL SEQUENCES IN SCHEMA replicator TO "{feeder}";
        REVOKE ALL ON replicator.ehr_sync_status FROM "{feeder}";
        REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA replicator FROM PUBLIC;
        GRANT EXECUTE ON FUNCTION replicator.ehr_jobs_of, replicator.ehr_key, replicator.ehr_row TO PUBLIC""")
    await ask(database, is_kept=True)
    try:
        async with connected(database.owner_dsn, "feed", schema="replicator") as storage:
            await storage.execute(f'SET ROLE "{feeder}"'.encode())
            async with storage.transaction():
                await append(storage, clinic.put("readings", reading("1")))
    finally:
        database.execute(f'DROP OWNED BY "{feeder}"; DROP ROLE "{feeder}"')
    assert same(database) == 1


async def test_nobody_else_can_say_what_became_of_jobs(clinic: Clinic, database: Database) -> None:
    """What does as its owner may would do it for whoever hangs it onto a table of theirs."""
    found = database.execute("""SELECT count(*), bool_or(has_function_privilege('public', oid, 'EXECUTE'))
        FROM pg_proc WHERE pronamespace = 'replicator'::regnamespace AND prosecdef""")
    assert found == [(6, False)]


async def test_numbers_that_begin_anew_are_no_hindrance(clinic: Clinic, database: Database) -> None:
    await ask(database, is_kept=True)
    await clinic.append(clinic.put("readings", reading("1")))
    forget(database)
    await clinic.append(clinic.put("readings", reading("2")))
    assert same(database) == 1


async def test_who_is_erased_is_erased_there_as_well(
    clinic: Clinic, sandbox: Sandbox, database: Database, tmp_path: Path
) -> None:
    await ask(database, is_kept=True)
    await clinic.append(clinic.put("readings", reading("1")), clinic.put("readings", reading("2", "p2")))
    async with Worker(tmp_path, database, sandbox.url):
        await delivered(database)
    await clinic.append(clinic.put("readings", reading("3", "p2")), clinic.put("readings", reading("4")))
    assert same(database) == 4
    database.execute("UPDATE replicator.ehr_lanes SET patient = NULL WHERE patient = 'p2'")
    database.execute(
        "UPDATE replicator.ehr_jobs_done SET patient = NULL, record_key = '' WHERE patient = 'p2'"
    )
    assert same(database) == 4
    assert sorted(row[2] or "" for row in database.execute(_PATIENTS)) == ["", "", "p1", "p1"]


async def test_nobody_pays_for_it_who_has_not_asked(clinic: Clinic, database: Database) -> None:
    triggers = "SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'ehr%'"
    await clinic.append(clinic.put("readings", reading("1")))
    assert database.execute(MIRRORED) == [] and database.execute(triggers) == [(0,)]
    assert await ask(database, is_kept=True) == (True, 1)
    assert await ask(database, is_kept=True) == (False, 1)
    assert database.execute(triggers) == [(7,)]
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
            assert (await ask(database, is_kept=is_kept)).has_changed
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
        "has_changed": True,
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


def test_a_job_about_jobs_would_never_end(database: Database, tmp_path: Path) -> None:
    config = load(write_config(tmp_path, database, "http://127.0.0.1:1"), {})
    assert mapping_of(config) is not None
    config.ehr.mapping_path.write_text(MAPPING.replace("  readings:", "  replicator.ehr_sync_status:", 1))
    with pytest.raises(ConfigError, match=r"replicator\.ehr_sync_status is a table of the storage"):
        mapping_of(config)
