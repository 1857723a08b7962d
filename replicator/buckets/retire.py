"""Sets of rules that are over → none of their buckets and lookups, a few rows at a time.

What another set still needs has the same name there, and stays. A name is never used again, so what is
half removed when this ends is removed by the next that comes by.

Nothing is routed to these names any more, but the sweep of a table goes by what is stored, and adds to it. So
everything is removed, then whoever writes is waited for, and what that batch has added is removed, too. The
batches after it find nothing there to add to.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from replicator import queries
from replicator.buckets import deploy
from replicator.buckets.deploy import RuleSet
from replicator.database import Connection, connected, rows
from replicator.marks import mark
from replicator.rules.lookups import DUE, OUTER

_q = queries.load("retire")

#: So long a reader may go on with what it has begun to read: a client that takes a page slowly, and a server
#: whose connection for news is dead, which it notices after two minutes.
GRACE_S = 300.0
#: So many rows are removed at once: other statements come between.
STEP = 10_000
#: So many sets that are over are remembered.
REMEMBERED = 10
_LOOK_S = 5.0


async def retire_for_ever(
    storage_dsn: str, schema: str, slot: str, notes: Connection, routed: Collection[int | None]
) -> None:
    """Look again and again whether there is something to take away that is not still being written."""
    while True:
        await asyncio.sleep(_LOOK_S)
        if (await _over(notes, slot)).difference(routed):
            async with connected(storage_dsn, "retire", schema=schema) as storage:
                await retire(storage, slot, routed)


async def retire(storage: Connection, slot: str, routed: Collection[int | None] = ()) -> int:
    """Take away what only sets that are over needed; answers how many rows that were."""
    over = (await _over(storage, slot)).difference(routed)
    known = await deploy.load(storage, slot)
    ended = [one for one in known.sets if one.id in over]
    kept = [one for one in known.sets if one.id not in over and one.cleaned_at is None]
    buckets, entered = _buckets(ended) - _buckets(kept), _entered(ended) - _entered(kept)
    removed = await _empty(storage, buckets, entered)
    await storage.execute(_q.wait_for_batch, {"slot": slot})
    removed += await _empty(storage, buckets, entered)
    for name in sorted(buckets):
        await _remove(storage, _q.remove_buckets, name=name)
    await storage.execute(_q.cleaned, {"slot": slot, "ids": sorted(over)})
    await storage.execute(_q.forget_sets, {"slot": slot, "most": REMEMBERED})
    mark("rules cleaned", rules=", ".join(map(str, sorted(over))), rows=removed)
    return removed


async def _over(storage: Connection, slot: str) -> set[int]:
    return {number for (number,) in await rows(storage, _q.over, slot=slot, grace_s=GRACE_S)}


async def _empty(storage: Connection, buckets: Collection[str], entered: Collection[str]) -> int:
    removed = 0
    for name in sorted(buckets):
        removed += await _remove(storage, _q.remove_ops, name=name)
    for name in sorted(entered):
        removed += await _remove(storage, _q.remove_entries, name=name)
    return removed


async def _remove(storage: Connection, query: bytes, **which: object) -> int:
    removed: int = 0
    while True:
        [(found, gone)] = await rows(storage, query, limit=STEP, **which)
        removed += gone
        # Where compaction has taken away some of what was found, fewer are gone, and there may be more.
        if found < STEP and gone == found:
            return removed
        await asyncio.sleep(0)


def _buckets(sets: list[RuleSet]) -> set[str]:
    return {name for one in sets for name in one.versions.buckets()}


def _entered(sets: list[RuleSet]) -> set[str]:
    """Everything that entries stand under: for a lookup, for the rows that look it up, and for the time."""
    lookups = {name for one in sets for name in one.versions.maintained()}
    timed = lookups | _buckets(sets)
    return lookups | {OUTER + name for name in lookups} | {DUE + name for name in timed}
