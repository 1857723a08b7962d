"""Ops that later ones have overtaken → fewer ops that come to the same, while everybody reads and writes.

What is merged into what, `merge` decides. This file says when that is right, and does it in small steps.

Readers. A bucket is compacted up to one of its ops: an op is dead only if one up to there has overtaken it,
and only ops up to there are touched. So whoever reads at a checkpoint from there on finds the same rows and
the same sums before, between and after any two steps, wherever they have stood until then. Whoever reads at
an earlier one would find too little. That is recorded in the transaction before the first step, and every
page is read together with this record, so they are told that their checkpoint has been overtaken and go on
with a newer one from where they are. To make that rare, and for no other reason, compaction keeps away from
the checkpoints of the last minutes.

Writers. They only append, above the stored checkpoint; compaction stays below the shown one, and neither
waits for the other. Sums count every op there ever was, so a sum that is made while ops are removed is right
before and after; how many are gone stands beside them, and one sum is kept at the op that was compacted up
to, from which alone they are counted on. A sweep looks for the newest op of each row: those stay, but for
REMOVEs at the beginning, and of a row without an op there is nothing to sweep. While tables are copied, what
is shown stands still before the copies began, and so does compaction.

Buckets of rules that are over are taken away meanwhile (`retire`), some ops at a time. Each step holds its
bucket, which whoever takes ops of it away holds as well; and ends if there is none any more.

Itself. One at a time, by a lock. A step reads some thousand ops and is one short transaction, which also says
how far it came; killed anywhere, the next one goes on from there. What has overtaken an op of a large bucket
is looked up in a table in storage, of the rows that ops since the last time are about: what is older has been
compared with itself before. Of very many such ops, some are taken at a time.

The room that is left is Postgres's own to use again (autovacuum); nothing here needs VACUUM FULL.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from typing import NamedTuple

from replicator import queries
from replicator.buckets.merge import Merge, Old, merge
from replicator.buckets.model import OpId
from replicator.database import Connection, rows
from replicator.errors import StandingBy
from replicator.marks import mark

_q = queries.load("compact")

#: Checkpoints that have not been the newest for longer than this are hardly read at any more.
AGE_S = 300.0
#: Ops that one step reads.
STEP_OPS = 5_000
#: Ops of one bucket that may be new since it was last compacted; if there are more, it takes several rounds.
ROUND_OPS = 500_000
#: A bucket is worth compacting when there are so many new ops in it, and so large a part of all.
DUE_OPS, DUE_PART = 1_000, 0.2
_BUCKETS_AT_ONCE = 500


class Candidate(NamedTuple):
    """A bucket, and about how much there is in it to be compacted."""

    number: int
    name: str
    #: Since it was compacted; no more than are worth counting one by one.
    new_ops: int
    ops: int
    #: Whether a compaction of it was interrupted.
    is_begun: bool

    @property
    def is_due(self) -> bool:
        return self.is_begun or self.new_ops >= max(DUE_OPS, DUE_PART * self.ops)


class Step(NamedTuple):
    """What one transaction has done."""

    read: int
    removed: int
    #: What the rows took that are not there any more.
    bytes: int


class _Gone(Exception):
    """The bucket is not there any more."""


async def lock(connection: Connection) -> None:
    """Be the only one who compacts, for as long as this connection lasts."""
    if not (await rows(connection, _q.lock))[0][0]:
        raise StandingBy(
            "buckets are being compacted by another process",
            "`replicator run` does so by itself now and then. Try again in a while.",
        )


async def horizon(connection: Connection, slot: str, age_s: float = AGE_S) -> OpId | None:
    """Up to where compaction may go; None if there is nothing that is old enough."""
    found: int | None = (await rows(connection, _q.horizon, slot=slot, age=age_s))[0][0]
    return None if found is None else OpId(found)


async def candidates(
    connection: Connection, upto: OpId, name: str | None = None
) -> AsyncIterator[list[Candidate]]:
    """Every bucket, or one, with how much is in it by its sums; some at a time."""
    after = 0
    while True:
        found = [
            Candidate(*row)
            for row in await rows(
                connection, _q.page_of_buckets, after=after, horizon=upto, most=DUE_OPS, part=DUE_PART,
                name=name, limit=_BUCKETS_AT_ONCE,
            )
        ]  # fmt: skip
        if not found:
            return
        yield found
        after = found[-1].number


async def compact_bucket(connection: Connection, number: int, upto: OpId) -> AsyncGenerator[Step, None]:
    """Compact one bucket up to an op that readers have passed, a step at a time. To be stopped after any."""
    while True:
        stands = await _begin(connection, number, upto)
        if stands is None:
            return
        op_id, from_op_id, at = stands
        try:
            step = await _whole(connection, number, op_id) if not at else None
            if step is not None:
                yield step
                continue
            await _note_overtaking(connection, number, from_op_id, op_id)
            while at < op_id:
                step, at = await _step(connection, number, op_id, at)
                yield step
        except _Gone:
            return
        await connection.execute(_q.forget_overtaking)


async def count_left(connection: Connection, number: int) -> int:
    """How many ops a bucket has, of those that were there when it was compacted last."""
    found = await rows(connection, _q.left, bucket=number)
    return int(found[0][0]) if found else 0


async def _begin(connection: Connection, number: int, upto: OpId) -> tuple[int, int, int] | None:
    """The round that was interrupted, or a new one; None if there is nothing new."""
    stood = await rows(connection, _q.standing, bucket=number)
    if stood and stood[0][2] < stood[0][0]:
        op_id, from_op_id, at = stood[0]
        return op_id, from_op_id, at
    begin = stood[0][0] if stood else 0
    new = {"from_op_id": begin, "horizon": upto, "most": ROUND_OPS}
    op_id = (await rows(connection, _q.far_enough, bucket=number, **new))[0][0]
    if op_id is None:
        return None
    key = {"bucket": number, "op_id": op_id}
    async with connection.transaction():
        if not await rows(connection, _q.hold, bucket=number):
            return None
        # In this order: the sum that is counted on from is made of ops that are all still there.
        await connection.execute(_q.sum_up_to, key)
        await connection.execute(_q.begin, key)
        await connection.execute(_q.forget_totals, key)
    mark("compacting", bucket=number, op_id=op_id)
    return op_id, begin, 0


async def _whole(connection: Connection, number: int, op_id: int) -> Step | None:
    """All of a small bucket at once; None if it is not small."""
    async with connection.transaction():
        found = await _read(connection, _q.read_small, number, 0, op_id, STEP_OPS + 1)
        if len(found) > STEP_OPS:
            return None
        return await _store(connection, number, found, merge(found, after=0), op_id)


async def _step(connection: Connection, number: int, op_id: int, at: int) -> tuple[Step, int]:
    """The next ops of a large bucket, and where the step after it begins."""
    async with connection.transaction():
        found = await _read(connection, _q.read_large, number, at, op_id, STEP_OPS)
        merged = merge(found, after=at)
        at = op_id if len(found) < STEP_OPS else merged.next_after
        return await _store(connection, number, found, merged, at), at


async def _read(
    connection: Connection, query: bytes, number: int, after: int, upto: int, limit: int
) -> list[Old]:
    if not await rows(connection, _q.hold, bucket=number):
        raise _Gone
    found = await rows(connection, query, bucket=number, after=after, op_id=upto, limit=limit)
    return [Old(*row) for row in found]


async def _note_overtaking(connection: Connection, number: int, from_op_id: int, op_id: int) -> None:
    async with connection.transaction():
        await connection.execute(_q.forget_overtaking)
        new = {"bucket": number, "from_op_id": from_op_id, "op_id": op_id}
        await connection.execute(_q.note_overtaking, new)


async def _store(connection: Connection, number: int, read: list[Old], merged: Merge, at: int) -> Step:
    size = 0
    if merged.gone:
        [(count, freed)] = await rows(connection, _q.drop_ops, bucket=number, op_ids=merged.gone)
        assert count == len(merged.gone), f"bucket {number}: {count} ops are gone, not {len(merged.gone)}"
        size += freed
    if merged.made:
        made = merged.made
        ids = [one.op_id for one in made]
        [(count, freed)] = await rows(
            connection, _q.place_ops, bucket=number, op_ids=ids, ops=[one.op for one in made],
            checksums=[one.checksum for one in made], targets=[str(one.target) for one in made],
        )  # fmt: skip
        assert count == len(made), f"bucket {number}: {count} ops are placed, not {len(made)}"
        size += freed
        kept = [one.ops for one in made]
        await connection.execute(_q.place_merged, {"bucket": number, "op_ids": ids, "merged": kept})
        size -= sum(len(ops) for ops in kept if ops)
    await connection.execute(_q.advance, {"bucket": number, "at_op_id": at, "removed": len(merged.gone)})
    mark("compacted", bucket=number, read=len(read), removed=len(merged.gone))
    return Step(len(read), len(merged.gone), size)
