"""Jobs are delivered: once, in their patient's order, and what stops one lane stops no other."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from replicator.ehr.client import Client, Subject
from replicator.ehr.sandbox.server import Sandbox
from tests.database.queued import (
    OPT,
    Clinic,
    Worker,
    delivered,
    held,
    left,
    prepared,
    reading,
    sandbox_with_template,
    states,
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
    monkeypatch.setattr("replicator.work._HOLD_S", 0.05)
    async with Sandbox(database.dsn) as sandbox:
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
    clinic: Clinic, sandbox: Sandbox, database: Database, tmp_path: Path, signals: Signals
) -> None:
    await clinic.append(*(clinic.put("readings", reading(str(n), f"p{n}")) for n in range(200)))
    sandbox.trouble.order("503", times=100_000)
    async with Worker(tmp_path, database, sandbox.url):
        await signals.wait("circuit", state="Open")
        for _ in range(3):
            await signals.wait("probing")
        tried = signals.count("ehr sending")
        assert left(database) == 200
        sandbox.trouble.end()
        await signals.wait("circuit", state="Closed")
        await delivered(database)
    assert tried <= 32
    assert len(held(database)) == 200
    assert {len(versions) for versions in held(database).values()} == {1}


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
