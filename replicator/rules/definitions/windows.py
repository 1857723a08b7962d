"""A comparison of a row's timestamp with now() → a Window. No I/O.

What is understood: `recorded_at > now() - interval '90 days'`, the same with `>=`, `<`, `<=`, turned around,
with the interval on the other side, and BETWEEN. Everything else about now() is refused, because a row's
buckets must follow from the row and a moment at which they change.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from replicator.rules.definitions import known_types
from replicator.rules.definitions.scopes import DataScope, ParameterScope
from replicator.rules.expression import Call, Expression, Literal
from replicator.rules.model import Predicate, Window
from replicator.rules.sql.reader import NotUnderstood, Scope, dependencies
from replicator.rules.sql.sqltext import SqlNode, location_of
from replicator.rules.sql.statement import Statement, kinds

FORM = "now() is understood as in `recorded_at > now() - interval '90 days'`"
#: More is a mistake, or means for ever.
MOST_SECONDS = 100 * 366 * 86400.0
FLIPPED = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}
SECONDS = {
    "second": 1.0,
    "sec": 1.0,
    "s": 1.0,
    "minute": 60.0,
    "min": 60.0,
    "m": 60.0,
    "hour": 3600.0,
    "hr": 3600.0,
    "h": 3600.0,
    "day": 86400.0,
    "d": 86400.0,
    "week": 604800.0,
    "w": 604800.0,
}
UNSTEADY = re.compile(r"mon|month|mons|y|yr|year|decade|century|millennium", re.I)
PART = re.compile(r"\s*([+-]?\d+(?:\.\d+)?)\s*([a-z]+)\s*", re.I)
CLOCK = re.compile(r"\s*([+-]?)(\d{1,4}):(\d\d)(?::(\d\d(?:\.\d+)?))?\s*")


class Side(NamedTuple):
    """One side of a comparison: something, and the seconds added to it."""

    #: None: now().
    node: SqlNode | None
    seconds: float


def read_windows(
    statement: Statement, node: SqlNode, scope: Scope
) -> tuple[tuple[Predicate, ...], tuple[Window, ...]]:
    """What a condition with now() demands of the row itself, and of the time."""
    text = statement.text_of(node)
    filters: list[Predicate] = []
    windows: list[Window] = []
    for comparison in _comparisons(node):
        if "now" in kinds(comparison):
            windows.append(_window(comparison, text, lambda side: _moment(statement, side, scope)))
        else:
            filters.append(Predicate(_of_row(statement, comparison, scope), text))
    return tuple(filters), tuple(windows)


def _moment(statement: Statement, node: SqlNode, scope: Scope) -> Expression:
    """What is compared with the time, which must be a timestamp."""
    found = _of_row(statement, node, scope)
    if isinstance(scope, DataScope | ParameterScope) and known_types.type_of(found, scope) in (
        "integer",
        "real",
        "blob",
    ):
        what = f"{known_types.shown(found)} is no timestamp: this never holds as it is meant"
        statement.warn(what, location_of(node))
    return found


def _of_row(statement: Statement, node: SqlNode, scope: Scope) -> Expression:
    found = statement.read(node, scope)
    if not dependencies(found).is_row:
        raise NotUnderstood(FORM, location_of(node))
    return found


def _comparisons(node: SqlNode) -> list[SqlNode]:
    """BETWEEN as its two comparisons; any other condition as it is."""
    between = node.get("A_Expr", {})
    if between.get("kind") != "AEXPR_BETWEEN":
        return [node]
    low, high = between["rexpr"]["List"]["items"]
    value, location = between["lexpr"], between.get("location", 0)
    return [_compared(value, ">=", low, location), _compared(value, "<=", high, location)]


def _compared(left: SqlNode, operator: str, right: SqlNode, location: int) -> SqlNode:
    name = [{"String": {"sval": operator}}]
    parts = {"kind": "AEXPR_OP", "name": name, "lexpr": left, "rexpr": right, "location": location}
    return {"A_Expr": parts}


def _window(node: SqlNode, text: str, read: Callable[[SqlNode], Expression]) -> Window:
    """The window that one comparison with now() means; `read` reads the row's side."""
    comparison = node.get("A_Expr", {})
    operator = comparison["name"][-1]["String"]["sval"] if comparison.get("kind") == "AEXPR_OP" else ""
    if operator not in FLIPPED or "lexpr" not in comparison:
        raise NotUnderstood(FORM, location_of(node))
    left, right = _side(comparison["lexpr"]), _side(comparison["rexpr"])
    if left.node is None:
        left, right, operator = right, left, FLIPPED[operator]
    if left.node is None or right.node is not None:
        raise NotUnderstood(FORM, location_of(node))
    moment = Call("unixepoch", (read(left.node), Literal("subsec")))
    return Window(moment, left.seconds - right.seconds, operator in (">", ">="), text)


