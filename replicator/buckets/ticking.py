"""The moment at which a row's place changes by itself → a mark in the log, so that a batch comes of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from replicator.buckets.lookups import Lookups
from replicator.database import connected
from replicator.wal.snapshot import write_mark

#: A moment that is noted meanwhile is met this late at most.
_LOOK_S = 1.0
#: So many looks later, a moment that is still not met is told again: the log may be long, or a clock wrong.
_PATIENCE = 30


async def tick(lookups: Lookups, source_dsn: str, now: Callable[[], float] = time.time) -> None:
    """Write a mark whenever a moment has come that no batch has met; for ever.

    Whatever else is committed on the source brings a batch just as well, so this is for quiet times.
    """
    told: float | None = None
    looks = 0
    while True:
        due = lookups.next_due
        looks += 1
        if due is not None and due <= now() and (due != told or looks >= _PATIENCE):
            async with connected(source_dsn, "tick") as source:
                await write_mark(source, mark="time", name="time", oid=0)
            told, looks = due, 0
        await asyncio.sleep(_LOOK_S)
