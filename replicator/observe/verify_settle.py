"""What looked different between a bucket and the source → whether it is. See `verify` for the argument."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import orjson

from replicator import queries
from replicator.database import Connection, rows
from replicator.observe.verify_found import Difference
from replicator.observe.verify_noted import EntryPlace, Place, bare, digest
from replicator.observe.verify_shown import Now, Shown
from replicator.observe.verify_source import Piece, Source
from replicator.wal.window import Visibility

_q = queries.load("verify")
_P = TypeVar("_P")

#: How often a difference must stand, and how often it is looked at.
STANDS = 3
LOOKS = 12
FIRST_PAUSE_S, LAST_PAUSE_S = 0.05, 2.0


@dataclass(slots=True)
class _Doubt(Generic[_P]):
    place: _P
    #: The op that was shown before the first reading that counts, and what that one could not see.
    since: int = -1
    first: Visibility | None = None
    count: int = 0

    def stands(self, before: Now, piece: Piece, newest: int) -> bool:
        """It is different again; whether that is enough to tell."""
        assert piece.seen is not None, "a piece that was read"
        seen = piece.seen.visibility
        if self.first is None or newest > self.since:
            self.since, self.first, self.count = before.op_id, seen, 0
        self.count += 1
        return self.count >= STANDS and seen.xmin >= self.first.xmax


async def settle(
    storage: Connection, source: Source, shown: Shown, places: Sequence[Place]
) -> AsyncIterator[Difference | None]:
    """The differences among these rows; None for each that nothing can be said of."""
    doubts = [_Doubt(place) for place in dict.fromkeys(places)]

    async def look(before: Now) -> list[Difference]:
        piece = await source.of_rows({one.place.subkey: one.place.object_id for one in doubts}, before.clock)
        expected = {Place(*put[:4]): put.data for put in piece.puts}
        held = await _held(storage, await _passed(shown, piece), [doubt.place for doubt in doubts])
        found: list[Difference] = []
        left: list[_Doubt[Place]] = []
        for doubt in doubts:
            newest, data = held.get(doubt.place, (0, None))
            difference = _difference(doubt.place, expected.get(doubt.place), data)
            if difference is None:
                continue
            if doubt.stands(before, piece, newest):
                found.append(difference)
            else:
                left.append(doubt)
        doubts[:] = left
        return found

    async for one in _again_and_again(shown, doubts, look):
        yield one


async def settle_entries(
    storage: Connection, source: Source, shown: Shown, places: Sequence[EntryPlace]
) -> AsyncIterator[Difference | None]:
    """The same of entries of lookups."""
    doubts = [_Doubt(place) for place in dict.fromkeys(places)]

    async def look(before: Now) -> list[Difference]:
        piece = await source.of_rows({one.place.subkey: "" for one in doubts}, before.clock)
        expected = {EntryPlace(lookup, key, s, digest(value)) for lookup, key, value, s in piece.entries}
        await _passed(shown, piece)
        standing, newest = await _standing(storage, source, [doubt.place for doubt in doubts])
        found: list[Difference] = []
        left: list[_Doubt[EntryPlace]] = []
        for doubt in doubts:
            place = doubt.place
            if standing[place] == int(place in expected):
                continue
            if doubt.stands(before, piece, newest[place[:3]]):
                found.append(Difference("lookup", place.lookup, object_id=place.key, subkey=place.subkey))
            else:
                left.append(doubt)
        doubts[:] = left
        return found

    async for one in _again_and_again(shown, doubts, look):
        yield one


async def _again_and_again(
    shown: Shown, doubts: Sequence[_Doubt[_P]], look: Callable[[Now], Awaitable[list[Difference]]]
) -> AsyncIterator[Difference | None]:
    pause = FIRST_PAUSE_S
    for _ in range(LOOKS):
        if not doubts:
            return
        for difference in await look(await shown.now()):
            yield difference
        await asyncio.sleep(pause)
        pause = min(2 * pause, LAST_PAUSE_S)
    for _ in doubts:
        yield None


async def _passed(shown: Shown, piece: Piece) -> Now:
    shown.must_pass(piece.seen)
    return await shown.wait()


async def _held(
    storage: Connection, now: Now, places: Sequence[Place]
) -> dict[Place, tuple[int, str | None]]:
    """The newest op of each of these rows, and what it says."""
    buckets, subkeys = {place.bucket for place in places}, {place.subkey for place in places}
    found = await rows(storage, _q.newest_ops, buckets=list(buckets), subkeys=list(subkeys), upto=now.op_id)
    return {Place(*row[:4]): (row[4], row[5]) for row in found}


async def _standing(
    storage: Connection, source: Source, places: Sequence[EntryPlace]
) -> tuple[Counter[EntryPlace], Counter[tuple[str, str, str]]]:
    """How often each of these entries stands, and the newest op that has to do with it."""
    asked = {
        "lookups": [place.lookup for place in places],
        "keys": [place.key for place in places],
        "subkeys": [place.subkey for place in places],
    }
    standing: Counter[EntryPlace] = Counter()
    newest: Counter[tuple[str, str, str]] = Counter()
    for lookup, key, value, subkey, stands, op_id in await rows(storage, _q.entries_of, **asked):
        value = source.as_today(lookup, subkey, value)
        standing[EntryPlace(lookup, key, subkey, digest(value))] += int(stands)
        newest[lookup, key, subkey] = max(op_id, newest[lookup, key, subkey])
    return standing, newest


def _difference(place: Place, expected: str | None, held: str | None) -> Difference | None:
    if expected == held:
        return None
    if expected is None:
        return Difference("leak", *place)
    if held is None:
        return Difference("missing", *place)
    if bare(expected) == bare(held):
        return None
    return Difference("content", *place, columns=_columns(expected, held))


def _columns(expected: str, held: str) -> tuple[str, ...]:
    """The names of those that say something else."""
    try:
        one, other = orjson.loads(expected), orjson.loads(held)
    except orjson.JSONDecodeError:
        return ()
    if not (isinstance(one, dict) and isinstance(other, dict)):
        return ()
    names = dict.fromkeys([*one, *other])
    return tuple(name for name in names if orjson.dumps(one.get(name)) != orjson.dumps(other.get(name)))
