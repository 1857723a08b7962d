"""Lanes are taken by one at a time, and what somebody says who has been replaced is not recorded."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest

from replicator.database import Connect, connected
from replicator.ehr.client import VersionUid
from replicator.ehr.deliver import End
from replicator.ehr.lanes import Going, Lane, Report, Said, merged, released, set_aside
from replicator.ehr.lanes_held import Holds
from replicator.ehr.lanes_taken import Lanes
from replicator.ehr.queue import append
from replicator.ehr.retry import Hold, Retry
from tests.database.queued import Clinic, left, reading
from tests.fixtures.postgres import Database

pytestmark = pytest.mark.migrated

HOUR = 3600.0


def done(lane: Lane, *, jobs: int = 1, delay: float | None = None) -> Report:
    """The first jobs of a lane are delivered."""
    said = [
        Said(lane.id, task.seq, "done", VersionUid(str(task.job.composition), "sandbox", 1))
        for task in lane.tasks[:jobs]
    ]
    upto = said[-1].seq
    return Report(Going(lane.id, lane.token, upto, lane.home, delay), tuple(said))


async def test_a_lane_is_taken_by_one(clinic: Clinic, connect: Connect) -> None:
    await clinic.append(*(clinic.put("readings", reading(str(n), f"p{n}")) for n in range(20)))
    one, other = Lanes(connect, "one", HOUR), Lanes(connect, "other", HOUR)
    first, second = await asyncio.gather(one.claim(12, 5), other.claim(12, 5))
    ids = [lane.id for lane in (*first, *second)]
    assert len(ids) == len(set(ids))
    rest = await one.claim(20, 5)
    assert len(ids) + len(rest) == 20


async def test_what_was_replaced_records_nothing(
    clinic: Clinic, connect: Connect, database: Database
) -> None:
    await clinic.append(*(clinic.put("readings", reading(str(n))) for n in range(3)))
    (late,) = await Lanes(connect, "late", 0.0).claim(1, 5)
    (now,) = await Lanes(connect, "now", HOUR).claim(1, 5)
    assert now.token == late.token + 1
    lanes = Lanes(connect, "late", HOUR)
    assert await lanes.record([done(late, jobs=3)]) == set()
    assert await lanes.renew([late]) == set()
    assert left(database) == 3
    assert await lanes.record([done(now, jobs=2)]) == {now.id}
    assert left(database) == 1


async def test_who_is_replaced_while_it_records_records_nothing(
    clinic: Clinic, connect: Connect, database: Database
) -> None:
    await clinic.append(clinic.put("readings", reading("1")))
    lanes = Lanes(connect, "late", 0.0)
    (late,) = await lanes.claim(1, 5)
    async with connected(database.dsn, "other", schema="replicator") as other:
        async with other.transaction():
            await other.execute("UPDATE ehr_lanes SET token = token + 1")
            recording = asyncio.create_task(lanes.record([done(late)]))
            waiting = (
                "SELECT count(*) FROM pg_stat_activity "
                "WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
            async with asyncio.timeout(30):
                while await asyncio.to_thread(database.execute, waiting) != [(1,)]:
                    pass
    assert await recording == set()
    assert left(database) == 1


async def test_a_lane_goes_on_where_it_was_left(clinic: Clinic, connect: Connect) -> None:
    await clinic.append(*(clinic.put("readings", reading(str(n))) for n in range(7)))
    lanes, seen = Lanes(connect, "one", HOUR), []
    while taken := await lanes.claim(1, 3):
        (lane,) = taken
        seen += [task.seq for task in lane.tasks]
        await lanes.record([done(lane, jobs=3, delay=0.0)])
    assert seen == [1, 2, 3, 4, 5, 6, 7]


async def test_a_lane_that_is_given_back_is_whole(clinic: Clinic, connect: Connect) -> None:
    await clinic.append(*(clinic.put("readings", reading(str(n))) for n in range(3)))
    lanes = Lanes(connect, "one", HOUR)
    (lane,) = await lanes.claim(1, 5)
    assert await lanes.claim(1, 5) == []
    await lanes.record([released(lane)])
    (again,) = await lanes.claim(1, 5)
    assert [task.seq for task in again.tasks] == [1, 2, 3]


async def test_what_is_appended_while_a_lane_ends_is_not_forgotten(
    clinic: Clinic, connect: Connect, database: Database
) -> None:
    await clinic.append(clinic.put("readings", reading("1")))
    lanes = Lanes(connect, "one", HOUR)
    (lane,) = await lanes.claim(1, 5)
    async with _appending(clinic, database) as commit:
        recording = asyncio.create_task(lanes.record([done(lane, delay=0.0)]))
        await commit()
    assert await recording == {lane.id}
    (lane,) = await lanes.claim(1, 5)
    assert [task.job.key for task in lane.tasks] == ["2"]


async def test_numbers_become_visible_in_their_order(
    clinic: Clinic, connect: Connect, database: Database
) -> None:
    async with _appending(clinic, database) as commit:
        later = asyncio.create_task(clinic.append(clinic.put("readings", reading("3"))))
        assert await Lanes(connect, "one", HOUR).claim(1, 5) == []
        await commit()
    await later
    (lane,) = await Lanes(connect, "one", HOUR).claim(1, 5)
    assert [(task.seq, task.job.key) for task in lane.tasks] == [(1, "2"), (2, "3")]


@asynccontextmanager
async def _appending(clinic: Clinic, database: Database):  # type: ignore[no-untyped-def]  # an async context of a coroutine function
    """A job is appended, and not committed before `commit`."""
    async with connected(database.dsn, "feed", schema="replicator") as storage:
        await storage.execute("BEGIN")
        await append(storage, clinic.put("readings", reading("2")))

        async def commit() -> None:
            await storage.execute("COMMIT")

        yield commit


async def test_the_most_urgent_job_of_a_lane_gives_it_its_priority(
    clinic: Clinic, connect: Connect, database: Database
) -> None:
    await clinic.append(
        clinic.put("readings", reading("1")),
        clinic.put("urgent", reading("2")),
        clinic.put("other", reading("3")),
    )
    priority = "SELECT priority, urgent_upto FROM replicator.ehr_lanes"
    assert database.execute(priority) == [(10, 2)]
    lanes = Lanes(connect, "one", HOUR)
    for expected in ([(10, 2)], [(100, 3)]):
        (lane,) = await lanes.claim(1, 1)
        await lanes.record([done(lane, delay=0.0)])
        assert database.execute(priority) == expected


async def test_a_job_keeps_every_text_as_it_was(clinic: Clinic, connect: Connect) -> None:
    odd = 'a\tb\\c\n"d" ü \N{PILE OF POO} \\N'
    jobs = clinic.put("readings", reading(odd, odd))
    await clinic.append(jobs)
    ((task,),) = [lane.tasks for lane in await Lanes(connect, "one", HOUR).claim(1, 5)]
    # It has its name by then.
    assert task.job == jobs[0]._replace(begun=None)


async def test_nothing_undelivered_is_ever_forgotten(
    clinic: Clinic, connect: Connect, database: Database
) -> None:
    await clinic.append(*(clinic.put("readings", reading(str(n))) for n in range(4)))
    lanes = Lanes(connect, "one", HOUR)
    (lane,) = await lanes.claim(1, 5)
    await lanes.record([done(lane, jobs=3)])
    assert await lanes.forget_done(HOUR, 100) == 0
    assert await lanes.forget_done(0.0, 2) == 2
    assert await lanes.forget_done(0.0, 2) == 1
    assert database.execute("SELECT record_key, state FROM replicator.ehr_sync_queue") == [("3", "waiting")]


async def test_what_was_merged_into_a_job_is_not_forgotten_before_that_is_finished(
    clinic: Clinic, connect: Connect, database: Database
) -> None:
    await clinic.append(*(clinic.put("merging", reading("1", rate=rate)) for rate in (70, 71)))
    lanes = Lanes(connect, "one", HOUR)
    (lane,) = await lanes.claim(1, 5)
    first = set_aside(lane, lane.tasks[0], merged(lane.tasks))
    assert first is not None and first.state == "merged"
    await lanes.record([Report(Going(lane.id, lane.token, 1, lane.home), (first,))])
    assert await lanes.forget_done(0.0, 100) == 0
    lane.tasks = lane.tasks[1:]
    await lanes.record([done(lane)])
    assert await lanes.forget_done(0.0, 100) == 2


class _Slow(Lanes):
    """One whose answers about holds come when it is let."""

    def __init__(self, connect: Connect) -> None:
        super().__init__(connect, "slow", HOUR)
        self.asked, self.let = asyncio.Event(), asyncio.Event()

    async def holds(self) -> set[str]:
        found = await super().holds()
        self.asked.set()
        await self.let.wait()
        return found


class _Nobody:
    """A record system that does not answer."""

    async def server(self) -> End:
        return Retry("nobody listens there", is_outage=True)

    async def template(self, name: str) -> End:
        return await self.server()


async def test_what_holds_is_not_forgotten_by_who_asked_before_it_did(
    clinic: Clinic, connect: Connect
) -> None:
    lanes = _Slow(connect)
    holds = Holds(lanes, _Nobody())
    looking = asyncio.create_task(holds.look())
    await lanes.asked.wait()
    await holds.hear(Hold("server", "nobody is let in"))
    lanes.let.set()
    await looking
    assert holds.is_server_held
    await lanes.end_hold("server")
    await holds.look()
    assert not holds.is_server_held
