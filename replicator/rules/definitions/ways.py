"""The WHERE of a parameter query → the ways to fulfil it, each some steps from a request to rows. No I/O.

A condition is about the row (a filter of the lookup), about the request (a step that goes on or does not), or
an equality between both: then the row's side is a key of the lookup, and the request's side is what is
looked up. `IN (SELECT …)` is a lookup before the lookup. AND adds to a way, OR is one more way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from replicator.rules.definitions import warn
from replicator.rules.definitions.comparisons import check_comparisons
from replicator.rules.definitions.scopes import EachScope, ParameterScope, RequestScope, RowScope
from replicator.rules.definitions.steps import FIRST_MARK
from replicator.rules.definitions.windows import read_windows
from replicator.rules.expression import Call, Expression, Found
from replicator.rules.model import Each, Find, Key, Predicate, Step, TableName, Window
from replicator.rules.sql.nested import Member, members_of, tested
from replicator.rules.sql.reader import NotUnderstood, bool_parts, conjuncts, dependencies
from replicator.rules.sql.sqltext import SqlNode, location_of
from replicator.rules.sql.statement import Statement, kinds

FORMS = (
    "a condition about both row and request is `column = request value`, `column IN request array`, "
    "`request value IN array column` or `array column && request array`"
)
NOT = "NOT is for conditions about the row only, or about the request only"
NOT_IN = "a subquery cannot be negated: it would grant whatever is not found"

T = TypeVar("T")


class Match(NamedTuple):
    """What must be equal: something of the row, and something of the request or of an earlier step."""

    row: Key
    request: Key


@dataclass(frozen=True, slots=True)
class Way:
    """One way to fulfil a WHERE."""

    whens: tuple[Predicate, ...] = ()
    filters: tuple[Predicate, ...] = ()
    windows: tuple[Window, ...] = ()
    matches: tuple[Match, ...] = ()
    #: Steps that come before, each with its mark (see `steps.py`).
    before: tuple[tuple[int, Step], ...] = ()

    def plus(self, other: Way) -> Way:
        """This way, and the other one as well."""
        return Way(
            _once(self.whens + other.whens),
            _once(self.filters + other.filters),
            _once(self.windows + other.windows),
            _once(self.matches + other.matches),
            _once(self.before + other.before),
        )


def _once(items: tuple[T, ...]) -> tuple[T, ...]:
    return tuple(dict.fromkeys(items))


ParameterScopes = RequestScope | EachScope | ParameterScope


class Ways:
    """Reads the conditions of one parameter query."""

    def __init__(self, statement: Statement) -> None:
        self._statement = statement
        self._limit = statement.context.limits.terms
        self._marks = FIRST_MARK

    def mark(self) -> int:
        """A mark for one more step."""
        self._marks += 1
        return self._marks

    def of(self, where: SqlNode | None, scope: ParameterScopes) -> list[Way]:
        """The ways to fulfil a WHERE. What is wrong with its parts is noted in the statement."""
        ways, nodes = [Way()], conjuncts(where)
        with warn.present(self._statement, nodes, scope):
            for node in nodes:
                ways = self._both(ways, self._noted(node, scope), node)
        return ways

    def _noted(self, node: SqlNode, scope: ParameterScopes) -> list[Way]:
        try:
            return self._alternatives(node, scope)
        except NotUnderstood as error:
            self._statement.refuse(error.what, error.location)
            return [Way()]

    def _both(self, ways: list[Way], others: list[Way], node: SqlNode) -> list[Way]:
        if len(ways) * len(others) > self._limit:
            self._statement.refuse(f"this comes to more than {self._limit} alternatives", location_of(node))
            return ways
        return [way.plus(other) for way in ways for other in others]

    def _alternatives(self, node: SqlNode, scope: ParameterScopes) -> list[Way]:
        about = kinds(node)
        if not about & {"now", "subquery"} and (
            not isinstance(scope, ParameterScope) or not {"row", "request"} <= about
        ):
            return [self._plain(node, scope)]
        match bool_parts(node):
            case ("and", parts):
                ways = [Way()]
                for part in parts:
                    ways = self._both(ways, self._noted(part, scope), node)
                return ways
            case ("or", parts):
                return self._either([self._noted(part, scope) for part in parts], node)
            case ("not", _):
                raise NotUnderstood(NOT_IN if "subquery" in about else NOT, location_of(node))
        if "subquery" in about:
            return self._subquery(node, scope)
        if "now" in about:
            return [self._windows(node, scope)]
        return self._matches(node, scope)

    def _either(self, sides: list[list[Way]], node: SqlNode) -> list[Way]:
        ways = [way for side in sides for way in side]
        if len(ways) > self._limit:
            raise NotUnderstood(f"this comes to more than {self._limit} alternatives", location_of(node))
        asked = {frozenset(match.request for match in way.matches) for way in ways}
        if len(asked) > 1:
            what = "both sides of OR must use the same values of the request; split it into two queries"
            raise NotUnderstood(what, location_of(node))
        return ways

    def _plain(self, node: SqlNode, scope: ParameterScopes) -> Way:
        """A condition that is about the row only, or has nothing to do with it."""
        test = self._statement.read(node, scope)
        predicate = Predicate(test, self._statement.text_of(node))
        warn.check_condition(self._statement, test, node, scope)
        return Way(filters=(predicate,)) if _is_row(test) else Way(whens=(predicate,))

    def _matches(self, node: SqlNode, scope: ParameterScopes) -> list[Way]:
        test = self._statement.read(node, scope)
        check_comparisons(self._statement, test, node, scope)
        match test:
            case Call("in list", (one, *others)):
                return [self._match(Call("=", (one, other)), node) for other in others]
        return [self._match(test, node)]

    def _match(self, test: Expression, node: SqlNode) -> Way:
        if not _is_mixed(test):
            predicate = Predicate(test, self._statement.text_of(node))
            return Way(filters=(predicate,)) if _is_row(test) else Way(whens=(predicate,))
        match test:
            case Call(("=" | "in" | "&&") as name, (left, right)) if not (
                _is_mixed(left) or _is_mixed(right)
            ):
                return Way(matches=(_facing(name, left, right),))
        raise NotUnderstood(FORMS, location_of(node))

    def _windows(self, node: SqlNode, scope: ParameterScopes) -> Way:
        if not isinstance(scope, ParameterScope):
            raise NotUnderstood("now() is compared with a column, and there is no table", location_of(node))
        filters, windows = read_windows(self._statement, node, scope)
        return Way(filters=filters, windows=windows)

    def _subquery(self, node: SqlNode, scope: ParameterScopes) -> list[Way]:
        value = self._statement.read(tested(node), scope)
        if _is_mixed(value):
            raise NotUnderstood("what stands before IN is of the row, or of the request", location_of(node))
        return [
            self._looked_up(member, value, way, mine)
            for member in members_of(self._statement, node)
            for mine in [ParameterScope(RowScope(self._statement, member.source), request_of(scope))]
            for way in self.of(member.where, mine)
        ]

    def _looked_up(self, member: Member, value: Expression, way: Way, scope: ParameterScope) -> Way:
        """`value IN (SELECT column FROM table WHERE …)`, for one way to fulfil that WHERE."""
        column = self._statement.read(member.column, scope)
        if dependencies(column).requests or dependencies(column).found:
            raise NotUnderstood("what a subquery selects is of its own table", member.location)
        mark = self.mark()
        table = member.source.table
        if _is_row(value):
            before = (*way.before, (mark, find(self._statement, table, way, (column,))))
            return Way(whens=way.whens, matches=(Match(value, Found(mark, 0)),), before=before)
        asked = way.plus(Way(matches=(Match(column, value),)))
        return Way(whens=way.whens, before=(*way.before, (mark, find(self._statement, table, asked, ()))))


def request_of(scope: ParameterScopes) -> RequestScope:
    """The request's part of a scope."""
    return scope if isinstance(scope, RequestScope) else scope.request


def find(statement: Statement, table: TableName, way: Way, values: tuple[Expression, ...]) -> Find:
    """The step that brings these values of the rows that fulfil a way."""
    if sum(isinstance(match.request, Each) for match in way.matches) > 1:
        raise NotUnderstood("only one condition can go through an array of the request", 0)
    keys = tuple(match.row for match in way.matches)
    lookup = statement.context.lookup(table, way.filters, keys, values, way.windows)
    return Find(lookup, tuple(match.request for match in way.matches))


def _is_row(expr: Expression) -> bool:
    return bool(dependencies(expr).tables)


def _is_mixed(expr: Expression) -> bool:
    about = dependencies(expr)
    return bool(about.tables) and bool(about.requests or about.found)


def _facing(name: str, left: Expression, right: Expression) -> Match:
    """Both sides of an equality, of a membership (`in`: the right side is an array) or of an overlap."""
    if _is_row(left):
        row, request = left, right
    else:
        row, request = right, left
    if name == "&&":
        return Match(Each(row), Each(request))
    if name == "in":
        return Match(row, Each(request)) if row is left else Match(Each(row), request)
    return Match(row, request)
