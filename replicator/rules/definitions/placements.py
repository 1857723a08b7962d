"""The WHERE of a data query → the ways into a bucket: demands on the row, places of parameters. No I/O.

A parameter has its place where the row says what it is: `owner_id = bucket.user_id`. Conditions about the row
alone are filters, kept whole; AND adds to a way, OR is one more way, and each becomes a Term.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from replicator.rules.definitions import warn
from replicator.rules.definitions.json_null import may_read_null
from replicator.rules.definitions.known_types import differ, shown, type_of, type_of_members
from replicator.rules.definitions.memberships import check_memberships
from replicator.rules.definitions.scopes import DataScope, RowScope
from replicator.rules.definitions.windows import read_windows
from replicator.rules.expression import BucketParameter, Call, Expression
from replicator.rules.model import Brought, Each, Join, Key, Predicate, Term, Window
from replicator.rules.sql.nested import Member, members_of, tested
from replicator.rules.sql.reader import NotUnderstood, bool_parts, conjuncts, dependencies
from replicator.rules.sql.sqltext import SqlNode, location_of
from replicator.rules.sql.statement import Statement, kinds

FORMS = "a bucket parameter stands in `bucket.x = column` or `bucket.x IN array column`"

NOT = "NOT is for conditions about the row only"
NOT_IN = "a subquery cannot be negated: it would take in whatever is not found"


class Place(NamedTuple):
    """What of a row, or of what a join brings, is the value of the parameter `at`."""

    at: int
    value: Key | Brought


@dataclass(frozen=True, slots=True)
class Way:
    """One way into a bucket."""

    filters: tuple[Predicate, ...] = ()
    windows: tuple[Window, ...] = ()
    places: tuple[Place, ...] = ()
    joins: tuple[Join, ...] = ()

    def plus(self, other: Way) -> Way:
        """This way, and the other one as well."""
        moved = tuple(Place(at, self._moved(value)) for at, value in other.places)
        return Way(
            tuple(dict.fromkeys(self.filters + other.filters)),
            tuple(dict.fromkeys(self.windows + other.windows)),
            tuple(dict.fromkeys(self.places + moved)),
            self.joins + other.joins,
        )

    def _moved(self, value: Key | Brought) -> Key | Brought:
        return Brought(value.join + len(self.joins), value.at) if isinstance(value, Brought) else value


class Compared(NamedTuple):
    """That values of this type were compared with a parameter, and where."""

    statement: Statement
    at: int
    #: What it was compared with, for a message.
    shown: str
    type: str | None
    location: int
    #: Whether they are the text `null` where JSON has null.
    may_read_null: bool = False
    #: Whether they are the members of an array.
    is_each: bool = False


class Placements:
    """Reads the conditions of a definition's data queries, and remembers what they say of its parameters."""

    def __init__(self, parameters: tuple[str, ...]) -> None:
        self.parameters = parameters
        self.as_text = [False] * len(parameters)
        self.compared: list[Compared] = []

    def terms(self, statement: Statement, where: SqlNode | None, scope: DataScope) -> tuple[Term, ...]:
        """The terms of one query; what is wrong with them is noted in the statement."""
        scope.alike.clear()  # what is selected is no mistake
        ways = self._conditions(statement, where, scope)
        if statement.is_broken:
            return ()
        return tuple(self._term(statement, way, where, scope) for way in ways)

    def _conditions(self, statement: Statement, where: SqlNode | None, scope: DataScope) -> list[Way]:
        nodes = conjuncts(where)
        with warn.present(statement, nodes, scope):
            return self._all(statement, nodes, scope)

    def _all(self, statement: Statement, parts: Iterable[SqlNode], scope: DataScope) -> list[Way]:
        ways = [Way()]
        most = statement.context.limits.terms
        for part in parts:
            more = self._noted(statement, part, scope)
            if len(ways) * len(more) > most:
                statement.refuse(f"this comes to more than {most} alternatives", location_of(part))
                return ways
            ways = [way.plus(other) for way in ways for other in more]
        return ways

    def _noted(self, statement: Statement, node: SqlNode, scope: DataScope) -> list[Way]:
        try:
            return self._alternatives(statement, node, scope)
        except NotUnderstood as error:
            statement.refuse(error.what, error.location)
            return [Way()]

    def _alternatives(self, statement: Statement, node: SqlNode, scope: DataScope) -> list[Way]:
        about = kinds(node)
        if not about & {"now", "subquery", "bucket"}:
            return [self._filter(statement, node, scope)]
        match bool_parts(node):
            case ("and", parts):
                return self._all(statement, parts, scope)
            case ("or", parts):
                return [way for part in parts for way in self._noted(statement, part, scope)]
            case ("not", _):
                raise NotUnderstood(NOT_IN if "subquery" in about else NOT, location_of(node))
        if "subquery" in about:
            return self._subquery(statement, node, scope)
        if "now" in about:
            filters, windows = read_windows(statement, node, scope)
            return [Way(filters, windows)]
        return self._places(statement, node, scope)

    def _filter(self, statement: Statement, node: SqlNode, scope: DataScope) -> Way:
        test = statement.read(node, scope)
        warn.check_condition(statement, test, node, scope)
        return Way(filters=(Predicate(test, statement.text_of(node)),))

    def _places(self, statement: Statement, node: SqlNode, scope: DataScope) -> list[Way]:
        test = statement.read(node, scope)
        check_memberships(statement, test, location_of(node), scope)
        match test:
            case Call("=", (left, right)):
                return [self._place(statement, left, right, node, scope)]
            case Call("in", (left, right)) if self._parameter(left) is not None:
                return [self._place(statement, left, right, node, scope, is_each=True)]
            case Call("in list", (one, *others)):
                return [self._place(statement, one, other, node, scope) for other in others]
            case Call("in", _):
                raise NotUnderstood(f"{FORMS}, not on the right of IN", location_of(node))
        raise NotUnderstood(FORMS, location_of(node))

    def _parameter(self, expr: Expression) -> int | None:
        """Which parameter an expression is; `bucket.x::text` asks for comparison as text."""
        match expr:
            case BucketParameter(at):
                return at
            case Call("cast text", (BucketParameter(at),)):
                self.as_text[at] = True
                return at
            case Call(name, (BucketParameter(),)) if name.startswith("cast "):
                raise NotUnderstood("of casts, a bucket parameter can have ::text only", 0)
        return None

    def _place(
        self,
        statement: Statement,
        one: Expression,
        other: Expression,
        node: SqlNode,
        scope: DataScope,
        is_each: bool = False,
    ) -> Way:
        """That one of these two, a parameter, is the other, of the row."""
        try:
            left, right = self._parameter(one), self._parameter(other)
        except NotUnderstood as error:
            raise NotUnderstood(error.what, location_of(node)) from None
        at, value = (left, other) if left is not None else (right, one)
        if at is None or dependencies(value).bucket:
            raise NotUnderstood(FORMS, location_of(node))
        kind = type_of_members(value, scope) if is_each else type_of(value, scope)
        is_null = not is_each and may_read_null(value, statement.context.dialect)
        self.compared.append(Compared(statement, at, shown(value), kind, location_of(node), is_null, is_each))
        return Way(places=(Place(at, Each(value) if is_each else value),))

    def _subquery(self, statement: Statement, node: SqlNode, scope: DataScope) -> list[Way]:
        value = statement.read(tested(node), scope)
        if dependencies(value).bucket:
            what = "what stands before IN is of the row; conditions on a parameter belong in `parameters`"
            raise NotUnderstood(what, location_of(node))
        ways: list[Way] = []
        for member in members_of(statement, node):
            mine = DataScope(RowScope(statement, member.source), self.parameters, scope.alike)
            column = self._selected(statement, member, mine)
            if differ(type_of(value, scope), type_of(column, mine)):
                what = f"{shown(value)} is never equal to {shown(column)}: write ::text after both"
                statement.warn(what, member.location)
            inner = self._conditions(statement, member.where, mine)
            ways += [self._joined(statement, node, member, value, column, way) for way in inner]
        return ways

    def _selected(self, statement: Statement, member: Member, scope: DataScope) -> Expression:
        column = statement.read(member.column, scope)
        if not dependencies(column).is_row:
            raise NotUnderstood("what a subquery selects is of its own table", member.location)
        return column

    def _joined(
        self,
        statement: Statement,
        node: SqlNode,
        member: Member,
        value: Expression,
        column: Expression,
        way: Way,
    ) -> Way:
        """`value IN (SELECT column FROM table WHERE …)`, for one way to fulfil that WHERE."""
        if way.joins:
            what = "a subquery within a subquery is not understood; select it in `parameters`"
            raise NotUnderstood(what, member.location)
        values: list[Expression] = []
        for place in way.places:
            if isinstance(place.value, Each | Brought):
                raise NotUnderstood(
                    "in a subquery, a parameter stands in `column = bucket.x`", member.location
                )
            values.append(place.value)
        lookup = statement.context.lookup(
            member.source.table, way.filters, (column,), tuple(dict.fromkeys(values)), way.windows
        )
        brought = {each: at for at, each in enumerate(dict.fromkeys(values))}
        places = tuple(
            Place(place.at, Brought(0, brought[each])) for place, each in zip(way.places, values, strict=True)
        )
        return Way(places=places, joins=(Join(lookup, value, statement.text_of(node)),))

    def _term(self, statement: Statement, way: Way, where: SqlNode | None, scope: DataScope) -> Term:
        values: list[Key | Brought] = []
        same: list[tuple[int, Key | Brought]] = []
        for at, name in enumerate(self.parameters):
            mine = sorted((p.value for p in way.places if p.at == at), key=_preference)
            if not mine:
                what = f"every bucket parameter must be used in every alternative: bucket.{name} is not"
                if name in scope.alike:
                    what += f"; {name} alone is a column of the row, did you mean bucket.{name}?"
                at = scope.alike.get(name, location_of(where) if where else 0)
                statement.refuse(what, at)
                continue
            same += [(len(values), other) for other in mine[1:]]
            values.append(mine[0])
        if sum(isinstance(place.value, Each) for place in way.places) > 1:
            statement.refuse("only one parameter can be IN an array column", location_of(where))
        return Term(way.filters, tuple(values), way.joins, way.windows, tuple(same))


def _preference(value: Key | Brought) -> int:
    """What the row says itself, then what a join brings, then the many members of an array.

    So the value of a term is one of many only where nothing else must be the same.
    """
    return 2 if isinstance(value, Each) else 1 if isinstance(value, Brought) else 0
