"""What is noted once for a lane is each job's own: where patients share one, or the EHR is another."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from replicator import queries
from replicator.database import Connect, connected, rows
from replicator.ehr import queue_added
from replicator.ehr.identity import joined
from replicator.ehr.job import Job, Jobs
from replicator.ehr.lanes_taken import Lanes
from replicator.ehr.queue import Feed, Meanings, append
from replicator.ehr.queue_added import lane_id
from replicator.ehr.queue_noted import note_manners
from replicator.wal.lsn import Lsn
from replicator.wal.messages import Column, Relation
from replicator.wal.transactions import Change, Kind
from tests.database.queued import (
    AT,
    MAPPING,
    NAMES,
    Clinic,
    Worker,
    delivered,
    jobs_of_clinic,
    sandbox_with_template,
)
from tests.database.test_queue_lanes import done
from tests.fixtures.postgres import Database

pytestmark = pytest.mark.migrated

_feed = queries.load("feed")

#: Patients whose lanes have the same number: seven thousand million hashes were tried to find them.
TWINS = ("272c9fcc398b454e", "f1a0193e3fd7b24a")
WAYS = ("jobs", "rows", "spilled")


def inserted(patients: Sequence[str | None]) -> list[Change]:
    relation = Relation(
        1, "public", "readings", "f", tuple(Column(name, 25, -1, name == "id") for name in NAMES)
    )
    return [
        Change(Kind.INSERT, relation, None, (f"{patient}-{n}", patient, "70", AT, "t"), n)
        for n, patient in enumerate(patients)
    ]


async def fed(database: Database, way: str, jobs: Jobs, changes: Sequence[Change], lsn: Lsn) -> list[Job]:
    """In one storage transaction; what was meant."""
    said = [job for change in changes for job in jobs.of(change, lsn)]
    async with connected(database.dsn, "feed", schema="replicator") as storage, storage.transaction():
        if way == "jobs":
            await append(storage, said)
            return said
        feed = Feed(Meanings(jobs))
        await feed.add(changes, lsn)
        if way == "spilled":
            await feed.spill(storage)
        await feed.send(storage)
    return said


def whose(jobs: Sequence[Job]) -> list[tuple[object, ...]]:
    rows = ((job.key, job.patient, job.ehr, job.table, job.trouble, job.composition) for job in jobs)
    return sorted(rows, key=repr)


def stored(database: Database, operation: str = "%") -> list[tuple[object, ...]]:
    return sorted(
        database.execute(
            f"""SELECT record_key, patient, ehr_id::text, source_table, trouble, composition_id::text
            FROM replicator.ehr_sync_queue WHERE operation LIKE '{operation}'"""
        ),
        key=repr,
    )


def waits(database: Database, said: Sequence[Job], operation: str = "%") -> bool:
    """Whether these are queued, whose compositions have no ids yet."""
    return [row[:-1] for row in stored(database, operation)] == [row[:-1] for row in whose(said)]


async def worked_off(connect: Connect) -> list[Job]:
    """All that waits, as a worker is given it; all of it is done then."""
    lanes, found = Lanes(connect, "one", 3600.0), list[Job]()
    while taken := await lanes.claim(10, 100):
        for lane in taken:
            found += [task.job for task in lane.tasks]
            await lanes.record([done(lane, jobs=len(lane.tasks), delay=0.0)])
    return found


def test_the_twins_do_share_a_lane() -> None:
    assert len({lane_id(f"patient/{twin}") for twin in TWINS}) == 1


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("is_together", [True, False])
async def test_patients_who_share_a_lane_keep_their_own_rows(
    clinic: Clinic, connect: Connect, database: Database, way: str, is_together: bool
) -> None:
    turns = [(*TWINS, None) * 2] if is_together else [[twin] for twin in (*TWINS, *TWINS)]
    said = []
    for turn, patients in enumerate(turns, 1):
        said += await fed(database, way, clinic.jobs, inserted(patients), Lsn(turn * 0x100))
    assert waits(database, said)
    # Those without a patient say why; what is given to a worker says so too.
    assert whose(await worked_off(connect)) == whose(said)
    assert stored(database) == whose(said)


@pytest.mark.parametrize("is_emptied", [False, True])
async def test_a_new_lane_has_the_name_and_the_patient_of_one_of_them(
    clinic: Clinic, database: Database, monkeypatch: pytest.MonkeyPatch, is_emptied: bool
) -> None:
    """Of a large transaction, too, and where the one name comes first and the other patient."""
    monkeypatch.setattr(queue_added, "lane_id", lambda name: 7)
    pair, said = ("a/x", "aZ"), list[Job]()
    async with connected(database.dsn, "feed", schema="replicator") as storage, storage.transaction():
        feed = Feed(Meanings(clinic.jobs))
        for change in inserted(pair):
            said += clinic.jobs.of(change, Lsn(0x1000))
            await feed.add([change], Lsn(0x1000))
            await feed.spill(storage)
        if is_emptied:
            relation = inserted(pair)[0].relation
            await feed.add([Change(Kind.TRUNCATE, relation, None, None, 9)], Lsn(0x1000))
        await feed.send(storage)
    ((name, patient),) = database.execute("SELECT name, patient FROM replicator.ehr_lanes")
    assert name == joined(("patient", patient))
    for lsn in (0x2000, 0x3000):
        said += await fed(database, "jobs", clinic.jobs, inserted(pair), Lsn(lsn))
    assert waits(database, said, "create")


@pytest.mark.parametrize("way", WAYS)
async def test_a_patient_of_another_namespace_has_another_ehr(
    clinic: Clinic, connect: Connect, database: Database, way: str
) -> None:
    """The mapping was changed while jobs were waiting; those go where they were meant to."""
    other = jobs_of_clinic(MAPPING.replace("namespace: clinic", "namespace: region"))
    said = []
    for turn, jobs in enumerate((clinic.jobs, other, clinic.jobs), 1):
        said += await fed(database, way, jobs, inserted(["p1", "p2"]), Lsn(turn * 0x100))
    assert len({job.ehr for job in said}) == 4
    assert waits(database, said)
    assert whose(await worked_off(connect)) == whose(said)
    assert stored(database) == whose(said)


@pytest.mark.parametrize("mapping", [MAPPING, MAPPING.replace("ctx:", "atomic: true\nctx:", 1)])
async def test_patients_who_share_a_lane_have_their_own_records(
    clinic: Clinic, database: Database, tmp_path: Path, mapping: str
) -> None:
    """One after the other, and in one transaction of the source."""
    jobs = jobs_of_clinic(mapping)
    said = await fed(database, "rows", jobs, inserted(TWINS), Lsn(0x100))
    said += await fed(database, "rows", jobs, inserted(TWINS * 3)[2:], Lsn(0x200))
    async with sandbox_with_template(database.owner_dsn) as sandbox:
        async with Worker(tmp_path, database, sandbox.url, mapping=mapping):
            await delivered(database)
    held = "SELECT object_id::text, ehr_id::text FROM sandbox.versions WHERE kind = 'COMPOSITION' ORDER BY 1"
    assert database.execute(held) == sorted((job.composition, job.ehr) for job in said)
    for table in ("ehr_jobs_done", "ehr_compositions"):
        column = "id" if table == "ehr_compositions" else "composition_id"
        known = f"SELECT {column}::text, ehr_id::text FROM replicator.{table} ORDER BY 1"
        assert database.execute(known) == database.execute(held)


async def test_nobody_waits_for_a_large_transaction_that_has_arrived_in_part(
    clinic: Clinic, database: Database
) -> None:
    """A newly mapped table is changed, and then emptied, while what it held before is queued."""
    database.execute(
        "INSERT INTO replicator.ehr_existing (mapping, state, at) VALUES ('readings', 'queueing', '0/1')"
    )
    changes = inserted(["p1", "p2"])
    existing = [job for change in inserted(["p3"]) for job in clinic.jobs.of(change, Lsn(0x107))]
    advanced = {"mapping": "readings", "emptied": 0, "before": 0, "rows": 1, "upto": ["1"], "is_last": False}
    async with (
        asyncio.timeout(60),
        connected(database.dsn, "feed", schema="replicator") as storage,
        connected(database.dsn, "existing", schema="replicator") as other,
    ):
        await note_manners(storage, clinic.jobs.mapping)
        async with storage.transaction():
            feed = Feed(Meanings(clinic.jobs))
            await feed.add(changes, Lsn(0x100))
            await feed.spill(storage)
            async with other.transaction():
                assert await rows(other, _feed.advance_existing, **advanced)
                await append(other, existing)
            await feed.add([Change(Kind.TRUNCATE, changes[0].relation, None, None, 9)], Lsn(0x100))
            await feed.send(storage)
    kinds = "SELECT operation, count(*) FROM replicator.ehr_sync_queue GROUP BY 1 ORDER BY 1"
    assert database.execute(kinds) == [("create", 3), ("delete", 3)]


async def test_feeders_that_meet_what_is_new_do_not_wait_in_a_circle(
    clinic: Clinic, database: Database
) -> None:
    """Each of them notes the same manners and lanes, in an order of its own."""
    patients = [f"p{n}" for n in range(50)]
    changes = inserted(patients)
    await asyncio.gather(
        *(
            fed(database, way, clinic.jobs, changes[:: 1 if turn % 2 else -1], Lsn(turn * 0x100))
            for turn, way in enumerate(WAYS * 4, 1)
        )
    )
    assert database.execute(
        "SELECT count(*), count(DISTINCT lane), max(seq) FROM replicator.ehr_sync_queue"
    ) == [(600, 50, 12)]
