"""A row as Postgres printed it → the JSON text a client stores. No I/O.

Integers stay exact, whatever their size; booleans are 1 and 0; floats keep a point or an exponent so that a
client sees a real; a bytea is left out; everything else is text as Postgres printed it.
"""

from __future__ import annotations

import json.encoder
from collections.abc import Callable
from typing import Final

from replicator.wal.messages import Column, Row, Value

Encoder = Callable[[Row], str]

_BOOL, _BYTEA, _TIMESTAMPTZ = 16, 17, 1184
_INTEGERS: Final = frozenset((20, 21, 23, 26))
_FLOATS: Final = frozenset((700, 701))

quote: Callable[[str], str] = json.encoder.encode_basestring


def _bool(value: Value) -> str:
    return "1" if value == "t" else "0"


def _float(value: str) -> str:
    if value in ("NaN", "Infinity", "-Infinity"):
        return quote(value)
    return value if "." in value or "e" in value else value + ".0"


def _utc(value: str) -> str:
    """The stream is read in UTC, so a timestamp with time zone ends in +00; clients expect Z."""
    return quote(value.removesuffix("+00") + "Z" if value.endswith("+00") else value)


def encoder(columns: tuple[Column, ...]) -> Encoder:
    """A function that prints rows of these columns; made once per relation, called once per row.

    The function is generated, one expression per column, because a loop over columns costs three times as
    much per row. Column names enter the source only as the repr of their JSON, so no name can be code.
    Pieces are joined rather than added up: that is faster, and a sum of 1,600 columns is too deep to compile.
    """
    names = "".join(f"v{i}, " for i in range(len(columns)))
    parts: list[str] = []
    for i, column in enumerate(columns):
        if column.type_oid != _BYTEA:
            lead = ("," if parts else "{") + quote(column.name) + ":"
            parts.append(f"{lead!r}, 'null' if v{i} is None else {_expression(column.type_oid, f'v{i}')}, ")
    body = f"join(({''.join(parts)}'}}'))" if parts else "'{}'"
    scope: dict[str, object] = {
        "join": "".join,
        "quote": quote,
        "boolean": _bool,
        "real": _float,
        "utc": _utc,
    }
    exec(f"def encode(row):\n    ({names}) = row\n    return {body}\n", scope)
    made: Encoder = scope["encode"]  # type: ignore[assignment]  # what exec made, by this name
    return made


def _expression(type_oid: int, name: str) -> str:
    if type_oid in _INTEGERS:
        return name
    if type_oid in _FLOATS:
        return f"real({name})"
    if type_oid == _BOOL:
        return f"boolean({name})"
    if type_oid == _TIMESTAMPTZ:
        return f"utc({name})"
    return f"quote({name})"
