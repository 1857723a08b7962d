"""Jobs → the queue, in the storage transaction that advances the checkpoint.

A lane is a patient's, and is known by a hash of its name: nobody has to be asked for a number. Its jobs are
counted in its own row, which is taken before they get their numbers and kept until the commit. So in each
lane numbers become visible in their order, whoever appends: the writer, or an operator who replays.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from functools import lru_cache

from replicator import queries
from replicator.database import Connection, rows
from replicator.ehr.job import Job, Jobs
from replicator.wal.lsn import Lsn
from replicator.wal.transactions import Change

_q = queries.load("queue")

#: So many are kept back in memory.
_HELD = 20_000
#: COPY text format: what must be escaped in a value.
_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


class Waiting:
    """How many jobs are added to a lane, and how urgent they are."""

    __slots__ = ("jobs", "name", "patient", "priority", "urgent_upto")

    def __init__(self, name: str, patient: str | None, priority: int) -> None:
        self.name, self.patient, self.priority = name, patient, priority
        self.jobs = self.urgent_upto = 0

    def add(self, priority: int) -> None:
        self.jobs += 1
        if priority <= self.priority:
            self.priority, self.urgent_upto = priority, self.jobs


@lru_cache(maxsize=65_536)
def lane_id(name: str) -> int:
    """The number of a lane, which fits a bigint."""
    return int.from_bytes(hashlib.sha1(name.encode(), usedforsecurity=False).digest()[:8], signed=True)


class Feed:
    """The jobs of one storage transaction, made as its changes pass and appended when it is committed.

    Those of a large transaction do not stay in memory; they go into storage before, though into no lane yet.
    """

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs
        self._held: list[Job] = []
        self._arrived = 0

    @property
    def is_full(self) -> bool:
        return len(self._held) >= _HELD

    def add(self, changes: Iterable[Change], commit_lsn: Lsn) -> None:
        """Whole changes of one transaction, in order."""
        concern, of = self._jobs.concern, self._jobs.of
        for change in changes:
            relation = change.relation
            if concern(relation.namespace, relation.name):
                self._held += of(change, commit_lsn)

    async def spill(self, connection: Connection) -> None:
        """Let storage keep what is held, in its open transaction."""
        held, self._held = self._held, []
        if not held:
            return
        # Counted as one lane's, because only their order matters until they are taken in.
        arrived = encode_jobs(held, [lane_id(job.lane) for job in held], _Counted(self._arrived))
        self._arrived += len(held)
        async with connection.cursor().copy(_q.append_arrivals) as copy:
            await copy.write(arrived)

    async def send(self, connection: Connection) -> None:
        """Append all of them, just before the commit."""
        if not self._arrived:
            held, self._held = self._held, []
            await append(connection, held)
            return
        await self.spill(connection)
        await connection.execute(_q.take_in)
        await connection.execute(_q.clear_arrivals)
        await connection.execute(_q.tell)


class _Counted(dict[int, int]):
    """Counts all lanes as one."""

    def __init__(self, last: int) -> None:
        super().__init__()
        self._last = last

    def __getitem__(self, lane: int) -> int:
        return self._last

    def __setitem__(self, lane: int, last: int) -> None:
        self._last = last


async def append(connection: Connection, jobs: Sequence[Job]) -> None:
    """Add jobs in this order, inside the open transaction; last of all, for it holds their lanes."""
    if not jobs:
        return
    lanes: dict[int, Waiting] = {}
    ids = []
    for job in jobs:
        ids.append(number := lane_id(job.lane))
        lane = lanes.get(number)
        if lane is None:
            lane = lanes[number] = Waiting(job.lane, job.patient, job.priority)
        lane.add(job.priority)
    extended = await rows(connection, _q.extend_lanes, **_columns(lanes))
    before = {number: appended - lanes[number].jobs for number, appended in extended}
    async with connection.cursor().copy(_q.append_jobs) as copy:
        await copy.write(encode_jobs(jobs, ids, before))
    await connection.execute(_q.tell)


def _columns(lanes: dict[int, Waiting]) -> dict[str, object]:
    found = list(lanes.values())
    return {
        "ids": list(lanes),
        "names": [lane.name for lane in found],
        "patients": [lane.patient for lane in found],
        "jobs": [lane.jobs for lane in found],
        "priorities": [lane.priority for lane in found],
        "urgent": [lane.urgent_upto for lane in found],
    }


def encode_jobs(jobs: Sequence[Job], ids: Sequence[int], before: dict[int, int]) -> bytes:
    """A line of COPY for each; `before` is the last number of each lane, and is counted on."""
    lines = []
    for job, lane in zip(jobs, ids, strict=True):
        before[lane] = seq = before[lane] + 1
        # JSON has already escaped everything but the backslashes it did so with.
        snapshot = r"\N" if job.snapshot is None else job.snapshot.decode().replace("\\", "\\\\")
        texts = "\t".join(
            [
                _text(job.table),
                _text(job.mapping),
                _text(job.key),
                job.operation.value,
                _text(job.patient),
                job.ehr or r"\N",
                job.composition or r"\N",
                _text(job.template),
            ]
        )
        change, may_merge = job.change, "t" if job.coalesce else "f"
        lines.append(
            f"{lane}\t{seq}\t{texts}\t{change.commit_lsn}\t{change.ordinal}\t{job.part}\t{snapshot}\t"
            f"{job.priority}\t{may_merge}\t{_text(job.trouble)}\n"
        )
    return "".join(lines).encode()


def _text(value: str | None) -> str:
    if value is None:
        return r"\N"
    return value if value.isprintable() and "\\" not in value else value.translate(_ESCAPES)
