"""Change × Rules → Puts, Removes, and entries of lookups. No I/O.

A row is in a bucket because of what it says, so a change moves it by what it said before and what it says
now: it is put where it belongs now, and removed where it belonged before and does not any more. That needs
the whole old row, which REPLICA IDENTITY FULL puts in the log and the kept row states give otherwise.

Where a row also belongs because of what other rows say, `lookups.py` goes on.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from replicator.marks import mark
from replicator.rules import keys
from replicator.rules.columns.types import BUILT_IN, Types
from replicator.rules.compile import Compiled, Placed, compile_rules
from replicator.rules.expression import Scalar
from replicator.rules.model import Put, Remove, Rules
from replicator.wal.messages import Relation, Row
from replicator.wal.transactions import Change, Kind


class Truncated(NamedTuple):
    """Every bucket should drop every row it holds of this source table, and lookups what it made in them."""

    #: What the subkeys of this table's rows begin with.
    subkey_prefix: str


class Enter(NamedTuple):
    """A lookup should lead from this key to this value, because of this row."""

    lookup: str
    key: str
    value: str
    subkey: str


class Leave(NamedTuple):
    """A row is no longer a reason for a lookup to lead from this key to this value."""

    lookup: str
    key: str
    value: str
    subkey: str


class Written(NamedTuple):
    """A client's writes up to this number are in the source, as it or a backend has numbered them."""

    user_id: str
    #: Empty where the row does not say which client.
    client_id: str
    id: int


Intent = Put | Remove | Truncated | Enter | Leave
Intend = Callable[[Intent], None]
#: A tuple first and its type after: half the price of calling the type.
_make = tuple.__new__


class Router:
    """The rules, and what has been compiled of them so far."""

    def __init__(self, rules: Rules, types: Types = BUILT_IN) -> None:
        self.rules, self.types = rules, types
        #: By oid: the relation it was compiled for, and what it came to.
        self._tables: dict[int, tuple[Relation, Compiled | None]] = {}
        #: By oid: where a table's primary key stands, as the catalogue has it.
        self._keys: dict[int, tuple[int, ...]] = {}
        #: How often a rule could not be evaluated for a row.
        self.failures: Counter[str] = Counter()

    def know(self, relation: Relation, key_at: tuple[int, ...]) -> None:
        """What the catalogue says of a table; what the log says of its columns counts for more."""
        if self._keys.get(relation.oid) != key_at:
            self._keys[relation.oid] = key_at
            self._tables.pop(relation.oid, None)
        if relation.oid not in self._tables:
            self._tables[relation.oid] = relation, self._compile(relation)

    def learn(self, types: Types) -> None:
        """More types than were known; what was compiled without them is compiled again."""
        self.types = types
        self._tables = {oid: (table[0], self._compile(table[0])) for oid, table in self._tables.items()}

    def compiled(self, relation: Relation) -> Compiled | None:
        known = self._tables.get(relation.oid)
        if known is None or known[0] is not relation:
            known = self._tables[relation.oid] = relation, self._compile(relation)
        return known[1]

    def known(self, oid: int) -> Compiled | None:
        """What a table came to that has been met before."""
        return self._tables.get(oid, (None, None))[1]

    def is_joined(self, changes: Iterable[Change]) -> bool:
        """Whether any of these changes takes more than the change itself to be routed."""
        relations = {id(change.relation): change.relation for change in changes}
        tables = [self.compiled(relation) for relation in relations.values()]
        return any(table is not None and table.is_joined for table in tables)

    def route(self, changes: Iterable[Change], now: float = 0.0) -> list[Intent]:
        """What buckets and lookups should come to hold because of these changes, in their order."""
        intents: list[Intent] = []
        tables = self._tables
        for change in changes:
            relation = change.relation
            known = tables.get(relation.oid)
            if known is None or known[0] is not relation:
                table = self.compiled(relation)
            else:
                table = known[1]
            if table is None:
                continue
            if change.kind is Kind.TRUNCATE:
                intents.append(Truncated(table.prefix))
                continue
            old, new = change.old, change.new
            before = table.place(old, now) if old is not None else ()
            after = table.place(new, now) if new is not None else ()
            if before or after:
                move(table, old, new, before, after, intents.append)
            if table.has_entries:
                enter(table, old, new, now, intents.append)
        return intents

    def written(self, changes: Iterable[Change], now: float) -> list[Written]:
        """What rows that are new, or say something new, say of clients' writes."""
        found: list[Written] = []
        for change in changes if self.rules.writes else ():
            table = self.compiled(change.relation)
            if table is None or not table.has_writes or change.new is None:
                continue
            for _, _, values in table.writes(change.new, now):
                said = _written(keys.unpack(values))
                if said is None:
                    self._fail("event_definitions", table, change.new, "it names no user, or no number")
                else:
                    found.append(said)
        return found

    def _compile(self, relation: Relation) -> Compiled | None:
        key_at = self._keys.get(relation.oid) or _key_at(relation)
        return compile_rules(self.rules, relation, self.types, key_at, self._fail)

    def _fail(self, rule: str, table: Compiled, row: Row, why: str) -> None:
        self.failures[rule] += 1
        if self.failures[rule] in (1, 10, 100) or self.failures[rule] % 1000 == 0:
            times = self.failures[rule]
            # `why` names an operator or a function, never a value.
            mark("left out", level=logging.WARNING, rule=rule, row=table.subkey(row), why=why, times=times)


