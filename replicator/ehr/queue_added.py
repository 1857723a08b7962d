"""Jobs → what a binary COPY adds to the queue, lane by lane. No I/O.

Most of what a job costs storage is the reading of its columns as text, and a place of its own in the index:
as storage has them itself, and next to those of the same lane, it takes in twice as many. What jobs have in
common is noted once, as their manner, and what is the same for all of a lane stands there. So most jobs have
eight columns, and an odd one four more.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from functools import lru_cache
from struct import Struct
from typing import TYPE_CHECKING, NamedTuple

import orjson

from replicator.binary_copy import BEGIN, END, column
from replicator.ehr.identity import bytes_of

if TYPE_CHECKING:
    from replicator.ehr.job import Job
    from replicator.ehr.model import TableMapping

#: So much is handed over together.
_BLOCK_BYTES = 1 << 16
#: How many columns there are, a lane, and the length of a number in it; that before such a number.
_lane, _number = Struct(">hiqi").pack, Struct(">18sq").pack
#: A manner's number; commit_lsn and ordinal; part.
_manner, _change, _part = Struct(">iq").pack, Struct(">iQiq").pack, Struct(">ii").pack
_COLUMNS, _ODD = 8, 4
#: What a job takes in memory besides its columns, and a lane.
OVERHEAD, _LANE = 64, 1024


class Manner(NamedTuple):
    """What jobs have in common that come of the same table in the same way."""

    table: str
    mapping: str
    operation: str
    template: str | None
    priority: int
    may_merge: bool
    #: Whose texts the snapshots are, as a list; None where each says them itself.
    columns: tuple[str, ...] | None = None

    @property
    def id(self) -> int:
        """Its number, which fits a bigint. There are few, and a job is made of every mapped row."""
        return _number_of(self)

    @classmethod
    def of(cls, table: TableMapping, operation: str, columns: tuple[str, ...] | None = None) -> Manner:
        template = table.template.id if table.template else None
        return cls(table.table, table.name, operation, template, table.priority, table.coalesce, columns)


class Waiting:
    """A lane, the jobs that are added to it, and how urgent they are."""

    __slots__ = (
        "before",
        "ehr",
        "id",
        "is_others",
        "jobs",
        "name",
        "odd",
        "patient",
        "priority",
        "urgent_upto",
    )

    def __init__(self, name: str, patient: str | None, ehr: str | None, priority: int) -> None:
        self.id, self.name, self.priority = lane_id(name), name, priority
        self.patient, self.ehr = patient, ehr
        #: Each without its lane and its number there.
        self.jobs: list[bytes] = []
        #: The further columns of those of them that have any, by their places.
        self.odd: dict[int, bytes] = {}
        #: Whether storage has the lane for another patient or another EHR, so that each job says its own.
        self.is_others = False
        self.urgent_upto = self.before = 0

    def add(self, job: bytes, priority: int) -> None:
        self.jobs.append(job)
        if priority <= self.priority:
            self.priority, self.urgent_upto = priority, len(self.jobs)

    @property
    def home(self) -> tuple[str, str | None]:
        """Whose it is."""
        return self.name, self.ehr

    def whole(self) -> dict[int, bytes]:
        """Further columns for all of them."""
        rest = _odd(0, self.patient or "", self.ehr, None)
        return {at: self.odd.get(at, rest) for at in range(len(self.jobs))}


@lru_cache(maxsize=65_536)
def lane_id(name: str) -> int:
    """The number of a lane, which fits a bigint."""
    return _hashed(name.encode())


def _hashed(name: bytes) -> int:
    return int.from_bytes(hashlib.sha1(name, usedforsecurity=False).digest()[:8], signed=True)


class Added:
    """Jobs that lack their numbers, by the lanes they are for."""

    def __init__(self) -> None:
        self.lanes: dict[int, Waiting] = {}
        self.manners: dict[int, Manner] = {}
        #: How much memory they take, about.
        self.bytes = 0

    def __len__(self) -> int:
        return sum([len(lane.jobs) for lane in self.lanes.values()])

    def add(self, job: Job) -> None:
        row = _without_number(job, self.manner(_manner_of(job)))
        lane = self.lane(job.lane, job.patient, job.ehr, job.priority)
        if job.part or job.trouble is not None or (job.patient, job.ehr) != (lane.patient, lane.ehr):
            odd = lane.odd[len(lane.jobs)] = _odd(job.part, job.patient or "", job.ehr, job.trouble)
            self.bytes += len(odd) + OVERHEAD
        lane.add(row, job.priority)
        self.bytes += len(row) + OVERHEAD

    def lane(self, name: str, patient: str | None, ehr: str | None, priority: int) -> Waiting:
        """The lane of this name, which may be new among these."""
        lane = self.lanes.get(lane_id(name))
        if lane is None:
            lane = Waiting(name, patient, ehr, priority)
            self.lanes[lane.id] = lane
            self.bytes += _LANE
        return lane

    def manner(self, manner: Manner) -> int:
        """Its number; it is among those that are noted."""
        self.manners[manner.id] = manner
        return manner.id

    def numbered(self) -> Iterator[bytes]:
        """Those of eight columns, with each one's number in its lane, from what the lanes had before."""
        return self._blocks(lambda lane: lane.before)

    def odd(self) -> Iterator[bytes] | None:
        """The others, with all of theirs; None if there are none."""
        if not any([lane.odd or lane.is_others for lane in self.lanes.values()]):
            return None
        return self._whole_blocks(lambda lane: lane.before, is_all=False)

    def counted(self, before: int) -> Iterator[bytes]:
        """All, with all their columns, numbered across the lanes; those of a lane in the order they came."""

        def count(lane: Waiting) -> int:
            nonlocal before
            before += len(lane.jobs)
            return before - len(lane.jobs)

        return self._whole_blocks(count, is_all=True)

    def _blocks(self, before: Callable[[Waiting], int]) -> Iterator[bytes]:
        parts, size = [BEGIN], 0
        for lane in self._in_order():
            if lane.is_others:
                continue
            begin, first = _lane(_COLUMNS, 8, lane.id, 8), before(lane) + 1
            if lane.odd:
                kept = [at for at in range(len(lane.jobs)) if at not in lane.odd]
                parts += [_number(begin, first + at) + lane.jobs[at] for at in kept]
            else:
                for number, job in enumerate(lane.jobs, first):
                    parts += (_number(begin, number), job)
            if (size := size + sum(map(len, lane.jobs))) >= _BLOCK_BYTES:
                yield b"".join(parts)
                parts, size = [], 0
        yield b"".join([*parts, END])

    def _whole_blocks(self, before: Callable[[Waiting], int], is_all: bool) -> Iterator[bytes]:
        parts, size = [BEGIN], 0
        for lane in self._in_order():
            begin, first = _lane(_COLUMNS + _ODD, 8, lane.id, 8), before(lane) + 1
            odd = lane.whole() if is_all or lane.is_others else lane.odd
            for at, more in odd.items():
                parts += (_number(begin, first + at), lane.jobs[at], more)
                size += len(lane.jobs[at])
            if size >= _BLOCK_BYTES:
                yield b"".join(parts)
                parts, size = [], 0
        yield b"".join([*parts, END])

    def _in_order(self) -> list[Waiting]:
        return sorted(self.lanes.values(), key=lambda lane: lane.id)


def begin(manner: int) -> bytes:
    """The first column of a job after its number."""
    return _manner(8, manner)


@lru_cache(maxsize=1024)
def _number_of(manner: Manner) -> int:
    return _hashed(orjson.dumps(list(manner)))


def _manner_of(job: Job) -> Manner:
    return Manner(job.table, job.mapping, job.operation.value, job.template, job.priority, job.coalesce)


def _without_number(job: Job, manner: int) -> bytes:
    at = job.change
    return b"".join(
        (
            begin(manner),
            _text(job.key),
            _uuid(job.composition),
            _change(8, at.commit_lsn, 8, at.ordinal),
            column(job.snapshot),
        )
    )


def _odd(part: int, patient: str, ehr: str | None, trouble: str | None) -> bytes:
    return _part(4, part) + _text(patient) + _uuid(ehr) + _text(trouble)


def _uuid(value: str | None) -> bytes:
    return column(None if value is None else bytes_of(value))


def _text(value: str | None) -> bytes:
    return column(None if value is None else value.encode())
