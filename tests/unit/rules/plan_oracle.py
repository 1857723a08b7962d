"""Rules × rows × a request → the rows this request gets: the plan carried out slowly, for comparison. No I/O.

This is what a plan means, step by step and without any of the ways in which the replicator does it: no index,
no state, no text. Every row is held against every term, and every bucket that a request leads to is opened.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any, NamedTuple

from replicator.rules.compute.expressions import EvaluationError, plain
from replicator.rules.expression import (
    Column,
    Dialect,
    Expression,
    Found,
    Metadata,
    Now,
    Request,
    Scalar,
)
from replicator.rules.model import (
    Brought,
    DataQuery,
    Definition,
    Each,
    Find,
    ForEach,
    Key,
    Lookup,
    ParameterQuery,
    Predicate,
    Step,
    TableName,
    Term,
    Variant,
    When,
    Window,
)

Row = Mapping[str, Scalar]
#: By name, with a schema unless it is `public`.
Tables = Mapping[str, Sequence[Row]]
Identity = tuple[str, Scalar]
#: What an earlier step brought, by step.
Brings = Mapping[int, Sequence[Scalar]]


class Asked(NamedTuple):
    """A request."""

    user_id: str | None = None
    jwt: Mapping[str, Any] = {}  # nobody writes to it
    parameters: Mapping[str, Any] = {}
    subscription: Mapping[str, Any] = {}

    def value(self, what: str) -> Scalar:
        if what == "user_id":
            return self.user_id
        if what == "token_parameters":
            return json.dumps({**self.jwt.get("parameters", {}), "user_id": self.user_id})
        return json.dumps(getattr(self, what))


class Plan(NamedTuple):
    """What `rules` made of a file, as far as it decides who gets what."""

    definitions: tuple[Definition, ...]
    lookups: Mapping[str, Lookup]
    dialect: Dialect


class _Place(NamedTuple):
    """A row, and the table it stands in."""

    namespace: str
    table: str
    row: Row


def rows_for(plan: Plan, tables: Tables, asked: Asked, now: float = 0.0) -> set[tuple[str, int]]:
    """(name that clients see, place of the row in its table) of every row that the request gets."""
    world = _World(plan, tables, now)
    found: set[tuple[str, int]] = set()
    for definition in plan.definitions:
        for variant in definition.variants:
            found |= world.rows_of(variant, asked)
    return found


def buckets_for(plan: Plan, tables: Tables, asked: Asked, now: float = 0.0) -> set[str]:
    """The names of the buckets that the request leads to."""
    world = _World(plan, tables, now)
    return {
        variant.name + str([value for _, value in bucket])
        for definition in plan.definitions
        for variant in definition.variants
        for bucket in world.buckets_of(variant, asked)
    }


def identity(value: Scalar) -> Identity | None:
    """What is equal has the same; None for NULL, which equals nothing."""
    if value is None:
        return None
    if isinstance(value, bool | int):
        return "number", int(value)
    if isinstance(value, float):
        return "number", int(value) if value.is_integer() else value
    return type(value).__name__, value


def members(value: Scalar) -> list[tuple[Scalar, Scalar]]:
    """Keys and values of a JSON array or object."""
    if value is None:
        return []
    if not isinstance(value, str):
        raise EvaluationError("not JSON")
    try:
        parsed = json.loads(value)
    except ValueError:
        raise EvaluationError("not JSON") from None
    if isinstance(parsed, dict):
        return [(key, _scalar(member)) for key, member in parsed.items()]
    if isinstance(parsed, list):
        return [(key, _scalar(member)) for key, member in enumerate(parsed)]
    return [(None, _scalar(parsed))]


def _scalar(value: Any) -> Scalar:
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, dict | list):
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    scalar: Scalar = value
    return scalar


def _is_true(value: Scalar) -> bool:
    if isinstance(value, str):
        digits = value.strip()
        return bool(digits[:1].isdigit() and int(digits.split(".")[0] or 0))
    return bool(value)


class _World:
    """Tables at one moment."""

    def __init__(self, plan: Plan, tables: Tables, now: float) -> None:
        self._plan = plan
        self._now = now
        self._tables: dict[tuple[str, str], Sequence[Row]] = {}
        for name, rows in tables.items():
            namespace, _, table = name.rpartition(".")
            self._tables[namespace or "public", table] = rows
        self._entries = {id: list(self._lookup(lookup)) for id, lookup in plan.lookups.items()}

    def rows_of(self, variant: Variant, asked: Asked) -> set[tuple[str, int]]:
        buckets = self.buckets_of(variant, asked)
        return {
            (query.output or place.table, at)
            for query in variant.data
            for at, place in self._places(query.table)
            if self._buckets_with(variant, query, place) & buckets
        }

    def buckets_of(self, variant: Variant, asked: Asked) -> set[tuple[Identity, ...]]:
        found: set[tuple[Identity, ...]] = set()
        for query in variant.queries:
            try:
                found |= {
                    bucket
                    for values in self._asked(query, asked)
                    if (bucket := _bucket(variant, values)) is not None
                }
            except EvaluationError:
                continue  # the query that cannot be evaluated grants nothing
        return found

    # The side of the rows.

    def _places(self, name: TableName) -> Iterator[tuple[int, _Place]]:
        for (namespace, table), rows in self._tables.items():
            if name.matches(namespace, table):
                for at, row in enumerate(rows):
                    yield at, _Place(namespace, table, row)

    def _of_row(self, name: TableName, place: _Place) -> Callable[[Expression], Scalar]:
        def leaf(expr: Expression) -> Scalar:
            match expr:
                case Column(column, _):
                    return place.row[column]
                case Metadata("schema", _):
                    return place.namespace
                case Metadata("table_name", _):
                    return place.table
                case Metadata("table_suffix", _):
                    return place.table.removeprefix(name.name.removesuffix("%"))
                case Now():
                    return self._now
            raise AssertionError(f"not about a row: {expr}")

        return lambda expr: plain(expr, leaf, self._plan.dialect)

    def _holds(
        self, of: Callable[[Expression], Scalar], filters: Iterable[Predicate], windows: Iterable[Window]
    ) -> bool:
        return all(_is_true(of(predicate.test)) for predicate in filters) and all(
            self._is_within(of(window.moment), window) for window in windows
        )

    def _is_within(self, moment: Scalar, window: Window) -> bool:
        if not isinstance(moment, int | float):
            return False
        return (moment + window.seconds > self._now) is window.is_until

    def _lookup(self, lookup: Lookup) -> Iterator[tuple[tuple[Identity, ...], tuple[Scalar, ...]]]:
        for _, place in self._places(lookup.table):
            of = self._of_row(lookup.table, place)
            try:
                if self._holds(of, lookup.filters, lookup.windows):
                    values = tuple(of(value) for value in lookup.values)
                    for keys in product(*(_expanded(key, of) for key in lookup.keys)):
                        if (found := _identities(keys)) is not None:
                            yield found, values
            except EvaluationError:
                continue  # the row is left out

    def _led_to(self, lookup: str, keys: Sequence[Scalar]) -> list[tuple[Scalar, ...]]:
        wanted = _identities(keys)
        return list(dict.fromkeys(values for entry, values in self._entries[lookup] if entry == wanted))

    def _buckets_with(self, variant: Variant, query: DataQuery, place: _Place) -> set[tuple[Identity, ...]]:
        of = self._of_row(query.table, place)
        found: set[tuple[Identity, ...]] = set()
        for term in query.terms:
            try:
                if self._holds(of, term.filters, term.windows):
                    found |= set(self._buckets_by(variant, term, of))
            except EvaluationError:
                continue  # the row is left out of this
        return found

    def _buckets_by(
        self, variant: Variant, term: Term, of: Callable[[Expression], Scalar]
    ) -> Iterator[tuple[Identity, ...]]:
        joined = [
            [values for key in _expanded(join.key, of) for values in self._led_to(join.lookup, [key])]
            for join in term.joins
        ]
        for brought in product(*joined):

            def each(value: Key | Brought, brought: Any = brought) -> list[Scalar]:
                if isinstance(value, Brought):
                    return [brought[value.join][value.at]]
                return _expanded(value, of)

            if all(
                {identity(v) for v in each(term.values[at])} & {identity(v) for v in each(other)} - {None}
                for at, other in term.same
            ):
                for values in product(*(each(value) for value in term.values)):
                    if (bucket := _bucket(variant, values)) is not None:
                        yield bucket

    # The side of the request.

    def _asked(self, query: ParameterQuery, asked: Asked) -> Iterator[tuple[Scalar, ...]]:
        for brings in self._stepped(query.steps, 0, {}, asked):
            of = self._of_request(asked, brings)
            yield tuple(of(value) for value in query.values)

    def _of_request(self, asked: Asked, brings: Brings) -> Callable[[Expression], Scalar]:
        def leaf(expr: Expression) -> Scalar:
            match expr:
                case Request(what):
                    return asked.value(what)
                case Found(step, at):
                    return brings[step][at]
                case Now():
                    return self._now
            raise AssertionError(f"not about a request: {expr}")

        return lambda expr: plain(expr, leaf, self._plan.dialect)

    def _stepped(self, steps: Sequence[Step], at: int, brings: Brings, asked: Asked) -> Iterator[Brings]:
        if at == len(steps):
            yield brings
            return
        for more in self._step(steps[at], self._of_request(asked, brings)):
            yield from self._stepped(steps, at + 1, {**brings, at: more}, asked)

    def _step(self, step: Step, of: Callable[[Expression], Scalar]) -> Iterator[Sequence[Scalar]]:
        match step:
            case When(condition):
                if _is_true(of(condition.test)):
                    yield ()
            case ForEach(array):
                yield from members(of(array))
            case Find(lookup, keys):
                assert len(keys) == len(self._plan.lookups[lookup].keys), "as many as the lookup has"
                for one in product(*(_expanded(key, of) for key in keys)):
                    yield from self._led_to(lookup, one)


def _expanded(key: Key, of: Callable[[Expression], Scalar]) -> list[Scalar]:
    if isinstance(key, Each):
        return [value for _, value in members(of(key.of))]
    return [of(key)]


def _identities(values: Sequence[Scalar]) -> tuple[Identity, ...] | None:
    found = [identity(value) for value in values]
    return None if None in found else tuple(one for one in found if one is not None)


def _bucket(variant: Variant, values: Sequence[Scalar]) -> tuple[Identity, ...] | None:
    """Which bucket of a variant these values mean; none if one of them is NULL."""
    assert len(values) == len(variant.parameters), "one value for each parameter"
    as_text = variant.as_text or (False,) * len(values)
    return _identities(
        [
            str(identity(value)[1]) if is_text and value is not None else value  # type: ignore[index]  # not NULL
            for value, is_text in zip(values, as_text, strict=True)
        ]
    )
