"""What a person asks of the queue, or decides about it → jobs, and a row that says who decided and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, NamedTuple

from psycopg.rows import TupleRow

from replicator import queries
from replicator.database import Connection, rows
from replicator.ehr.identity import joined
from replicator.ehr.queue_added import lane_id
from replicator.ehr.queue_laid_out import lay_out
from replicator.errors import ConfigError, ReplicatorError

_q = queries.load("queue")

Action = Literal["retry", "skip", "park", "replay"]
OPEN = ("waiting", "retrying", "held", "parked", "skipping")
FINISHED = ("done", "skipped", "merged")
#: What can be decided about jobs that are in one of these states.
STATES: Mapping[Action, tuple[str, ...]] = {
    "retry": ("retrying", "held", "parked", "skipping"),
    "skip": OPEN,
    "park": OPEN,
    "replay": FINISHED,
}
#: What somebody who looks at a job wants to know first.
_FIRST = (
    *("state", "error_class", "error_message", "trouble", "note", "mapping", "source_table", "record_key"),
    *("operation", "patient", "ehr_id", "composition_id", "composition_uid", "version", "template_id"),
    *("attempts", "next_attempt_at", "created_at", "updated_at", "finished_at"),
)
_CHANGES = {"retry": _q.retry_jobs, "skip": _q.skip_jobs, "park": _q.park_jobs}


class JobId(NamedTuple):
    """A lane, and a job's number in it."""

    lane: int
    seq: int

    def __str__(self) -> str:
        return f"{self.lane}.{self.seq}"

    @classmethod
    def parse(cls, text: str) -> JobId:
        lane, point, seq = text.replace("\N{MINUS SIGN}", "-").rpartition(".")
        try:
            if point:
                return cls(int(lane), int(seq))
        except ValueError:
            pass
        raise ConfigError(f"{text}: no job has such an id", "`replicator queue list` shows the ids of jobs.")


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which jobs are meant: those that fit all of this."""

    ids: tuple[JobId, ...] = ()
    states: tuple[str, ...] = ()
    #: Of the source, or a mapping's name.
    table: str | None = None
    patient: str | None = None
    error_class: str | None = None
    older_s: float | None = None
    limit: int | None = None

    @property
    def is_all(self) -> bool:
        return self.ids == () and (self.table, self.patient, self.error_class, self.older_s) == (None,) * 4

    def values(self) -> dict[str, object]:
        return {
            "lanes": [job.lane for job in self.ids] or None,
            "seqs": [job.seq for job in self.ids] or None,
            "states": list(self.states) or None,
            "table": self.table,
            "lane": None if self.patient is None else lane_id(joined(("patient", self.patient))),
            "error_class": self.error_class,
            "older": None if self.older_s is None else timedelta(seconds=self.older_s),
            "limit": self.limit,
        }


class Listed(NamedTuple):
    """A job, as it is listed: never with its row."""

    id: JobId
    table: str
    mapping: str
    key: str
    operation: str
    patient: str | None
    state: str
    attempts: int
    error_class: str | None
    error_message: str | None
    change: str
    composition_id: str | None
    composition_uid: str | None
    age_s: float
    priority: int
    created_at: datetime
    finished_at: datetime | None
    next_attempt_at: datetime | None
    note: str | None
    ehr_id: str | None
    template_id: str | None
    lane_state: str
    is_next: bool

    def facts(self) -> dict[str, object]:
        return {**self._asdict(), "id": str(self.id), "age_s": round(self.age_s, 3)}


async def find(connection: Connection, chosen: Chosen) -> list[Listed]:
    """The jobs that are meant, oldest first."""
    query = _q.find_given_jobs if chosen.ids else _q.find_jobs
    return [_listed(row) for row in await rows(connection, query, **chosen.values())]


def _listed(row: TupleRow) -> Listed:
    return Listed(JobId(row[0], row[1]), *row[2:])


async def show(connection: Connection, job: JobId) -> dict[str, Any]:
    """All about one job but its row, with what people have decided about it."""
    values = job._asdict()
    found = await rows(connection, _q.show_job, **values)
    if not found:
        raise ReplicatorError(f"there is no job {job}", "What was finished long ago has left the queue.")
    decided = await rows(connection, _q.job_audit, **values)
    audit = [dict(zip(("at", "who", "action", "why"), row, strict=True)) for row in decided]
    facts = found[0][0]
    ordered = {name: facts.pop(name) for name in _FIRST if name in facts}
    return {"id": str(job), **ordered, **facts, "decided": audit}


class Decided(NamedTuple):
    """What was decided, and what may have been too late."""

    jobs: list[JobId]
    #: Of those that were meant, the ones in a lane that a worker has, and who that is: one of them may be on
    #: its way already.
    taken: Mapping[JobId, str]


async def decide(connection: Connection, action: Action, chosen: Chosen, who: str, why: str) -> Decided:
    """Do this with the jobs that are meant, and write down who has decided so; which ones they were."""
    async with connection.transaction():
        meant = [job.id for job in await find(connection, chosen) if job.state in STATES[action]]
        if not meant:
            return Decided([], {})
        pairs = {"lanes": [job.lane for job in meant], "seqs": [job.seq for job in meant]}
        lanes = {"lanes": sorted({job.lane for job in meant})}
        await connection.execute(_q.stop_lanes, lanes)
        await _lay_out(connection, meant, lanes["lanes"] if action == "replay" else [])
        if action == "replay":
            changed, holders = await _replay(connection, pairs), dict[int, str]()
        else:
            found = await rows(connection, _q.interrupt, **lanes)
            holders = {lane: holder for lane, holder, _ in found}
            at_work = [lane for lane, _, is_held in found if is_held]
            changed = await rows(connection, _CHANGES[action], **pairs, why=why, taken=at_work)
            await connection.execute(_q.park_lanes if action == "park" else _q.free_lanes, lanes)
        await _audit(connection, action, changed, who, why)
        await connection.execute(_q.tell_taken if holders else _q.tell)
        taken = {job: holders[job.lane] for job in meant if job.lane in holders}
        return Decided([JobId(row[0], row[1]) for row in changed], taken)


async def _lay_out(connection: Connection, jobs: Sequence[JobId], whole: Sequence[int]) -> None:
    """What these jobs are in, and what was before them; of these lanes all there is."""
    uptos = dict[int, int]()
    for job in jobs:
        uptos[job.lane] = max(job.seq, uptos.get(job.lane, 0))
    uptos |= {lane: upto for lane, upto in await rows(connection, _q.last_parcels, lanes=list(whole))}
    await lay_out(connection, uptos)


async def stood_for(connection: Connection, jobs: Sequence[JobId]) -> dict[JobId, list[JobId]]:
    """By each of these jobs, those that were not delivered because it was to be delivered in their place."""
    asked = {"lanes": [job.lane for job in jobs], "seqs": [job.seq for job in jobs]}
    found: dict[JobId, list[JobId]] = {}
    for lane, instead, seq in await rows(connection, _q.merged_into, **asked):
        found.setdefault(JobId(lane, instead), []).append(JobId(lane, seq))
    return found


async def _replay(connection: Connection, pairs: dict[str, list[int]]) -> list[TupleRow]:
    found = await rows(connection, _q.lanes_of_jobs, **pairs)
    added = {row[0]: row[3] for row in found}
    extended = await rows(
        connection,
        _q.extend_lanes,
        ids=[row[0] for row in found],
        names=[row[1] for row in found],
        patients=[row[2] for row in found],
        ehrs=[None for _ in found],
        jobs=[row[3] for row in found],
        priorities=[row[4] for row in found],
        urgent=[row[3] for row in found],
    )
    before = {
        "before_lanes": [lane for lane, *_ in extended],
        "before": [n - added[lane] for lane, n, _ in extended],
    }
    await connection.execute(_q.forget_compositions, pairs)
    return await rows(connection, _q.replay_jobs, **pairs, **before)


async def _audit(connection: Connection, action: str, jobs: Sequence[TupleRow], who: str, why: str) -> None:
    columns: dict[str, object] = {
        name: [row[at] for row in jobs] for at, name in enumerate(("lanes", "seqs", "mappings", "keys"))
    }
    await connection.execute(_q.audit, {"who": who, "action": action, "why": why, **columns})
