"""A queue as it was before jobs became narrow says the same afterwards, and goes on."""

from __future__ import annotations

import asyncio

import pytest

from replicator.database import check_migrated, connected, migrate, migrations, pooled, rows
from replicator.ehr.lanes_taken import Lanes
from replicator.ehr.queue_people import Chosen, JobId, decide
from tests.database.queued import Clinic, reading
from tests.fixtures.postgres import Database

#: The last one under which a job was a row with everything.
_BEFORE = 15
#: The last one under which the queue was other than it is.
_OTHER = 18
#: Of five patients and some rows without one, all kinds of jobs: what waits in any way, and what is over.
_FILLED = """
INSERT INTO replicator.ehr_lanes
    (id, name, patient, appended, done_upto, state, priority, urgent_upto, due_at)
SELECT n, 'patient/p' || n, CASE WHEN n < 5 THEN 'p' || n END, 40, 16, 'waiting', 10, 40, now()
FROM generate_series(0, 5) AS n;
INSERT INTO replicator.ehr_sync_queue
SELECT lane, seq, 'public.t' || seq % 3, 't' || seq % 3, lane || '-' || seq,
       (ARRAY['create', 'update', 'delete', 'mark', 'status'])[1 + seq % 5],
       CASE WHEN lane < 5 THEN 'p' || lane END, CASE WHEN lane < 5 THEN md5('e' || lane)::uuid END,
       CASE WHEN seq % 5 <> 4 THEN md5(lane || 'c' || seq)::uuid END, CASE WHEN seq % 7 > 0 THEN 'v1' END,
       ('0/' || to_hex(seq * 8))::pg_lsn, seq % 4, seq % 2, CASE WHEN seq % 5 <> 2 THEN '{"id":"1"}' END,
       10 + seq % 2, seq % 2 = 0, CASE WHEN lane = 5 THEN 'no patient' END,
       CASE WHEN seq <= 16 THEN (ARRAY['done', 'skipped', 'merged'])[1 + seq % 3]
            ELSE (ARRAY['waiting', 'retrying', 'held', 'parked', 'skipping'])[1 + seq % 5] END,
       seq % 3, CASE WHEN seq % 3 = 1 THEN now() END, seq, CASE WHEN seq % 3 = 2 THEN 'server' END,
       CASE WHEN seq % 3 = 2 THEN 'it said no' END,
       CASE WHEN seq <= 16 THEN 'uid' || seq END, CASE WHEN seq <= 16 THEN 1 END, NULL, now(), now(),
       CASE WHEN seq <= 16 THEN now() END
FROM generate_series(0, 5) AS lane, generate_series(1, 40) AS seq
"""
_QUEUE = "SELECT to_jsonb(q) FROM replicator.ehr_sync_queue AS q ORDER BY lane, seq"
_DASHBOARD = "SELECT to_jsonb(q) FROM replicator.ehrbase_sync_queue AS q ORDER BY id"


async def _asleep(database: Database) -> None:
    """Until a migration waits for what somebody has."""
    asleep = """SELECT count(*) FROM pg_stat_activity
        WHERE wait_event = 'PgSleep' AND datname = current_database()"""
    async with asyncio.timeout(30):
        while await asyncio.to_thread(database.execute, asleep) == [(0,)]:
            pass


async def test_every_job_says_what_it_said(database: Database) -> None:
    await migrate(database.dsn, "replicator", known=migrations()[:_BEFORE])
    database.execute(_FILLED)
    before, shown = database.execute(_QUEUE), database.execute(_DASHBOARD)
    assert len(before) == 240
    await migrate(database.dsn, "replicator")
    assert database.execute(_QUEUE) == before
    assert database.execute(_DASHBOARD) == shown


async def test_it_is_worked_in_and_added_to(database: Database) -> None:
    await migrate(database.dsn, "replicator", known=migrations()[:_BEFORE])
    database.execute(_FILLED)
    waiting = "SELECT lane || '.' || seq, patient, ehr_id::text, mapping FROM replicator.ehr_sync_queue_open"
    known = sorted(database.execute(waiting))
    await migrate(database.dsn, "replicator")
    async with pooled(database.dsn, "test", schema="replicator") as connect:
        taken = await Lanes(connect, "one", 3600.0).claim(10, 100)
    assert known == sorted(
        (f"{lane.id}.{task.seq}", task.job.patient, task.job.ehr, task.job.mapping)
        for lane in taken
        for task in lane.tasks
    )
    clinic = Clinic(database.dsn)
    await clinic.append(clinic.put("readings", reading("new", "p1")))
    assert database.execute("SELECT count(*) FROM replicator.ehr_sync_queue") == [(241,)]


async def test_who_looks_at_it_meanwhile_is_waited_for(database: Database) -> None:
    await migrate(database.dsn, "replicator", known=migrations()[:_BEFORE])
    database.execute(_FILLED)
    async with connected(database.dsn, "dashboard", schema="replicator") as dashboard:
        async with dashboard.transaction():
            assert await rows(dashboard, b"SELECT FROM ehr_sync_queue LIMIT 1")
            migrating = asyncio.create_task(migrate(database.dsn, "replicator"))
            await _asleep(database)
            for name in (b"ehr_lanes", b"ehrbase_sync_queue"):
                assert await rows(dashboard, b"SELECT FROM " + name + b" LIMIT 1")
        await migrating
        assert len(await rows(dashboard, b"SELECT FROM ehr_sync_queue")) == 240


@pytest.mark.parametrize("before", range(_BEFORE, _OTHER + 1))
async def test_a_large_transaction_that_is_open_meanwhile_is_waited_for(
    database: Database, before: int
) -> None:
    """Whoever appends it has the arrivals and wants the lanes: no step may have these and want those."""
    await migrate(database.dsn, "replicator", known=migrations()[:before])
    async with connected(database.dsn, "feed", schema="replicator") as feed:
        async with feed.transaction():
            await feed.execute("DELETE FROM ehr_arrivals")
            migrating = asyncio.create_task(migrate(database.dsn, "replicator"))
            await _asleep(database)
            async with asyncio.timeout(60):
                await feed.execute("UPDATE ehr_lanes SET due_at = now()")
            assert not migrating.done()
            assert database.execute("SELECT max(number) FROM replicator.migrations") == [(before,)]
        await migrating
        await check_migrated(feed, "replicator")
    assert database.execute("SELECT count(*) FROM replicator.ehr_parcels") == [(0,)]


async def test_what_was_delivered_before_can_be_replayed(database: Database) -> None:
    await migrate(database.dsn, "replicator", known=migrations()[:_BEFORE])
    database.execute(_FILLED)
    await migrate(database.dsn, "replicator")
    async with connected(database.dsn, "test", schema="replicator") as connection:
        decided = await decide(connection, "replay", Chosen((JobId(1, 3), JobId(5, 4))), "ann", "lost")
    assert sorted(decided.jobs) == [(1, 41), (5, 41)]
    same = """SELECT source_table, mapping, record_key, operation, patient, ehr_id, composition_id,
        template_id, commit_lsn, ordinal, part, snapshot, priority, may_merge, trouble
        FROM replicator.ehr_sync_queue
        WHERE (lane, seq) IN ((1, {0}), (5, {1})) ORDER BY lane"""
    assert database.execute(same.format(41, 41)) == database.execute(same.format(3, 4))
