"""Constants and times of the SQL tree → Literals, and comparisons with a time. No I/O.

A time is a number of seconds, and an interval as well; so what is compared with a time, or moved by an
interval, has to be read as a time first: `Call("moment", …)`.
"""

from __future__ import annotations

from replicator.rules.compute.moments import interval_seconds
from replicator.rules.expression import Call, Expression, Literal, Now
from replicator.rules.sql.conditions import NotUnderstood
from replicator.rules.sql.quoting import of_value
from replicator.rules.sql.sqltext import SqlNode


def is_interval(node: SqlNode) -> bool:
    names = node.get("TypeCast", {}).get("typeName", {}).get("names", [])
    return bool(names) and names[-1]["String"]["sval"] == "interval"


def interval(node: SqlNode, at: int) -> Expression:
    text = node["arg"].get("A_Const", {}).get("sval", {}).get("sval")
    seconds = interval_seconds(text) if isinstance(text, str) and "typmods" not in node["typeName"] else None
    if seconds is None:
        what = "an interval is written in weeks, days, hours, minutes and seconds: interval '90 days'"
        raise NotUnderstood(what, at)
    return Literal(seconds)


def _is_moment(expr: Expression) -> bool:
    """Whether this is a time in seconds: now(), or so long before or after a time."""
    match expr:
        case Now() | Call("moment"):
            return True
        case Call("+" | "-", (left, right)):
            return _is_moment(left) != _is_moment(right)
    return False


def as_moment(expr: Expression) -> Expression:
    return expr if _is_moment(expr) else Call("moment", (expr,))


def compared(name: str, sides: tuple[Expression, ...]) -> Call:
    """A comparison; what is held against a time is read as a time."""
    return Call(name, tuple(map(as_moment, sides)) if any(map(_is_moment, sides)) else sides)


def value_function(node: SqlNode) -> Expression:
    if node["op"] == "SVFOP_CURRENT_TIMESTAMP":
        return Now()
    instead = of_value({"SQLValueFunction": node}) or "only now() is known of these"
    raise NotUnderstood(instead, node.get("location", 0))


def constant(node: SqlNode) -> Expression:
    match node:
        case {"isnull": True}:
            return Literal(None)
        case {"ival": value}:
            return Literal(value.get("ival", 0))
        case {"sval": value}:
            return Literal(value.get("sval", ""))
        case {"boolval": value}:
            return Literal(int(value.get("boolval", False)))
        case {"fval": value}:
            return Literal(_number(value["fval"], node.get("location", 0)))
    raise NotUnderstood("a bit string is not understood; write a number or text", node.get("location", 0))


def _number(text: str, at: int) -> int | float:
    """What Postgres calls a float may be a whole number that 32 bits do not hold."""
    digits = text.replace("_", "")
    if digits.lstrip("-").isdigit() and len(digits) < 21 and -1 << 63 <= int(digits) < 1 << 63:
        return int(digits)
    try:
        value = float(digits)
    except ValueError:
        value = float("inf")
    if value - value != 0:
        raise NotUnderstood("a number that cannot be understood", at)
    return value
