"""The ops of one row → the buckets that held it, and from when to when."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from itertools import groupby
from typing import NamedTuple

from replicator import queries
from replicator.database import Connection, rows

_q = queries.load("audit")


class Time(NamedTuple):
    """When something was stored: not before the one, and by the other; as far as that is known."""

    not_before: datetime | None
    by: datetime | None


class RowOp(NamedTuple):
    """One op of the row."""

    bucket: str
    object_type: str
    subkey: str
    op_id: int
    is_put: bool
    #: Whether the bucket has been compacted up to here, so that ops before this one may be gone.
    is_compacted: bool


class Held(NamedTuple):
    """A bucket held the row from one op on, and until another."""

    bucket: str
    object_type: str
    subkey: str
    #: None: from some op on that is not there any more.
    since: int | None
    until: int | None
    #: How often it was put there meanwhile, as far as that is known.
    puts: int
    #: Whether it may have been there before, by what has been compacted away.
    may_be_longer: bool


def spans(ops: Iterable[RowOp]) -> Iterator[Held]:
    """From when to when; the ops of a row in a bucket stand together, in their order."""
    for (bucket, object_type, subkey), some in groupby(ops, key=lambda op: op[:3]):
        since: int | None = None
        puts, is_first, is_compacted = 0, True, False
        for op in some:
            if op.is_put:
                if since is None:
                    since, is_compacted = op.op_id, op.is_compacted and is_first
                puts += 1
            elif since is not None or is_first:
                # What it removes is gone if nothing stands before it.
                is_longer = is_compacted or since is None
                yield Held(bucket, object_type, subkey, since, op.op_id, puts, is_longer)
                since, puts = None, 0
            is_first = False
        if since is not None:
            yield Held(bucket, object_type, subkey, since, None, puts, is_compacted)


async def history_of(
    connection: Connection, oid: int, row_id: str, buckets: Sequence[str] | None
) -> list[Held]:
    """Where a row of a table was, by all that is left of its history."""
    chosen = None if buckets is None else list(buckets)
    found = await rows(connection, _q.ops_of, id=row_id, prefix=f"{oid}/", buckets=chosen)
    return list(spans(RowOp(*row) for row in found))


async def times_of(connection: Connection, op_ids: Iterable[int | None]) -> dict[int, Time]:
    """When ops were stored: to the minute, and for the last minutes to the checkpoint."""
    asked = sorted({op_id for op_id in op_ids if op_id is not None})
    return {op_id: Time(*time) for op_id, *time in await rows(connection, _q.times, op_ids=asked)}
