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

from replicator.errors import NewUnready, OldUnready, SourceUnready
from replicator.marks import mark
from replicator.rules import keys
from replicator.rules.beside import together
from replicator.rules.columns.types import BUILT_IN, Types
from replicator.rules.compile import Compiled, Placed, compile_rules
from replicator.rules.expression import Scalar
from replicator.rules.model import Put, Remove, Rules
from replicator.rules.printed import Intended
from replicator.rules.puts import Puts
from replicator.wal.messages import Relation, Row
from replicator.wal.transactions import Change, Kind, relations_of


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


class ForNew(tuple[Change, ...]):
    """Rows as they are, for what is new in the rules alone: everything else has them already."""


Intent = Put | Remove | Truncated | Enter | Leave
Intend = Callable[[Intent], None]
#: A tuple first and its type after: half the price of calling the type.
_make = tuple.__new__
#: Looked up once: an Enum's member takes longer to find than a row to pass.
_INSERT, _TRUNCATE = Kind.INSERT, Kind.TRUNCATE


#: For fewer changes than this, to make little of much is more than to do without.
_FEW = 3
#: After a new row that could not be printed so many are taken to be like it.
_LEFT = 16

#: A bucket, the type and id that clients know the row by there, and its subkey.
_Place = tuple[str, str, str, str]


class Router:
    """The rules, and what has been compiled of them so far; perhaps with new ones beside them."""

    def __init__(
        self, rules: Rules, types: Types = BUILT_IN, beside: Rules | None = None, *, is_beside: bool = False
    ) -> None:
        self.rules, self.types = rules, types
        #: The new ones alone.
        self.new = None if beside is None else Router(beside, types, is_beside=True)
        self._is_beside = is_beside
        #: All that is to be in force, where some of it is beside what is.
        self.next: Rules | None = None
        #: By oid, tables of which the new ones have not seen every row: of a row that changes all is said.
        self.anew: set[int] = set()
        #: Whether a table's copy is still to begin: until then nobody needs what the log tells of its rows.
        self.is_to_come: Callable[[int], bool] = lambda oid: False
        #: By oid: the relation it was compiled for, and what it came to.
        self._tables: dict[int, tuple[Relation, Compiled | None]] = {}
        #: By oid: where a table's primary key stands, as the catalogue has it.
        self._keys: dict[int, tuple[int, ...]] = {}
        #: How often a rule could not be evaluated for a row.
        self.failures: Counter[str] = Counter()

    def know(self, relation: Relation, key_at: tuple[int, ...]) -> None:
        """What the catalogue says of a table; what the log says of its columns counts for more."""
        if self.new is not None:
            self.new.know(relation, key_at)
        if self._keys.get(relation.oid) != key_at:
            self._keys[relation.oid] = key_at
            self._tables.pop(relation.oid, None)
        if relation.oid not in self._tables:
            self._tables[relation.oid] = relation, self._compile(relation)

    def learn(self, types: Types) -> None:
        """More types than were known; what was compiled without them is compiled again."""
        self.types = types
        if self.new is not None:
            self.new.learn(types)
        known = [relation for relation, _ in self._tables.values()]
        self._tables = {relation.oid: (relation, self._compile_or_pass(relation)) for relation in known}

    def compiled(self, relation: Relation) -> Compiled | None:
        known = self._tables.get(relation.oid)
        if known is None or known[0] is not relation:
            known = self._tables[relation.oid] = relation, self._compile_or_pass(relation)
        return known[1]

    def known(self, oid: int) -> Compiled | None:
        """What a table came to that has been met before."""
        return self._tables.get(oid, (None, None))[1]

    def is_joined(self, changes: Iterable[Change]) -> bool:
        """Whether any of these changes takes more than the change itself to be routed."""
        tables = [self.compiled(relation) for relation in relations_of(changes)]
        return any(table is not None and table.is_joined for table in tables)

    def route(self, changes: Iterable[Change], now: float = 0.0) -> list[Intent]:
        """What buckets and lookups should come to hold because of these changes, in their order."""
        intents: list[Intent] = []
        for change in changes:
            self._route(change, now, intents.append)
        return intents

    def print(self, changes: Sequence[Change], now: float = 0.0) -> Sequence[Intent | Intended]:
        """The same, with Puts and Removes that follow each other as one, but where there are few.

        New rows that can go to one bucket only, as most, are printed.
        """
        if len(changes) < _FEW:
            return self.route(changes, now)
        found: list[Intent | Intended] = []
        last = Intended([], [])
        buckets, ops = last
        met: Relation | None = None
        table: Compiled | None = None
        puts: Puts | None = None
        #: So many new rows more are not to be printed here.
        left = 0
        after = iter(changes)
        change = next(after, None)
        while change is not None:
            kind, relation, old, new, _, _ = change
            if relation is not met:
                met, table = relation, self.compiled(relation)
                puts = None if table is None else table.puts
            if puts is not None and kind is _INSERT and not left:
                change = puts(change, after, now, last)
                if change is None or change.kind is not _INSERT or change.relation is not met:
                    continue
                left, new = _LEFT, change.new
            left -= left > 0
            if table is not None and (table.has_entries or kind is _TRUNCATE):
                found += [last] if ops else []
                self._route(change, now, found.append)
                buckets, ops = last = Intended([], [])
            elif table is not None:
                before = len(ops)
                _place(table, old, new, now, ops.append)  # type: ignore[arg-type]  # which intends no others
                buckets += [op[0] for op in ops[before:]]  # type: ignore[misc]  # as above
            change = next(after, None)
        return [*found, last] if ops else found

    def _route(self, change: Change, now: float, intend: Intend) -> None:
        kind, relation, old, new, _, _ = change
        table = self.compiled(relation)
        if table is None:
            return
        if kind is _TRUNCATE:
            intend(Truncated(table.prefix))
            return
        _place(table, old, new, now, intend)
        if table.has_entries:
            enter(table, old, new, now, intend, is_anew=relation.oid in self.anew)

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

    def _compile_or_pass(self, relation: Relation) -> Compiled | None:
        """The log may describe a table as it was before these rules came into question."""
        try:
            return self._compile(relation)
        except SourceUnready:
            if not self.is_to_come(relation.oid):
                raise
            return None

    def _compile(self, relation: Relation) -> Compiled | None:
        key_at = self._keys.get(relation.oid) or _key_at(relation)
        try:
            compiled = compile_rules(self.rules, relation, self.types, key_at, self._fail)
        except SourceUnready as error:
            if self._is_beside:
                raise NewUnready(error.what, error.hint) from error
            if self.next is None:
                raise
            Router(self.next, self.types, is_beside=True)._compile(relation)
            raise OldUnready(error.what, error.hint) from error
        return compiled if self.new is None else together(compiled, self.new.compiled(relation))

    def all_rules(self) -> tuple[Rules, ...]:
        """The rules, and the new ones, if there are any."""
        return (self.rules,) if self.new is None else (self.rules, self.new.rules)

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


