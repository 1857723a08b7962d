"""The queries of a stream, walked → its variants: what is the same bucket is one. No I/O.

Two branches that ask for the same values share a bucket, and its rows are those of both. Two branches that
send the same rows by the same values share a bucket too, and a request may come to it either way: a row is
stored once, and downloaded once, however many ways there are to be allowed it.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace
from typing import NamedTuple

from replicator.rules.expression import Column, Expression
from replicator.rules.model import (
    Brought,
    DataQuery,
    Each,
    Key,
    ParameterQuery,
    Predicate,
    Step,
    Term,
    Variant,
    When,
)


class Reached(NamedTuple):
    """One branch of a query: how requests come to its rows."""

    steps: tuple[Step, ...]
    values: tuple[Expression, ...]
    #: With the branch's one term.
    data: DataQuery
    text: str


def variants_of(name: str, reached: list[Reached], priority: int) -> tuple[Variant, ...]:
    """The variants, in the order in which the queries stand in the file."""
    by_values: dict[Hashable, list[Reached]] = {}
    for one in reached:
        by_values.setdefault((tuple(map(_bare_step, one.steps)), one.values), []).append(one)
    by_data: dict[Hashable, list[list[Reached]]] = {}
    for several in by_values.values():
        data = tuple(map(_bare_query, _merged(several)))
        by_data.setdefault(data, []).append(several)
    return tuple(_variant(f"{name}|{number}", ways, priority) for number, ways in enumerate(by_data.values()))


def _variant(name: str, ways: list[list[Reached]], priority: int) -> Variant:
    queries = [ParameterQuery(way[0].steps, way[0].values, priority, way[0].text) for way in ways]
    data = _merged(ways[0])
    return Variant(name, _names(data), tuple(queries), data, (False,) * len(queries[0].values))


def _merged(several: list[Reached]) -> tuple[DataQuery, ...]:
    """The data queries, those that show the same of the same table as one with several terms."""
    found: dict[DataQuery, list[DataQuery]] = {}
    for one in several:
        found.setdefault(replace(one.data, terms=(), text=""), []).append(one.data)
    return tuple(replace(same[0], terms=_distinct(same)) for same in found.values())


def _distinct(same: list[DataQuery]) -> tuple[Term, ...]:
    terms = [term for query in same for term in query.terms]
    return tuple({_bare_term(term): term for term in reversed(terms)}.values())[::-1]


# What stands in the file as text is to be shown, and makes no difference.


def _bare(predicate: Predicate) -> Predicate:
    return Predicate(predicate.test, "")


def _bare_step(step: Step) -> Step:
    return When(_bare(step.condition)) if isinstance(step, When) else step


def _bare_term(term: Term) -> Term:
    windows = tuple(replace(window, text="") for window in term.windows)
    return replace(term, filters=tuple(map(_bare, term.filters)), windows=windows)


def _bare_query(query: DataQuery) -> DataQuery:
    return replace(query, terms=tuple(map(_bare_term, query.terms)), text="")


def _names(data: tuple[DataQuery, ...]) -> tuple[str, ...]:
    """Names for the parameters, for people: those of the columns."""
    names: list[str] = []
    for at, key in enumerate(data[0].terms[0].values):
        name = _name(key) or f"value{at + 1}"
        names.append(f"{name}{at + 1}" if name in names else name)
    return tuple(names)


def _name(key: Key | Brought) -> str | None:
    match key:
        case Column(name) | Each(Column(name)):
            return name
    return None
