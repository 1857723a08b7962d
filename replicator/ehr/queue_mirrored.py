"""Somebody's wish → a table of what became of each job, which rules can name, kept in storage or no more."""

from __future__ import annotations

from typing import NamedTuple

from replicator import queries
from replicator.database import Connection, rows

_q = queries.load("queue")

#: The table.
MIRROR = "ehr_sync_status"


class Mirrored(NamedTuple):
    """How it is now."""

    is_new: bool
    rows: int


async def mirror(storage: Connection, *, is_kept: bool) -> Mirrored:
    """Keep it, or do not. All there is in the queue is in it at once; what comes, as it comes."""
    async with storage.transaction():
        ((is_new,),) = await rows(storage, _q.mirror, is_kept=is_kept)
        ((count,),) = await rows(storage, _q.mirrored)
        return Mirrored(is_new, count)
