"""Jobs → what a binary COPY adds to the queue, lane by lane. No I/O.

Most of what a job costs storage is the reading of its columns as text, and a place of its own in the index:
as storage has them itself, and next to those of the same lane, it takes in twice as many.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from functools import lru_cache
from struct import Struct
from typing import TYPE_CHECKING

from replicator.ehr.identity import bytes_of

if TYPE_CHECKING:
    from replicator.ehr.job import Job
    from replicator.ehr.queue_inserted import Insertion, Write

#: How such a COPY begins, and ends.
_BEGIN, _END = b"PGCOPY\n\xff\r\n\0" + bytes(8), b"\xff\xff"
#: So much is handed over together.
_BLOCK_BYTES = 1 << 16
#: How many columns there are, a lane, and the length of a number in it; that before such a number.
_lane, _number = Struct(">hiqi").pack, Struct(">18sq").pack
_length = Struct(">i").pack
_NULL = _length(-1)
#: commit_lsn, ordinal and part.
_change = Struct(">iQiqii").pack
#: priority and may_merge.
_manner = Struct(">iii?").pack
_COLUMNS = 17
#: What a job takes in memory besides its columns.
OVERHEAD = 64


class Waiting:
    """A lane, the jobs that are added to it, and how urgent they are."""

    __slots__ = ("before", "id", "jobs", "name", "patient", "priority", "urgent_upto")

    def __init__(self, name: str, patient: str | None, priority: int) -> None:
        self.id, self.name, self.patient, self.priority = lane_id(name), name, patient, priority
        #: Each without its lane and its number there.
        self.jobs: list[bytes] = []
        self.urgent_upto = self.before = 0

    def add(self, job: bytes, priority: int) -> None:
        self.jobs.append(job)
        if priority <= self.priority:
            self.priority, self.urgent_upto = priority, len(self.jobs)


@lru_cache(maxsize=65_536)
def lane_id(name: str) -> int:
    """The number of a lane, which fits a bigint."""
    return int.from_bytes(hashlib.sha1(name.encode(), usedforsecurity=False).digest()[:8], signed=True)


class Added:
    """Jobs that lack their numbers, by the lanes they are for."""

    def __init__(self) -> None:
        self.lanes: dict[int, Waiting] = {}
        #: How much memory they take, about.
        self.bytes = 0
        self._writers: dict[Insertion, Write] = {}

    def __len__(self) -> int:
        return sum([len(lane.jobs) for lane in self.lanes.values()])

    def add(self, job: Job) -> None:
        row = _without_number(job)
        self.lane(job.lane, job.patient, job.priority).add(row, job.priority)
        self.bytes += len(row) + OVERHEAD

    def lane(self, name: str, patient: str | None, priority: int) -> Waiting:
        """The lane of this name, which may be new among these."""
        lane = self.lanes.get(lane_id(name))
        if lane is None:
            lane = Waiting(name, patient, priority)
            self.lanes[lane.id] = lane
        return lane

    def writer(self, insertion: Insertion) -> Write:
        """What adds inserted rows to these, without a job."""
        if (write := self._writers.get(insertion)) is None:
            write = self._writers[insertion] = insertion(self)
        return write

    def numbered(self) -> Iterator[bytes]:
        """With each one's number in its lane, from what the lanes had before."""
        return self._blocks(lambda lane: lane.before)

    def counted(self, before: int) -> Iterator[bytes]:
        """Numbered across the lanes; those of one lane in the order in which they came."""

        def count(lane: Waiting) -> int:
            nonlocal before
            before += len(lane.jobs)
            return before - len(lane.jobs)

        return self._blocks(count)

    def _blocks(self, before: Callable[[Waiting], int]) -> Iterator[bytes]:
        parts, size = [_BEGIN], 0
        for lane in sorted(self.lanes.values(), key=lambda lane: lane.id):
            begin = _lane(_COLUMNS, 8, lane.id, 8)
            for number, job in enumerate(lane.jobs, before(lane) + 1):
                parts += (_number(begin, number), job)
                size += len(job)
            if size >= _BLOCK_BYTES:
                yield b"".join(parts)
                parts, size = [], 0
        yield b"".join([*parts, _END])


def field(value: bytes | None) -> bytes:
    """A column's value."""
    return _NULL if value is None else _length(len(value)) + value


def end(priority: int, may_merge: bool, trouble: str | None = None) -> bytes:
    """The last columns of a job."""
    return _manner(4, priority, 1, may_merge) + text(trouble)


def _without_number(job: Job) -> bytes:
    at = job.change
    return b"".join(
        (
            text(job.table),
            text(job.mapping),
            text(job.key),
            text(job.operation.value),
            text(job.patient),
            field(None if job.ehr is None else bytes_of(job.ehr)),
            field(None if job.composition is None else bytes_of(job.composition)),
            text(job.template),
            _change(8, at.commit_lsn, 8, at.ordinal, 4, job.part),
            field(job.snapshot),
            end(job.priority, job.coalesce, job.trouble),
        )
    )


def text(value: str | None) -> bytes:
    return _NULL if value is None else field(value.encode())
