"""Where a mapping is atomic, what a transaction did to a patient is in the record at once, or not at all."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from replicator.database import connected
from replicator.ehr.client import Client
from replicator.ehr.job import Job, Operation
from replicator.ehr.pace import Pace
from replicator.ehr.queue_people import Chosen, JobId, decide
from replicator.ehr.sandbox.opt import web_template_of
from replicator.ehr.sandbox.server import Sandbox
from replicator.wal.lsn import Lsn
from tests.database.queue_forge import Forge
from tests.database.queued import (
    MAPPING,
    OPT,
    Clinic,
    Worker,
    delivered,
    forget,
    held,
    prepared,
    reading,
    sandbox_with_template,
    states,
    write_config,
)
from tests.fixtures.postgres import Database
from tests.fixtures.signals import Signals

pytestmark = pytest.mark.migrated

ATOMIC = MAPPING.replace("ctx:", "atomic: true\ncommitter: Clinic gateway\nctx:", 1)
#: One table's changes come each for itself.
MIXED = ATOMIC.replace("  merging:\n", "  merging:\n    atomic: false\n")
_LEASE_S = 0.5
#: Every contribution of compositions: whose, what its audit says, and the versions it has brought.
_BROUGHT = """
SELECT e.subject_id, c.audit #>> '{committer,name}', c.audit #>> '{description,value}',
       c.audit #>> '{change_type,value}', array_agg(v.change::text ORDER BY v.source_version, v.object_id)
