"""People look at the queue and decide about it; every decision is kept, with who and why."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from click.testing import CliRunner

from replicator.cli import main
from replicator.database import Connect
from replicator.ehr.lanes_taken import Lanes
from replicator.ehr.sandbox.server import Sandbox
from tests.database.queued import (
    AT,
    Clinic,
    Worker,
    delivered,
    held,
    reading,
    sandbox_with_template,
    states,
    write_config,
)
from tests.fixtures.postgres import Database
from tests.fixtures.signals import Signals

pytestmark = pytest.mark.migrated


@pytest.fixture
async def sandbox(database: Database) -> AsyncIterator[Sandbox]:
    async with sandbox_with_template(database.owner_dsn) as sandbox:
        yield sandbox


class Told:
    """The verbs, with this test's configuration."""

    #: What the last one said besides.
    hint = ""

    def __init__(self, folder: Path, database: Database, url: str) -> None:
        self.config = write_config(folder, database, url)

    async def __call__(self, *argv: str, code: int = 0) -> dict[str, Any]:
        found: dict[str, Any] = orjson.loads(await self.in_words(*argv, "--json", code=code))
        return found

    async def in_words(self, *argv: str, code: int = 0) -> str:
        full = ["queue", *argv, "--config", str(self.config)]
        result = await asyncio.to_thread(CliRunner().invoke, main, full)
        assert result.exit_code == code, result.output
        self.hint = result.stderr
        return result.stdout


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


async def test_a_job_of_a_lane_below_zero_is_named_as_it_is_listed(parked: Clinic, told: Told) -> None:
    """Lanes' numbers are hashes: half of them begin with what else begins an option."""
    everyone = [f"p{number}" for number in range(20)]
    await parked.append(*(parked.put("readings", reading(name, name)) for name in everyone))
    ids = [job["id"] for job in (await told("list"))["jobs"]]
    below = [id for id in ids if id.startswith("-")]
    assert below
    assert [(await told("show", id))["record_key"] for id in below] == [
        job["key"] for job in (await told("list"))["jobs"] if job["id"] in below
    ]
    done = await told("park", below[0], below[-1], "--why", "-1.5 is no pulse", "--yes")
    assert sorted(done["jobs"]) == sorted({below[0], below[-1]})


async def test_a_job_that_cannot_be_meant_is_named(parked: Clinic, told: Told) -> None:
    """And nothing is decided about others where one of them is not there."""
    first, bad = [(await told("list", "--state", state))["jobs"][0]["id"] for state in ("done", "parked")]
    await told.in_words("skip", bad, "99.99", "--why", "a slip", code=1)
    assert [job["id"] for job in (await told("list", "--state", "parked"))["jobs"]] == [bad]
    assert f"not {first}, which is done" in await told.in_words("park", bad, first, "--why", "a slip")
    done = await told("skip", bad, first, "--why", "a slip")
    assert (done["jobs"], done["passed_over"]) == ([bad], {first: "done"})


async def test_a_name_that_nothing_has_is_said_to_be_none(parked: Clinic, told: Told) -> None:
    for verb in (["list"], ["retry", "--why", "a slip", "--yes"]):
        await told.in_words(*verb, "--table", "reading", code=1)
        assert "nothing is mapped from reading" in told.hint and "merging, " in told.hint
        for known in ("readings", "public.readings"):
            await told(*verb, "--table", known, "--older", "1h")
            assert told.hint == ""
        await told.in_words(*verb, "--error-class", "parkt", code=2)
        assert "unreached" in told.hint


async def test_who_would_stop_a_lane_without_jobs_is_told_that_it_goes_on(parked: Clinic, told: Told) -> None:
    assert await told.in_words("park", "--patient", "p9", "--why", "who is it?", "--yes") == "park: 0 jobs\n"
    assert "What comes later will be delivered" in told.hint


async def test_what_one_wants_to_know_of_a_job_is_said_first(parked: Clinic, told: Told) -> None:
    ((bad,),) = [[job["id"] for job in (await told("list", "--state", "parked"))["jobs"]]]
    lines = (await told.in_words("show", bad)).splitlines()
    assert [line.partition(":")[0] for line in lines[:4]] == ["id", "state", "error_class", "error_message"]


