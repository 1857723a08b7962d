"""Jobs → the queue, in the storage transaction that advances the checkpoint.

A lane is a patient's, and is known by a hash of its name: nobody has to be asked for a number. Its jobs are
counted in its own row, which is taken before they get their numbers and kept until the commit. So in each
lane numbers become visible in their order, whoever appends: the writer, or an operator who replays.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from replicator import queries
from replicator.database import Connection, rows
from replicator.ehr.identity import joined
from replicator.ehr.job import Job, Jobs
from replicator.ehr.queue_inserted import Insertion, Line, insertion
from replicator.wal.lsn import Lsn
from replicator.wal.messages import Relation
from replicator.wal.transactions import Change, Kind

if TYPE_CHECKING:
    from replicator.ehr.queue_found import Finder

_q = queries.load("queue")

#: So many are kept back in memory.
_HELD = 20_000
#: COPY text format: nothing, and what must be escaped in a value.
NULL = r"\N"
_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


class Waiting:
    """A lane, how many jobs are added to it, and how urgent they are."""

    __slots__ = ("before", "id", "jobs", "name", "patient", "priority", "urgent_upto")

    def __init__(self, name: str, patient: str | None, priority: int) -> None:
        self.id, self.name, self.patient, self.priority = lane_id(name), name, patient, priority
        self.jobs = self.urgent_upto = self.before = 0

    def add(self, priority: int) -> int:
        """One more; its place among them."""
        self.jobs += 1
        if priority <= self.priority:
            self.priority, self.urgent_upto = priority, self.jobs
        return self.jobs


@lru_cache(maxsize=65_536)
def lane_id(name: str) -> int:
    """The number of a lane, which fits a bigint."""
    return int.from_bytes(hashlib.sha1(name.encode(), usedforsecurity=False).digest()[:8], signed=True)


class Lines:
    """Jobs, as lines of COPY that lack their numbers, and the lanes they are for."""

    def __init__(self) -> None:
        self.lanes: dict[int, Waiting] = {}
        self._of_patients: dict[str, Waiting] = {}
        self._lines: list[tuple[Waiting, int, str]] = []

    def __len__(self) -> int:
        return len(self._lines)

    def add(self, job: Job) -> None:
        lane = self.lanes.get(lane_id(job.lane))
        if lane is None:
            lane = Waiting(job.lane, job.patient, job.priority)
            self.lanes[lane.id] = lane
        self._lines.append((lane, lane.add(job.priority), _tail(job)))

    def add_line(self, line: Line, priority: int) -> None:
        patient, tail = line
        lane = self._of_patients.get(patient)
        if lane is None:
            name = joined(("patient", patient))
            lane = self.lanes.setdefault(lane_id(name), Waiting(name, patient, priority))
            self._of_patients[patient] = lane
        self._lines.append((lane, lane.add(priority), tail))

    def numbered(self) -> bytes:
        """With each one's number in its lane, from what the lanes had before."""
        return "".join([f"{lane.id}\t{lane.before + at}\t{tail}" for lane, at, tail in self._lines]).encode()

    def counted(self, before: int) -> bytes:
        """Numbered in the order in which they came, whatever their lanes."""
        found = enumerate(self._lines, before + 1)
        return "".join([f"{lane.id}\t{number}\t{tail}" for number, (lane, _, tail) in found]).encode()


class Known(NamedTuple):
    """What a change of a table may mean."""

    is_concerned: bool
    insertion: Insertion | None
    priority: int


class Meanings:
    """A mapping, and what the tables it has met may mean: for one feed after another."""

    def __init__(self, jobs: Jobs, finder: Finder | None = None) -> None:
        self.jobs, self.finder = jobs, finder
        self._known: dict[object, Known] = {}

    def of(self, relation: Relation) -> Known:
        columns = tuple([column.name for column in relation.columns])
        key = relation.namespace, relation.name, columns
        if (known := self._known.get(key)) is None:
            name = f"{relation.namespace}.{relation.name}"
            made = insertion(self.jobs.mapping, name, columns)
            priority = self.jobs.mapping.of(name)[0].priority if made is not None else 0
            is_concerned = self.jobs.concern(relation.namespace, relation.name)
            known = self._known[key] = Known(is_concerned, made, priority)
        return known


