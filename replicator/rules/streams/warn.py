"""A branch → warnings where it may hold, or never hold, against its writer's intent. No I/O."""

from __future__ import annotations

from replicator.rules.definitions import warn
from replicator.rules.definitions.comparisons import check_comparisons
from replicator.rules.expression import Call, Expression
from replicator.rules.streams.branches import Branch
from replicator.rules.streams.scoped import Condition, Table, origins_of


class _Types:
    """The types of the columns that one condition is about."""

    def __init__(self, branch: Branch, condition: Condition) -> None:
        self._context = condition.place.statement.context
        about = origins_of(condition.test)
        self._tables = [o for o in branch.origins if isinstance(o, Table) and o.at in about]

    def oid(self, column: str) -> int | None:
        """None also where two tables have a column of this name, with different types."""
        found = {self._context.type_of(table.name, column) for table in self._tables} - {None}
        return found.pop() if len(found) == 1 else None


def check_branch(branch: Branch) -> None:
    """Warn of conditions that NULL makes true, and of comparisons that never hold."""
    for condition in branch.conditions:
        if condition.window is not None:
            continue
        statement = condition.place.statement
        node = {"location": condition.place.location}
        types = _Types(branch, condition)
        culprit = warn.opened_by_null(condition.test, statement.context.dialect.edition)
        if culprit is not None and _is_there(branch, culprit):
            check_comparisons(statement, condition.test, node, types)
        else:
            warn.check_condition(statement, condition.test, node, types)


def _is_there(branch: Branch, expr: Expression) -> bool:
    """Whether another condition holds only if this is not NULL."""
    return any(
        condition.test == Call("is not null", (expr,)) or expr in (condition.sides or ())
        for condition in branch.conditions
    )
