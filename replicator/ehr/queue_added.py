"""Jobs → the parcels that a binary COPY adds to the queue, lane by lane. No I/O.

Most of what a job costs storage is a row of its own, and a place of its own in the index. So those of a lane
that come together are a parcel, one row, until somebody works on them. What jobs have in common is noted
once, as their manner, and what is the same for all of a lane stands there.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from struct import Struct
from sys import getsizeof
from typing import TYPE_CHECKING

import orjson

from replicator.binary_copy import BEGIN, END, NULL, column
from replicator.ehr.identity import bytes_of, number_of
from replicator.ehr.queue_manners import Manner

if TYPE_CHECKING:
    from replicator.ehr.job import Job

#: So much is handed over together.
_BLOCK_BYTES = 1 << 16
#: How many jobs a parcel has at most, and how long about: so two are a page of storage.
_PARCEL, _PARCEL_LENGTH = 64, 3_900
#: How many columns there are, a lane, the number of its first job, how many there are, and how long they are.
_parcel = Struct(">hiqiqiii").pack
_integer = Struct(">ii").pack
#: What a job takes in memory besides its text, and a lane.
OVERHEAD, _LANE = 64, 1024


class Waiting:
    """A lane, the jobs that are added to it, and how urgent they are."""

    __slots__ = ("before", "ehr", "id", "is_others", "jobs", "name", "patient", "priority", "urgent_upto")

    def __init__(self, name: str, patient: str | None, ehr: str | None, priority: int) -> None:
        self.id, self.name, self.priority = lane_id(name), name, priority
        self.patient, self.ehr = patient, ehr
        #: Each as JSON, without its number.
        self.jobs: list[str] = []
        #: Whether storage has the lane for another patient or another EHR, so that its parcels say theirs.
        self.is_others = False
        self.urgent_upto = self.before = 0

    def add(self, job: str, priority: int) -> None:
        self.jobs.append(job)
        if priority <= self.priority:
            self.priority, self.urgent_upto = priority, len(self.jobs)

    @property
    def home(self) -> tuple[str, str | None]:
        """Whose it is."""
        return self.name, self.ehr

    def parcels(self, columns: int, before: int) -> Iterator[bytes]:
        """The first four of so many columns of each, given how many jobs the lane had before."""
        jobs, count = self.jobs, len(self.jobs)
        each = min(_PARCEL, max(1, _PARCEL_LENGTH * count // (sum(map(len, jobs)) + count)))
        for at in range(0, count, each):
            some = jobs[at : at + each]
            part = f"[{','.join(some)}]".encode()
            yield _parcel(columns, 8, self.id, 8, before + at + 1, 4, len(some), len(part))
            yield part


@lru_cache(maxsize=65_536)
def lane_id(name: str) -> int:
    """The number of a lane, which fits a bigint."""
    return number_of(name.encode())


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
        lane = self.lane(job.lane, job.patient, job.ehr, job.priority)
        is_lanes = (job.patient, job.ehr) == (lane.patient, lane.ehr)
        text = _text_of(job, self.manner(Manner.of(job)), is_lanes)
        lane.add(text, job.priority)
        # As memory has it: a character beyond ASCII makes all of them wider.
        self.bytes += (len(text) if text.isascii() else getsizeof(text)) + OVERHEAD

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
        """All, with each one's number in its lane, from what the lanes had before."""
        parts, size = [BEGIN], 0
        for lane in self._in_order():
            whose = _whose(lane) if lane.is_others else NULL + NULL
            for number, part in enumerate(lane.parcels(6, lane.before)):
                parts += (part, whose) if number % 2 else (part,)
                size += len(part)
            if size >= _BLOCK_BYTES:
                yield b"".join(parts)
                parts, size = [], 0
        yield b"".join([*parts, END])

    def counted(self, before: int) -> Iterator[bytes]:
        """All, with what makes their lanes known, numbered across them; those of a lane in their order."""
        parts, size = [BEGIN], 0
        for lane in self._in_order():
            known = _whose(lane) + column(lane.name.encode()) + _integer(4, lane.priority)
            for number, part in enumerate(lane.parcels(8, before)):
                parts += (part, known) if number % 2 else (part,)
                size += len(part)
            before += len(lane.jobs)
            if size >= _BLOCK_BYTES:
                yield b"".join(parts)
                parts, size = [], 0
        yield b"".join([*parts, END])

    def _in_order(self) -> list[Waiting]:
        return sorted(self.lanes.values(), key=lambda lane: lane.id)


def _text_of(job: Job, manner: int, is_lanes: bool) -> str:
    said: dict[str, object] = {
        "manner": manner,
        "key": job.key,
        "id": None if job.composition is None else job.composition.replace("-", ""),
        "lsn": str(job.change.commit_lsn),
        "ordinal": job.change.ordinal,
        "row": None if job.snapshot is None else orjson.Fragment(job.snapshot),
    }
    if job.part:
        said["part"] = job.part
    if not is_lanes:
        said |= {"patient": job.patient or "", "ehr": job.ehr}
    if job.trouble is not None:
        said["trouble"] = job.trouble
    return orjson.dumps(said).decode()


def _whose(lane: Waiting) -> bytes:
    return column((lane.patient or "").encode()) + column(None if lane.ehr is None else bytes_of(lane.ehr))