def _written(values: Sequence[Scalar]) -> Written | None:
    """A user, a client, and a number from 1 to 2^63 - 1, as the columns of a row say them."""
    user_id, client_id, number = map(keys.as_text, values)
    if not isinstance(user_id, str) or not user_id or not isinstance(number, str):
        return None
    if not number.isdecimal() or not number.isascii() or len(number) > 19 or not 0 < int(number) < 1 << 63:
        return None
    return Written(user_id, client_id if isinstance(client_id, str) else "", int(number))


def _key_at(relation: Relation) -> tuple[int, ...]:
    """What tells this relation's rows apart: with FULL, Postgres flags every column."""
    flagged = tuple([at for at, column in enumerate(relation.columns) if column.key])
    if relation.identity != "f":
        return flagged
    return tuple([at for at, column in enumerate(relation.columns) if column.name == "id"])


def move(
    table: Compiled,
    old: Row | None,
    new: Row | None,
    before: Sequence[Placed],
    after: Sequence[Placed],
    intend: Intend,
    is_same: bool = False,
) -> None:
    """A row that belonged there belongs here. Where it stays it is put again, unless it is the same.

    One bucket may hold a row for several reasons, which may show it differently: the last of them counts.
    """
    shapes = table.shapes
    if not before and len(after) == 1:
        # A new row in one bucket, as most are.
        assert new is not None, "nothing is placed of no row"
        bucket, output, at = after[0]
        row_id, data = shapes[at].id(new), shapes[at].encode(new)
        if row_id is not None and data is not None:
            intend(_make(Put, (bucket, output, row_id, table.subkey(new), data)))
        return
    gone: dict[tuple[str, str, str, str], int] = {}
    if before:
        assert old is not None, "nothing was placed of no row"
        old_subkey = table.subkey(old)
        last, row_id = -1, None
        for bucket, output, at in before:
            if at != last:
                last, row_id = at, shapes[at].id(old)
            if row_id is not None:
                gone[bucket, output, row_id, old_subkey] = at
    if after:
        assert new is not None, "nothing is placed of no row"
        _put(table, new, after, gone, intend, is_same)
    if gone:
        for place in sorted(gone):
            shape = shapes[gone[place]]
            # What could not be shown was never put.
            if not shape.is_computed or shape.encode(old) is not None:  # type: ignore[arg-type]  # asserted above
                intend(Remove(*place))


def _put(
    table: Compiled,
    row: Row,
    after: Sequence[Placed],
    gone: dict[tuple[str, str, str, str], int],
    intend: Intend,
    is_same: bool,
) -> None:
    """Put a row where it belongs; what is there already is not gone."""
    shapes, subkey = table.shapes, table.subkey(row)
    last, row_id, data = -1, None, None
    if len(after) > 1:
        after = _last_of_each(table, row, after)
    for bucket, output, at in after:
        if at != last:
            last, row_id, data = at, shapes[at].id(row), None
        if row_id is None:
            continue
        place = bucket, output, row_id, subkey
        if is_same and gone.get(place) == at:
            del gone[place]
            continue
        if data is None:
            data = shapes[at].encode(row)
        if data is not None:
            if gone:
                gone.pop(place, None)
            intend(_make(Put, (bucket, output, row_id, subkey, data)))


def _last_of_each(table: Compiled, row: Row, after: Sequence[Placed]) -> Sequence[Placed]:
    """Each place once, as the last reason for it has it."""
    last: dict[tuple[str, str, str | None], Placed] = {}
    for placed in after:
        bucket, output, at = placed
        last[bucket, output, table.shapes[at].id(row) if len(table.shapes) > 1 else ""] = placed
    return after if len(last) == len(after) else list(last.values())


def enter(table: Compiled, old: Row | None, new: Row | None, now: float, intend: Intend) -> None:
    """What a row was a reason for in lookups, and what it is one for now."""
    before = {(*entry, table.subkey(old)) for entry in table.entries(old, now)} if old is not None else set()
    after = {(*entry, table.subkey(new)) for entry in table.entries(new, now)} if new is not None else set()
    for entry in sorted(before - after):
        intend(Leave(*entry))
    for entry in sorted(after - before):
        intend(Enter(*entry))
