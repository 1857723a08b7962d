"""People look at the queue and decide about it; every decision is kept, with who and why."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from click.testing import CliRunner

from replicator.cli import main
from replicator.ehr.sandbox.server import Sandbox
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
from tests.fixtures.postgres import Database
from tests.fixtures.signals import Signals


@pytest.fixture
async def clinic(database: Database) -> Clinic:
    return await prepared(database)


@pytest.fixture
async def sandbox(database: Database) -> AsyncIterator[Sandbox]:
    async with sandbox_with_template(database.dsn) as sandbox:
        yield sandbox


class Told:
    """The verbs, with this test's configuration."""

    def __init__(self, folder: Path, database: Database, url: str) -> None:
        self.config = write_config(folder, database, url)

    async def __call__(self, *argv: str, code: int = 0) -> dict[str, Any]:
        import asyncio

        full = ["queue", *argv, "--json", "--config", str(self.config)]
        result = await asyncio.to_thread(CliRunner().invoke, main, full)
        assert result.exit_code == code, result.output
        found: dict[str, Any] = orjson.loads(result.stdout)
        return found


@pytest.fixture
def told(tmp_path: Path, database: Database, sandbox: Sandbox) -> Told:
    return Told(tmp_path, database, sandbox.url)


@pytest.fixture
async def parked(
    clinic: Clinic, sandbox: Sandbox, database: Database, tmp_path: Path, signals: Signals
) -> Clinic:
    """A lane that stands at its second job."""
    await clinic.append(
        clinic.put("readings", reading("1")),
        clinic.put("readings", reading("bad", rate="fast")),
        clinic.put("readings", reading("2")),
    )
    async with Worker(tmp_path, database, sandbox.url):
        await signals.wait("lane stopped")
    return clinic


async def test_stats_say_whether_somebody_should_look(parked: Clinic, told: Told) -> None:
    found = await told("stats")
    assert found["status"] == "degraded"
    checks = found["checks"]
    assert (checks["pending_syncs"], checks["failed_syncs"], checks["errors"]) == (2, 1, {"parked": 1})
    assert checks["oldest_undelivered_s"] >= 0 and checks["finished_last_hour"] == {"done": 1}


async def test_an_empty_queue_is_healthy(clinic: Clinic, told: Told) -> None:
    found = await told("stats")
    assert (found["status"], found["checks"]["oldest_undelivered_s"]) == ("healthy", None)


async def test_jobs_are_listed_by_what_they_are_and_never_with_their_rows(parked: Clinic, told: Told) -> None:
    for options in (["--error-class", "parked"], ["--state", "parked"], ["--patient", "p1", "--limit", "1"]):
        (job,) = (await told("list", *options))["jobs"]
        assert (job["key"], job["lane_state"], job["is_next"]) == ("bad", "parked", True)
        assert "fast" not in str(job)
    assert (await told("list", "--patient", "p2"))["jobs"] == []
    assert (await told("list", "--older", "1h"))["jobs"] == []
    assert len((await told("list", "--table", "public.readings"))["jobs"]) == 2
    shown = await told("show", job["id"])
    assert shown["state"] == "parked" and "snapshot" not in shown and "fast" not in str(shown)


async def test_a_job_that_is_skipped_lets_those_behind_it_go_on(
    parked: Clinic, told: Told, sandbox: Sandbox, database: Database, tmp_path: Path
) -> None:
    (job,) = (await told("list", "--state", "parked"))["jobs"]
    done = await told("skip", job["id"], "--why", "a slip", "--who", "ann")
    assert done["jobs"] == [job["id"]]
    async with Worker(tmp_path, database, sandbox.url):
        await delivered(database)
    assert [state for _, _, state in states(database)] == ["done", "skipped", "done"]
    assert len(held(database)) == 2
    audit = database.execute("SELECT who, action, why, record_key FROM replicator.ehr_queue_audit")
    assert audit == [("ann", "skip", "a slip", "bad")]
    assert (await told("show", job["id"]))["decided"][0]["why"] == "a slip"


