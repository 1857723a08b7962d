"""What an expression over a row must come to → SQL that every such row fulfils, written for an index. No I/O.

The SQL only narrows: what it lets through is decided by the same functions that decide in replication. So it
may let through too much and never too little, and where that is not certain there is none.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from psycopg import sql

from replicator.rules.columns.types import BOOL, Types
from replicator.rules.columns.values import kind_of
from replicator.rules.expression import Call, Column, Dialect, Expression, Scalar
from replicator.wal.messages import Relation

#: text, varchar, name: equal as they are printed.
_TEXTS = frozenset((25, 1043, 19))
_INTEGERS = frozenset((20, 21, 23))
_UUID, _NUMERIC = 2950, 1700
_UUID_TEXT = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_INTEGER_TEXT = re.compile(r"0|-?[1-9][0-9]{0,18}")
_MOST, _LEAST = (1 << 63) - 1, -1 << 63

NEVER = sql.SQL("false")


def is_one_of(
    expr: Expression,
    values: Collection[Scalar],
    relation: Relation,
    types: Types,
    dialect: Dialect,
    *,
    as_text: bool = False,
) -> sql.Composable | None:
    """SQL that holds wherever the expression comes to one of these values; None if there is none such."""
    match expr:
        case Call("cast text", (Column() as column,)):
            return is_one_of(column, values, relation, types, dialect, as_text=True)
        case Column(name):
            oid = next((one.type_oid for one in relation.columns if one.name == name), None)
            if oid is not None:
                return _of_column(sql.Identifier(name), oid, values, types, dialect, as_text)
    return None


def _of_column(
    column: sql.Identifier,
    oid: int,
    values: Collection[Scalar],
    types: Types,
    dialect: Dialect,
    as_text: bool,
) -> sql.Composable | None:
    kind = kind_of(oid, dialect, types)
    texts = [value for value in values if isinstance(value, str) and _can_be_stored(value)]
    if kind == "text" and oid in _TEXTS:
        return _any(column, texts, "text")
    if kind == "text" and oid == _UUID:
        return _any(column, [text for text in texts if _UUID_TEXT.fullmatch(text)], "uuid")
    if kind == "text" and (oid == _NUMERIC or types.find(oid).kind == "enum"):
        return _any(sql.SQL("{}::text").format(column), texts, "text")
    if oid in _INTEGERS or oid == BOOL:
        numbers = _integers(texts if as_text else values, as_text)
        if oid == BOOL:
            return _any(column, [bool(number) for number in numbers if number in (0, 1)], "boolean")
        return _any(column, numbers, "bigint")
    return None


def _can_be_stored(text: str) -> bool:
    """Postgres has no NUL in a text, nor half a character, and takes neither in a query."""
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def _integers(values: Iterable[Scalar], as_text: bool) -> list[int]:
    if as_text:
        values = [int(value) for value in values if isinstance(value, str) and _INTEGER_TEXT.fullmatch(value)]
    whole = [int(value) for value in values if isinstance(value, int | float) and value == value // 1]
    return [number for number in whole if _LEAST <= number <= _MOST]


def _any(what: sql.Composable, values: Collection[object], name: str) -> sql.Composable:
    if not values:
        return NEVER
    listed = sql.SQL("ARRAY[{}]::{}[]").format(
        sql.SQL(", ").join(sql.Literal(value) for value in sorted(values, key=str)), sql.SQL(name)
    )
    return sql.SQL("{} = ANY ({})").format(what, listed)


def every(conditions: Iterable[sql.Composable | None]) -> sql.Composable | None:
    """All that are there; None if none is."""
    known = [condition for condition in conditions if condition is not None]
    return sql.SQL(" AND ").join(known) if known else None


def either(conditions: Iterable[sql.Composable | None]) -> sql.Composable | None:
    """Any of them; None, which is everything, if one of them is."""
    known: list[sql.Composable] = []
    for condition in conditions:
        if condition is None:
            return None
        if condition not in known:
            known.append(condition)
    return sql.SQL(" OR ").join(sql.SQL("({})").format(one) for one in known) if known else NEVER