async def test_nothing_is_decided_about_what_was_not_asked_about(
    parked: Clinic, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that comes while somebody reads the question is none of those that the answer is about."""
    loop = asyncio.get_running_loop()

    def answer(question: str, yes: bool) -> None:
        assert (question, yes) == ("park 2 jobs?", False)
        more = parked.append(parked.put("readings", reading("3")))
        asyncio.run_coroutine_threadsafe(more, loop).result()

    monkeypatch.setattr("replicator.cli_queue.ask", answer)
    second = (await told("list"))["jobs"][1]["id"]
    done = await told("park", "--patient", "p1", "--why", "whose is it?")
    assert done["jobs"] == [second]
    assert len((await told("list"))["jobs"]) == 3


@pytest.mark.parametrize("why", ["", " ", "x" * 501])
async def test_a_reason_has_to_be_one(parked: Clinic, told: Told, why: str) -> None:
    await told.in_words("park", "--patient", "p1", "--why", why, "--yes", code=2)
    await told.in_words("rebuild", "--why", why, "--yes", code=2)


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


async def test_whoever_skips_a_job_is_told_which_others_it_was_to_stand_for_and_may_replay_one(
    clinic: Clinic, told: Told, sandbox: Sandbox, database: Database, tmp_path: Path, signals: Signals
) -> None:
    """Also if another had been to stand for those before."""
    await clinic.append(
        clinic.put("merging", reading("1", rate=70)),
        clinic.put("merging", reading("1", rate=71)),
        clinic.put("merging", reading("1", rate="fast")),
    )
    async with Worker(tmp_path, database, sandbox.url):
        await signals.wait("lane stopped")
    await clinic.append(clinic.put("merging", reading("1", rate="faster")))
    signals.forget()
    await told("retry", "--error-class", "parked", "--why", "perhaps", "--yes")
    async with Worker(tmp_path, database, sandbox.url):
        await signals.wait("lane stopped")
    assert [state for _, _, state in states(database)] == ["merged"] * 3 + ["parked"]
    (job,) = (await told("list"))["jobs"]
    done = await told("skip", job["id"], "--why", "a slip")
    assert done["jobs"] == [job["id"]]
    lane = job["id"].rpartition(".")[0]
    assert done["merged"] == {job["id"]: [f"{lane}.{seq}" for seq in (1, 2, 3)]}
    async with Worker(tmp_path, database, sandbox.url):
        await delivered(database)
        assert held(database) == {}
        await told("replay", f"{lane}.2", "--why", "that was none")
        await delivered(database)
    ((version,),) = held(database).values()
    assert version[3] == "71.0"


async def test_a_skip_in_words_says_what_is_left_out_with_it(
    clinic: Clinic, told: Told, sandbox: Sandbox, database: Database, tmp_path: Path, signals: Signals
) -> None:
    await clinic.append(*(clinic.put("merging", reading("1", rate=rate)) for rate in (70, "fast")))
    await clinic.append(clinic.put("merging", reading("2", "p2", rate="fast")))
    async with Worker(tmp_path, database, sandbox.url):
        await signals.wait("lane stopped")
        await signals.wait("lane stopped")
    said = await told.in_words("skip", "--error-class", "parked", "--why", "slips", "--yes")
    one, two, *rest = said.splitlines()
    lane = two.split()[1].rpartition(".")[0]
    assert (one, two) == ("skip: 2 jobs", f"    with {lane}.2, what was merged into it: {lane}.1")
    assert len(rest) == 1 and "`replicator queue replay`" in rest[0]
    assert f"    merged into {lane}.2\n1 job\n" in await told.in_words("list", "--state", "merged")
    parked = await told.in_words("park", "--table", "merging", "--why", "not yet", "--yes")
    assert parked == "park: 2 jobs\n"


async def test_who_decides_is_told_which_worker_has_the_lane(
    clinic: Clinic, told: Told, connect: Connect
) -> None:
    await clinic.append(clinic.put("readings", reading("1")))
    (lane,) = await Lanes(connect, "there:17", 3600.0).claim(1, 5)
    one, two, three = (await told.in_words("skip", f"{lane.id}.1", "--why", "a slip")).splitlines()
    assert (one, two) == ("skip: 1 job", f"    {lane.id}.1 is in a lane at which there:17 is at work")
    assert "`replicator queue show`" in three
    assert (await told("retry", f"{lane.id}.1", "--why", "no slip"))["taken"] == {f"{lane.id}.1": "there:17"}


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


async def test_an_older_change_that_is_replayed_does_not_take_the_place_of_a_newer_one(
    clinic: Clinic, told: Told, sandbox: Sandbox, database: Database, tmp_path: Path
) -> None:
    """Neither does the next one, which is newer than the one replayed before it."""
    await clinic.append(*(clinic.put("readings", reading("1", rate=rate)) for rate in (70, 71, 72)))
    async with Worker(tmp_path, database, sandbox.url):
        await delivered(database)
    before = held(database)
    first, second, _ = await finished(told)
    await told("replay", "--why", "were they told?", "--yes", first, second)
    async with Worker(tmp_path, database, sandbox.url):
        await delivered(database)
    assert held(database) == before
    await told("replay", "--why", "once more", "--yes", second)
    async with Worker(tmp_path, database, sandbox.url):
        await delivered(database)
    assert held(database) == before


async def test_a_deletion_that_is_replayed_keeps_no_later_one_from_being_told(
    clinic: Clinic, told: Told, sandbox: Sandbox, database: Database, tmp_path: Path
) -> None:
    await clinic.append(
        clinic.put("readings", reading("1", rate=70)),
        clinic.drop("readings", "1"),
        clinic.put("readings", reading("1", rate=72)),
    )
    async with Worker(tmp_path, database, sandbox.url):
        await delivered(database)
    before = held(database)
    _, deletion, _ = await finished(told)
    await told("replay", "--why", "was it told?", "--yes", deletion)
    async with Worker(tmp_path, database, sandbox.url):
        await delivered(database)
        assert held(database) == before
        await clinic.append(clinic.drop("readings", "1"))
        await delivered(database)
    (versions,) = held(database).values()
    assert [version[1] for version in versions] == ["249", "523", "251", "523"]


async def test_what_has_been_deleted_since_does_not_come_back_when_what_was_before_is_replayed(
    clinic: Clinic, told: Told, sandbox: Sandbox, database: Database, tmp_path: Path
) -> None:
    await clinic.append(
        clinic.put("readings", reading("1", rate=70)),
        clinic.put("readings", reading("1", rate=71)),
        clinic.drop("readings", "1"),
    )
    async with Worker(tmp_path, database, sandbox.url):
        await delivered(database)
    before = held(database)
    creation, update, deletion = await finished(told)
    for jobs in ((creation,), (update,), (creation, update), (creation, update, deletion)):
        await told("replay", "--why", "were they told?", "--yes", *jobs)
        async with Worker(tmp_path, database, sandbox.url):
            await delivered(database)
        assert held(database) == before
    why = "SELECT error_message, count(*) FROM replicator.ehr_sync_queue WHERE state = 'skipped' GROUP BY 1"
    assert database.execute(why) == [("it has been deleted since", 6)]
    # And one that is there again later is told.
    await clinic.append(clinic.put("readings", reading("1", rate=73)))
    async with Worker(tmp_path, database, sandbox.url):
        await delivered(database)
    (versions,) = held(database).values()
    assert [version[1] for version in versions] == ["249", "251", "523", "251"]


async def test_what_was_not_in_the_record_when_its_row_was_deleted_does_not_come_there_by_a_replay(
    clinic: Clinic, told: Told, sandbox: Sandbox, database: Database, tmp_path: Path, signals: Signals
) -> None:
    await clinic.append(*(clinic.put("merging", reading("1", rate=rate)) for rate in (70, "fast")))
    async with Worker(tmp_path, database, sandbox.url):
        await signals.wait("lane stopped")
        (job,) = (await told("list"))["jobs"]
        ((_, (merged,)),) = (await told("skip", job["id"], "--why", "a slip"))["merged"].items()
        await clinic.append(clinic.drop("merging", "1"))
        await delivered(database)
        await told("replay", merged, "--why", "that was none")
        await delivered(database)
        assert held(database) == {}
        found = sorted(state for _, _, state in states(database))
        assert found == ["done", "merged", "skipped", "skipped"]
        # Of a row that is there again, it says nothing.
        await clinic.append(clinic.put("merging", reading("1", rate=73)))
        await delivered(database)
    ((version,),) = held(database).values()
    assert version[3] == "73.0"


@pytest.mark.parametrize("only", [True, False])
async def test_a_deletion_that_the_record_has_lost_is_told_again_when_it_is_replayed(
    clinic: Clinic, told: Told, sandbox: Sandbox, database: Database, tmp_path: Path, only: bool
) -> None:
    await clinic.append(clinic.put("readings", reading("1")), clinic.drop("readings", "1"))
    async with Worker(tmp_path, database, sandbox.url):
        await delivered(database)
    database.execute("DELETE FROM sandbox.versions WHERE kind = 'COMPOSITION' AND number = 2")
    jobs = await finished(told)
    await told("replay", "--why", "restored from a backup", "--yes", *(jobs[1:] if only else jobs))
    async with Worker(tmp_path, database, sandbox.url):
        await delivered(database)
    (versions,) = held(database).values()
    assert [version[1] for version in versions] == ["249", "523"]


async def test_what_has_been_deleted_does_not_come_back_by_a_replay_after_a_rebuild(
    clinic: Clinic, told: Told, sandbox: Sandbox, database: Database, tmp_path: Path, signals: Signals
) -> None:
    """But a row that is there again comes there at once, also if the record has lost what was before."""
    database.execute(
        "CREATE TABLE readings (id text, patient_id text, rate int, at timestamptz, active bool)"
    )
    await clinic.append(clinic.put("readings", reading("1")), clinic.drop("readings", "1"))
    async with Worker(tmp_path, database, sandbox.url):
        await delivered(database)
        before = held(database)
        creation, _ = await finished(told)
        assert (await told("rebuild", "readings", "--why", "to be sure", "--yes"))["rows"] == 0
        await told("replay", creation, "--why", "to be sure")
        await delivered(database)
        assert held(database) == before
        database.execute("INSERT INTO readings VALUES ('1', 'p1', 73, %s, true)", [AT])
        database.execute("DELETE FROM sandbox.versions WHERE kind = 'COMPOSITION'")
        assert (await told("rebuild", "readings", "--why", "moved", "--yes"))["rows"] == 1
        await delivered(database)
    ((version,),) = held(database).values()
    assert (version[1], version[3]) == ("249", "73.0")
    assert signals.count("lane stopped") == 0


async def finished(told: Told) -> list[str]:
    """The ids of a lane's finished jobs, in its order."""
    jobs = (await told("list", "--state", "done"))["jobs"]
    return sorted((job["id"] for job in jobs), key=lambda id: int(id.rpartition(".")[2]))


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
        "INSERT INTO readings SELECT n::text, 'p' || n %% 3, 50 + n, %s::timestamptz, true "
        "FROM generate_series(1, 9) AS n",
        [AT],
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
    assert sorted(map(len, held(database).values())) == [1] * 8 + [2], "only what is another got a version"
    notes = "SELECT count(*) FROM replicator.ehr_sync_queue WHERE note = 'it says so already'"
    assert database.execute(notes) == [(1,)]
    # Once more, also by one that remembers nothing: nothing is repeated.
    before = held(database)
    database.execute("TRUNCATE replicator.ehr_jobs_done, replicator.ehr_compositions")
    async with Worker(tmp_path, database, sandbox.url):
        assert (await told("rebuild", "readings", "--why", "lost", "--yes"))["rows"] == 9
        await delivered(database)
    assert held(database) == before
    assert database.execute(notes) == [(9,)]
    assert database.execute("SELECT count(*) FROM replicator.ehr_compositions") == [(9,)]
    assert (await told("rebuild", "nothing", "--why", "x", "--yes", code=2))["error"] == "ConfigError"
    assert database.execute("SELECT action, record_key FROM replicator.ehr_queue_audit LIMIT 1") == [
        ("rebuild", "9 rows")
    ]
