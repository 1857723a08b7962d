"""Relation × Rules → functions that say of a row where it belongs, written once per relation. No I/O.

What a rules file means is decided once; what is left to do per row is written out as source and compiled: no
walking of trees, no look-ups by name. Each function takes the row as the log brought it, and the time.

A term that cannot be evaluated for a row leaves the row out of that bucket, and is told to `failed`; it does
not stop anything. The same row fails the same way when it leaves, so nothing is put that is not removed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import orjson

from replicator.rules import keys
from replicator.rules.body import Body
from replicator.rules.body import Failed as FailedHere
from replicator.rules.columns.shapes import Shape, shape
from replicator.rules.columns.types import Types
from replicator.rules.compute.code import Code
from replicator.rules.expression import Scalar
from replicator.rules.model import (
    DataQuery,
    Lookup,
    Rules,
    TableName,
    Variant,
    Window,
)
from replicator.rules.puts import Puts, puts
from replicator.wal.messages import Relation, Row

#: A bucket, the name clients see, and which of the table's shapes the row has there.
Placed = tuple[str, str, int]
#: A lookup, a key in it, and the values to which the key leads.
Entry = tuple[str, str, str]
#: A lookup and a key in it.
Need = tuple[str, str]
#: A definition's buckets or a lookup, and when a row next comes to them or leaves them by itself.
Due = tuple[str, float]
#: What lookups lead to, for whatever has been asked of them.
Known = Callable[[Need], Iterable[tuple[Scalar, ...]]]
#: Told of what could not be evaluated: what it was for, which row, and why.
Failed = Callable[[str, "Compiled", Row, str], None]


#: Python nests a hundred levels deep; what is printed at once stands in a loop.
_DEEPEST = 90


class Compiled(NamedTuple):
    """What the rules come to for one relation."""

    relation: Relation
    #: What the subkeys of this table's rows begin with.
    prefix: str
    subkey: Callable[[Row], str]
    #: Where a row belongs because of what it says itself.
    place: Callable[[Row, float], list[Placed]]
    shapes: tuple[Shape, ...]
    #: The lookup entries that a row makes, if tables like this make any.
    entries: Callable[[Row, float], list[Entry]]
    has_entries: bool
    #: What must be known of other rows to place it where it belongs because of them.
    needs: Callable[[Row], list[Need]]
    place_joined: Callable[[Row, float, Known], list[Placed]]
    #: When the row's place or entries next change by themselves, for each that they change in.
    dues: Callable[[Row, float], list[Due]]
    #: The first such moment after one time, if it is no later than another: the row's turn to be moved on.
    turn: Callable[[Row, float, float], float | None]
    #: Whether placing it takes what other rows say, or moves other rows, or depends on the time.
    is_joined: bool
    #: Whether its rows are kept as they are, to be placed again when something else changes.
    is_kept: bool
    #: What a row says of a client's writes, as entries under no key, if tables like this say any of that.
    writes: Callable[[Row, float], list[Entry]] = lambda row, now: []
    has_writes: bool = False
    #: The lookups in which its rows look something up.
    looks_up: frozenset[str] = frozenset()
    #: Where it is of two sets of rules, each by itself: a row may have been met by the one and not the other.
    parts: tuple[Compiled, ...] = ()
    #: Where it can have a row in one bucket only, and makes no entries: what puts new ones there, printed.
    puts: Puts | None = None


def compile_rules(
    rules: Rules, relation: Relation, types: Types, key_at: Sequence[int], failed: Failed
) -> Compiled | None:
    """The functions for one relation, or None if no rule is about it."""
    where = relation.namespace, relation.name
    queries = [(v, q) for v in rules.variants() for q in v.data if q.table.matches(*where)]
    lookups = [lookup for lookup in rules.lookups if lookup.table.matches(*where)]
    writes = [write for write in rules.writes if write.table.matches(*where)]
    if not queries and not lookups and not writes:
        return None

    def fail(rule: str, row: Row, why: str) -> None:
        failed(rule, made, row, why)

    maker = _Maker(rules, relation, types, fail)
    joined = {join.lookup for v in rules.variants() for q in v.data for t in q.terms for join in t.joins}
    has_joins = any(term.joins for _, query in queries for term in query.terms)
    windows = _windows_of(queries, lookups)
    dues = maker.dues(windows)
    shapes, shape_at = maker.shapes(query for _, query in queries)
    subkey = maker.subkey(key_at)
    made = Compiled(
        relation,
        f"{relation.oid}/",
        subkey,
        maker.place(queries, shape_at),
        shapes,
        maker.entries(lookups),
        bool(lookups),
        maker.needs(queries),
        maker.place_joined(queries, shape_at),
        dues,
        _turn(dues),
        has_joins or bool(windows) or any(lookup.id in joined for lookup in lookups),
        has_joins or bool(windows),
        maker.entries(writes),
        bool(writes),
        frozenset(join.lookup for _, query in queries for term in query.terms for join in term.joins),
        puts=None if lookups else maker.puts(queries, shapes, key_at, subkey),
    )
    return made


def _windows_of(
    queries: Iterable[tuple[Variant, DataQuery]], lookups: Iterable[Lookup]
) -> dict[str, list[Window]]:
    """What depends on the time, by what it decides about."""
    found: dict[str, list[Window]] = {}
    for variant, query in queries:
        for term in query.terms:
            found.setdefault(variant.name, []).extend(term.windows)
    for lookup in lookups:
        found.setdefault(lookup.id, []).extend(lookup.windows)
    return {owner: windows for owner, windows in found.items() if windows}


def _turn(dues: Callable[[Row, float], list[Due]]) -> Callable[[Row, float, float], float | None]:
    return lambda row, then, now: min([at for _, at in dues(row, then) if at <= now], default=None)


class _Maker:
    """Writes the functions of one relation."""

    def __init__(self, rules: Rules, relation: Relation, types: Types, failed: FailedHere) -> None:
        self._rules, self._relation, self._types, self._failed = rules, relation, types, failed

    def place(
        self, queries: list[tuple[Variant, DataQuery]], shape_at: Sequence[int]
    ) -> Callable[[Row, float], list[Placed]]:
        body = Body(self._rules, self._relation, self._types, self._failed)
        terms = [
            (variant, query, term, at)
            for (variant, query), at in zip(queries, shape_at, strict=True)
            for term in query.terms
            if not term.joins
        ]
        for variant, query, term, at in terms:
            body.suffix = self._suffix(query.table)
            with_values = body.term(variant, term)
            body.placed(variant, self._output(query), at, with_values)
        names = [(variant.name, self._output(query), at) for variant, query, _, at in terms]
        return body.function("row, now", may_repeat=len(set(names)) < len(names))

    def puts(
        self,
        queries: list[tuple[Variant, DataQuery]],
        shapes: Sequence[Shape],
        key_at: Sequence[int],
        subkey: Callable[[Row], str],
    ) -> Puts | None:
        """What `place`, a shape and `subkey` say of a row, printed, where there is one way only."""
        terms = [(variant, query, term) for variant, query in queries for term in query.terms]
        if len(terms) != 1 or terms[0][2].joins or terms[0][2].is_many:
            return None
        variant, query, term = terms[0]
        body = Body(self._rules, self._relation, self._types, self._failed)
        body.suffix = self._suffix(query.table)
        code, naming = body.naming(variant, body.term(variant, term))
        if any(line.startswith(" " * 4 * _DEEPEST) for line in naming):
            return None
        return puts(code, naming, self._relation, self._output(query), shapes[0], key_at, subkey)

    def place_joined(
        self, queries: list[tuple[Variant, DataQuery]], shape_at: Sequence[int]
    ) -> Callable[[Row, float, Known], list[Placed]]:
        body = Body(self._rules, self._relation, self._types, self._failed)
        for (variant, query), at in zip(queries, shape_at, strict=True):
            body.suffix = self._suffix(query.table)
            for term in query.terms:
                if term.joins:
                    with_values = body.term(variant, term)
                    body.placed(variant, self._output(query), at, with_values)
        return body.function("row, now, known", may_repeat=True)

    def needs(self, queries: list[tuple[Variant, DataQuery]]) -> Callable[[Row], list[Need]]:
        body = Body(self._rules, self._relation, self._types, self._failed)
        for variant, query in queries:
            body.suffix = self._suffix(query.table)
            for term in query.terms:
                for join in term.joins:
                    body.needed(variant.name, term, join)
        return body.function("row", may_repeat=True)

    def entries(self, lookups: list[Lookup]) -> Callable[[Row, float], list[Entry]]:
        body = Body(self._rules, self._relation, self._types, self._failed)
        for lookup in lookups:
            body.suffix = self._suffix(lookup.table)
            body.entry(lookup)
        return body.function("row, now", may_repeat=True)

    def dues(self, windows: dict[str, list[Window]]) -> Callable[[Row, float], list[Due]]:
        if not windows:
            return lambda row, now: []
        made: list[tuple[str, Callable[[Row, float], list[float]]]] = []
        for owner, mine in windows.items():
            body = Body(self._rules, self._relation, self._types, self._failed)
            for window in dict.fromkeys(mine):
                body.boundary(window)
            made.append((owner, body.function("row, now", may_repeat=False)))

        def dues(row: Row, now: float) -> list[Due]:
            return [(owner, min(found)) for owner, boundaries in made if (found := boundaries(row, now))]

        return dues

    def subkey(self, key_at: Sequence[int]) -> Callable[[Row], str]:
        """What tells a row of this table from every other."""
        code, prefix = Code(), f"{self._relation.oid}/"
        short = code.name(keys.short, "short")
        if len(key_at) == 1:
            # What `short` leaves as it is, as nearly every key, is not taken to it.
            is_short = f"{code.name(len, 'length')}(key) <= {keys.MOST_IN_A_KEY} and key[:1] != '#'"
            lines = [f"key = row[{key_at[0]}] or ''", f"if {is_short}:", f"    return {prefix!r} + key"]
            return code.function("row", [*lines, f"return {prefix!r} + {short}(key)"])
        columns = key_at or range(len(self._relation.columns))
        words = "".join(f"row[{at}], " for at in columns)
        dumps = code.name(orjson.dumps, "dumps")
        return code.function("row", [f"return {prefix!r} + {short}({dumps}(({words})).decode())"])

    def shapes(self, queries: Iterable[DataQuery]) -> tuple[tuple[Shape, ...], list[int]]:
        """The ways in which rows are shown, and which of them each query takes."""
        known: dict[object, int] = {}
        shapes: list[Shape] = []
        taken: list[int] = []
        for query in queries:
            suffix = self._suffix(query.table)
            way = query.columns, suffix
            if way not in known:
                known[way] = len(shapes)
                shapes.append(
                    shape(
                        query.columns, self._relation, self._rules.dialect, self._types, self._unseen, suffix
                    )
                )
            taken.append(known[way])
        return tuple(shapes), taken

    def _unseen(self, row: Row, why: str) -> None:
        """A row that clients cannot be shown."""
        self._failed(self._relation.name, row, why)

    def _output(self, query: DataQuery) -> str:
        return query.output or self._relation.name

    def _suffix(self, table: TableName) -> str:
        """What the wildcard of a table's name stands for here."""
        return self._relation.name[len(table.name) - 1 :] if table.name.endswith("%") else ""
