"""Ops of one bucket, and which of them are dead → the MOVEs and the CLEAR that take their place. No I/O.

An op is dead when a later one is about the same row. What it said need not be told to anybody any more, but a
client adds up the checksums of all ops there were. So a run of dead ops becomes one MOVE that stands at the
id of the last and carries their sum. The run at the beginning, to which REMOVEs belong whether they are dead
or not, becomes a CLEAR: whoever has not come past it drops what they hold, of which nothing is left, and
begins with its sum.

A client can stand in the middle of what a MOVE stands for: it was there when it last heard of us, a day or a
year ago. What it has added up already must not be told it again. So the ids and checksums of all but the last
are kept beside the MOVE, eight bytes each, and a reader that begins between them takes away those before.
"""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

#: A MOVE stands for so many ops at most: what is kept beside it is read as a whole.
MERGED_MAX = 250
#: And none of them is further from it than this.
_FARTHEST = 1 << 32


class Old(NamedTuple):
    """An op as it is stored; only of an op without content more than its place and checksum matters."""

    op_id: int
    op: str
    checksum: int
    #: The op that has overtaken it; of a MOVE or CLEAR, the last that has overtaken what it stands for.
    target: int | None
    #: What is kept beside a MOVE.
    ops: bytes | None


class Made(NamedTuple):
    """The op that takes the place of some."""

    op_id: int
    op: str
    checksum: int
    target: int
    ops: bytes | None


@dataclass(slots=True)
class Merge:
    """What becomes of a stretch of ops."""

    made: list[Made] = field(default_factory=list)
    #: The ops in whose place others stand.
    gone: list[int] = field(default_factory=list)
    #: After which op the next stretch begins, so that a run which may go on is taken up again.
    next_after: int = 0


class _Run:
    """Dead ops, one after the other."""

    def __init__(self, is_first: bool) -> None:
        self.is_first = is_first
        self.rows: list[Old] = []
        self.ids, self.checksums = array("q"), array("i")

    def fits(self, row: Old) -> bool:
        """Whether a row may be taken in as well."""
        if self.is_first or not self.rows:
            return True
        count = len(self.ids) + (len(row.ops) // 8 if row.ops else 0)
        return count < MERGED_MAX and row.op_id - self.ids[0] < _FARTHEST

    def add(self, row: Old) -> None:
        self.rows.append(row)
        if self.is_first:
            return
        ids, checksums = unpack(row.op_id, row.ops) if row.ops else (array("q"), array("i"))
        self.ids += ids
        self.checksums += checksums
        self.ids.append(row.op_id)
        self.checksums.append(_signed(row.checksum - sum(checksums)))

    def made(self) -> Made:
        """The op that takes their place."""
        last = self.rows[-1].op_id
        target = max(row.target if row.target is not None else row.op_id for row in self.rows)
        checksum = _signed(sum(row.checksum for row in self.rows))
        kind = "CLEAR" if self.is_first else "MOVE"
        others = None if self.is_first else pack(last, self.ids[:-1], self.checksums[:-1])
        return Made(last, kind, checksum, target, others)

    @property
    def is_as_it_was(self) -> bool:
        return len(self.rows) == 1 and self.rows[0].op == ("CLEAR" if self.is_first else "MOVE")


def merge(rows: Iterable[Old], *, after: int) -> Merge:
    """What becomes of the ops that follow `after`, where 0 is before the first of all."""
    merged = Merge(next_after=after)
    run = _Run(is_first=after == 0)
    for row in rows:
        is_dead = row.op in ("MOVE", "CLEAR") or row.target is not None
        if not (is_dead or (run.is_first and row.op == "REMOVE")):
            _end(run, merged)
            merged.next_after = row.op_id
            run = _Run(is_first=False)
            continue
        if not run.fits(row):
            _end(run, merged)
            merged.next_after = run.rows[-1].op_id
            run = _Run(is_first=False)
        run.add(row)
    _end(run, merged)
    return merged


def _end(run: _Run, merged: Merge) -> None:
    if not run.rows or run.is_as_it_was:
        return
    merged.made.append(run.made())
    merged.gone += [row.op_id for row in run.rows[:-1]]


# -- what is kept beside a MOVE --------------------------------------------------------------------


def pack(op_id: int, ids: Sequence[int], checksums: Sequence[int]) -> bytes | None:
    """The ops besides itself that a MOVE stands for, in their order; None if there are none."""
    if not ids:
        return None
    back, sums = array("I", [op_id - one for one in ids]), array("i", checksums)
    if sys.byteorder != "little":
        back.byteswap()
        sums.byteswap()
    return back.tobytes() + sums.tobytes()


def unpack(op_id: int, ops: bytes) -> tuple[array[int], array[int]]:
    """Their ids, and their checksums."""
    half = len(ops) // 2
    back, sums = array("I", ops[:half]), array("i", ops[half:])
    if sys.byteorder != "little":
        back.byteswap()
        sums.byteswap()
    return array("q", [op_id - one for one in back]), sums


def told_before(op_id: int, ops: bytes, at: int) -> int:
    """What those come to of the ops a MOVE stands for that are not after a position."""
    ids, checksums = unpack(op_id, ops)
    return sum(checksums[: bisect_right(ids, at)])


def _signed(checksum: int) -> int:
    """Modulo 2^32, as storage has it."""
    return (checksum + (1 << 31)) % (1 << 32) - (1 << 31)
