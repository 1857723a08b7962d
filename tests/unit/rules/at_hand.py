"""An expression as SQL, and a row → its value, computed in both ways that there are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from replicator.rules.compute.code import Code
from replicator.rules.compute.expressions import EvaluationError, Typing, plain, test, value
from replicator.rules.compute.scalars import truth
from replicator.rules.expression import (
    EDITION_2,
    Call,
    Column,
    Dialect,
    Expression,
    Literal,
    Now,
    Request,
    Scalar,
)
from replicator.rules.sql.reader import read
from replicator.rules.sql.sqltext import SqlNode, parse_select

#: What now() is.
NOW = 1_700_000_000

Row = Mapping[str, Scalar]


class Names:
    """Every name is a column; and of a request one can ask who it is, and what it says."""

    def column(self, path: list[str], location: int) -> Expression:
        return Column(".".join(path))

    def function(self, path: list[str], args: list[Expression], location: int) -> Expression | None:
        match path, args:
            case ["request", "user_id"], []:
                return Request("user_id")
            case ["auth", "parameter"], [Literal() as key]:
                return Call("->>", (Request("jwt"), key))
        return None


def node_of(sql: str) -> SqlNode:
    node: SqlNode = parse_select(f"SELECT {sql}")["targetList"][0]["ResTarget"]["val"]
    return node


def expression(sql: str, dialect: Dialect = EDITION_2) -> Expression:
    return read(node_of(sql), Names(), dialect)


class Failed:
    """What stands for the value of an expression that has none."""

    def __init__(self, why: str) -> None:
        self.why = why

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Failed) and other.why == self.why

    def __repr__(self) -> str:
        return f"Failed({self.why!r})"


def outcome(compute: Callable[[], object]) -> object:
    """A value with its type, because 1, 1.0 and True are equal but not the same; or Failed."""
    try:
        found = compute()
    except EvaluationError as error:
        return Failed(str(error))
    return type(found).__name__, repr(found) if isinstance(found, float) else found


def nothing_known(leaf: Expression) -> str | None:
    return None


def computed(
    expr: Expression, row: Row, dialect: Dialect = EDITION_2, typing: Typing = nothing_known
) -> object:
    """The outcome, after every way to compute it has come to the same."""

    def leaf_value(leaf: Expression) -> Scalar:
        return NOW if isinstance(leaf, Now) else row[leaf.name if isinstance(leaf, Column) else repr(leaf)]

    slow = outcome(lambda: plain(expr, leaf_value, dialect))
    holds = outcome(lambda: truth(plain(expr, leaf_value, dialect)))
    # Some source may be written twice, and some may not.
    for form in ("row[{}]", "(row[{}])"):
        leaves: list[Expression] = []
        code = Code()
        write = partial(_place, form, leaves)
        fast = code.function("row", [f"return {value(code, expr, write, dialect, typing)}"])
        asked = code.function("row", [f"return not not {test(code, expr, write, dialect, typing)}"])
        values = [leaf_value(leaf) for leaf in leaves]
        assert outcome(partial(fast, values)) == slow, expr
        assert outcome(partial(asked, values)) == holds, expr
    return slow


def _place(form: str, leaves: list[Expression], leaf: Expression) -> str:
    if leaf not in leaves:
        leaves.append(leaf)
    return form.format(leaves.index(leaf))


def value_of(sql: str, row: Row | None = None, dialect: Dialect = EDITION_2) -> object:
    """What a SQL expression comes to for a row: the value itself, or Failed."""
    found = computed(expression(sql, dialect), row or {}, dialect)
    if isinstance(found, Failed):
        return found
    assert isinstance(found, tuple)
    return float(found[1]) if found[0] == "float" else found[1]
