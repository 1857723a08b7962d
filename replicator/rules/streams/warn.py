"""A branch → warnings where it may hold, or never hold, against its writer's intent. No I/O."""

from __future__ import annotations

from collections.abc import Iterable

from replicator.rules.context import Context
from replicator.rules.definitions import warn
from replicator.rules.definitions.comparisons import check_comparisons
from replicator.rules.definitions.known_types import oid_of_members
from replicator.rules.expression import Call, Column, Expression
from replicator.rules.streams.branches import Branch
from replicator.rules.streams.scoped import Members, Origin, Table


class OriginTypes:
    """The types of the columns of these origins."""

    def __init__(self, context: Context, origins: Iterable[Origin]) -> None:
        self._context = context
        self._origins = {origin.at: origin for origin in origins}

    def oid(self, column: Column) -> int | None:
        match self._origins.get(column.table):
            case Table(name=name):
                return self._context.type_of(name, column.name)
            case Members(of=of) if column.name == "value":
                return oid_of_members(of, self)
        return None


def check_branch(branch: Branch) -> None:
    """Warn of conditions that NULL makes true, and of comparisons that never hold."""
    if not branch.conditions:
        return
    types = OriginTypes(branch.conditions[0].place.statement.context, branch.origins)
    for condition in branch.conditions:
        if condition.window is not None:
            continue
        statement = condition.place.statement
        node = {"location": condition.place.location}
        test = _of_array(condition.test, branch)
        culprit = warn.opened_by_null(test, statement.context.dialect.edition)
        if culprit is not None and _is_there(branch, culprit):
            check_comparisons(statement, test, node, types)
        else:
            warn.check_condition(statement, test, node, types)


def _of_array(test: Expression, branch: Branch) -> Expression:
    """An equality with a member, as the membership that it was written as."""
    match test:
        case Call("=", (one, Column(_, at) as other)):
            for origin in branch.origins:
                if isinstance(origin, Members) and origin.at == at and origin.value == other:
                    return Call("in", (one, origin.of))
    return test


def _is_there(branch: Branch, expr: Expression) -> bool:
    """Whether another condition holds only if this is not NULL."""
    return any(
        condition.test == Call("is not null", (expr,)) or expr in (condition.sides or ())
        for condition in branch.conditions
    )
