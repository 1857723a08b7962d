"""Where one asks twice, what another has done between the two answers is not lost, and not done twice."""

from __future__ import annotations

import asyncio

import pytest

from replicator import queries
from replicator.database import Connect, connected, rows
from replicator.ehr import lanes_taken
from replicator.ehr.lanes import released
from replicator.ehr.lanes_taken import Lanes
from replicator.ehr.queue_added import lane_id
from replicator.ehr.queue_people import Chosen, JobId, decide, find, show
from tests.database.queued import Clinic, left, reading
from tests.database.test_queue_lanes import HOUR, done
from tests.fixtures.postgres import Database

pytestmark = pytest.mark.migrated

_q = queries.load("queue")


class _Waiting:
    """The statements, of which claiming waits before it comes to its first lane, but has its snapshot."""

    def __init__(self, key: int) -> None:
        waiting = f"WHERE (SELECT true FROM pg_advisory_xact_lock({key})) AND state = 'waiting'".encode()
        self.claim = _q.claim.replace(b"WHERE state = 'waiting'", waiting)
        assert self.claim != _q.claim

    def __getattr__(self, name: str) -> bytes:
        found: bytes = getattr(_q, name)
        return found


async def _waits(database: Database) -> None:
    waiting = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    async with asyncio.timeout(30):
        while not await asyncio.to_thread(database.execute, waiting):
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("is_laid_out", [True, False])
async def test_what_is_skipped_before_a_lane_is_taken_is_not_delivered(
    clinic: Clinic,
    connect: Connect,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    is_laid_out: bool,
) -> None:
    """However closely: who decided has been told that nobody has it."""
    await clinic.append(*(clinic.put("readings", reading(str(n))) for n in range(3)))
    lanes = Lanes(connect, "one", HOUR)
    if is_laid_out:
        (lane,) = await lanes.claim(1, 10)
        await lanes.record([released(lane)])
    monkeypatch.setattr(lanes_taken, "_q", _Waiting(7))
    async with connected(database.dsn, "person", schema="replicator") as person:
        async with person.transaction():
            await person.execute("SELECT pg_advisory_xact_lock(7)")
            claiming = asyncio.create_task(lanes.claim(1, 10))
            await _waits(database)
            chosen = Chosen((JobId(lane_id("patient/p1"), 2),))
            assert (await decide(person, "skip", chosen, "nurse", "twice")).taken == {}
    (lane,) = await claiming
    assert [task.state for task in lane.tasks] == ["waiting", "skipping", "waiting"]


async def test_what_a_worker_had_when_it_was_lost_counts_as_tried(clinic: Clinic, connect: Connect) -> None:
    """Also what it had asked for besides, of a transaction; what it cannot have had does not."""
    await clinic.append(clinic.put("readings", reading("before")))
    with clinic.transaction():
        await clinic.append(*(clinic.put("readings", reading(str(n))) for n in range(60)))
    await clinic.append(clinic.put("readings", reading("after")))
    lost, other = Lanes(connect, "lost", 0.0), Lanes(connect, "other", HOUR)
    (lane,) = await lost.claim(1, 5)
    assert len(await lost.rest(lane, 100)) == 56
    (lane,) = await other.claim(1, 5)
    tried = [task.attempts for task in lane.tasks]
    await other.record([done(lane, jobs=5, delay=0.0)])
    (lane,) = await other.claim(1, 100)
    assert tried + [task.attempts for task in lane.tasks] == [1] * 61 + [0]


async def test_what_is_replayed_is_not_forgotten_meanwhile(
    clinic: Clinic, connect: Connect, database: Database
) -> None:
    """It was counted, and a lane would wait for ever for what was not put into it."""
    await clinic.append(*(clinic.put("readings", reading(str(n))) for n in range(4)))
    lanes = Lanes(connect, "one", HOUR)
    (lane,) = await lanes.claim(1, 10)
    await lanes.record([done(lane, jobs=4, delay=0.0)])
    async with connected(database.dsn, "person", schema="replicator") as person:
        async with person.transaction():
            await rows(person, _q.lanes_of_jobs, lanes=[lane.id, lane.id], seqs=[1, 3])
            assert await lanes.forget_done(0.0, 100) == 2
        chosen = Chosen(tuple(JobId(lane.id, seq) for seq in (1, 2, 3)))
        assert (await decide(person, "replay", chosen, "nurse", "lost")).jobs == [(lane.id, 5), (lane.id, 6)]
    (lane,) = await lanes.claim(1, 10)
    assert [task.seq for task in lane.tasks] == [5, 6]


@pytest.mark.parametrize("lost", [range(1, 4), range(1, 8), range(3, 5), range(1, 201), range(1, 301)])
async def test_a_lane_that_lacks_jobs_comes_to_its_end(
    clinic: Clinic,
    connect: Connect,
    database: Database,
    caplog: pytest.LogCaptureFixture,
    lost: range,
) -> None:
    """Wherever they went. What follows is delivered, whether it is laid out, and it is said once."""
    for batch in range(3):
        await clinic.append(*(clinic.put("readings", reading(f"{batch} {n}")) for n in range(100)))
    lanes = Lanes(connect, "one", HOUR)
    (lane,) = await lanes.claim(1, 10)
    await lanes.record([released(lane)])
    database.execute(f"DELETE FROM replicator.ehr_jobs WHERE seq BETWEEN {lost[0]} AND {lost[-1]}")
    database.execute(f"DELETE FROM replicator.ehr_parcels WHERE seq BETWEEN {lost[0]} AND {lost[-1]}")
    there = [seq for (seq,) in database.execute("SELECT seq FROM replicator.ehr_sync_queue ORDER BY seq")]
    seen = list[int]()
    while taken := await lanes.claim(1, 40):
        (lane,) = taken
        seen += [task.seq for task in lane.tasks]
        jobs = len(lane.tasks)
        await lanes.record([done(lane, jobs=jobs, delay=0.0) if jobs else released(lane)])
    assert seen == there
    assert left(database) == 0
    assert database.execute("SELECT state FROM replicator.ehr_lanes") == [("idle",)]
    assert len([record for record in caplog.records if "jobs missing" in record.getMessage()]) == 1


async def test_given_jobs_are_found_wherever_they_are(
    clinic: Clinic, connect: Connect, database: Database
) -> None:
    """In parcels, laid out, done: as they are found among all."""
    for batch in range(3):
        await clinic.append(
            *(clinic.put("readings", reading(f"{p} {batch} {n}", p)) for n in range(90) for p in ("p1", "p2"))
        )
    lanes = Lanes(connect, "one", HOUR)
    (lane,) = await lanes.claim(1, 20)
    await lanes.record([done(lane, jobs=10, delay=0.0)])
    async with connected(database.dsn, "person", schema="replicator") as person:
        every = await find(person, Chosen())
        assert len(every) == 540
        given = await find(person, Chosen(tuple(job.id for job in every)))
        assert [job._replace(age_s=0.0) for job in given] == [job._replace(age_s=0.0) for job in every]
        for job in every[::17]:
            shown = await show(person, job.id)
            assert (shown["record_key"], shown["state"]) == (job.key, job.state)
            assert {"parcel", "snapshot"}.isdisjoint(shown)
