"""Changes that carry only part of a row → whole changes, from the rows as they were last seen.

With REPLICA IDENTITY FULL the log holds the row as it was, and nothing is kept here. With any other, an
update says what the row is now, except for the TOASTed values it did not touch, and of the row as it was
at most the key. So the newest version of every row of such tables is kept in storage under its key, and
changes in the same transaction as everything else.

A row that is not there yet when an update leaves out some of its values cannot be completed. That happens
only while its table is being copied (the log began before the copy reached the row). It is left out, and
its key told to the copier, which brings the row.

A few bytes of log can name hundreds of large rows. So changes are made whole some at a time, in their order.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple
from zlib import crc32

import orjson

from replicator import queries
from replicator.database import Connection, rows
from replicator.wal.messages import UNCHANGED, Relation, Row
from replicator.wal.transactions import Change, Kind
from replicator.wal.window import Key, key_of

_q = queries.load("copy")

#: So much of kept rows is in memory at once, but for one row that is larger.
MOST_BYTES = 8 << 20

_Place = tuple[int, str]
_States = dict[_Place, bytes]


def keeps_state(relation: Relation) -> bool:
    """Whether changes of this relation need the kept row: not with FULL, and not without any key at all."""
    return relation.identity in ("d", "i") and any(column.key for column in relation.columns)


class Completed(NamedTuple):
    """Some changes made whole."""

    changes: list[Change]
    #: The keys of rows that had to be left out.
    holes: list[tuple[int, Key]]
    #: The changes that follow them, which are still as they were.
    rest: Sequence[Change]


class RowStates:
    """The kept rows of one slot, completing changes inside the storage transaction that stores them."""

    def __init__(self, connection: Connection, slot: str) -> None:
        self._connection = connection
        self._slot = {"slot": slot}

    def concern(self, changes: Sequence[Change]) -> bool:
        """Whether any of these changes needs a kept row, or becomes one."""
        relations = {id(change.relation): change.relation for change in changes}
        return any(map(keeps_state, relations.values()))

    async def complete(self, changes: Sequence[Change]) -> Completed:
        """The first of these changes made whole, as many as memory allows."""
        named = [_places(change) for change in changes]
        before, beyond = await self._read(named)
        after = dict(before)
        whole: list[Change] = []
        holes: list[tuple[int, Key]] = []
        size = end = 0
        for change, places in zip(changes, named, strict=True):
            if size >= MOST_BYTES or not beyond.isdisjoint(places):
                break
            end += 1
            if not keeps_state(change.relation):
                whole.append(change)
            elif change.kind is Kind.TRUNCATE:
                await self._forget(change.relation.oid, before, after)
                whole.append(change)
            else:
                size += _size(after, places)
                whole += _complete(change, after, holes)
                size += _size(after, places)
        await self._write(before, after)
        return Completed(whole, holes, changes[end:])

    async def _read(self, named: Sequence[list[_Place]]) -> tuple[_States, set[_Place]]:
        """What is kept in these places, and those that so much comes before that they are not read yet."""
        first: dict[_Place, int] = {}
        for at, places in enumerate(named):
            for place in places:
                first.setdefault(place, at)
        wanted = {
            "oids": [oid for oid, _ in first],
            "keys": [key for _, key in first],
            "ats": list(first.values()),
            "most": MOST_BYTES,
        }
        found = await rows(self._connection, _q.read_states, **self._slot, **wanted)
        states = {(oid, key): row.encode() for oid, key, row in found if row is not None}
        return states, {(oid, key) for oid, key, row in found if row is None}

    async def _write(self, before: _States, after: _States) -> None:
        changed = [(place, row) for place, row in after.items() if before.get(place) != row]
        gone = [place for place in before if place not in after]
        if changed:
            oids, keys = [oid for (oid, _), _ in changed], [key for (_, key), _ in changed]
            values = {"oids": oids, "keys": keys, "rows": [row.decode() for _, row in changed]}
            await self._connection.execute(_q.write_states, self._slot | values)
        if gone:
            values = {"oids": [oid for oid, _ in gone], "keys": [key for _, key in gone]}
            await self._connection.execute(_q.drop_states, self._slot | values)

    async def _forget(self, oid: int, *known: _States) -> None:
        for states in known:
            for place in [place for place in states if place[0] == oid]:
                del states[place]
        await self._connection.execute(_q.forget_rows, self._slot | {"oid": oid})


def _complete(change: Change, states: _States, holes: list[tuple[int, Key]]) -> Iterable[Change]:
    """One change made whole by what is known; what becomes known by it replaces that."""
    relation, new = change.relation, change.new
    was = change.old if change.old is not None else new
    assert was is not None, "a change that is no TRUNCATE has a row before or after it"
    old = unpack_row(states.pop(_place(relation, was), None), relation)
    if new is None:
        return [change._replace(old=old, old_is_whole=True)] if old is not None else []
    place = _place(relation, new)
    # Under its new key the row can be known already: the copy may have read it after this change was made.
    there = unpack_row(states.pop(place, None), relation)
    earlier = [
        Change(Kind.DELETE, relation, row, None, change.ordinal, True) for row in (there,) if row is not None
    ]
    if UNCHANGED in new:
        source = old if old is not None else there
        if source is None:
            holes.append((relation.oid, key_of(new, _key_at(relation))))
            return []
        new = tuple([s if n is UNCHANGED else n for s, n in zip(source, new, strict=True)])
    states[place] = pack_row(new, relation)
    return [*earlier, change._replace(old=old, new=new, old_is_whole=True)]


def pack_row(row: Row, relation: Relation) -> bytes:
    """A whole row as it is kept, with what tells whether its columns are still the same."""
    return orjson.dumps((len(row), _names(relation, len(row)), *row))


def unpack_row(state: bytes | None, relation: Relation) -> Row | None:
    """The kept row in today's columns: as it is, or with columns added since as NULL; else unknown.

    A table whose columns changed in any other way is copied again, which is when unknown rows return.
    """
    if state is None:
        return None
    count, names, *values = orjson.loads(state)
    if count > len(relation.columns) or names != _names(relation, count):
        return None
    return (*values, *([None] * (len(relation.columns) - count)))


def _names(relation: Relation, count: int) -> int:
    return crc32("\0".join([column.name for column in relation.columns[:count]]).encode())


def _size(states: _States, places: Iterable[_Place]) -> int:
    return sum([len(states.get(place, b"")) for place in places])


def _places(change: Change) -> list[_Place]:
    if not keeps_state(change.relation) or change.kind is Kind.TRUNCATE:
        return []
    return [_place(change.relation, row) for row in (change.old, change.new) if row is not None]


def _place(relation: Relation, row: Row) -> _Place:
    return relation.oid, orjson.dumps(key_of(row, _key_at(relation))).decode()


def _key_at(relation: Relation) -> tuple[int, ...]:
    return tuple([at for at, column in enumerate(relation.columns) if column.key])
