"""A column and what it is compared with → that Postgres never writes the column's values so. No I/O.

Values are compared as Postgres prints them: a uuid in small letters and with hyphens, whichever way it came
in, and a char(n) with the blanks that fill it up to its length.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from replicator.rules.compute.jsontext import members
from replicator.rules.compute.scalars import EvaluationError
from replicator.rules.definitions.known_types import CHAR, UUID, Types, oid_of_members
from replicator.rules.expression import Column, Expression, Literal

_UUID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def never_written(first: Expression, others: Sequence[Expression], scope: Types) -> str | None:
    """What to say if one of these is a column, and another something that no row has there."""
    for column, values in ((first, others), *((other, [first]) for other in others)):
        if isinstance(column, Column) and (said := _said(column, values, scope.oid(column), scope)):
            return said
    return None


def never_a_member(one: Expression, array: Expression, scope: Types) -> str | None:
    """The same of `one IN array`: of a list of constants, or of an array in the row."""
    if isinstance(array, Literal) and isinstance(one, Column):
        try:
            values = [Literal(member) for member in members(array.value)]
        except EvaluationError:
            return None
        return _said(one, values, scope.oid(one), scope)
    return _said(array, [one], oid_of_members(array, scope), scope) if isinstance(array, Column) else None


def _said(column: Column, values: Sequence[Expression], oid: int | None, scope: Types) -> str | None:
    if oid == UUID and any(map(_is_other_uuid, values)):
        said = f"{column.name} is uuid in the source, which is written in small letters and with hyphens here"
        return f"{said}: the text is not, and never equal"
    if oid == CHAR and not all(_may_be_padded(value, scope) for value in values):
        said = f"{column.name} is char(n) in the source: its values are filled up with blanks to that length"
        return f"{said}, and compared so; write rtrim({column.name}), or make it text there"
    return None


def _is_other_uuid(value: Expression) -> bool:
    return isinstance(value, Literal) and isinstance(value.value, str) and not _UUID.fullmatch(value.value)


def _may_be_padded(value: Expression, scope: Types) -> bool:
    """Whether it is filled up in the same way, or says itself that it is."""
    match value:
        case Column():
            return scope.oid(value) == CHAR
        case Literal(str() as text):
            return text.endswith(" ")
        case Literal():
            return True
    return False
