"""People decide about jobs that a worker has just then: what they decided holds, or they are told."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from replicator.database import Connect, connected
from replicator.ehr.client import VersionUid
from replicator.ehr.lanes import Going, Home, Lane, Report, Said, stopped
from replicator.ehr.lanes_taken import Lanes
from replicator.ehr.queue_people import Action, Chosen, Decided, JobId, decide
from replicator.ehr.retry import Hold, Park, Retry
from tests.database.queued import Clinic, Worker, delivered, held, reading, sandbox_with_template
from tests.fixtures.postgres import Database
from tests.fixtures.signals import Signals

pytestmark = pytest.mark.migrated

HOUR = 3600.0


async def decided(database: Database, action: Action, *jobs: JobId) -> Decided:
    async with connected(database.dsn, "people", schema="replicator") as storage:
        return await decide(storage, action, Chosen(jobs), "ann", "a slip")


async def taken(clinic: Clinic, connect: Connect, lease_s: float = HOUR) -> tuple[Lanes, Lane]:
    """A lane of two jobs, as a worker has it."""
    await clinic.append(clinic.put("readings", reading("1")), clinic.put("readings", reading("2")))
    lanes = Lanes(connect, "worker", lease_s)
    (lane,) = await lanes.claim(1, 5)
    return lanes, lane


def said(lane: Lane, state: str, upto: int, delay: float | None = 0.0) -> Report:
    """The first job has ended so."""
    uid = VersionUid(str(lane.tasks[0].job.composition), "sandbox", 1) if state == "done" else None
    ending = Said(lane.id, lane.tasks[0].seq, state, uid)  # type: ignore[arg-type]  # one of the states
    return Report(Going(lane.id, lane.token, upto, lane.home, delay), (ending,))


async def test_what_is_skipped_while_it_is_sent_says_that_the_record_has_it_and_what_comes_behind_is_not_sent(
    clinic: Clinic, database: Database, tmp_path: Path, signals: Signals
) -> None:
    await clinic.append(clinic.put("users", reading("p1")))
    ((lane,),) = database.execute("SELECT id FROM replicator.ehr_lanes")
    async with sandbox_with_template(database.owner_dsn) as sandbox, Worker(tmp_path, database, sandbox.url):
        await delivered(database)
        with database.connect() as other, other.transaction():
            other.execute("LOCK TABLE sandbox.versions IN EXCLUSIVE MODE")
            await clinic.append(*(clinic.put("readings", reading(id)) for id in ("1", "2", "3")))
            await signals.wait("ehr sending", operation="create")
            found = await decided(database, "skip", JobId(lane, 2), JobId(lane, 3))
            ((holder,),) = database.execute("SELECT holder FROM replicator.ehr_lanes")
            assert found.taken == {JobId(lane, 2): holder, JobId(lane, 3): holder}
            await signals.wait("decided")
        await delivered(database)
    found_states = database.execute(
        "SELECT state, note, error_message FROM replicator.ehr_sync_queue WHERE seq > 1 ORDER BY seq"
    )
    assert found_states == [
        ("done", "it was skipped while it was being delivered", _may_hold(holder)),
        ("skipped", None, None),
        ("done", None, None),
    ]
    assert len(held(database)) == 2


def _may_hold(holder: str) -> str:
    return f"skipped while its lane was taken by {holder}: the record may hold it"


@pytest.mark.parametrize("verdict", [Retry("later"), Hold("template", "none"), Park("a rule")], ids=repr)
async def test_what_is_skipped_while_it_is_tried_in_vain_is_not_tried_again(
    clinic: Clinic, connect: Connect, database: Database, verdict: Retry | Hold | Park
) -> None:
    lanes, lane = await taken(clinic, connect)
    await decided(database, "skip", JobId(lane.id, 1))
    assert await lanes.record([stopped(lane, lane.tasks[0], verdict, 0.5)]) == {lane.id}
    (again,) = await lanes.claim(1, 5)
    assert [(task.state, task.attempts) for task in again.tasks] == [("skipping", 1), ("waiting", 0)]
    await lanes.record([said(again, "skipped", 1)])
    found = database.execute("SELECT state, error_message FROM replicator.ehr_jobs_done")
    assert found == [("skipped", _may_hold("worker"))], "the answer may be wrong"


async def test_what_is_parked_while_it_is_tried_in_vain_stays_parked(
    clinic: Clinic, connect: Connect, database: Database
) -> None:
    lanes, lane = await taken(clinic, connect)
    await decided(database, "park", JobId(lane.id, 1))
    await lanes.record([stopped(lane, lane.tasks[0], Retry("later"), 0.5)])
    (again,) = await lanes.claim(1, 5)
    assert [task.state for task in again.tasks] == ["parked", "waiting"]
    assert database.execute("SELECT error_message FROM replicator.ehr_sync_queue_open ORDER BY seq") == [
        ("a slip",),
        (None,),
    ]


async def test_a_lane_that_stops_at_a_job_which_is_retried_meanwhile_goes_on(
    clinic: Clinic, connect: Connect, database: Database
) -> None:
    lanes, lane = await taken(clinic, connect)
    await lanes.record([stopped(lane, lane.tasks[0], Retry("later"), 0.0)])
    await decided(database, "park", JobId(lane.id, 2))
    (lane,) = await lanes.claim(1, 5)
    await decided(database, "retry", JobId(lane.id, 2))
    ended = said(lane, "done", 1)
    going = ended.going
    parked = Going(going.lane, going.token, 1, Home("f" * 32, "sandbox"), 0.0, "parked")
    await lanes.record([Report(parked, ended.said)])
    (again,) = await lanes.claim(1, 5)
    assert [(task.seq, task.state) for task in again.tasks] == [(2, "waiting")]


async def test_who_died_with_a_job_that_is_skipped_then_is_named_by_it_and_says_nothing_more(
    clinic: Clinic, connect: Connect, database: Database
) -> None:
    lanes, lane = await taken(clinic, connect, lease_s=0.0)
    found = await decided(database, "skip", JobId(lane.id, 1))
    assert found.taken == {JobId(lane.id, 1): "worker"}
    assert await lanes.record([said(lane, "done", 1)]) == set()
    (again,) = await Lanes(connect, "other", HOUR).claim(1, 5)
    await lanes.record([said(again, "skipped", 1)])
    shown = database.execute("SELECT state, error_message FROM replicator.ehr_jobs_done")
    assert shown == [("skipped", _may_hold("worker"))]


async def test_a_job_that_a_worker_may_be_leaving_out_just_now_stays_left_out(
    clinic: Clinic, connect: Connect, database: Database
) -> None:
    await clinic.append(clinic.put("readings", reading("1")), clinic.put("readings", reading("2")))
    ((id,),) = database.execute("SELECT id FROM replicator.ehr_lanes")
    await decided(database, "skip", JobId(id, 1))
    lanes = Lanes(connect, "worker", HOUR)
    (lane,) = await lanes.claim(1, 5)
    assert await decided(database, "retry", JobId(id, 1)) == Decided([], {JobId(id, 1): "worker"})
    await lanes.record([Report(Going(id, lane.token, 0, None, 0.0))])
    assert await decided(database, "retry", JobId(id, 1)) == Decided([JobId(id, 1)], {})
    (lane,) = await lanes.claim(1, 5)
    assert [task.state for task in lane.tasks] == ["waiting", "waiting"]


async def test_a_decision_about_what_nobody_has_is_exact(
    clinic: Clinic, connect: Connect, database: Database
) -> None:
    lanes, lane = await taken(clinic, connect)
    await lanes.record([said(lane, "done", 1)])
    found, same = await asyncio.gather(
        decided(database, "skip", JobId(lane.id, 2)), decided(database, "skip", JobId(lane.id, 1))
    )
    assert (found, same) == (Decided([JobId(lane.id, 2)], {}), Decided([], {}))
    (lane,) = await lanes.claim(1, 5)
    await lanes.record([said(lane, "skipped", 2)])
    assert database.execute("SELECT state, error_message FROM replicator.ehr_sync_queue ORDER BY seq") == [
        ("done", None),
        ("skipped", None),
    ]
