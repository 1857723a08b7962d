"""What comes for a lane together is one row until somebody works on it, and nobody sees a difference."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from replicator import queries
from replicator.database import Connect, connected, rows
from replicator.ehr.identity import composition_id, ehr_id
from replicator.ehr.job import Job
from replicator.ehr.lanes_taken import Lanes
from replicator.ehr.queue import append
from replicator.ehr.queue_added import lane_id
from replicator.ehr.queue_people import Chosen, JobId, decide, find
from tests.database.laying import laid_out
from tests.database.queued import Clinic, reading
from tests.database.test_queue_lanes import HOUR, done
from tests.fixtures.postgres import Database

pytestmark = pytest.mark.migrated

_q = queries.load("queue")
_TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8)


@dataclass
class Odd:
    """What may be strange about a job."""

    key: str
    patient: str | None
    rate: str
    part: int
    trouble: str | None
    has_row: bool

    def job(self, clinic: Clinic) -> Job:
        job = clinic.change("readings", None, reading(self.key, self.patient, self.rate))[0]
        return job._replace(
            part=self.part,
            trouble=self.trouble or job.trouble,
            snapshot=job.snapshot if self.has_row else None,
            composition=job.composition and composition_id("clinic", "readings", "p", [self.key]),
        )


ODD = st.builds(
    Odd,
    key=_TEXTS | st.just('"\\\n\t'),
    patient=st.none() | st.sampled_from(["p1", "p2", 'é"\n\\', "~/"]),
    rate=_TEXTS,
    part=st.integers(0, 3),
    trouble=st.none() | st.just("a\nb"),
    has_row=st.booleans(),
)


def everything(database: Database) -> list[tuple[object, ...]]:
    return database.execute("SELECT to_json(q)::text FROM replicator.ehr_sync_queue AS q ORDER BY lane, seq")


def counts(database: Database) -> tuple[int, int]:
    """Of parcels, and of jobs that are laid out."""
    tables = ("ehr_parcels", "ehr_jobs")
    return tuple(database.execute(f"SELECT count(*) FROM replicator.{each}")[0][0] for each in tables)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(odd=st.lists(ODD, min_size=1, max_size=12))
async def test_jobs_are_the_same_in_a_parcel_and_out_of_it(
    clinic: Clinic, database: Database, odd: list[Odd]
) -> None:
    database.execute("TRUNCATE replicator.ehr_parcels, replicator.ehr_jobs, replicator.ehr_lanes")
    jobs = [one.job(clinic) for one in odd]
    await clinic.append(jobs)
    packed = everything(database)
    assert len(packed) == len(jobs)
    await laid_out(database)
    assert everything(database) == packed
    assert counts(database) == (0, len(jobs))
    said = database.execute(
        "SELECT record_key, patient, ehr_id::text, composition_id::text, part, trouble, snapshot,"
        " commit_lsn::text FROM replicator.ehr_sync_queue_open AS q ORDER BY q.commit_lsn"
    )
    assert said == [
        (
            *(job.key, job.patient, job.ehr, job.composition, job.part, job.trouble),
            None if job.snapshot is None else job.snapshot.decode(),
            str(job.change.commit_lsn),
        )
        for job in jobs
    ]


async def test_jobs_of_a_lane_that_come_together_are_few_rows(clinic: Clinic, database: Database) -> None:
    """However many there are, and however large one is."""
    texts = ["72"] * 200 + ["x" * 100_000] + ["é" * 2_000] * 3
    jobs = [
        job for n, text in enumerate(texts) for job in clinic.put("readings", reading(str(n), "p1", text))
    ]
    await clinic.append(jobs)
    parcels, laid = counts(database)
    assert (parcels < len(jobs) / 2, laid) == (True, 0)
    shown = database.execute("SELECT seq, record_key FROM replicator.ehr_sync_queue ORDER BY seq")
    assert shown == [(n + 1, str(n)) for n in range(len(jobs))]
    await laid_out(database)
    assert counts(database) == (0, len(jobs))


async def test_what_a_worker_takes_is_laid_out_and_no_more(
    clinic: Clinic, connect: Connect, database: Database
) -> None:
    for batch in range(4):
        await clinic.append(
            *(clinic.put("readings", reading(f"{p} {batch} {n}", p)) for p in ("p1", "p2") for n in range(5))
        )
    lanes = Lanes(connect, "one", HOUR)
    assert counts(database) == (8, 0)
    (lane,) = await lanes.claim(1, 7)
    assert [task.seq for task in lane.tasks] == [1, 2, 3, 4, 5, 6, 7]
    assert counts(database) == (6, 10)
    await lanes.record([done(lane, jobs=7, delay=0.0)])
    assert counts(database) == (6, 3)
    seen = [task.seq for other in await lanes.claim(2, 50) for task in other.tasks if other.id == lane.id]
    assert seen == list(range(8, 21))
    assert counts(database) == (0, 33)


async def test_an_urgent_job_in_a_parcel_makes_its_lane_urgent(
    clinic: Clinic, connect: Connect, database: Database
) -> None:
    """Also once what was more urgent is done, and it has not been laid out yet."""
    await clinic.append(clinic.put("users", reading("p1")), clinic.put("readings", reading("1")))
    await clinic.append(clinic.put("urgent", reading("2")), clinic.put("readings", reading("3")))
    lanes, seen = Lanes(connect, "one", HOUR), []
    for _ in range(4):
        seen += database.execute("SELECT priority, urgent_upto FROM replicator.ehr_lanes")
        (lane,) = await lanes.claim(1, 1)
        await lanes.record([done(lane, delay=0.0)])
    assert seen == [(0, 1), (10, 3), (10, 3), (50, 4)]


async def test_a_decision_lays_out_what_it_is_about_and_what_was_before(
    clinic: Clinic, connect: Connect, database: Database
) -> None:
    """So whoever sees only what is laid out delivers nothing before its turn."""
    for batch in range(3):
        await clinic.append(*(clinic.put("readings", reading(f"{batch} {n}")) for n in range(4)))
    lane = lane_id("patient/p1")
    async with connected(database.dsn, "person", schema="replicator") as storage:
        decided = await decide(storage, "park", Chosen((JobId(lane, 6),)), "nurse", "wait")
        assert decided.jobs == [JobId(lane, 6)]
        assert counts(database) == (1, 8)
        assert [job.state for job in await find(storage, Chosen())] == [
            *["waiting"] * 5,
            "parked",
            *["waiting"] * 6,
        ]
        lanes = Lanes(connect, "one", HOUR)
        (taken,) = await lanes.claim(1, 12)
        await lanes.record([done(taken, jobs=2, delay=0.0)])
        # What is done comes once more after all that waits.
        (again,) = (await decide(storage, "replay", Chosen((JobId(lane, 1),)), "nurse", "lost")).jobs
        assert again == JobId(lane, 13)
        assert counts(database)[0] == 0


async def test_the_rest_of_a_transaction_is_what_is_laid_out_of_it(
    clinic: Clinic, connect: Connect, database: Database
) -> None:
    """Whoever delivered what is in a parcel could not record it; and one may come at any moment."""
    with clinic.transaction():
        await clinic.append(*(clinic.put("readings", reading(str(n))) for n in range(3)))
    lanes = Lanes(connect, "one", HOUR)
    (lane,) = await lanes.claim(1, 1)
    await clinic.append(clinic.put("readings", reading("3")))
    lsn = str(lane.tasks[-1].job.change.commit_lsn)
    async with connected(database.dsn, "rest", schema="replicator") as storage:
        asked = {"lane": lane.id, "after": 1, "lsn": lsn, "most": 100}
        assert [row[0] for row in await rows(storage, _q.rest_of_transaction, **asked)] == [2, 3]
    assert [task.seq for task in await lanes.rest(lane, 100)] == [2, 3]
    assert counts(database) == (0, 4)


async def test_two_who_lay_out_the_same_do_not_wait_in_a_circle(clinic: Clinic, database: Database) -> None:
    await clinic.append(*(clinic.put("readings", reading(str(n), f"p{n % 50}")) for n in range(500)))
    before = everything(database)
    await asyncio.gather(*(laid_out(database) for _ in range(6)))
    assert everything(database) == before
    assert counts(database) == (0, 500)


async def test_a_parcel_for_a_lane_of_another_ehr_says_whose_it_is(
    clinic: Clinic, database: Database
) -> None:
    """Where the mapping's namespace is another by now, a patient has another EHR of ours."""
    await clinic.append(clinic.put("readings", reading("1")))
    other = ehr_id("elsewhere", "p1")
    await clinic.append([job._replace(ehr=other) for job in clinic.put("readings", reading("2"))])
    rows = "SELECT seq, patient, ehr_id::text FROM replicator.ehr_sync_queue ORDER BY seq"
    expected = [(1, "p1", ehr_id("clinic", "p1")), (2, "p1", other)]
    assert database.execute(rows) == expected
    await laid_out(database)
    assert database.execute(rows) == expected


async def test_nothing_is_laid_out_by_a_transaction_that_fails(clinic: Clinic, database: Database) -> None:
    async with connected(database.dsn, "feed", schema="replicator") as storage:
        with pytest.raises(ZeroDivisionError):
            async with storage.transaction():
                await append(storage, clinic.put("readings", reading("1")))
                raise ZeroDivisionError
    assert counts(database) == (0, 0)