FROM sandbox.contributions AS c
JOIN sandbox.versions AS v ON v.contribution_id = c.contribution_id AND v.kind = 'COMPOSITION'
JOIN sandbox.ehrs AS e ON e.ehr_id = c.ehr_id
GROUP BY c.contribution_id, e.subject_id, c.audit::text, c.committed_at ORDER BY c.committed_at
"""


@pytest.fixture
async def clinic(database: Database) -> Clinic:
    await prepared(database)
    return Clinic(database.dsn, ATOMIC)


@pytest.fixture
async def sandbox(clinic: Clinic, database: Database) -> AsyncIterator[Sandbox]:
    async with sandbox_with_template(database.owner_dsn) as sandbox:
        yield sandbox


def working(
    folder: Path, database: Database, sandbox: Sandbox, mapping: str = ATOMIC, pace: Pace | None = None
) -> Worker:
    return Worker(folder, database, sandbox.url, pace, mapping=mapping)


def brought(database: Database) -> list[tuple[Any, ...]]:
    return database.execute(_BROUGHT)


async def test_one_transaction_is_one_contribution_that_says_who_and_why(
    clinic: Clinic, sandbox: Sandbox, database: Database, tmp_path: Path
) -> None:
    await clinic.append(clinic.put("readings", reading("1")), clinic.put("readings", reading("2")))
    with clinic.transaction():
        jobs = [
            clinic.put("readings", reading("1", rate=80)),
            clinic.put("urgent", reading("3")),
            clinic.drop("readings", "2"),
        ]
    await clinic.append(*jobs)
    async with working(tmp_path, database, sandbox):
        await delivered(database)
    *alone, last = brought(database)
    assert [(each[3], each[4]) for each in alone] == [("creation", ["249"]), ("creation", ["249"])]
    lsn = jobs[0][0].change.commit_lsn
    assert last[:4] == ("p1", "Clinic gateway", f"transaction {lsn} of clinic: 3 changes", "modification")
    assert sorted(last[4]) == ["249", "251", "523"]
    assert sorted(len(versions) for versions in held(database).values()) == [1, 2, 2]


async def test_what_is_written_together_reads_as_what_is_written_alone(
    clinic: Clinic, sandbox: Sandbox, database: Database, tmp_path: Path
) -> None:
    """The rate, and whence it is, are where one looks for them; and later changes go on from there."""
    await clinic.append(clinic.put("readings", reading("1", rate=61)))
    async with working(tmp_path, database, sandbox):
        await delivered(database)
    ((body, items),) = database.execute(
        "SELECT body, source_items FROM sandbox.versions WHERE number = 1 AND kind = 'COMPOSITION'"
    )
    event = body["content"][0]["data"]["events"][0]
    assert event["data"]["items"][0]["value"] == {"_type": "DV_QUANTITY", "magnitude": 61, "units": "/min"}
    assert event["time"]["value"] == body["context"]["start_time"]["value"] == "2026-03-01T08:30:00+00:00"
    assert items[0] == "1"
    await clinic.append(clinic.put("readings", reading("1", rate=62)))
    async with Worker(tmp_path, database, sandbox.url):  # not atomic any more
        await delivered(database)
    ((one, two),) = held(database).values()
    assert (one[0], two[0], two[3]) == (1, 2, "62.0")


async def test_of_one_transaction_only_what_a_row_has_come_to_is_a_version(
    clinic: Clinic, sandbox: Sandbox, database: Database, tmp_path: Path
) -> None:
    with clinic.transaction():
        jobs = [
            clinic.put("readings", reading("1", rate=60)),
            clinic.put("readings", reading("2", rate=60)),
            clinic.put("readings", reading("1", rate=61)),
            clinic.drop("readings", "2"),
        ]
    await clinic.append(*jobs)
    async with working(tmp_path, database, sandbox):
        await delivered(database)
    assert [job[2] for job in states(database)] == ["merged", "merged", "done", "done"]
    ((version,),) = held(database).values()
    assert version[:3] == (1, "249", str(jobs[2][0].change))


async def test_a_transaction_is_whole_however_large_and_other_patients_have_their_own(
    clinic: Clinic, sandbox: Sandbox, database: Database, tmp_path: Path
) -> None:
    """More than a worker takes of a lane at once, and between others that are not of it."""
    await clinic.append(*(clinic.put("readings", reading(f"before {n}")) for n in range(15)))
    with clinic.transaction():
        jobs = [clinic.put("readings", reading(f"{n}", f"p{n % 2}")) for n in range(120)]
    await clinic.append(*jobs)
    await clinic.append(clinic.put("readings", reading("after")))
    async with working(tmp_path, database, sandbox):
        await delivered(database)
    counts = sorted((each[0], len(each[4])) for each in brought(database) if len(each[4]) > 1)
    assert counts == [("p0", 60), ("p1", 60)]
    assert len(held(database)) == 136


@pytest.mark.parametrize("order", ["in turn", "one after the other"])
async def test_a_transaction_is_whole_also_where_some_of_its_changes_come_alone(
    clinic: Clinic, sandbox: Sandbox, database: Database, tmp_path: Path, order: str
) -> None:
    """What a worker takes of the lane at once ends with one of those that come alone."""
    tables = ["readings", "merging"] * 6 if order == "in turn" else [*["readings"] * 4, *["merging"] * 6]
    with clinic.transaction():
        jobs = [clinic.put(table, reading(f"{n}")) for n, table in enumerate([*tables, "readings"])]
        jobs.append(clinic.put("readings", reading("0", rate=99)))
    await clinic.append(*jobs, clinic.put("merging", reading("after")))
    async with working(tmp_path, database, sandbox, MIXED, Pace(jobs=8)):
        await delivered(database)
    alone = tables.count("merging")
    together = len(tables) + 1 - alone
    assert sorted(len(each[4]) for each in brought(database)) == [1] * (alone + 1) + [together]
    assert {len(versions) for versions in held(database).values()} == {1}
    assert [job[2] for job in states(database)] == ["merged"] + ["done"] * (len(jobs))


async def test_one_that_comes_alone_and_is_refused_tears_nothing_and_repeats_nothing(
    clinic: Clinic, sandbox: Sandbox, database: Database, tmp_path: Path, signals: Signals
) -> None:
    with clinic.transaction():
        jobs = [
            clinic.put("readings", reading("1")),
            clinic.put("merging", reading("bad", rate="?")),
            clinic.put("readings", reading("2")),
        ]
    await clinic.append(*jobs)
    await clinic.append(clinic.put("readings", reading("2", rate=80)))
    async with working(tmp_path, database, sandbox, MIXED):
        await signals.wait("lane stopped")
        # The second is there, and is said to be so when its turn has come.
        assert [len(each[4]) for each in brought(database)] == [2]
        assert [job[2] for job in states(database)] == ["done", "parked", "waiting", "waiting"]
        await skip(database, "bad")
        await delivered(database)
    assert [job[2] for job in states(database)] == ["done", "skipped", "done", "done"]
    assert [each[4] for each in brought(database)] == [["249", "249"], ["251"]]


async def test_what_is_parked_in_the_midst_of_a_transaction_keeps_all_of_it_out(
    clinic: Clinic, sandbox: Sandbox, database: Database, tmp_path: Path, signals: Signals
) -> None:
    """Also if it would come alone: what stands behind it is to wait."""
    with clinic.transaction():
        jobs = [
            clinic.put(table, reading(name))
            for table, name in (("readings", "1"), ("merging", "doubtful"), ("readings", "2"))
        ]
    await clinic.append(*jobs)
    async with connected(database.dsn, "test", schema="replicator") as storage:
        await decide(storage, "park", Chosen((job_of(database, "doubtful"),)), "somebody", "whose?")
    async with working(tmp_path, database, sandbox, MIXED):
        await signals.wait("lane stopped")
        assert brought(database) == []
        assert [job[2] for job in states(database)] == ["waiting", "parked", "waiting"]
        async with connected(database.dsn, "test", schema="replicator") as storage:
            await decide(storage, "retry", Chosen((job_of(database, "doubtful"),)), "somebody", "theirs")
        await delivered(database)
    assert [len(each[4]) for each in brought(database)] == [2, 1]


async def test_what_is_replayed_of_one_transaction_does_not_pass_over_what_stands_in_between(
    clinic: Clinic, sandbox: Sandbox, database: Database, tmp_path: Path
) -> None:
    with clinic.transaction():
        jobs = [clinic.put("readings", reading(name)) for name in ("1", "2")]
    await clinic.append(*jobs, clinic.put("readings", reading("3")))
    async with working(tmp_path, database, sandbox):
        await delivered(database)
    before = held(database)
    for name in ("1", "3", "2"):
        async with connected(database.dsn, "test", schema="replicator") as storage:
            await decide(storage, "replay", Chosen((job_of(database, name),)), "somebody", "was it told?")
    async with working(tmp_path, database, sandbox, pace=Pace(jobs=1)):
        await delivered(database)
    assert [job[2] for job in states(database)] == ["done"] * 6
    assert held(database) == before


def job_of(database: Database, key: str) -> JobId:
    """The job of a row that has only one."""
    query = "SELECT lane, min(seq) FROM replicator.ehr_sync_queue WHERE record_key = %s GROUP BY lane"
    ((lane, seq),) = database.execute(query, [key])
    return JobId(lane, seq)


async def skip(database: Database, key: str) -> None:
    async with connected(database.dsn, "test", schema="replicator") as storage:
        await decide(storage, "skip", Chosen((job_of(database, key),)), "somebody", "not a pulse")


async def test_a_change_that_cannot_be_delivered_keeps_its_transaction_out_until_it_is_skipped(
    clinic: Clinic, sandbox: Sandbox, database: Database, tmp_path: Path, signals: Signals
) -> None:
    with clinic.transaction():
        jobs = [
            clinic.put("readings", reading(name, rate="?" if name == "bad" else 70))
            for name in ("1", "bad", "2")
        ]
    await clinic.append(*jobs)
    await clinic.append(clinic.put("readings", reading("3", "p2")))
    async with working(tmp_path, database, sandbox):
        await signals.wait("lane stopped")
        await delivered(database, 3)
        assert [job[2] for job in states(database)] == ["waiting", "parked", "waiting", "done"]
        assert [each[0] for each in brought(database)] == ["p2"]
        await skip(database, "bad")
        await delivered(database)
    assert [job[2] for job in states(database)] == ["done", "skipped", "done", "done"]
    assert [len(each[4]) for each in brought(database)] == [1, 2]


async def test_one_that_the_server_refuses_keeps_all_of_its_transaction_out(
    clinic: Clinic, sandbox: Sandbox, database: Database, tmp_path: Path, signals: Signals
) -> None:
    with clinic.transaction():
        jobs = [clinic.put("readings", reading(name)) for name in ("1", "2")]
    await clinic.append(clinic.put("users", {"id": "p1", "active": "f"}))  # whose EHR is closed
    async with working(tmp_path, database, sandbox):
        await clinic.append(*jobs)
        await signals.wait("lane stopped")
    assert held(database) == {}
    ((message,),) = database.execute(
        "SELECT error_message FROM replicator.ehr_sync_queue WHERE state = 'parked'"
    )
    assert message.startswith("one of the 2 changes of its transaction: ")


async def test_a_template_that_the_server_has_lost_holds_what_needs_it_and_not_another(
    clinic: Clinic,
    sandbox: Sandbox,
    database: Database,
    tmp_path: Path,
    signals: Signals,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A contribution is refused as a whole, and its refusal does not say which template is meant."""
    monkeypatch.setattr("replicator.ehr.lanes_held.LOOK_S", (0.05, 0.05))
    other = OPT.replace(b"replicator.pulse.v1", b"replicator.other.v1")
    async with Client(sandbox.url) as client:
        assert (await client.upload_template(other)).ok
        await clinic.append(clinic.put("other", reading("read", "p2", rate="?")))
        with clinic.transaction():
            jobs = [clinic.put(table, reading("1")) for table in ("readings", "other")]
        async with working(tmp_path, database, sandbox):
            await signals.wait("parked", mapping="other")  # it knows the template by now
            database.execute("DELETE FROM sandbox.templates WHERE template_id = 'replicator.other.v1'")
            await clinic.append(*jobs)
            await signals.wait("held", what="template replicator.other.v1")
            await clinic.append(clinic.put("readings", reading("2", "p3")))
            await delivered(database, 3)
            assert [each[0] for each in brought(database)] == ["p3"]
            assert (await client.upload_template(other)).ok
            await delivered(database, 1)
    assert [len(each[4]) for each in brought(database)] == [1, 2]


