"""Kept rows × the source that they are versions of → every difference between them.

Of a table without REPLICA IDENTITY FULL the newest version of each row is kept, and what an update leaves out
is taken from there: one that is kept wrongly shows itself in no bucket until then. So they are compared as
buckets are (see `verify`). But nothing counts the changes of a kept row as op ids do, so what tells that none
has passed unseen is different. A difference is told only if it stands three times, in one of two ways.

The source has the row, all the time in the same version. So nothing has changed it that had ended by the last
reading; and whatever had come to be kept by the second one, which began before the last one's snapshot did,
has. So before the second reading this very version had to be kept.

The source does not have it, and storage has it all the time in the same version, from before the first
reading on. What has put it there is older than that reading and has ended by the last one; what has taken the
row out of the source by then stands in the log before what was waited for, and had to be heeded here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import orjson

from replicator import queries
from replicator.buckets.kept import Form
from replicator.buckets.kept import Place as Kept
from replicator.database import Connection, rows
from replicator.observe.rules.tables import SourceTable
from replicator.observe.verify_found import Difference
from replicator.observe.verify_noted import Noted
from replicator.observe.verify_settle import FIRST_PAUSE_S, LAST_PAUSE_S, LOOKS, STANDS
from replicator.observe.verify_shown import Shown
from replicator.observe.verify_source import Seen, Source, Version
from replicator.wal.window import Visibility

_q = queries.load("verify")

_AT_ONCE = 2_000


class _Held(NamedTuple):
    """What is in a place."""

    #: Since which copy of the table.
    since: str
    version: Version | None


@dataclass(slots=True)
class _Doubt:
    place: Kept
    #: What has not changed while it stood.
    mark: tuple[str, ...] | None = None
    count: int = 0
    second: Visibility | None = None

    def stands(self, mark: tuple[str, ...] | None, seen: Seen) -> bool:
        """It is different again; whether that is enough to tell."""
        if mark is None or mark != self.mark:
            self.mark, self.count = mark, 0
        self.count += 1
        if self.count == 2:
            self.second = seen.visibility
        is_over = self.second is not None and seen.visibility.xmin >= self.second.xmax
        return mark is not None and self.count >= STANDS and is_over


class KeptRows:
    """The kept rows of one slot."""

    def __init__(self, storage: Connection, source: Source, shown: Shown, slot: str) -> None:
        self._storage, self._source, self._shown = storage, source, shown
        self._slot = {"slot": slot}

    async def read_their_tables(self) -> None:
        """Have the source read every table of which rows are kept, also what no rule names."""
        found = await rows(self._storage, _q.kept_tables, **self._slot)
        await self._source.read_too([(namespace, name) for _, namespace, name in found])

    async def unlike(self, noted: Noted) -> AsyncIterator[tuple[int, list[Kept]]]:
        """Places in which something else is kept than was noted; some at a time, and among how many."""
        tables = self._tables()
        place: dict[str, object] = {"oid": 0, "key": ""}
        while found := await rows(
            self._storage, _q.next_kept, **self._slot, **place, oids=list(tables), limit=_AT_ONCE
        ):
            doubtful = []
            for oid, key, row in found:
                at, kept = b"%d\t%b" % (oid, key.encode()), _as_today(tables[oid], row)
                if not noted.find_kept(at, kept):
                    doubtful.append(at)
            yield len(found), doubtful
            place = {"oid": found[-1][0], "key": found[-1][1]}

    async def settle(self, places: Sequence[Kept]) -> AsyncIterator[Difference | None]:
        """The differences among these; None for each that nothing can be said of."""
        doubts = [_Doubt(place) for place in dict.fromkeys(places)]
        pause = FIRST_PAUSE_S
        for _ in range(LOOKS):
            doubts = await self._followed(doubts)
            if not doubts:
                return
            for difference in await self._look(doubts):
                yield difference
            await asyncio.sleep(pause)
            pause = min(2 * pause, LAST_PAUSE_S)
        for _ in doubts:
            yield None

    async def _followed(self, doubts: list[_Doubt]) -> list[_Doubt]:
        """Those of tables that are followed: the rows of one that no rule reads any more are not kept."""
        followed = {oid for (oid,) in await rows(self._storage, _q.followed, **self._slot)}
        return [doubt for doubt in doubts if _table(doubt.place) in followed]

    async def _look(self, doubts: list[_Doubt]) -> list[Difference]:
        places = [doubt.place for doubt in doubts]
        before = await self._held(places)
        expected, seen = await self._source.of_places(places, (await self._shown.now()).clock)
        self._shown.must_pass(seen)
        await self._shown.wait()
        held = await self._held(places)
        found: list[Difference] = []
        left: list[_Doubt] = []
        for doubt in doubts:
            is_there, stands = expected.get(doubt.place), held.get(doubt.place)
            if stands is not None and _row(stands.version) == _row(is_there):
                continue
            if doubt.stands(_mark(is_there, before.get(doubt.place), stands), seen):
                assert stands is not None, "without it there is no mark"
                found.append(self._difference(doubt.place, is_there, stands.version))
            else:
                left.append(doubt)
        doubts[:] = left
        return found

    async def _held(self, places: Sequence[Kept]) -> dict[Kept, _Held]:
        tables = self._tables()
        named = [place.decode().split("\t", 1) for place in places]
        asked = {"oids": [int(oid) for oid, _ in named], "keys": [key for _, key in named]}
        found: dict[Kept, _Held] = {}
        for oid, key, copied_at, row, number in await rows(
            self._storage, _q.kept_rows, **self._slot, **asked
        ):
            version = None if row is None else Version(_as_today(tables[oid], row), number)
            found[b"%d\t%b" % (oid, key.encode())] = _Held(str(copied_at), version)
        return found

    def _tables(self) -> dict[int, SourceTable]:
        return {
            one.relation.oid: one
            for one in self._source.tables
            if Form(one.relation).keeps and one.is_published
        }

    def _difference(self, place: Kept, expected: Version | None, held: Version | None) -> Difference:
        oid, _, key = place.decode().partition("\t")
        table = self._tables()[int(oid)]
        if expected is None:
            return Difference("kept", table.label, object_id=key)
        if held is None:
            return Difference("unkept", table.label, object_id=key)
        one, other = orjson.loads(expected.row), orjson.loads(held.row)
        values = zip(table.relation.columns, one[2:], other[2:], strict=False)
        columns = tuple(column.name for column, mine, theirs in values if mine != theirs)
        return Difference("outdated", table.label, object_id=key, columns=columns)


def _as_today(table: SourceTable, row: str) -> bytes:
    """A kept row in today's columns; as it is, if they are others."""
    form = Form(table.relation)
    unpacked = form.unpack(row.encode())
    return row.encode() if unpacked is None else form.pack(unpacked)


def _table(place: Kept) -> int:
    return int(place.partition(b"\t")[0])


def _row(version: Version | None) -> bytes | None:
    return None if version is None else version.row


def _mark(expected: Version | None, before: _Held | None, held: _Held | None) -> tuple[str, ...] | None:
    """What must stay the same for the difference to count; None if it cannot, as it is."""
    if before is None or held is None or before.since != held.since:
        return None  # the table is being copied, or has been
    if expected is not None:
        return "source", expected.number, held.since
    if before.version is None or held.version is None or before.version.number != held.version.number:
        return None
    return "kept", held.version.number, held.since
