"""What no reader asks for any more, besides ops → forgotten, in small steps.

Ended entries of lookups answer only readers at checkpoints before their end. Of what checkpoints changed,
only what is newer than the slowest reader's last one is asked for; one a minute is kept as the time of an op,
which whoever looks back at the history wants to know.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from replicator import queries
from replicator.buckets.model import OpId
from replicator.database import Connection, rows
from replicator.marks import mark

_q = queries.load("compact")

#: What checkpoints have changed is told for so long.
TOLD_S = 600.0
_CHANGES_AT_ONCE = 5_000
_BLOCKS_AT_ONCE = 500


async def forget_changes(connection: Connection, told_s: float = TOLD_S) -> AsyncIterator[int]:
    """Keep the times of what checkpoints changed, and forget the rest; answers how many, step by step."""
    await connection.execute(_q.note_moments)
    while True:
        which = {"age": told_s, "limit": _CHANGES_AT_ONCE}
        count = (await connection.execute(_q.forget_changes, which)).rowcount
        if not count:
            return
        mark("forgot changes", count=count)
        yield count


async def forget_entries(connection: Connection, upto: OpId) -> AsyncIterator[int]:
    """Forget the entries of lookups that had ended by then, block by block."""
    blocks: int = (await rows(connection, _q.blocks_of_lookups))[0][0]
    for first in range(0, blocks, _BLOCKS_AT_ONCE):
        which = {"first": first, "beyond": first + _BLOCKS_AT_ONCE, "horizon": upto}
        count = (await connection.execute(_q.forget_entries, which)).rowcount
        if count:
            mark("forgot entries", count=count)
        yield count
