"""Rules × every row there is → what buckets and lookups must hold, each row against each rule. No I/O."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from itertools import product
from typing import NamedTuple

from replicator.rules.compute.expressions import EvaluationError, plain
from replicator.rules.compute.scalars import truth
from replicator.rules.expression import Column as Named
from replicator.rules.expression import Expression, Metadata, Scalar
from replicator.rules.keys import MOST_IN_A_NAME
from replicator.rules.model import (
    Brought,
    DataQuery,
    Each,
    Key,
    Lookup,
    Output,
    Predicate,
    Rules,
    TableName,
    Term,
    Variant,
    Window,
)
from replicator.wal.messages import Relation, Row

#: Bucket, name for clients, id, subkey.
Place = tuple[str, str, str, str]
#: What a client has of a row.
Shown = dict[str, Scalar]
#: Lookup, key, value, subkey.
Entry = tuple[str, str, str, str]
#: To what a lookup leads.
Led = list[tuple[Scalar, ...]]

_INTEGER, _TIMESTAMPTZ = 20, 1184


class Known(NamedTuple):
    """A table and its rows."""

    relation: Relation
    key: tuple[str, ...]
    rows: Sequence[Row]


class FromScratch:
    """All rows at one moment."""

    def __init__(self, rules: Rules, tables: Sequence[Known], now: float = 0.0) -> None:
        self._rules, self._now = rules, now
        self._rows = [_OneRow(rules, known, row, now) for known in tables for row in known.rows]
        self.entries = {
            entry for lookup in rules.lookups for row in self._rows for entry in row.entries(lookup)
        }
        self._leads: dict[tuple[str, str], set[str]] = {}
        for lookup, key, value, _ in self.entries:
            self._leads.setdefault((lookup, key), set()).add(value)

    def held(self) -> dict[Place, Shown]:
        """Every row in every bucket."""
        found: dict[Place, Shown] = {}
        for row in self._rows:
            found |= row.places(self._led)
        return found

    @property
    def has_failed(self) -> bool:
        """Whether something could not be evaluated."""
        return any(row.has_failed for row in self._rows)

    def _led(self, lookup: str, key: Scalar) -> Led:
        if key is None:
            return []
        values = self._leads.get((lookup, _short(f"[{compact(key)}]")), set())
        return [tuple(json.loads(value)) for value in values]


class _OneRow:
    def __init__(self, rules: Rules, known: Known, row: Row, now: float) -> None:
        self._rules, self._of, self._now = rules, known.relation, now
        self._row = {
            column.name: _scalar(column.type_oid, value)
            for column, value in zip(known.relation.columns, row, strict=True)
        }
        places = [column.name for column in known.relation.columns]
        parts = [row[places.index(name)] for name in known.key]
        text = str(parts[0]) if len(parts) == 1 else compact(parts)
        self._subkey = f"{known.relation.oid}/{_short(text)}"
        self.has_failed = False

    def entries(self, lookup: Lookup) -> set[Entry]:
        table = lookup.table
        if not table.matches(self._of.namespace, self._of.name):
            return set()
        try:
            if not self._holds(table, lookup.filters, lookup.windows):
                return set()
            value = compact([self._value(table, one) for one in lookup.values])
            found = list(product(*(self._each(table, key) for key in lookup.keys)))
        except EvaluationError:
            self.has_failed = True
            return set()
        return {(lookup.id, _short(compact(list(k))), value, self._subkey) for k in found if None not in k}

    def places(self, led: Callable[[str, Scalar], Led]) -> dict[Place, Shown]:
        self._led = led
        found: dict[Place, Shown] = {}
        for joined in (False, True):  # of two ways to show one row, a joined one counts
            for variant, query in ((v, q) for v in self._rules.variants() for q in v.data):
                if query.table.matches(self._of.namespace, self._of.name):
                    terms = [term for term in query.terms if bool(term.joins) == joined]
                    found |= self._placed(variant, query, terms)
        return found

    def _placed(self, variant: Variant, query: DataQuery, terms: Sequence[Term]) -> dict[Place, Shown]:
        found: dict[Place, Shown] = {}
        for bucket in {bucket for term in terms for bucket in self._buckets(variant, query.table, term)}:
            try:
                shown = self._shown(query)
            except EvaluationError:
                self.has_failed = True
                continue
            row_id = shown.get("id")
            found[
                bucket, query.output or self._of.name, "" if row_id is None else str(row_id), self._subkey
            ] = shown
        return found

    def _buckets(self, variant: Variant, table: TableName, term: Term) -> list[str]:
        try:
            return list(self._evaluated(variant, table, term))
        except EvaluationError:
            self.has_failed = True
            return []

    def _evaluated(self, variant: Variant, table: TableName, term: Term) -> Iterator[str]:
        if not self._holds(table, term.filters, term.windows):
            return
        joined = [
            [values for key in self._each(table, join.key) for values in self._led(join.lookup, key)]
            for join in term.joins
        ]
        for brought in product(*joined):

            def each(part: Key | Brought, brought: tuple[tuple[Scalar, ...], ...] = brought) -> list[Scalar]:
                return [brought[part.join][part.at]] if isinstance(part, Brought) else self._each(table, part)

            for values in product(*(each(value) for value in term.values)):
                if None in values or not all(values[at] in each(other) for at, other in term.same):
                    continue
                as_text = variant.as_text or (False,) * len(values)
                words = [str(v) if is_text else v for v, is_text in zip(values, as_text, strict=True)]
                bucket = f"{variant.name}[{','.join(map(compact, words))}]"
                if len(bucket) > MOST_IN_A_NAME:
                    self.has_failed = True
                else:
                    yield bucket

    def _holds(self, table: TableName, filters: Sequence[Predicate], windows: Sequence[Window]) -> bool:
        return all(truth(self._value(table, one.test)) for one in filters) and all(
            isinstance(at := self._value(table, window.moment), int | float)
            and (at + window.seconds > self._now) is window.is_until
            for window in windows
        )

    def _each(self, table: TableName, key: Key) -> list[Scalar]:
        if not isinstance(key, Each):
            return [self._value(table, key)]
        text = self._value(table, key.of)
        if text is None:
            return []
        try:
            members = json.loads(str(text))
        except ValueError:
            members = None
        if not isinstance(members, list):
            raise EvaluationError("not an array")
        return [compact(m) if isinstance(m, list) else int(m) if m in (1, True) else m for m in members]

    def _value(self, table: TableName, expr: Expression) -> Scalar:
        def leaf(part: Expression) -> Scalar:
            if isinstance(part, Metadata):
                assert part.what == "table_suffix"
                return self._of.name.removeprefix(table.name.removesuffix("%"))
            assert isinstance(part, Named)
            return self._row[part.name]

        return plain(expr, leaf, self._rules.dialect)

    def _shown(self, query: DataQuery) -> Shown:
        shown: Shown = {}
        for column in query.columns:
            if isinstance(column, Output):
                shown[column.name] = self._value(query.table, column.value)
                continue
            for name, value in self._row.items():
                if not (column.skips_underscored and (name.startswith("_") or name in shown)):
                    shown[name] = value
        if "\0" in str(shown.get("id")):
            raise EvaluationError("no id")
        return shown


def _scalar(oid: int, value: object) -> Scalar:
    if value is None:
        return None
    text = str(value)
    if oid == _TIMESTAMPTZ:
        return text.removesuffix("+00") + "Z"
    return int(text) if oid == _INTEGER else text


def compact(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _short(text: str) -> str:
    is_kept = len(text) <= 300 and not text.startswith("#")
    return text if is_kept else "#" + sha256(text.encode()).hexdigest()
