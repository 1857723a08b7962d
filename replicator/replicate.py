"""WAL → buckets. Acknowledge only what is stored.

The main path, as the sentence it is: frames are decoded into messages, messages assembled into
transactions, their changes made whole and routed into intents, intents appended as ops, the checkpoint
advanced, and what is stored acknowledged to the source.

Many small transactions share one storage transaction, within bounds: whatever arrives while one is being
committed goes into the next. A large one is appended piece by piece inside one storage transaction, and the
checkpoint moves when its end has come. Killed anywhere in between, the source sends again what was not
acknowledged, and the batch recognises what was stored.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from replicator.buckets.model import Checkpoint
from replicator.buckets.write import Batch, Writer
from replicator.copying.weave import Weaver
from replicator.wal.fast import decode_all
from replicator.wal.progress import Progress
from replicator.wal.stream import Stream
from replicator.wal.transactions import Assembler


class Limits(NamedTuple):
    """The most that one storage transaction takes in before it is committed."""

    rows: int
    bytes: int
    seconds: float


async def replicate(
    stream: Stream,
    assembler: Assembler,
    weaver: Weaver,
    writer: Writer,
    limits: Limits,
    clock: Callable[[], float] = time.monotonic,
    now: Callable[[], float] = time.time,
    count: Callable[[Batch], None] = lambda batch: None,
) -> None:
    """Follow the stream until it is stopped, or something ends it."""
    progress = Progress(writer.checkpoint.lsn)

    def acknowledge(batch: Batch, stored: Checkpoint) -> None:
        """Called when a checkpoint has been committed, and only then."""
        progress.store(stored.lsn)
        stream.acknowledge(stored.lsn)
        count(batch)

    def has_room() -> bool:
        return _has_room(batch, limits, clock() - begun, writer.is_committing)

    batch, begun = writer.batch(), 0.0
    try:
        while frames := await stream.receive():
            begun = clock() if batch.is_empty else begun
            assembled = assembler.assemble(decode_all(frames))
            pieces = [piece for piece in assembled.transactions if not batch.covers(piece)]
            await writer.make_way(len(frames))
            await weaver.foresee(pieces, batch)
            for piece in pieces:
                batch.count(piece)
                async for changes in weaver.weave(piece, batch):
                    await batch.append(piece, changes, now())
                if piece.end_lsn is not None and not has_room():
                    batch, begun = await batch.commit(partial(acknowledge, batch)), clock()
            if assembled.quiet_lsn is not None:
                progress.hear(assembled.quiet_lsn)
            is_to_go_on = stream.waiting and has_room()
            if not assembler.in_transaction and not is_to_go_on:
                if batch.is_empty:
                    await writer.settle()  # what is being stored may be all there is to say
                quiet_lsn = progress.due()
                if quiet_lsn is not None or not batch.is_empty:
                    batch = await batch.commit(partial(acknowledge, batch), quiet_lsn)
            if not stream.waiting:
                await writer.settle()
            elif writer.is_committing:
                await asyncio.sleep(0)  # it needs a turn of the loop now and then
        await writer.settle()
    finally:
        await writer.abandon()
    # What was appended and not committed ends with the storage connection; the source sends it again.


def _has_room(batch: Batch, limits: Limits, seconds: float, is_committing: bool) -> bool:
    """Whether more is to go into a batch. While the one before it is committed, waiting makes it no later."""
    is_full = batch.rows >= limits.rows or batch.bytes >= limits.bytes
    return not is_full and (seconds < limits.seconds or is_committing)
