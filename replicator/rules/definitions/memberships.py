"""Lists, arrays and written values in a condition → what may not be meant of them. No I/O."""

from __future__ import annotations

from replicator.rules.definitions.known_types import (
    Types,
    differ,
    is_no_array,
    named,
    shown,
    type_of,
    type_of_members,
)
from replicator.rules.definitions.written import never_a_member, never_written
from replicator.rules.expression import Call, Column, Expression, Literal
from replicator.rules.sql.conditions import dependencies
from replicator.rules.sql.statement import Statement

_WRITTEN = frozenset({"=", "!=", "in list", "is distinct", "is not distinct"})


def check_memberships(statement: Statement, test: Expression, at: int, scope: Types) -> None:
    """Tell of every list, array and written value in a condition that nothing is equal to."""
    unseen = [test]
    while unseen:
        part = unseen.pop()
        if not isinstance(part, Call):
            continue
        unseen += reversed(part.args)
        match part:
            case Call("in", (one, array)):
                _check_members(statement, one, array, at, scope)
            case Call("&&", (one, other)):
                kind, others = type_of_members(one, scope), type_of_members(other, scope)
                if differ(kind, others):
                    what = f"a member of {shown(one)} is {kind} and one of {shown(other)} is {others}"
                    statement.warn(f"{what}: these are never equal", at)
        if part.name in _WRITTEN and (said := never_written(part.args[0], part.args[1:], scope)):
            statement.warn(said, at)


def _check_members(statement: Statement, one: Expression, array: Expression, at: int, scope: Types) -> None:
    if isinstance(array, Column) and (oid := scope.oid(array)) and is_no_array(oid):
        what = f"{array.name} is no array, and so has no members; write = {array.name}"
        statement.warn(what, at)
    if said := never_a_member(one, array, scope):
        statement.warn(said, at)
    # What a bucket's parameter is stands elsewhere, and is looked at when all is read.
    kind = None if dependencies(one).bucket else type_of(one, scope)
    others = type_of_members(array, scope)
    if kind is None or others is None or not differ(kind, others):
        return
    what = f"{named(one, kind, scope).removesuffix(',')} and a member of {shown(array)} is {others}"
    remedy = f"cast it: {shown(one)}::{others}"
    if isinstance(one, Literal):
        remedy = "compare with a number" if kind == "text" else "compare with text"
    statement.warn(f"{what}: these are never equal; {remedy}", at)