def _side(node: SqlNode) -> Side:
    """`x`, `x + interval` or `x - interval`, of which x may be now()."""
    seconds = 0.0
    while (name := _sign(node)) is not None:
        parts = node["A_Expr"]
        interval = _interval(parts["rexpr"])
        if interval is None and name == "+" and (interval := _interval(parts["lexpr"])) is not None:
            node = parts["rexpr"]
        elif interval is None:
            break
        else:
            node = parts["lexpr"]
        seconds += interval if name == "+" else -interval
    if not abs(seconds) <= MOST_SECONDS:  # what is not a number neither
        raise NotUnderstood("an interval of more than a hundred years", location_of(node))
    if is_now(node):
        return Side(None, seconds)
    if "now" in kinds(node):
        raise NotUnderstood(FORM, location_of(node))
    return Side(node, seconds)


def _sign(node: SqlNode) -> str | None:
    parts = node.get("A_Expr", {})
    if parts.get("kind") != "AEXPR_OP" or "lexpr" not in parts:
        return None
    name = parts["name"][-1]["String"]["sval"]
    return name if name in ("+", "-") else None


def is_now(node: SqlNode) -> bool:
    """`now()`, or `current_timestamp`, which is the same."""
    if "SQLValueFunction" in node:
        return bool(node["SQLValueFunction"]["op"] == "SVFOP_CURRENT_TIMESTAMP")
    call = node.get("FuncCall", {})
    return "args" not in call and [part["String"]["sval"] for part in call.get("funcname", [])] == ["now"]


def _interval(node: SqlNode) -> float | None:
    """The seconds of `interval '90 days'` or `'90 days'::interval`; None if it is no interval."""
    cast = node.get("TypeCast", {})
    kind = cast.get("typeName", {})
    if [part["String"]["sval"] for part in kind.get("names", [])][-1:] != ["interval"]:
        return None
    location = location_of(node)
    text = cast["arg"].get("A_Const", {}).get("sval", {}).get("sval")
    if text is None or "typmods" in kind:
        raise NotUnderstood("an interval is written as text: interval '90 days'", location)
    return _seconds(text, location)


def _seconds(text: str, location: int) -> float:
    total, at = 0.0, 0
    while at < len(text):
        if clock := CLOCK.fullmatch(text, at):
            sign, hours, minutes, seconds = clock.groups()
            part = int(hours) * 3600.0 + int(minutes) * 60.0 + float(seconds or 0)
            return total + (-part if sign == "-" else part)
        found = PART.match(text, at)
        if not found:
            break
        word = found[2].lower()
        unit = SECONDS.get(word) or SECONDS.get(word.removesuffix("s"))
        if unit is None and UNSTEADY.fullmatch(word.removesuffix("s")):
            what = "months and years have no fixed length: write days, as in interval '90 days'"
            raise NotUnderstood(what, location)
        if unit is None:
            break
        total += float(found[1]) * unit
        at = found.end()
    if not text.strip() or at < len(text):
        raise NotUnderstood("an interval is a number and a unit: interval '90 days', '12 hours'", location)
    return total
