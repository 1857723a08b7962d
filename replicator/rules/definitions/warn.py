"""Conditions → warnings where they may hold, or never hold, against their writer's intent. No I/O.

A missing claim or an empty column is NULL, a comparison with NULL does not hold, and so its negation does:
`NOT (role = 'guest')` lets in everybody without a role. In edition 3, `role != 'guest'` does the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set
from contextlib import contextmanager, suppress
from typing import NamedTuple

from replicator.rules.definitions.comparisons import check_comparisons
from replicator.rules.definitions.known_types import Types, shown
from replicator.rules.expression import Call, Column, Expression, Found, Literal
from replicator.rules.sql.reader import NotUnderstood, Scope, dependencies
from replicator.rules.sql.sqltext import SqlNode, location_of
from replicator.rules.sql.statement import Statement

COMPARISONS = frozenset({"=", "!=", "<", "<=", ">", ">=", "in", "in list", "between", "like", "ilike", "&&"})
NULL_TESTS = frozenset({"is null", "is not null", "is distinct", "is not distinct"})
#: What is never NULL, or says itself what it makes of NULL.
DEFINITE = frozenset(
    {"is null", "is not null", "is true", "is false", "is not true", "is not false", "is distinct"}
    | {"is not distinct", "typeof", "json_valid", "not", "and", "or"}
)


def check_condition(statement: Statement, test: Expression, node: SqlNode, scope: Types) -> None:
    """Warn of a condition that NULL makes true, and of comparisons in it that never hold."""
    edition = statement.context.dialect.edition
    if (culprit := opened_by_null(test, edition, statement.present)) is not None:
        is_claim = isinstance(culprit, Call) and culprit.name != "case" and not dependencies(culprit).tables
        when = f"for a request without {shown(culprit)}" if is_claim else f"where {shown(culprit)} is NULL"
        what = f"this also holds {when}; if that is not meant, add `AND … IS NOT NULL`"
        statement.warn(what, location_of(node))
    check_comparisons(statement, test, node, scope)


@contextmanager
def present(statement: Statement, nodes: Iterable[SqlNode], scope: Scope) -> Iterator[None]:
    """While these conditions, which must all hold, are read: what they demand to be there by IS NOT NULL."""
    before, statement.present = statement.present, set()
    for node in nodes:
        test = node.get("NullTest", {})
        if test.get("nulltesttype") == "IS_NOT_NULL":
            with suppress(NotUnderstood):  # it will be refused when it is read in its turn
                statement.present.add(statement.read(test["arg"], scope))
    yield
    statement.present = before


def opened_by_null(
    test: Expression, edition: int, present: Set[Expression] = frozenset()
) -> Expression | None:
    """What makes a condition true by being NULL, if there is such a thing.

    Not what is known to be `present`, nor what the condition itself asks about: its writer has thought of it.
    """
    return _Opened(edition, frozenset(present) | _asked_about(test)).by(test, False)


def _asked_about(test: Expression) -> frozenset[Expression]:
    found: set[Expression] = set()
    unseen = [test]
    while unseen:
        part = unseen.pop()
        if isinstance(part, Call):
            unseen += part.args
            if part.name in NULL_TESTS:
                found.update(part.args)
    return frozenset(found)


class _Opened(NamedTuple):
    edition: int
    present: frozenset[Expression]

    def by(self, test: Expression, is_negated: bool) -> Expression | None:
        match test:
            case Call("not", (inner,)):
                return self.by(inner, not is_negated)
            case Call("and" | "or", args):
                found = (self.by(arg, is_negated) for arg in args)
                return next((culprit for culprit in found if culprit), None)
            case Call(name, (inner,)) if name == ("is not true" if is_negated else "is true"):
                return self.by(inner, False)
            case Call(name, (Call("and" | "or" | "not") as inner,)) if name == (
                "is not false" if is_negated else "is false"
            ):
                return self.by(inner, True)
            case Call("!=", args) if self.edition >= 3 and not is_negated:
                culprit = self._nullable(args)
            case Call(name, args) if is_negated and name in COMPARISONS:
                culprit = self._nullable(args)
            case _:
                culprit = self._culprit(test) if is_negated else None
        return culprit or self._within(test)

    def _within(self, test: Expression) -> Expression | None:
        """What makes a condition true that stands after a WHEN in it."""
        if not isinstance(test, Call):
            return None
        whens = range(0, len(test.args) - 1, 2) if test.name == "case" else range(0)
        for at, arg in enumerate(test.args):
            culprit = self.by(arg, False) if at in whens else self._within(arg)
            if culprit is not None:
                return culprit
        return None

    def _nullable(self, args: tuple[Expression, ...]) -> Expression | None:
        """The first of these that may be NULL."""
        for arg in args:
            if (culprit := self._culprit(arg)) is not None:
                return culprit
        return None

    def _culprit(self, expr: Expression) -> Expression | None:
        if expr in self.present:
            return None
        match expr:
            case Column() | Found() | Call("->>" | "->"):
                return expr
            case Call("ifnull", (*_, last)):
                return self._culprit(last)
            case Call("case", args) if Literal(None) in (*args[1::2], args[-1]):
                return expr
            case Call(name, inner) if name not in DEFINITE and name not in COMPARISONS:
                return self._nullable(inner)
        return None