async def test_a_parked_job_is_retried_when_somebody_says_so(
    parked: Clinic, told: Told, sandbox: Sandbox, database: Database, tmp_path: Path, signals: Signals
) -> None:
    signals.forget()
    assert len((await told("retry", "--error-class", "parked", "--why", "again", "--yes"))["jobs"]) == 1
    async with Worker(tmp_path, database, sandbox.url):
        await signals.wait("lane stopped")
    assert [state for _, _, state in states(database)] == ["done", "parked", "waiting"]


async def test_a_job_that_is_parked_by_hand_stops_its_lane_only(
    clinic: Clinic, told: Told, sandbox: Sandbox, database: Database, tmp_path: Path, signals: Signals
) -> None:
    await clinic.append(
        clinic.put("readings", reading("1")),
        clinic.put("readings", reading("2")),
        clinic.put("readings", reading("3", "p2")),
    )
    jobs = (await told("list", "--patient", "p1"))["jobs"]
    second = next(job["id"] for job in jobs if job["key"] == "2")
    await told("park", second, "--why", "whose is it?")
    async with Worker(tmp_path, database, sandbox.url):
        await signals.wait("lane stopped")
        await delivered(database, 1)
    assert [state for _, _, state in states(database)] == ["done", "parked", "done"]
    await told("park", "--patient", "p1", "--why", "still", "--yes")
    await told("retry", second, "--why", "it is theirs")
    async with Worker(tmp_path, database, sandbox.url):
        await delivered(database)
    actions = database.execute("SELECT action FROM replicator.ehr_queue_audit ORDER BY id")
    assert actions == [("park",), ("retry",)]


async def test_what_the_record_has_lost_is_replayed_and_nothing_else(
    clinic: Clinic, told: Told, sandbox: Sandbox, database: Database, tmp_path: Path
) -> None:
    await clinic.append(
        clinic.put("readings", reading("1", rate=70)),
        clinic.put("readings", reading("2", rate=60)),
        clinic.put("readings", reading("1", rate=71)),
    )
    async with Worker(tmp_path, database, sandbox.url):
        await delivered(database)
    before = held(database)
    lost = next(name for name, versions in before.items() if len(versions) == 2)
    database.execute("DELETE FROM sandbox.versions WHERE object_id = %s AND number = 2", [lost])
    done = await told("replay", "--table", "readings", "--why", "restored from a backup", "--yes")
    assert len(done["jobs"]) == 3
    async with Worker(tmp_path, database, sandbox.url):
        await delivered(database)
    assert {name: [v[:3] for v in each] for name, each in held(database).items()} == {
        name: [v[:3] for v in each] for name, each in before.items()
    }


async def test_decisions_want_a_reason_and_say_about_what(clinic: Clinic, told: Told) -> None:
    assert (await told("skip", "--why", "all of it", "--yes", code=2))["error"] == "ConfigError"
    assert (await told("skip", "nonsense", "--why", "x", code=2))["error"] == "ConfigError"
    assert (await told("show", "1.1", code=1))["error"] == "ReplicatorError"


async def test_a_record_that_was_lost_is_rebuilt_from_the_source(
    clinic: Clinic, told: Told, sandbox: Sandbox, database: Database, tmp_path: Path
) -> None:
    for name in ("users", "merging", "urgent", "other", "readings"):
        database.execute(
            f"CREATE TABLE {name} "
            "(id text PRIMARY KEY, patient_id text, rate integer, at timestamptz, active boolean)"
        )
    database.execute(
        "INSERT INTO readings SELECT n::text, 'p' || n % 3, 50 + n, now(), true "
        "FROM generate_series(1, 9) AS n"
    )
    # One is in the record as it is now; and one as it was before.
    await clinic.append(
        clinic.put("readings", reading("1", rate=51)), clinic.put("readings", reading("2", "p2", 1))
    )
    async with Worker(tmp_path, database, sandbox.url):
        await delivered(database)
        assert (await told("rebuild", "readings", "--why", "moved", "--yes"))["rows"] == 9
        await delivered(database)
    rates = sorted(float(versions[-1][3]) for versions in held(database).values())
    assert rates == [float(50 + n) for n in range(1, 10)]
    assert (await told("rebuild", "nothing", "--why", "x", "--yes", code=2))["error"] == "ConfigError"
    assert database.execute("SELECT action, record_key FROM replicator.ehr_queue_audit") == [
        ("rebuild", "9 rows")
    ]
