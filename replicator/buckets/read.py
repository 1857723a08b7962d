"""A position in the history → the Ops after it, as checkpoints make them visible, and what they come to."""

from __future__ import annotations

import asyncio
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Sequence
from functools import partial

from replicator import queries
from replicator.buckets.merge import told_before
from replicator.buckets.model import Checkpoint, Op, OpId, Page, Position, Told, Total
from replicator.buckets.reduce import Reduction, overtaken
from replicator.database import Connect, Connection, rows
from replicator.errors import Unavailable
from replicator.rules import keys
from replicator.rules.ask import Answers
from replicator.rules.compile import Need
from replicator.rules.expression import Scalar
from replicator.wal.lsn import Lsn

_q = queries.load("buckets")

#: A notice can be lost with the connection that carried it, so a reader also looks by itself.
_POLL_S = 2.0
_PAGE_ROWS = 1000
#: What is read of one bucket at once; one op may be larger.
_PAGE_BYTES = 1 << 20
#: Where no row is larger than this, a page of them is small enough without being measured.
_LARGE = 2048


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


async def totals(connection: Connection, buckets: Sequence[str], upto: OpId) -> dict[str, Total]:
    """What each of these buckets comes to at a checkpoint; nothing of those that have no ops."""
    found = await rows(connection, _q.totals, buckets=list(buckets), upto=upto)
    if any(is_overtaken for *_, is_overtaken in found):
        # Only who has slept over a checkpoint can meet this: compaction keeps away from the newest ones.
        raise Unavailable(
            f"buckets have been compacted past checkpoint {upto}", "The newest one can be had instead."
        )
    return {name: Total(checksum, count) for name, checksum, count, _ in found if count}


async def told(connection: Connection, after: OpId, upto: OpId) -> Told:
    """What may have changed between two checkpoints."""
    buckets: set[str] | None = set()
    lookups: set[str] | None = set()
    for are_told, names, entries in await rows(connection, _q.changed, after=after, upto=upto):
        buckets = buckets.union(names) if buckets is not None and are_told else None
        lookups = lookups.union(entries) if lookups is not None and entries is not None else None
    return Told(
        None if buckets is None else frozenset(buckets), None if lookups is None else frozenset(lookups)
    )


async def answers(connection: Connection, needs: Collection[Need], upto: OpId) -> Answers:
    """To which values these keys of lookups lead, as of a checkpoint."""
    found: dict[Need, set[tuple[Scalar, ...]]] = {need: set() for need in needs}
    asked = {"lookups": [lookup for lookup, _ in needs], "keys": [key for _, key in needs]}
    for lookup, key, value in await rows(connection, _q.entries_at, **asked, upto=upto):
        found[lookup, key].add(keys.unpack(value))
    return found


async def read_bucket(
    connect: Connect, bucket: str, after: OpId, upto: OpId, *, page_rows: int = _PAGE_ROWS
) -> AsyncGenerator[Page, None]:
    """The ops of one bucket after a position and up to a checkpoint, reduced, a page at a time.

    No connection is held while somebody looks at a page. Between two of them, the bucket may be compacted.
    """
    reduction = Reduction(bucket, is_new=not after)
    reader = _Reader(connect, bucket, after, upto, page_rows)
    reading = asyncio.ensure_future(reader.page(after))
    try:
        while True:
            found = await reading
            if found is None:
                yield Page([], after, False, True)
                return
            ops, overtaken, has_more = found
            if has_more:  # storage looks for the next ones while somebody looks at these
                reading = asyncio.ensure_future(reader.page(ops[-1].op_id))
            sent = reduction.take(ops, overtaken)
            if not has_more:
                sent += reduction.rest()
            is_overtaken = reduction.upto > upto
            after = sent[-1].op_id if sent else after
            if sent or not has_more or is_overtaken:
                yield Page(sent, after, has_more, is_overtaken)
            if not has_more or is_overtaken:
                return
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


class _Reader:
    """Reads the pages of one bucket."""

    def __init__(self, connect: Connect, bucket: str, after: OpId, upto: OpId, page_rows: int) -> None:
        self._connect, self._upto = connect, upto
        self._page = {"name": bucket, "upto": upto, "limit": page_rows}
        self._known = _Known(bucket, after, upto)

    async def page(self, at: OpId) -> tuple[list[Op], set[OpId], bool] | None:
        """The ops that follow, those among them that are overtaken, and whether there are more.

        None if compaction has gone past the checkpoint, so that nobody knows any more.
        """
        async with self._connect() as connection:
            found = await self._plain(connection, at) or await self._any(connection, at)
            if found is None:
                return None
            ops, has_more = found
            overtaken = await self._known.among(ops, connection, is_last=not has_more)
        return None if overtaken is None else (ops, overtaken, has_more)

    async def _plain(self, connection: Connection, at: OpId) -> tuple[list[Op], bool] | None:
        """Read in the way that costs least, if that will do."""
        async with connection.cursor(row_factory=_as_op) as cursor:
            await cursor.execute(_q.read_plain, {**self._page, "after": at, "large": _LARGE})
            ops = await cursor.fetchall()
        if not ops or ops[0].bucket is None or ops[0].op == "MOVE":
            return None
        if any([op.data is None and op.op == "PUT" for op in ops]):
            return None
        return ops, len(ops) == self._page["limit"]

    async def _any(self, connection: Connection, at: OpId) -> tuple[list[Op], bool] | None:
        page = {**self._page, "after": at, "bytes": _PAGE_BYTES}
        read = await rows(connection, _q.read_bucket, **page)
        if any(is_past for *_, is_past in read):
            return None
        ops = [Op(*row[:8]) for row in read if row[0] is not None]
        if ops and (merged := read[0][9]) is not None:
            ops[0] = ops[0]._replace(checksum=ops[0].checksum - told_before(ops[0].op_id, merged, at))
        return ops, bool(ops) and (len(read) < read[0][8] or len(read) == self._page["limit"])


def _as_op(_: object) -> Callable[[Sequence[object]], Op]:
    return partial(tuple.__new__, Op)


class _Known:
    """Which ops of a range have been overtaken in it, known once for all its pages: eight bytes each."""

    def __init__(self, bucket: str, after: OpId, upto: OpId) -> None:
        self._range = {"name": bucket, "after": after, "upto": upto}
        self._ids: array[int] | None = None

    async def among(self, ops: Sequence[Op], connection: Connection, *, is_last: bool) -> set[OpId] | None:
        """The overtaken ones of a page; of the last page, by what follows in itself.

        None if compaction has gone past the checkpoint, so that nobody knows any more.
        """
        if is_last:
            return overtaken(ops)
        if self._ids is None:
            [(ids, is_past)] = await rows(connection, _q.overtaken, **self._range)
            if is_past:
                return None
            self._ids = array("q")
            self._ids.frombytes(ids or b"")
            self._ids.byteswap()
        first, last = bisect_left(self._ids, ops[0].op_id), bisect_right(self._ids, ops[-1].op_id)
        return set(map(OpId, self._ids[first:last]))