class Feed:
    """The jobs of one storage transaction, made as its changes pass and appended when it is committed.

    Those of a large transaction do not stay in memory; they go into storage before, though into no lane yet.
    """

    def __init__(self, meanings: Meanings) -> None:
        self._meanings = meanings
        if meanings.finder is not None:
            meanings.finder.forget()
        self._lines = Lines()
        self._arrived = 0

    @property
    def is_full(self) -> bool:
        return len(self._lines) >= _HELD

    async def add(self, changes: Sequence[Change], commit_lsn: Lsn) -> None:
        """Whole changes of one transaction, in order."""
        lines, meanings, at = self._lines, self._meanings, str(commit_lsn)
        if (finder := meanings.finder) is not None:
            await finder.learn(meanings.jobs, changes, commit_lsn)
        relation: Relation | None = None
        known = Known(False, None, 0)
        for change in changes:
            if change.relation is not relation:
                relation = change.relation
                known = meanings.of(relation)
            if not known.is_concerned:
                continue
            if change.kind is Kind.INSERT and known.insertion is not None and change.new is not None:
                line = known.insertion(change.new, f"{at}\t{change.ordinal}")
                if line is not None:
                    lines.add_line(line, known.priority)
                    continue
            made: Iterable[Job] = meanings.jobs.of(change, commit_lsn)
            for job in made if finder is None else finder.kept(meanings.jobs, made):
                lines.add(job)

    async def spill(self, connection: Connection) -> None:
        """Let storage keep what is held, in its open transaction."""
        lines, self._lines = self._lines, Lines()
        async with connection.cursor().copy(_q.append_arrivals) as copy:
            await copy.write(lines.counted(self._arrived))
        self._arrived += len(lines)

    async def send(self, connection: Connection) -> None:
        """Append all of them, just before the commit."""
        if not self._arrived:
            lines, self._lines = self._lines, Lines()
            await _append(connection, lines)
            return
        await self.spill(connection)
        await connection.execute(_q.take_in)
        await connection.execute(_q.clear_arrivals)
        await connection.execute(_q.tell)


async def append(connection: Connection, jobs: Iterable[Job]) -> None:
    """Add jobs in this order, inside the open transaction; last of all, for it holds their lanes."""
    lines = Lines()
    for job in jobs:
        lines.add(job)
    await _append(connection, lines)


async def _append(connection: Connection, lines: Lines) -> None:
    if not lines:
        return
    for number, appended in await rows(connection, _q.extend_lanes, **_columns(lines.lanes)):
        lane = lines.lanes[number]
        lane.before = appended - lane.jobs
    async with connection.cursor().copy(_q.append_jobs) as copy:
        await copy.write(lines.numbered())
    await connection.execute(_q.tell)


def _columns(lanes: dict[int, Waiting]) -> dict[str, str]:
    """The arrays of `extend_lanes` as Postgres reads them: the driver would look at each element twice."""
    found = list(lanes.values())
    return {
        "ids": array_of([str(lane.id) for lane in found]),
        "names": array_of([quoted(lane.name) for lane in found]),
        "patients": array_of(["NULL" if lane.patient is None else quoted(lane.patient) for lane in found]),
        "jobs": array_of([str(lane.jobs) for lane in found]),
        "priorities": array_of([str(lane.priority) for lane in found]),
        "urgent": array_of([str(lane.urgent_upto) for lane in found]),
    }


def array_of(elements: list[str]) -> str:
    return f"{{{','.join(elements)}}}"


def quoted(text: str) -> str:
    if "\\" in text or '"' in text:
        text = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'


def _tail(job: Job) -> str:
    """A job as a line of COPY, without its lane and its number there."""
    # JSON has already escaped everything but the backslashes it did so with.
    snapshot = NULL if job.snapshot is None else job.snapshot.decode().replace("\\", "\\\\")
    change, may_merge = job.change, "t" if job.coalesce else "f"
    return (
        f"{_text(job.table)}\t{_text(job.mapping)}\t{_text(job.key)}\t{job.operation.value}\t{_text(job.patient)}\t"
        f"{job.ehr or NULL}\t{job.composition or NULL}\t{_text(job.template)}\t"
        f"{change.commit_lsn}\t{change.ordinal}\t{job.part}\t{snapshot}\t"
        f"{job.priority}\t{may_merge}\t{_text(job.trouble)}\n"
    )


def _text(value: str | None) -> str:
    if value is None:
        return NULL
    return value if value.isprintable() and "\\" not in value else value.translate(_ESCAPES)