def _place(table: Compiled, old: Row | None, new: Row | None, now: float, intend: Intend) -> None:
    """A row that was the one is the other: it may leave buckets, and come to some."""
    after = table.place(new, now) if new is not None else ()
    if old is None and new is not None and len(after) == 1:
        bucket, output, at = after[0]
        shape = table.shapes[at]
        row_id, data = shape.id(new), shape.encode(new)
        if row_id is not None and data is not None:
            intend(_make(Put, (bucket, output, row_id, table.subkey(new), data)))
        return
    before = table.place(old, now) if old is not None else ()
    if before or after:
        move(table, old, new, before, after, intend)


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

    One bucket may hold a row for several reasons, which may show it differently: the last that can counts.
    """
    shapes = table.shapes
    gone: dict[_Place, list[int]] = {}
    if before:
        assert old is not None, "nothing was placed of no row"
        old_subkey = table.subkey(old)
        last, row_id = -1, None
        for bucket, output, at in before:
            if at != last:
                last, row_id = at, shapes[at].id(old)
            if row_id is not None:
                gone.setdefault((bucket, output, row_id, old_subkey), []).append(at)
    if after:
        assert new is not None, "nothing is placed of no row"
        _put(table, new, after, gone, intend, is_same)
    if gone:
        for place in sorted(gone):
            # What could not be shown was never put.
            if any(not shapes[at].is_computed or shapes[at].encode(old) is not None for at in gone[place]):  # type: ignore[arg-type]  # asserted above
                intend(Remove(*place))


def _put(
    table: Compiled,
    row: Row,
    after: Sequence[Placed],
    gone: dict[_Place, list[int]],
    intend: Intend,
    is_same: bool,
) -> None:
    """Put a row where it belongs; what is there already is not gone."""
    shapes, subkey = table.shapes, table.subkey(row)
    here: dict[_Place, list[int]] = {}
    last, row_id = -1, None
    for bucket, output, at in after:
        if at != last:
            last, row_id = at, shapes[at].id(row)
        if row_id is not None:
            here.setdefault((bucket, output, row_id, subkey), []).append(at)
    shown: dict[int, str | None] = {}
    for place, reasons in here.items():
        if is_same and gone.get(place) == reasons:
            del gone[place]
            continue
        for at in reversed(reasons):
            if at not in shown:
                shown[at] = shapes[at].encode(row)
            data = shown[at]
            if data is not None:
                gone.pop(place, None)
                intend(_make(Put, (*place, data)))
                break


def enter(
    table: Compiled, old: Row | None, new: Row | None, now: float, intend: Intend, is_anew: bool = False
) -> None:
    """What a row was a reason for in lookups, and what it is one for now."""
    before = {(*entry, table.subkey(old)) for entry in table.entries(old, now)} if old is not None else set()
    after = {(*entry, table.subkey(new)) for entry in table.entries(new, now)} if new is not None else set()
    for entry in sorted(before - after):
        intend(Leave(*entry))
    for entry in sorted(after if is_anew else after - before):
        intend(Enter(*entry))
