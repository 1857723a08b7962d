"""An expression → the type of its values, as far as that is plain, and a name for it in messages. No I/O."""

from __future__ import annotations

from typing import Protocol

from replicator.rules.columns.types import BUILT_IN
from replicator.rules.compute import expressions
from replicator.rules.definitions.requests import CLIENT
from replicator.rules.expression import Call, Column, Expression, Literal, Request

INTEGER_OIDS = frozenset({16, 20, 21, 23, 26})
REAL_OIDS = frozenset({700, 701})
BYTEA = 17
CHAR, UUID = 1042, 2950
JSON = frozenset({114, 3802})
#: Where the types that come with Postgres end; beyond, a number says nothing.
FIRST_CUSTOM_OID = 16384
#: What is a number or a time in the source, and text in the rules.
NUMBERS = {1700: "numeric", 790: "money"}
TIMES = {1082: "date", 1083: "time", 1114: "timestamp", 1184: "timestamptz", 1186: "interval", 1266: "timetz"}
_COUNTING = frozenset({"+", "-", "*", "/", "%", "neg", "abs", "round", "cast numeric", "unixepoch", "moment"})
#: Values of different types are ordered by their type.
RANKS = {"integer": 1, "real": 1, "number": 1, "text": 2, "blob": 3}


class Types(Protocol):
    """What knows the types of the columns in scope."""

    def oid(self, column: Column) -> int | None: ...


def type_of(expr: Expression, scope: Types) -> str | None:
    """`integer`, `real`, either (`number`), `text` or `blob`; None where it can be any, or is not known."""

    def leaf(part: Expression) -> str | None:
        match part:
            case Column():
                return type_of_oid(scope.oid(part))
            case Request():
                return "text"
        return None

    found = expressions.type_of(expr, leaf)
    if found is None and isinstance(expr, Call) and expr.name in _COUNTING:
        return "number"
    return found if found in RANKS else None


def type_of_oid(oid: int | None) -> str | None:
    """What a column of this type is in expressions, as far as it comes with Postgres."""
    if oid is None or oid >= FIRST_CUSTOM_OID:
        return None
    if oid in INTEGER_OIDS:
        return "integer"
    if oid in REAL_OIDS:
        return "real"
    return "blob" if oid == BYTEA else "text"


def oid_of_members(expr: Expression, scope: Types) -> int | None:
    """Of a column that is an array: the type of its members."""
    oid = scope.oid(expr) if isinstance(expr, Column) else None
    return None if oid is None else element_of(oid)


def type_of_members(array: Expression, scope: Types) -> str | None:
    """What the members of an array column are in expressions, if it is known."""
    oid = oid_of_members(array, scope)
    # An array within an array is JSON text again, and JSON is whatever it is.
    return None if oid is None or oid in JSON else type_of_oid(oid)


def element_of(oid: int) -> int | None:
    """The type of what an array that comes with Postgres holds."""
    found = BUILT_IN.find(oid)
    return found.element if found.kind == "array" else None


def is_no_array(oid: int) -> bool:
    """Whether no value of a type that comes with Postgres is an array, nor text that may be one."""
    is_text = type_of_oid(oid) == "text" and oid not in NUMBERS.keys() | TIMES.keys() | {UUID, CHAR}
    return oid < FIRST_CUSTOM_OID and element_of(oid) is None and not is_text


def differ(one: str | None, other: str | None) -> bool:
    """Whether values of these two types are never equal, and always in the same order."""
    return one is not None and other is not None and RANKS[one] != RANKS[other]


def shown(expr: Expression) -> str:
    """An expression for a message: a name, a value of the rules, or what it is made of."""
    match expr:
        case Column(name):
            return name
        case Literal(value):
            # What is written in the rules is not repeated: it may be about somebody.
            return {str: "the text", bytes: "the bytes", type(None): "NULL"}.get(type(value), "the number")
        case Request(what):
            return f"request.{what}()"
        case Call("->>" | "->", (Request(what), Literal(str() as name))):
            return f"the {'value' if what in CLIENT else 'claim'} {name}"
        case Call(name, args) if name.startswith("cast "):
            return f"{shown(args[0])}::{name.removeprefix('cast ')}"
        case Call("case"):
            return "CASE"
        case Call(name, args) if name.isidentifier() or not args:
            return f"{name}({', '.join(shown(arg) for arg in args)})"
        case Call(_, args):
            return shown(args[0])
    return "this"


def named(expr: Expression, kind: str, scope: Types) -> str:
    """An expression, and what it is; of a column also what the source makes of it, where that differs."""
    if isinstance(expr, Column) and (native := native_of(expr, scope)):
        return f"{expr.name} is {native} in the source, and {kind} here,"
    return f"{shown(expr)} is {kind}"


def native_of(expr: Expression, scope: Types) -> str | None:
    """What a column is in the source, if that is a number or a time, and it is text here."""
    oid = scope.oid(expr) if isinstance(expr, Column) else None
    return None if oid is None else NUMBERS.get(oid) or TIMES.get(oid)
