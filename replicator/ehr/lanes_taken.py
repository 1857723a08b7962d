"""Storage → lanes to work in; and what became of their jobs → storage, for whoever still holds them.

A lane is held for a while, under a number that each who takes it raises. Everything that is recorded says the
number, and is refused where it is not the newest: one that stood still and wakes up late changes nothing.
Only the database looks at a clock.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from weakref import WeakKeyDictionary

import orjson
from psycopg.rows import TupleRow

from replicator import queries
from replicator.database import Connect, Connection, rows
from replicator.ehr.client.versions import VersionUid
from replicator.ehr.identity import ChangeId
from replicator.ehr.job import Job, Operation
from replicator.ehr.lanes import TOGETHER_MOST, Going, Home, Known, Lane, Report, Said, Task
from replicator.ehr.queue_laid_out import lay_out
from replicator.marks import mark
from replicator.wal.lsn import Lsn

_q = queries.load("queue")

#: Our statements are about a few rows of tables that may be large, or may have been a moment ago: they go by
#: the indices, whatever the statistics say; and there is nothing to find out about them anew each time.
_PLANNED = b"""SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off;
    SET plan_cache_mode = force_generic_plan"""
#: So long they are planned for the size that the tables had: what is right for a few jobs reads all of many.
_PLANNED_S = 2.0
#: Where a row of `claim` says whether who had the lane left it, up to where it is done, and how many it had.
_WAS_LEFT, _UPTO, _APPENDED = 7, 8, 9
#: The hold that keeps everybody from everything.
SERVER = "server"


class Lanes:
    """The queue, as one worker sees it."""

    def __init__(self, connect: Connect, holder: str, lease_s: float) -> None:
        self._lend, self._holder = connect, holder
        #: The sessions that have been told how to plan, and until when their plans are good.
        self._told: WeakKeyDictionary[Connection, float] = WeakKeyDictionary()
        self._lease = timedelta(seconds=lease_s)

    @asynccontextmanager
    async def _connect(self) -> AsyncIterator[Connection]:
        async with self._lend() as connection:
            now = asyncio.get_running_loop().time()
            if (until := self._told.get(connection)) is None or until < now:
                await connection.execute(_PLANNED if until is None else b"DISCARD PLANS")
                self._told[connection] = now + _PLANNED_S
            yield connection

    async def claim(self, lanes: int, jobs: int) -> list[Lane]:
        """Up to so many lanes, with up to so many jobs of each; they are ours for the length of a lease."""
        asked = {"lanes": lanes, "holder": self._holder, "lease": self._lease, "server": SERVER}
        # Together, for the commit is most of what a claim takes.
        async with self._connect() as connection, connection.transaction():
            found = await rows(connection, _q.claim, **asked)
            taken = sorted((_lane(row) for row in found), key=lambda lane: lane.id)
            if left := {row[0]: row[_UPTO] for row in found if row[_WAS_LEFT]}:
                given = {
                    "lanes": list(left),
                    "after": list(left.values()),
                    "jobs": jobs,
                    "rest": TOGETHER_MOST,
                }
                await connection.execute(_q.note_left, given)
            if taken:
                await _lay_out(connection, taken, [lane.upto + jobs for lane in taken], jobs)
            if lacking := [lane for lane in taken if not lane.tasks]:
                await _find(connection, lacking, {row[0]: row[_APPENDED] for row in found}, jobs)
        return taken

    async def rest(self, lane: Lane, most: int) -> list[Task]:
        """What follows the last job of a lane that is ours, of the same transaction."""
        last = lane.tasks[-1]
        asked = {"lane": lane.id, "after": last.seq, "lsn": str(last.job.change.commit_lsn), "most": most}
        async with self._connect() as connection:
            async with connection.transaction():
                await lay_out(connection, {lane.id: last.seq + most})
            found = await rows(connection, _q.rest_of_transaction, **asked)
        return [_task(seq, rest) for seq, *rest in found]

    async def renew(self, lanes: Collection[Lane]) -> set[int]:
        """Hold them for longer; which of them are still ours."""
        if not lanes:
            return set()
        given = {"ids": [lane.id for lane in lanes], "tokens": [lane.token for lane in lanes]}
        async with self._connect() as connection:
            return {row[0] for row in await rows(connection, _q.renew, **given, lease=self._lease)}

    async def record(self, reports: Sequence[Report]) -> set[int]:
        """Record all of these; which of the lanes were still ours. Of the others nothing was recorded."""
        async with self._connect() as connection:
            return {row[0] for row in await rows(connection, _q.record, **_told(reports))}

    async def hold(self, name: str, reason: str, pause_s: float) -> None:
        async with self._connect() as connection:
            values = {"name": name, "reason": reason, "pause": timedelta(seconds=pause_s)}
            await connection.execute(_q.hold, values)

    async def due_hold(self, least_s: float, most_s: float) -> str | None:
        """A hold that we are to look at now."""
        values = {"least": timedelta(seconds=least_s), "most": timedelta(seconds=most_s)}
        async with self._connect() as connection:
            found = await rows(connection, _q.due_hold, **values)
            return str(found[0][0]) if found else None

    async def holds(self) -> set[str]:
        async with self._connect() as connection:
            return {row[0] for row in await rows(connection, _q.holds)}

    async def end_hold(self, name: str) -> None:
        """It does not stand any more: whoever waited for it is due."""
        async with self._connect() as connection:
            await connection.execute(_q.end_hold, {"name": name})
            await connection.execute(_q.let_go)
            await connection.execute(_q.tell)

    async def let_go(self) -> None:
        """Lanes that wait for what was over before they began to."""
        async with self._connect() as connection:
            await connection.execute(_q.let_go)

    async def forget_done(self, age_s: float, limit: int) -> int:
        """Let go of what was finished so long ago; how much that was."""
        async with self._connect() as connection:
            values = {"age": timedelta(seconds=age_s), "limit": limit}
            return (await connection.execute(_q.forget_done, values)).rowcount


async def _lay_out(connection: Connection, lanes: Sequence[Lane], uptos: Sequence[int], jobs: int) -> None:
    """Lanes that are ours, and have no job yet: those up to here are laid out, and so many are theirs."""
    by_id = {lane.id: lane for lane in lanes}
    mark("jobs laying out", lanes=len(lanes))
    if laid := await lay_out(connection, dict(zip(by_id, uptos, strict=True))):
        mark("jobs laid out", lanes=len(lanes), jobs=laid)
    asked = {"lanes": list(by_id), "after": [lane.upto for lane in lanes], "most": jobs}
    for number, seq, *rest in await rows(connection, _q.laid_out, **asked):
        lane = by_id[number]
        before = lane.tasks[-1].seq if lane.tasks else lane.upto
        if seq > before + 1:
            _mark_missing(lane, before, seq - 1)
        if not lane.tasks:
            lane.upto = seq - 1
        lane.tasks.append(_task(seq, rest))


async def _find(
    connection: Connection, lanes: Sequence[Lane], appended: Mapping[int, int], jobs: int
) -> None:
    """Lanes whose next jobs are not there, though they are said to wait: what follows is theirs, if any does.

    Whatever has lost them, such a lane would be taken again and again, and what follows never reached.
    """
    await _lay_out(connection, lanes, [appended[lane.id] for lane in lanes], jobs)
    for lane in [lane for lane in lanes if not lane.tasks]:
        _mark_missing(lane, lane.upto, appended[lane.id])
        lane.upto = appended[lane.id]


def _mark_missing(lane: Lane, after: int, upto: int) -> None:
    mark("jobs missing", level=logging.ERROR, lane=lane.id, after=after, upto=upto)


def _lane(row: TupleRow) -> Lane:
    number, token, failures, ehr, system, patient, own, _, upto, _ = row
    home = Home(ehr, system) if ehr is not None and system is not None else None
    return Lane(number, token, failures, home, [], upto, own=(patient, own))


def _task(seq: int, row: Sequence[Any]) -> Task:
    table, mapping, key, operation, patient, ehr, composition, template, lsn, ordinal, part = row[:11]
    snapshot, columns, priority, may_merge, trouble, state, attempts, *found = row[11:]
    uid, is_deleted, at_lsn, at_ordinal = found
    job = Job(
        Operation(operation),
        mapping,
        table,
        key,
        patient,
        ehr,
        composition,
        template,
        ChangeId(Lsn.parse(lsn), ordinal),
        part,
        None if snapshot is None else _row(snapshot, columns),
        priority,
        may_merge,
        trouble,
    )
    known = None
    if uid is not None:
        known = Known(VersionUid.parse(uid), is_deleted, ChangeId(Lsn.parse(at_lsn), at_ordinal))
    return Task(seq, job, state, attempts, known)


def _row(snapshot: str, columns: Sequence[str] | None) -> bytes:
    """Column → text, as JSON; stored without the columns where all such jobs have the same."""
    if columns is None:
        return snapshot.encode()
    return orjson.dumps(dict(zip(columns, orjson.loads(snapshot), strict=True)))


def _told(reports: Sequence[Report]) -> dict[str, str]:
    """As two texts: the driver would look at each value of so many arrays."""
    lanes = [_going(report.going) for report in reports]
    said = [_said(each) for report in reports for each in report.said]
    return {"lanes": orjson.dumps(lanes).decode(), "said": orjson.dumps(said).decode()}


def _going(lane: Going) -> dict[str, object]:
    return {
        "id": lane.lane,
        "token": lane.token,
        "upto": lane.upto,
        "state": lane.state or ("waiting" if lane.delay_s is not None else None),
        "held_by": lane.held_by,
        "delay": lane.delay_s,
        "failures": lane.failures,
        "ehr_id": lane.home.ehr_id if lane.home else None,
        "system_id": lane.home.system if lane.home else None,
    }


def _said(job: Said) -> dict[str, object]:
    return {
        "lane": job.lane,
        "seq": job.seq,
        "state": job.state,
        "uid": str(job.uid) if job.uid else None,
        "version": job.uid.number if job.uid else None,
        "is_deleted": job.is_deleted,
        "error_class": job.error_class,
        "message": job.message,
        "delay": job.delay_s,
        "newer_lsn": str(job.newer.commit_lsn) if job.newer else None,
        "newer_ordinal": job.newer.ordinal if job.newer else None,
        "ehr_id": job.ehr_id,
    }
