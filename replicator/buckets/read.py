"""A position in the history → the Ops after it, as checkpoints make them visible."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from replicator import queries
from replicator.buckets.model import Checkpoint, Op, OpId, Position
from replicator.database import Connection, rows
from replicator.wal.lsn import Lsn

_q = queries.load("buckets")

#: A notice can be lost with the connection that carried it, so a reader also looks by itself.
_POLL_S = 2.0
_PAGE_ROWS = 1000


async def position(connection: Connection, slot: str) -> Position | None:
    """Where a slot's stream stands, if it ever began."""
    found = await rows(connection, _q.checkpoint, slot=slot)
    if not found:
        return None
    op_id, lsn, fence, system_id, timeline, recorded_at, shown_op_id, shown_lsn, given_up, clock = found[0]
    stored = Checkpoint(OpId(op_id), Lsn.parse(lsn))
    shown = None if shown_op_id is None else Checkpoint(OpId(shown_op_id), Lsn.parse(shown_lsn))
    return Position(stored, shown, fence, system_id, timeline, recorded_at, given_up, clock)


async def follow(
    connection: Connection, slot: str, *, after: OpId, bucket: str | None = None
) -> AsyncIterator[tuple[Checkpoint, list[Op]]]:
    """Each new checkpoint with the ops it makes visible, a page at a time, for as long as one listens."""
    await connection.execute(_q.listen)
    while True:
        now = await position(connection, slot)
        shown = now.shown if now is not None else None
        if shown is not None and shown.op_id > after:
            async for page in _pages(connection, after, shown.op_id, bucket):
                yield shown, page
            after = shown.op_id
        async for _ in connection.notifies(timeout=_POLL_S, stop_after=1):
            pass


async def _pages(
    connection: Connection, after: OpId, upto: OpId, bucket: str | None
) -> AsyncIterator[list[Op]]:
    while True:
        found = await rows(connection, _q.read_ops, after=after, upto=upto, bucket=bucket, limit=_PAGE_ROWS)
        if found:
            yield [Op(*row) for row in found]
        if len(found) < _PAGE_ROWS:
            return
        after = OpId(found[-1][0])
        await asyncio.sleep(0)
