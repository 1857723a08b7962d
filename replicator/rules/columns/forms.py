"""A type and a dialect → what clients have of its values. No I/O.

Clients have what SQLite has: integers, reals, text and blobs. A domain is what it is a domain over; what has
parts becomes JSON text, where the dialect says so.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from replicator.rules.columns import literals, stamps
from replicator.rules.columns.literals import BadValue, Printer
from replicator.rules.columns.types import (
    BOOL,
    BUILT_IN,
    BYTEA,
    DATE,
    INTEGERS,
    JSONS,
    NESTING_MAX,
    PG_LSN,
    REALS,
    TIME,
    TIMESTAMP,
    TIMESTAMPTZ,
    Types,
)
from replicator.rules.expression import EDITION_1, Dialect


class Form(NamedTuple):
    """How values of a type become a client's values."""

    kind: Literal["integer", "real", "boolean", "blob", "text"]
    #: The built-in type whose text Postgres printed; 0 where it is none, or does not matter.
    oid: int = 0
    #: Of text: what a client has of what was printed, or None if just that.
    shown: stamps.Stamp | None = None


def form_of(oid: int, dialect: Dialect, types: Types) -> Form:
    if types.is_custom(oid) and not dialect.custom_postgres_types:
        return Form("text")
    known = types.find(oid)
    if known.kind == "domain":
        return form_of(known.element, dialect, types)
    if known.kind not in ("base", "enum"):
        return Form("text", 0, _taken_apart(_printer(oid, dialect, types)))
    if oid in INTEGERS:
        return Form("integer")
    if oid in REALS:
        return Form("real")
    if oid == BOOL:
        return Form("boolean")
    if oid == BYTEA:
        return Form("blob")
    return Form("text", oid, _stamp(oid, dialect))


def kind_of(oid: int, dialect: Dialect = EDITION_1, types: Types = BUILT_IN) -> str:
    """`integer`, `real`, `text` or `blob`: what clients have of a column of this type."""
    kind = form_of(oid, dialect, types).kind
    return "integer" if kind == "boolean" else kind


def _stamp(oid: int, dialect: Dialect) -> stamps.Stamp | None:
    """How to show a type that is text, but not just as Postgres prints it."""
    if oid == DATE:
        return stamps.date
    if oid == TIME and dialect.timestamps_iso8601:
        return stamps.time(dialect)
    if oid == TIMESTAMP:
        return stamps.timestamp(dialect)
    if oid == TIMESTAMPTZ:
        return stamps.timestamptz(dialect)
    return _comparable if oid == PG_LSN else None


def _comparable(lsn: str) -> str:
    """A position of the log with all its zeros, so that text sorts as positions do."""
    high, _, low = lsn.partition("/")
    return f"{high.rjust(8, '0')}/{low.rjust(8, '0')}"


def _taken_apart(show: Printer) -> stamps.Stamp:
    """What a client has of a value with parts: JSON as text, or the text if that is not understood."""

    def text_of(text: str) -> str:
        try:
            shown = show(text, NESTING_MAX)
        except BadValue:
            return text
        # A range without any member is a word rather than an object, here where nothing is around it.
        return text if shown == literals.EMPTY else shown

    return text_of


def _printer(oid: int, dialect: Dialect, types: Types) -> Printer:
    """How a value of this type is printed inside another one."""
    known = types.find(oid)
    match known.kind:
        case "domain":
            return _printer(known.element, dialect, types)
        case "array":
            # That a box has commas of its own was only understood together with custom types.
            delimiter = known.delimiter if dialect.custom_postgres_types else ","
            return literals.array(_printer(known.element, dialect, types), delimiter)
        case "composite":
            fields = [(one.name, _printer(one.type_oid, dialect, types)) for one in known.attributes]
            return literals.composite(fields)
        case "range":
            return literals.span(_printer(known.element, dialect, types))
        case "multirange":
            return literals.spans(_printer(known.element, dialect, types))
    if oid in INTEGERS:
        return literals.integer
    if oid in REALS:
        return literals.real
    if oid in JSONS:
        return literals.verbatim
    stamp = _stamp(oid, dialect)
    simple = {BOOL: literals.boolean, BYTEA: literals.nothing}
    return simple.get(oid, literals.string if stamp is None else literals.stamp(stamp))
