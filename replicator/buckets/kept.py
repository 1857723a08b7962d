"""Rows of changes, and rows read back → the newest version of each that is at hand. No I/O.

What is here is one of two things. Rows that the open batch has changed are here until storage has been told:
of each key once, however often it changed. Rows that storage has are here as long as there is room. They are
in two generations. A row that is new here or asked for is of the newer one; when that is full, it becomes
the older one, and what was the older one is forgotten: two dictionaries change places, and no row is looked
at.

A place that is here without a row is known to be empty. Of a place that is not here nothing is known.
"""

from __future__ import annotations

from collections.abc import Callable
from zlib import crc32

import orjson

from replicator.wal.messages import Relation, Row

#: One generation, in bytes.
GENERATION_BYTES = 4 << 20
#: What Python needs for a place and a row beside their bytes.
_OVERHEAD = 200

#: Where a row is: the oid of its table, a tab, and its key as JSON.
Place = bytes
#: The row in each of these places, or that there is none.
Rows = dict[Place, bytes | None]


def keeps_state(relation: Relation) -> bool:
    """Whether changes of this relation need the kept row: not with FULL, and not without any key at all."""
    return relation.identity in ("d", "i") and any(column.key for column in relation.columns)


class Form:
    """How the rows of one relation are kept."""

    __slots__ = ("_lead", "head", "keeps", "key_at", "oid", "place", "relation")

    def __init__(self, relation: Relation) -> None:
        self.relation, self.oid = relation, relation.oid
        self.keeps = keeps_state(relation)
        self.key_at = tuple([at for at, column in enumerate(relation.columns) if column.key])
        #: What tells whether the columns are still the same: how many there are, and their names in short.
        self.head = len(relation.columns), _names(relation, len(relation.columns))
        #: What stands before a row that has columns.
        self._lead = b"[%d,%d" % self.head + (b"," if relation.columns else b"")
        self.place = _placed(relation.oid, self.key_at)

    def pack(self, row: Row) -> bytes:
        """A whole row as it is kept."""
        # In bytes of their own: those that orjson makes have room for a thousand more.
        return self._lead + orjson.dumps(row)[1:]

    def unpack(self, state: bytes | None) -> Row | None:
        """The kept row in today's columns: as it is, or with columns added since as NULL; else unknown.

        A table whose columns changed in any other way is copied again, which is when unknown rows return.
        """
        if state is None:
            return None
        count, names, *values = orjson.loads(state)
        if (count, names) == self.head:
            return tuple(values)
        if count > len(self.relation.columns) or names != _names(self.relation, count):
            return None
        return (*values, *([None] * (len(self.relation.columns) - count)))


def _placed(oid: int, key_at: tuple[int, ...]) -> Callable[[Row], Place]:
    """How a row of a table is placed by its key."""
    head = b"%d\t" % oid
    if len(key_at) == 1:
        (only,) = key_at
        return lambda row: head + orjson.dumps((row[only],), str)
    return lambda row: head + orjson.dumps([row[at] for at in key_at], str)


def pack_row(row: Row, relation: Relation) -> bytes:
    """A whole row as it is kept, with what tells whether its columns are still the same."""
    return Form(relation).pack(row)


def unpack_row(state: bytes | None, relation: Relation) -> Row | None:
    """The kept row in today's columns; None if they are others."""
    return Form(relation).unpack(state)


def _names(relation: Relation, count: int) -> int:
    return crc32("\0".join([column.name for column in relation.columns[:count]]).encode())


class Changed:
    """What storage is to be told: what became of rows since it was told last."""

    __slots__ = ("rows", "size", "stored")

    def __init__(self) -> None:
        self.rows: Rows = {}
        #: Those in whose place storage has a row.
        self.stored: set[Place] = set()
        self.size = 0

    def brought(self) -> list[tuple[Place, bytes]]:
        """Rows in places where storage has none."""
        stored = self.stored
        return [(place, row) for place, row in self.rows.items() if row is not None and place not in stored]

    def replaced(self) -> list[tuple[Place, bytes]]:
        """Rows in the place of one that storage has."""
        return [(place, row) for place in self.stored if (row := self.rows[place]) is not None]

    def gone(self) -> list[Place]:
        """Places where storage has a row, and there is none any more."""
        return [place for place in self.stored if self.rows[place] is None]


class Kept:
    """The rows that are at hand."""

    def __init__(self) -> None:
        self.changed = Changed()
        self._newer: Rows = {}
        self._older: Rows = {}
        self._size = 0

    def wants(self, place: Place) -> bool:
        """Whether storage has to be asked what is in this place. What is here already counts as new again."""
        if place in self.changed.rows or place in self._newer:
            return False
        if place not in self._older:
            return True
        self.learn(place, self._older[place])
        return False

    def learn(self, place: Place, row: bytes | None) -> None:
        """What storage has in this place."""
        self._newer[place] = row
        self._size += _size(place, row)

    def get(self, place: Place) -> bytes | None:
        """The row in this place, as far as is known."""
        for rows in (self.changed.rows, self._newer, self._older):
            if place in rows:
                return rows[place]
        return None

    def bring(self, place: Place, row: bytes) -> bool:
        """This row is in this place from now on, unless another one is known to be."""
        changed = self.changed
        if place in changed.rows or place in self._newer or place in self._older:
            if self.get(place) is not None:
                return False
            self._change(place, row)
        else:
            changed.rows[place] = row
            changed.size += len(row) + len(place) + _OVERHEAD
        return True

    def put(self, place: Place, row: bytes) -> None:
        """This row is in this place from now on."""
        self._change(place, row)

    def take(self, place: Place) -> bytes | None:
        """The row in this place, which is empty from now on."""
        row = self.get(place)
        if row is not None:
            self._change(place, None)
        return row

    def _change(self, place: Place, row: bytes | None) -> None:
        changed = self.changed
        if place in changed.rows:
            changed.size -= _size(place, changed.rows[place])
        elif self._drop(place) is not None:
            changed.stored.add(place)
        changed.rows[place] = row
        changed.size += _size(place, row)

    def _drop(self, place: Place) -> bytes | None:
        """What storage has in this place, as far as is known, and is not worth room any more."""
        older = self._older.pop(place, None)
        if place not in self._newer:
            return older
        row = self._newer.pop(place)
        self._size -= _size(place, row)
        return row

    def begin(self) -> Changed:
        """What changes from now on is told by itself: what had changed before counts as told."""
        self._told(self.changed)
        self.changed = Changed()
        return self.changed

    def settle(self) -> None:
        """Storage has been told what has changed."""
        self._told(self.changed)
        self.changed.rows.clear()
        self.changed.stored.clear()
        self.changed.size = 0

    def _told(self, changed: Changed) -> None:
        self._newer.update(changed.rows)
        self._size += changed.size

    def age(self) -> None:
        """Forget what has not been asked for lately, if there is too much."""
        if self._size >= GENERATION_BYTES:
            self._older, self._newer, self._size = self._newer, {}, 0

    def forget(self, oid: int) -> None:
        """Storage has none of this table's rows any more, and is to be told nothing of them."""
        head = b"%d\t" % oid
        for rows in (self.changed.rows, self._newer, self._older):
            for place in [place for place in rows if place.startswith(head)]:
                del rows[place]
        changed = self.changed
        changed.stored = {place for place in changed.stored if place in changed.rows}
        changed.size = sum([_size(place, row) for place, row in changed.rows.items()])


def _size(place: Place, row: bytes | None) -> int:
    return len(place) + _OVERHEAD + (len(row) if row is not None else 0)
