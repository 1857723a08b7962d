"""Jobs are delivered: once, in their patient's order, and what stops one lane stops no other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest

from replicator.ehr.circuit import FAILURES_MAX
from replicator.ehr.client import Client, Subject
from replicator.ehr.pace import Pace
from replicator.ehr.retry import INTERNAL_ERRORS_MAX
from replicator.ehr.sandbox.server import Sandbox
from tests.database.queued import (
    OPT,
    Clinic,
    Worker,
    delivered,
    held,
    left,
    reading,
    sandbox_with_template,
    states,
)
from tests.fixtures.postgres import Database
from tests.fixtures.signals import Signals

pytestmark = pytest.mark.migrated


@pytest.fixture
async def sandbox(database: Database) -> AsyncIterator[Sandbox]:
    async with sandbox_with_template(database.owner_dsn) as sandbox:
        yield sandbox


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks at what is held follow each other soon."""
    monkeypatch.setattr("replicator.ehr.lanes_held.LOOK_S", (0.05, 0.05))
    monkeypatch.setattr("replicator.ehr.circuit.PAUSE_S", 0.05)


async def test_a_record_is_created_changed_and_deleted_as_versions_of_one_composition(
    clinic: Clinic, sandbox: Sandbox, database: Database, tmp_path: Path
) -> None:
    await clinic.append(
        clinic.put("users", {"id": "p1", "active": "t"}),
        clinic.put("readings", reading("1", rate=70)),
        clinic.put("readings", reading("1", rate=71)),
        clinic.put("readings", reading("2", rate=60)),
        clinic.drop("readings", "1"),
    )
    async with Worker(tmp_path, database, sandbox.url):
        await delivered(database)
    found = sorted(held(database).values(), key=len)
    assert [[version[:2] for version in each] for each in found] == [
        [(1, "249")],
        [(1, "249"), (2, "251"), (3, "523")],
    ]
    assert [version[3] for version in found[1]] == ["70", "71", None] or [
        float(version[3]) for version in found[1][:2]
    ] == [70.0, 71.0]
    assert {state for _, _, state in states(database)} == {"done"}
    assert database.execute("SELECT count(*) FROM sandbox.ehrs") == [(1,)]


async def test_what_is_done_says_which_version_it_became(
    clinic: Clinic, sandbox: Sandbox, database: Database, tmp_path: Path
) -> None:
    await clinic.append(clinic.put("readings", reading("1")), clinic.put("readings", reading("1", rate=80)))
    async with Worker(tmp_path, database, sandbox.url):
        await delivered(database)
    found = database.execute("SELECT composition_uid, version FROM replicator.ehr_sync_queue ORDER BY seq")
    name = str(found[0][0]).partition("::")[0]
    assert found == [(f"{name}::sandbox::1", 1), (f"{name}::sandbox::2", 2)]
    known = database.execute("SELECT uid, is_deleted FROM replicator.ehr_compositions")
    assert known == [(f"{name}::sandbox::2", False)]
    seed = (
        "SELECT table_name, record_id, sync_status, ehrbase_composition_id FROM replicator.ehrbase_sync_queue"
    )
    assert ("readings", "1", "completed", f"{name}::sandbox::2") in database.execute(seed)


async def test_versions_that_may_be_merged_are_delivered_as_the_newest(
    clinic: Clinic, sandbox: Sandbox, database: Database, tmp_path: Path
) -> None:
    await clinic.append(*(clinic.put("merging", reading("1", rate=rate)) for rate in (70, 71, 72)))
    async with Worker(tmp_path, database, sandbox.url):
        await delivered(database)
    assert states(database) == [
        ("1", "create", "merged"),
        ("1", "update", "merged"),
        ("1", "update", "done"),
    ]
    ((version,),) = held(database).values()
    assert (version[0], float(version[3])) == (1, 72.0)


