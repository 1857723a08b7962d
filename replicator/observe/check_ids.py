"""Rules → the columns that they compare with the token's subject. No I/O."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from replicator.rules.expression import Call, Column, Expression, Literal, Request
from replicator.rules.model import Each, Find, Key, Lookup, Rules, TableName, Variant

_PAYLOAD = (Request("jwt"), Literal("sub"))


class Compared(NamedTuple):
    """A column, and what for."""

    table: TableName
    column: str
    definition: str


def compared(rules: Rules) -> list[Compared]:
    """Each once; those that decide which buckets somebody gets before those of the rows in them."""
    lookups = {lookup.id: lookup for lookup in rules.lookups}
    found: dict[Compared, None] = {}
    for of in (_in_lookups, _in_data):
        for definition in rules.definitions:
            for variant in definition.variants:
                for table, column in of(variant, lookups):
                    found[Compared(table, column, definition.name)] = None
    return list(found)


def _in_lookups(variant: Variant, lookups: dict[str, Lookup]) -> Iterator[tuple[TableName, str]]:
    for query in variant.queries:
        for step in query.steps:
            if isinstance(step, Find):
                lookup = lookups[step.lookup]
                for asked, key in zip(step.keys, lookup.keys, strict=True):
                    if _is_subject(asked) and (column := _column(key)) is not None:
                        yield lookup.table, column


def _in_data(variant: Variant, lookups: dict[str, Lookup]) -> Iterator[tuple[TableName, str]]:
    places = {at for query in variant.queries for at, value in enumerate(query.values) if _is_subject(value)}
    for data in variant.data:
        for term in data.terms:
            for at in sorted(places):
                value = term.values[at]
                if isinstance(value, Column | Call) and (column := _column(value)) is not None:
                    yield data.table, column


def _is_subject(expression: Key) -> bool:
    return expression == Request("user_id") or (
        isinstance(expression, Call) and expression.name == "->>" and expression.args == _PAYLOAD
    )


def _column(key: Expression | Each) -> str | None:
    match key:
        case Column(name) | Call("cast text", (Column(name),)):
            return name
    return None