async def test_a_server_that_does_not_give_its_templates_is_said_so_once(
    clinic: Clinic,
    sandbox: Sandbox,
    database: Database,
    tmp_path: Path,
    signals: Signals,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("replicator.ehr.lanes_held.LOOK_S", (0.05, 0.05))
    await sandbox.add_templates([{**web_template_of(OPT), "templateId": "replicator.other.v1"}])
    await clinic.append(*(clinic.put("other", reading(str(n), f"p{n}")) for n in range(5)))
    async with working(tmp_path, database, sandbox):
        why = str((await signals.wait("held", what="template replicator.other.v1"))["why"])
        for _ in range(4):
            await signals.wait("ehr answered", call="read template", status=406)
    assert "operational template" in why
    assert (signals.count("held"), signals.count("hold ended")) == (1, 0)


@pytest.mark.parametrize("kind", ["drop after", "drop", "503", "500"])
async def test_a_contribution_whose_answer_got_lost_is_not_brought_twice(
    clinic: Clinic, sandbox: Sandbox, database: Database, tmp_path: Path, kind: str
) -> None:
    for rate in (60, 61):
        with clinic.transaction():
            jobs = [clinic.put("readings", reading(name, rate=rate)) for name in ("1", "2", "3")]
        await clinic.append(*jobs)
    sandbox.trouble.order(kind, times=2, method="POST", path="/contribution")  # type: ignore[arg-type]  # one of the kinds
    async with working(tmp_path, database, sandbox):
        await delivered(database)
    assert sandbox.trouble.left == 0
    assert [each[4] for each in brought(database)] == [["249"] * 3, ["251"] * 3]


async def test_a_contribution_that_is_there_already_is_recognised_by_its_id(
    clinic: Clinic, sandbox: Sandbox, database: Database, tmp_path: Path, signals: Signals
) -> None:
    """As after a crash between its answer and our note of it: it is sent again, and refused as it was."""
    with clinic.transaction():
        jobs = [clinic.put("readings", reading(name)) for name in ("1", "2")]
    for _ in range(2):
        forget(database)
        await clinic.append(*jobs)
        async with working(tmp_path, database, sandbox):
            await delivered(database)
        assert len(brought(database)) == 1
    assert signals.count("ehr sending") == 2
    assert signals.count("ehr answered", call="read contribution") == 1
    assert signals.count("ehr answered", call="read composition") == 0
    assert database.execute("SELECT sum(attempts) FROM replicator.ehr_sync_queue") == [(0,)]
    known = database.execute("SELECT DISTINCT version, state FROM replicator.ehr_sync_queue")
    assert known == [(1, "done")]


async def test_rows_that_were_there_before_have_nothing_to_do_with_each_other(
    clinic: Clinic, sandbox: Sandbox, database: Database, tmp_path: Path, signals: Signals
) -> None:
    """They count as changes at one position, and one that cannot be delivered holds up none before it."""
    with clinic.transaction():
        made = [
            clinic.put("readings", reading(name, rate="?" if name == "bad" else 70))
            for name in ("1", "2", "bad", "3")
        ]
    before = [_at(jobs, Lsn(jobs[0].change.commit_lsn - 1)) for jobs in made]
    await clinic.append(*before)
    async with working(tmp_path, database, sandbox):
        await signals.wait("lane stopped")
    assert [job[2] for job in states(database)] == ["done", "done", "parked", "waiting"]


def _at(jobs: list[Job], lsn: Lsn) -> list[Job]:
    return [job._replace(change=job.change._replace(commit_lsn=lsn)) for job in jobs]


# Killed at every step.


def history(clinic: Clinic, seed: str, transactions: int) -> list[list[Job]]:
    """A few patients' readings in transactions of several changes, as chance will have it."""
    chance, found = random.Random(seed), list[list[Job]]()
    there: set[str] = set()
    for number in range(transactions):
        with clinic.transaction():
            jobs = list[Job]()
            for _ in range(chance.randrange(1, 7)):
                id = f"p{chance.randrange(2)}-{chance.randrange(3)}"
                if id in there and chance.random() < 0.35:
                    there.discard(id)
                    jobs += clinic.drop("readings", id)
                else:
                    there.add(id)
                    jobs += clinic.put("readings", reading(id, id[:2], rate=40 + number))
        found.append(jobs)
    return found


def expected(transactions: list[list[Job]]) -> dict[str, list[tuple[Any, ...]]]:
    """Every version there has to be: one for each record that a transaction has changed."""
    found: dict[str, list[tuple[Any, ...]]] = {}
    for jobs in transactions:
        last = {str(job.composition): job for job in jobs}
        for name, job in last.items():
            versions = found.setdefault(name, [])
            is_there = bool(versions) and versions[-1][1] != "523"
            if job.operation is Operation.DELETE:
                if is_there:
                    versions.append((len(versions) + 1, "523", None))
            else:
                versions.append((len(versions) + 1, "251" if versions else "249", str(job.change)))
    return {name: versions for name, versions in found.items() if versions}


def stored(database: Database) -> dict[str, list[tuple[Any, ...]]]:
    return {name: [version[:3] for version in versions] for name, versions in held(database).items()}


def torn(database: Database) -> list[tuple[Any, ...]]:
    """Transactions of which one patient's versions came by several contributions."""
    return database.execute(
        "SELECT ehr_id, split_part(source_version, ':', 1) FROM sandbox.versions WHERE kind = 'COMPOSITION' "
        "AND source_version IS NOT NULL GROUP BY 1, 2 HAVING count(DISTINCT contribution_id) > 1"
    )


@pytest.mark.faults
@pytest.mark.parametrize(
    "mark",
    ["lanes taken", "ehr sending", "ehr sent", "ehr answered", "jobs recording", "jobs recorded", ""],
)
async def test_killed_at_any_step_each_transaction_is_there_once_and_whole(
    clinic: Clinic, sandbox: Sandbox, database: Database, tmp_path: Path, mark: str, seed: int
) -> None:
    transactions = list[list[Job]]()
    with Forge(write_config(tmp_path, database, sandbox.url, mapping=ATOMIC), _LEASE_S) as forge:
        for nth in (1, 2, 3, 5, 8) if mark else (4, 6, 7, 9, 11, 13, 14, 15, 17, 20, 23):
            more = history(clinic, f"{seed} {mark} {nth}", 6)
            transactions += more
            await clinic.append(*more)
            code = await asyncio.to_thread(forge.work, (mark, nth))
            assert code in (0, -signal.SIGKILL)
        assert await asyncio.to_thread(forge.work) == 0
    assert stored(database) == expected(transactions)
    assert torn(database) == []
    assert {state for _, _, state in states(database)} <= {"done", "merged"}


@pytest.mark.faults
@pytest.mark.timeout(0)
async def test_killed_again_and_again_no_transaction_is_torn(
    clinic: Clinic, sandbox: Sandbox, database: Database, tmp_path: Path, kills: int, seed: int
) -> None:
    """Wherever chance will have it, a quarter as often as `--kills` says."""
    transactions, killed, round = list[list[Job]](), 0, 0
    with Forge(write_config(tmp_path, database, sandbox.url, mapping=ATOMIC), _LEASE_S) as forge:
        while killed < kills // 4:
            round += 1
            chance = random.Random(f"{seed} {round}")
            more = history(clinic, f"{seed} {round}", 5)
            transactions += more
            await clinic.append(*more)
            killed += await asyncio.to_thread(forge.work_through, chance, 40, kills // 4 - killed)
            assert stored(database) == expected(transactions), f"round {round}"
            assert torn(database) == []
    print(f"killed {killed} times in {round} rounds, {len(transactions)} transactions, seed {seed}")
