"""A WHERE, names resolved → one formula without subqueries. No I/O.

`x IN (SELECT y …)` says that there is a row with x = y; `x IN array` says that there is a member that is x;
`a && b` that there is a member of both. What is about one row only stays together, however many OR it has:
taken apart, it would be as many kinds of bucket.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from replicator.rules.definitions.windows import FORM, read_windows
from replicator.rules.expression import Call, Expression
from replicator.rules.sql.reader import MOST_LEVELS, NotUnderstood, bool_parts, dependencies
from replicator.rules.sql.sqltext import SqlNode, column_path, location_of
from replicator.rules.sql.statement import Statement, kinds
from replicator.rules.streams.names import Names
from replicator.rules.streams.scoped import (
    Condition,
    Either,
    Every,
    Flat,
    Formula,
    Members,
    Place,
    Some,
    parties,
)

_NOT_A_VALUE = "a subquery is not a value here; write x IN (SELECT y FROM …), or array && (SELECT y FROM …)"
_NO_NEGATION = (
    "a subquery cannot be negated: NOT IN knows literal lists only; keep a column that says so in the row"
)


class Where:
    """How conditions of one SELECT are read: what its names mean, and how its subqueries are opened."""

    def __init__(
        self,
        statement: Statement,
        names: Names,
        numbers: Iterator[int],
        open_select: Callable[[SqlNode], Flat],
        open_cte: Callable[[str], Flat | None],
    ) -> None:
        self._statement = statement
        self._names = names
        self._numbers = numbers
        self._open_select = open_select
        self._open_cte = open_cte

    def formula(self, node: SqlNode | None, is_negated: bool = False, level: int = 0) -> Formula:
        """What the condition comes to; NOT goes inwards, since AND, OR and NOT know two values only."""
        if level > MOST_LEVELS:
            raise NotUnderstood(f"nested deeper than {MOST_LEVELS} levels", location_of(node))
        match bool_parts(node) if node else ("and", []):
            case None:
                assert node is not None
                return self._leaf(node, is_negated)
            case ("not", [part]):
                return self.formula(part, not is_negated, level + 1)
            case (word, nodes):
                parts = tuple(self.formula(part, is_negated, level + 1) for part in nodes)
        if (word == "or") is is_negated:
            return Every(parts)
        test = _of_one_row(Either(parts))
        return self._condition(test, node, is_negated) if test and node else Either(parts)

    def _leaf(self, node: SqlNode, is_negated: bool) -> Formula:
        if "SubLink" in node:
            return self._subquery(node, node["SubLink"], is_negated)
        if "A_Expr" in node and (found := self._operation(node, node["A_Expr"], is_negated)):
            return found
        if "now" in kinds(node):
            return self._windows(node, is_negated)
        test = self._read(node)
        if is_negated:
            test = test.args[0] if isinstance(test, Call) and test.name == "not" else Call("not", (test,))
        if parties(test) > 1:
            match test:
                case Call("in", (one, array)):
                    return self._member(node, one, array)
                case Call("in list", (one, *others)):
                    # Each is an equality from here on, and nobody sees how it was written.
                    return Either(tuple(self._equal(node, one, other) for other in others))
                case Call("&&", (one, other)):
                    return self._overlap(node, one, other)
        return self._condition(test, node, is_negated)

    def _windows(self, node: SqlNode, is_negated: bool) -> Formula:
        if is_negated:
            raise NotUnderstood(f"{FORM}, and cannot be negated", location_of(node))
        place = Place(self._statement, location_of(node))
        filters, windows = read_windows(self._statement, node, self._names)
        parts = [Condition(predicate.test, predicate.text, place) for predicate in filters]
        parts += [Condition(window.moment, window.text, place, window=window) for window in windows]
        return Every(tuple(parts))

    def _operation(self, node: SqlNode, parts: SqlNode, is_negated: bool) -> Formula | None:
        """The operators of which one side may be a subquery, or the name of one."""
        operator = parts["name"][-1].get("String", {}).get("sval")
        left, right = parts.get("lexpr", {}), parts.get("rexpr", {})
        if "SubLink" in left and operator == "&&":
            left, right = right, left
        flat = self._opened(right) if operator in ("IN", "NOT IN", "&&") else None
        if flat is None:
            for side in (left, right):
                if "SubLink" in side:
                    raise NotUnderstood(_NOT_A_VALUE, location_of(side))
            return None
        if is_negated is not (operator == "NOT IN"):
            raise NotUnderstood(_NO_NEGATION, location_of(node))
        one = self._read(left)
        if operator != "&&":
            return self._exists(node, one, flat)
        members = self._members(one, node)
        return Some((members,), self._exists(node, members.value, flat))

    def _opened(self, node: SqlNode) -> Flat | None:
        """The subquery that a node is or names."""
        match node, column_path(node):
            case {"SubLink": {"subLinkType": "EXPR_SUBLINK", "subselect": {"SelectStmt": select}}}, _:
                return self._open_select(select)
            case _, [name]:
                return self._open_cte(name)
        return None

    def _subquery(self, node: SqlNode, link: SqlNode, is_negated: bool) -> Formula:
        location = location_of(node)
        kind = link["subLinkType"]
        if kind == "EXISTS_SUBLINK":
            what = "EXISTS is not part of the rules language; write x IN (SELECT y FROM …)"
            raise NotUnderstood(what, location)
        if kind != "ANY_SUBLINK" or "operName" in link:
            raise NotUnderstood(_NOT_A_VALUE, location)
        if is_negated:
            raise NotUnderstood(_NO_NEGATION, location)
        if "RowExpr" in link["testexpr"]:
            raise NotUnderstood("one value is expected before IN; write a join for several", location)
        one = self._read(link["testexpr"])
        return self._exists(node, one, self._open_select(link["subselect"]["SelectStmt"]))

    def _exists(self, node: SqlNode, one: Expression, flat: Flat) -> Formula:
        """There is a row of the subquery whose one column is this."""
        if len(flat.columns) != 1 or flat.columns[0].value is None:
            what = "a subquery after IN or && must return exactly one column"
            raise NotUnderstood(what, location_of(node))
        return Some(flat.origins, Every((flat.formula, self._equal(node, one, flat.columns[0].value))))

    def _member(self, node: SqlNode, one: Expression, array: Expression) -> Formula:
        members = self._members(array, node)
        return Some((members,), self._equal(node, one, members.value))

    def _overlap(self, node: SqlNode, one: Expression, other: Expression) -> Formula:
        first, second = self._members(one, node), self._members(other, node)
        return Some((first, second), self._equal(node, first.value, second.value))

    def _members(self, array: Expression, node: SqlNode) -> Members:
        return Members(next(self._numbers), array, Place(self._statement, location_of(node)))

    def _equal(self, node: SqlNode, one: Expression, other: Expression) -> Condition:
        place = Place(self._statement, location_of(node))
        return Condition(Call("=", (one, other)), self._statement.text_of(node), place, is_tie=True)

    def _condition(self, test: Expression, node: SqlNode, is_negated: bool) -> Condition:
        text = self._statement.text_of(node)
        text = f"NOT ({text})" if is_negated else text
        return Condition(test, text, Place(self._statement, location_of(node)))

    def _read(self, node: SqlNode) -> Expression:
        return self._statement.read(node, self._names)


def _of_one_row(formula: Formula) -> Expression | None:
    """The whole formula as one test, if one row decides it; never of the request, whose parts are kept
    apart so that each can be seen to ask for something signed, and never of the time."""
    match formula:
        case Condition(test, is_tie=False, window=None):
            made: Expression | None = test
        case Every(parts):
            made = _joined("and", parts)
        case Either(parts):
            made = _joined("or", parts)
        case _:
            return None
    if made is None:
        return None
    known = dependencies(made)
    return made if len(known.tables) <= 1 and not known.requests else None


def _joined(word: str, parts: tuple[Formula, ...]) -> Expression | None:
    tests = [_of_one_row(part) for part in parts]
    whole = [test for test in tests if test is not None]
    return Call(word, tuple(whole)) if whole and len(whole) == len(tests) else None