async def test_a_later_version_does_not_wait_until_the_earlier_is_recorded_with_others(
    clinic: Clinic, sandbox: Sandbox, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("replicator.ehr.lanes_recorded._LINGER_S", 3600.0)
    lanes = range(Pace().concurrency)
    for rate in (70, 71, 72):
        await clinic.append(*(clinic.put("readings", reading(str(n), f"p{n}", rate=rate)) for n in lanes))
    async with Worker(tmp_path, database, sandbox.url):
        await delivered(database)
    found = [[float(version[3]) for version in each] for each in held(database).values()]
    assert found == [[70.0, 71.0, 72.0]] * len(lanes)


@pytest.mark.parametrize("table", ["merging", "readings"])
async def test_a_row_that_was_there_before_does_not_undo_a_change_that_was_queued_first(
    clinic: Clinic, sandbox: Sandbox, database: Database, tmp_path: Path, table: str
) -> None:
    was, now, last = (clinic.put(table, reading("1", rate=rate)) for rate in (70, 71, 72))
    await clinic.append(now, last)
    await clinic.append(was)  # read from the source at an earlier position, and queued later
    async with Worker(tmp_path, database, sandbox.url):
        await delivered(database)
    (versions,) = held(database).values()
    assert float(versions[-1][3]) == 72.0
    assert database.execute(
        "SELECT count(*) FROM replicator.ehr_sync_queue WHERE state NOT IN ('done', 'merged')"
    ) == [(0,)]


async def test_urgent_lanes_are_taken_first(
    clinic: Clinic, sandbox: Sandbox, database: Database, tmp_path: Path
) -> None:
    await clinic.append(
        *(clinic.put("readings", reading(str(n), f"p{n}")) for n in range(10)),
        clinic.put("urgent", reading("u", "p99")),
        clinic.put("urgent", reading("v", "p5")),
    )
    first = database.execute(
        "SELECT patient FROM replicator.ehr_lanes WHERE state = 'waiting' ORDER BY priority, due_at LIMIT 2"
    )
    assert {patient for (patient,) in first} == {"p99", "p5"}
    async with Worker(tmp_path, database, sandbox.url):
        await delivered(database)
    assert database.execute("SELECT count(*) FROM replicator.ehr_lanes WHERE state <> 'idle'") == [(0,)]


async def test_a_composition_that_breaks_a_rule_parks_its_lane_and_no_other(
    clinic: Clinic, sandbox: Sandbox, database: Database, tmp_path: Path, signals: Signals
) -> None:
    await clinic.append(
        clinic.put("readings", reading("1", "p1")),
        clinic.put("readings", reading("bad", "p1", rate="fast")),
        clinic.put("readings", reading("2", "p1")),
        clinic.put("readings", reading("3", "p2")),
        clinic.put("readings", reading("lost", None)),
    )
    async with Worker(tmp_path, database, sandbox.url):
        await delivered(database, 3)
        await signals.wait("lane stopped")
        await signals.wait("lane stopped")
    assert states(database) == [
        ("1", "create", "done"),
        ("bad", "create", "parked"),
        ("2", "create", "waiting"),
        ("3", "create", "done"),
        ("lost", "create", "parked"),
    ]
    said = database.execute(
        "SELECT record_key, error_class, error_message FROM replicator.ehr_sync_queue WHERE state = 'parked' "
        "ORDER BY record_key"
    )
    assert [row[1] for row in said] == ["parked", "parked"]
    assert "fast" not in str(said) and "rate" in str(said[0][2]) and said[1][2] == "no patient"


async def test_a_missing_template_holds_its_lanes_until_it_is_there(
    clinic: Clinic, database: Database, tmp_path: Path, signals: Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("replicator.ehr.lanes_held.LOOK_S", (0.05, 0.05))
    async with Sandbox(database.owner_dsn) as sandbox:
        await clinic.append(
            *(clinic.put("readings", reading(str(n), f"p{n}")) for n in range(30)),
            clinic.put("users", {"id": "q", "active": "t"}),
        )
        async with Worker(tmp_path, database, sandbox.url):
            await signals.wait("held")
            await delivered(database, 30)
            assert held(database) == {}
            async with Client(sandbox.url) as client:
                assert (await client.upload_template(OPT)).ok
            await delivered(database)
    assert {len(versions) for versions in held(database).values()} == {1}
    assert len(held(database)) == 30
    assert database.execute("SELECT count(*) FROM replicator.ehr_holds") == [(0,)]


async def test_an_outage_costs_probes_and_not_a_try_for_every_job(
    clinic: Clinic, sandbox: Sandbox, database: Database, tmp_path: Path, signals: Signals, short: None
) -> None:
    await clinic.append(*(clinic.put("readings", reading(str(n), f"p{n % 200}")) for n in range(400)))
    async with Worker(tmp_path, database, sandbox.url):
        await delivered(database, 350)
        sandbox.trouble.order("503", times=1_000_000)
        await signals.wait("held", what="server")
        await idle(database)  # those that were under way have come to their end
        before, tries = signals.count("ehr sending"), tried(database)
        signals.forget()
        for _ in range(5):
            await signals.wait("probing")
        assert (signals.count("ehr sending"), tried(database)) == (before, tries)
        # Of the 16 under way each may still come through, and has the failures in a row counted anew.
        assert tries <= 16 * FAILURES_MAX + 16
        (hold,) = database.execute("SELECT name, reason FROM replicator.ehr_holds")
        assert hold[0] == "server"
        sandbox.trouble.end()
        await signals.wait("hold ended", what="server")
        await delivered(database)
    assert {len(versions) for versions in held(database).values()} == {1}
    assert len(held(database)) == 400


async def test_a_server_that_answers_only_probes_costs_one_try_after_each(
    clinic: Clinic, sandbox: Sandbox, database: Database, tmp_path: Path, signals: Signals, short: None
) -> None:
    await clinic.append(*(clinic.put("readings", reading(str(n), f"p{n}")) for n in range(100)))
    sandbox.trouble.order("503", times=1_000_000, path="/composition")
    async with Worker(tmp_path, database, sandbox.url):
        await signals.wait("held", what="server")
        await idle(database)
        tries = tried(database)
        for number in range(1, 4):
            await signals.wait("hold ended", what="server")
            await signals.wait("held", what="server")
            await idle(database)
            assert tried(database) <= tries + number
        sandbox.trouble.end()
        await delivered(database)
    assert len(held(database)) == 100


async def test_a_server_that_is_not_there_is_said_once_and_costs_no_job_a_try(
    clinic: Clinic, sandbox: Sandbox, database: Database, tmp_path: Path, signals: Signals
) -> None:
    await clinic.append(*(clinic.put("readings", reading(str(n), f"p{n}")) for n in range(30)))
    nowhere = sandbox.url.replace(str(sandbox.root.rpartition(":")[2]), "1")
    async with Worker(tmp_path, database, nowhere):
        assert "nobody listens" in str((await signals.wait("held", what="server"))["why"])
        await signals.wait("probing")
    assert signals.count("held") == 1 and tried(database) == 0


async def test_a_server_that_starts_later_is_waited_for(
    clinic: Clinic, database: Database, tmp_path: Path, signals: Signals, short: None
) -> None:
    """However long it takes: nothing of it is counted against a job."""
    await clinic.append(*(clinic.put("readings", reading(str(n), f"p{n}")) for n in range(30)))
    async with sandbox_with_template(database.owner_dsn) as ended:
        url, port = ended.url, int(ended.root.rpartition(":")[2])
    async with Worker(tmp_path, database, url):
        await signals.wait("held", what="server")
        for _ in range(3):
            await signals.wait("probing")
        async with Sandbox(database.owner_dsn, port=port):
            await delivered(database)
    assert len(held(database)) == 30 and tried(database) == 0


async def test_credentials_that_are_refused_are_said_once_and_cost_no_job_a_try(
    clinic: Clinic, database: Database, tmp_path: Path, signals: Signals
) -> None:
    await clinic.append(*(clinic.put("readings", reading(str(n), f"p{n}")) for n in range(30)))
    async with Sandbox(database.owner_dsn, credentials=("worker", "secret")) as sandbox:
        async with Worker(tmp_path, database, sandbox.url):
            assert "credentials" in str((await signals.wait("held", what="server"))["why"])
            await signals.wait("probing")
    assert signals.count("held") == 1 and tried(database) == 0
    assert left(database) == 30


async def idle(database: Database) -> None:
    """Wait until nobody works in any lane."""
    async with asyncio.timeout(60):
        query = "SELECT count(*) FROM replicator.ehr_lanes WHERE lease_until IS NOT NULL"
        while await asyncio.to_thread(database.execute, query) != [(0,)]:
            await asyncio.sleep(0.02)


async def test_one_that_may_read_and_not_write_costs_a_try_after_each_look_and_parks_nothing(
    clinic: Clinic, sandbox: Sandbox, database: Database, tmp_path: Path, signals: Signals, short: None
) -> None:
    await clinic.append(*(clinic.put("readings", reading(str(n), f"p{n}")) for n in range(60)))
    sandbox.trouble.order("403", times=1_000_000, path="/composition")
    async with Worker(tmp_path, database, sandbox.url):
        for _ in range(INTERNAL_ERRORS_MAX + 2):
            await signals.wait("held", what="server")
            await signals.wait("hold ended", what="server")
        sandbox.trouble.end()
        await delivered(database)
    assert signals.count("parked") == 0 and len(held(database)) == 60


def tried(database: Database) -> int:
    return int(database.execute("SELECT count(*) FROM replicator.ehr_sync_queue WHERE attempts > 0")[0][0])


@pytest.mark.parametrize("kind", ["drop after", "drop", "503"])
async def test_an_answer_that_got_lost_does_not_make_it_twice(
    clinic: Clinic, sandbox: Sandbox, database: Database, tmp_path: Path, kind: str
) -> None:
    await clinic.append(
        clinic.put("readings", reading("1", rate=70)),
        clinic.put("readings", reading("1", rate=71)),
        clinic.drop("readings", "1"),
        clinic.put("readings", reading("2")),
    )
    for method in ("POST", "PUT", "DELETE"):
        sandbox.trouble.order(kind, method=method, path="/composition")  # type: ignore[arg-type]  # one of the kinds
    async with Worker(tmp_path, database, sandbox.url):
        await delivered(database)
    assert sandbox.trouble.left == 0
    numbers = sorted([version[1] for version in versions] for versions in held(database).values())
    assert numbers == [["249"], ["249", "251", "523"]]


async def test_an_ehr_that_somebody_else_has_made_is_used(
    clinic: Clinic, sandbox: Sandbox, database: Database, tmp_path: Path
) -> None:
    theirs = "0b1f4c1e-0000-4000-8000-00000000abcd"
    async with Client(sandbox.url) as client:
        assert (await client.create_ehr(theirs, Subject("p1", "clinic"))).ok
    await clinic.append(clinic.put("readings", reading("1")))
    async with Worker(tmp_path, database, sandbox.url):
        await delivered(database)
    assert database.execute("SELECT DISTINCT ehr_id::text FROM sandbox.versions") == [(theirs,)]
    done = database.execute("SELECT ehr_id::text, state FROM replicator.ehr_sync_queue")
    assert done == [(theirs, "done")]


async def test_an_ehr_that_somebody_makes_at_the_same_moment_is_used(
    clinic: Clinic, sandbox: Sandbox, database: Database, tmp_path: Path
) -> None:
    """Two record systems' clients and two workers race for the same patients' EHRs: each patient has one."""
    await clinic.append(*(clinic.put("readings", reading(str(n), f"p{n % 20}")) for n in range(60)))

    async def race(name: str) -> None:
        async with Client(sandbox.url) as client:
            for number in range(20):
                made = await client.create_ehr(str(uuid4()), Subject(f"p{number}", "clinic"))
                assert made.status in (201, 409), f"{name}: {made.summary}"

    async with Worker(tmp_path, database, sandbox.url), Worker(tmp_path, database, sandbox.url):
        await asyncio.gather(race("one"), race("other"), delivered(database))
    assert database.execute("SELECT count(*), count(DISTINCT subject_id) FROM sandbox.ehrs") == [(20, 20)]
    lost = (
        "SELECT count(*) FROM sandbox.versions AS v JOIN sandbox.ehrs AS e ON e.ehr_id = v.ehr_id "
        "JOIN replicator.ehr_sync_queue AS q ON q.composition_id = v.object_id "
        "WHERE v.kind = 'COMPOSITION' AND q.patient <> e.subject_id"
    )
    assert database.execute(lost) == [(0,)]
    assert len(held(database)) == 60 and {state for _, _, state in states(database)} == {"done"}


async def test_told_to_stop_while_nobody_answers_it_gives_its_lanes_back(
    clinic: Clinic, sandbox: Sandbox, database: Database, tmp_path: Path, signals: Signals
) -> None:
    await clinic.append(clinic.put("readings", reading("1")), clinic.put("readings", reading("2")))
    sandbox.trouble.order("silent after", path="/composition")
    async with Worker(tmp_path, database, sandbox.url, Pace(lease_s=3600, stop_s=0.1)):
        await signals.wait("sandbox trouble")
    assert database.execute("SELECT lease_until, done_upto FROM replicator.ehr_lanes") == [(None, 0)]
    async with Worker(tmp_path, database, sandbox.url):
        await delivered(database)
    assert {len(versions) for versions in held(database).values()} == {1}
    assert len(held(database)) == 2


async def test_what_the_replicator_itself_fails_at_is_tried_again_and_says_where_it_was(
    clinic: Clinic, sandbox: Sandbox, database: Database, tmp_path: Path, signals: Signals
) -> None:
    await clinic.append(clinic.put("readings", reading("1")), clinic.put("readings", reading("2")))
    signals.fail_at("ehr sending", error=ValueError("a secret"))
    async with Worker(tmp_path, database, sandbox.url):
        assert ".py:" in str((await signals.wait("job failed"))["error"])
        await delivered(database)
    ((tries, kind, message),) = database.execute(
        "SELECT attempts, error_class, error_message FROM replicator.ehr_sync_queue WHERE record_key = '1'"
    )
    assert (tries, kind) == (1, "replicator")
    assert ".py:" in message and "secret" not in message
    assert {len(versions) for versions in held(database).values()} == {1}


async def test_the_status_of_an_ehr_follows_the_patients_row(
    clinic: Clinic, sandbox: Sandbox, database: Database, tmp_path: Path
) -> None:
    await clinic.append(
        clinic.put("users", {"id": "p1", "active": "t"}), clinic.put("users", {"id": "p1", "active": "f"})
    )
    async with Worker(tmp_path, database, sandbox.url):
        await delivered(database)
    query = "SELECT body ->> 'is_modifiable' FROM sandbox.versions WHERE kind = 'EHR_STATUS' ORDER BY number"
    assert database.execute(query) == [("true",), ("false",)]
