"""A node of the SQL tree → an Expression, names resolved by whoever knows what is in scope. No I/O.

What an expression may be about differs from place to place (a row, a request, a bucket's parameters), so the
caller's Scope says what a name means; what operators and functions mean is the same everywhere. Whatever is
not understood is refused where it stands, and the message names the nearest form that is: an expression that
is guessed at would hand out the wrong rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import orjson

from replicator.rules.expression import Call, Dialect, Expression, Literal, Now
from replicator.rules.sql import refusals
from replicator.rules.sql.checks import check_arguments, check_pattern, is_array, is_too_large
from replicator.rules.sql.conditions import MOST_LEVELS as MOST_LEVELS
from replicator.rules.sql.conditions import MOST_TERMS as MOST_TERMS
from replicator.rules.sql.conditions import Dependencies as Dependencies
from replicator.rules.sql.conditions import NotUnderstood as NotUnderstood
from replicator.rules.sql.conditions import Scope as Scope
from replicator.rules.sql.conditions import Signed as Signed
from replicator.rules.sql.conditions import bool_parts as bool_parts
from replicator.rules.sql.conditions import conjuncts as conjuncts
from replicator.rules.sql.conditions import dependencies as dependencies
from replicator.rules.sql.conditions import dnf as dnf
from replicator.rules.sql.constants import (
    as_moment,
    compared,
    constant,
    interval,
    is_interval,
    value_function,
)
from replicator.rules.sql.sqltext import SqlNode, location_of
from replicator.rules.sql.sqltext import text_of as text_of

_COMPARISONS: Final = frozenset(
    ("=", "!=", "<", "<=", ">", ">=", "is distinct", "is not distinct", "between")
)
_BINARY: Final = _COMPARISONS | {"+", "-", "*", "/", "%", "||", "->", "->>", "&&"}
_CASTS: Final = {
    "text": "text",
    "varchar": "text",
    "blob": "blob",
    "bytea": "blob",
    "numeric": "numeric",
    "int2": "integer",
    "int4": "integer",
    "int8": "integer",
    "float4": "real",
    "float8": "real",
}
_MATCHES: Final = {"AEXPR_LIKE": "like", "AEXPR_ILIKE": "ilike"}
_TESTS: Final = {
    "IS_TRUE": "is true",
    "IS_NOT_TRUE": "is not true",
    "IS_FALSE": "is false",
    "IS_NOT_FALSE": "is not false",
    "IS_UNKNOWN": "is null",
    "IS_NOT_UNKNOWN": "is not null",
}


def read(node: SqlNode, scope: Scope, dialect: Dialect) -> Expression:
    """What the node means. NotUnderstood if it means nothing here; a subquery never does."""
    made = _Reading(scope, dialect).read(node)
    if is_too_large(made):
        raise NotUnderstood("this expression is too large; split the query", location_of(node))
    return made


class _Reading:
    """One expression being read; `_level` is how deep."""

    def __init__(self, scope: Scope, dialect: Dialect) -> None:
        self._scope = scope
        self._dialect = dialect
        self._level = 0
        self._kinds: dict[str, Callable[[SqlNode], Expression]] = {
            "A_Const": constant,
            "ColumnRef": self._column,
            "FuncCall": self._function,
            "A_Expr": self._operator,
            "BoolExpr": self._bool,
            "NullTest": self._null_test,
            "BooleanTest": lambda node: Call(_TESTS[node["booltesttype"]], (self.read(node["arg"]),)),
            "TypeCast": self._cast,
            "CaseExpr": self._case,
            "CoalesceExpr": lambda node: Call("coalesce", self._all(node["args"])),
            "A_ArrayExpr": self._array,
            "SQLValueFunction": value_function,
        }

    def read(self, node: SqlNode) -> Expression:
        kind = next(iter(node))
        if kind not in self._kinds:
            own = node[kind].get("location", 0)
            raise NotUnderstood(refusals.of_kind(kind), own if own > 0 else location_of(node))
        self._level += 1
        if self._level > MOST_LEVELS:
            raise NotUnderstood(f"nested deeper than {MOST_LEVELS} levels", location_of(node))
        made = self._kinds[kind](node[kind])
        self._level -= 1
        return made

    def _all(self, nodes: list[SqlNode]) -> tuple[Expression, ...]:
        return tuple(self.read(node) for node in nodes)

    def _column(self, node: SqlNode) -> Expression:
        at = node.get("location", 0)
        if not all("String" in field for field in node["fields"]):
            raise NotUnderstood("* has no place in an expression; name a column", at)
        return self._scope.column([field["String"]["sval"] for field in node["fields"]], at)

    # Operators

    def _operator(self, node: SqlNode) -> Expression:
        at = node.get("location", 0)
        name = node["name"][-1]["String"]["sval"]
        match node["kind"]:
            case "AEXPR_OP" if "lexpr" not in node:
                return self._sign(name, node["rexpr"], at)
            case "AEXPR_OP" if name in ("IN", "NOT IN"):
                return _negated(name == "NOT IN", self._membership(node))
            case "AEXPR_OP":
                return self._binary("!=" if name == "<>" else name, node, at)
            case "AEXPR_IN":
                found = Call("in list", (self.read(node["lexpr"]), *self._all(_items(node["rexpr"]))))
                return _negated(name == "<>", found)
            case "AEXPR_LIKE" | "AEXPR_ILIKE" as kind:
                if "like_escape" in _path(node["rexpr"].get("FuncCall", {})):
                    raise NotUnderstood("ESCAPE is not understood; the escape character is \\", at)
                sides = self._all([node["lexpr"], node["rexpr"]])
                check_pattern(sides[1], at)
                return _negated(name.startswith("!"), Call(_MATCHES[kind], sides))
            case "AEXPR_BETWEEN" | "AEXPR_NOT_BETWEEN" as kind:
                parts = self._all([node["lexpr"], *_items(node["rexpr"])])
                return _negated(kind == "AEXPR_NOT_BETWEEN", compared("between", parts))
            case "AEXPR_DISTINCT":
                return compared("is distinct", self._all([node["lexpr"], node["rexpr"]]))
            case "AEXPR_NOT_DISTINCT":
                return compared("is not distinct", self._all([node["lexpr"], node["rexpr"]]))
            case "AEXPR_NULLIF":
                return Call("nullif", self._all([node["lexpr"], node["rexpr"]]))
            case kind:
                raise NotUnderstood(refusals.of_expression(kind), at)

    def _sign(self, name: str, operand: SqlNode, at: int) -> Expression:
        if name not in ("+", "-"):
            raise NotUnderstood(refusals.of_operator(name), at)
        value = self.read(operand)
        return value if name == "+" else Call("neg", (value,))

    def _binary(self, name: str, node: SqlNode, at: int) -> Expression:
        if name not in _BINARY or len(node["name"]) > 1:
            raise NotUnderstood(refusals.of_operator(name), at)
        sides = self._all([node["lexpr"], node["rexpr"]])
        if name in _COMPARISONS:
            return compared(name, sides)
        if name in ("+", "-") and is_interval(node["rexpr"]):
            sides = (as_moment(sides[0]), sides[1])
        return Call(name, sides)

    def _membership(self, node: SqlNode) -> Expression:
        """`x IN y` without parentheses: y is a JSON array, or as good as a list."""
        value, right = self.read(node["lexpr"]), node["rexpr"]
        for kind, parts in (("A_ArrayExpr", "elements"), ("RowExpr", "args")):
            if kind in right:
                return Call("in list", (value, *self._all(right[kind].get(parts, []))))
        array = self.read(right)
        if isinstance(array, Literal) and not is_array(array.value):
            raise NotUnderstood("IN needs a list, or a JSON array: x IN ('a', 'b')", location_of(right))
        return Call("in", (value, array))

    def _bool(self, node: SqlNode) -> Expression:
        return Call(node["boolop"].removesuffix("_EXPR").lower(), self._all(node["args"]))

    def _null_test(self, node: SqlNode) -> Expression:
        name = "is null" if node["nulltesttype"] == "IS_NULL" else "is not null"
        return Call(name, (self.read(node["arg"]),))

    def _case(self, node: SqlNode) -> Expression:
        operand = self.read(node["arg"]) if "arg" in node else None
        parts: list[Expression] = []
        for arm in node["args"]:
            when = self.read(arm["CaseWhen"]["expr"])
            parts += [when if operand is None else compared("=", (operand, when))]
            parts += [self.read(arm["CaseWhen"]["result"])]
        if len(parts) > 2 * MOST_LEVELS:
            raise NotUnderstood(f"more than {MOST_LEVELS} times WHEN", node.get("location", 0))
        return Call("case", (*parts, self.read(node["defresult"]) if "defresult" in node else Literal(None)))

    def _cast(self, node: SqlNode) -> Expression:
        at, kind = location_of(node["typeName"]) or location_of(node), node["typeName"]
        name = kind["names"][-1]["String"]["sval"]
        if name == "interval":
            return interval(node, at)
        if name not in _CASTS or "typmods" in kind or "arrayBounds" in kind or kind.get("setof"):
            raise NotUnderstood(refusals.of_cast(name), at)
        return Call(f"cast {_CASTS[name]}", (self.read(node["arg"]),))

    def _array(self, node: SqlNode) -> Expression:
        values = self._all(node.get("elements", []))
        if not all(isinstance(value, Literal) and not isinstance(value.value, bytes) for value in values):
            what = "ARRAY[…] holds constants only, unless it follows IN"
            raise NotUnderstood(what, node.get("location", 0))
        return Literal(orjson.dumps([value.value for value in values if isinstance(value, Literal)]).decode())

    # Functions

    def _function(self, node: SqlNode) -> Expression:
        at = node.get("location", 0)
        path = _path(node)
        if "agg_star" in node:
            raise NotUnderstood(refusals.of_function(path), at)
        if extra := node.keys() & refusals.CLAUSES.keys():
            raise NotUnderstood(f"{refusals.CLAUSES[min(extra)]} has no place in a function call", at)
        args = self._all(node.get("args", []))
        if node.get("funcformat", _EXPLICIT) != _EXPLICIT:
            path, args = _spelled_out(path, args, at)
        elif (found := self._scope.function(path, list(args), at)) is not None:
            return found
        name = path[0]
        if len(path) > 1 or name not in refusals.CALLED:
            raise NotUnderstood(refusals.of_function(path), at)
        if path == ["now"] and not args:
            return Now()
        check_arguments(name, args, at)
        match name, args:
            case "iif", (condition, then, otherwise):
                return Call("case", (condition, then, otherwise))
            case "substr", _:
                return Call("substring", args)
        return Call(name, args)


def _path(call: SqlNode) -> list[str]:
    return [part["String"]["sval"] for part in call.get("funcname", [])]


_EXPLICIT = "COERCE_EXPLICIT_CALL"
#: What Postgres makes of `trim(both 'x' from y)` and the like.
_SPELLED: Final = {"btrim": "trim", "ltrim": "ltrim", "rtrim": "rtrim", "substring": "substring"}


def _spelled_out(
    path: list[str], args: tuple[Expression, ...], at: int
) -> tuple[list[str], tuple[Expression, ...]]:
    name = path[-1]
    if name == "position":
        return ["instr"], args
    if name in _SPELLED and (name != "substring" or len(args) > 1):
        return [_SPELLED[name]], args
    raise NotUnderstood(refusals.of_function([name]), at)


def _items(node: SqlNode) -> list[SqlNode]:
    items: list[SqlNode] = node["List"]["items"]
    return items


def _negated(is_negated: bool, condition: Expression) -> Expression:
    return Call("not", (condition,)) if is_negated else condition
