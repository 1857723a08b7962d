"""Equalities → those that hold because both sides are null in JSON, as edition 1 reads it. No I/O.

There, `claim ->> 'org'` of `{"org": null}` is the text `null`, and so is a row's `data ->> 'org'`: whoever
has an empty claim gets the rows of nobody. IS NOT NULL does not help, since text is something.
"""

from __future__ import annotations

from replicator.rules.expression import Call, Dialect, Expression

WARNING = (
    "where both are null in JSON, edition 1 reads the text null on both sides, and they are equal; set "
    "`config.edition` to 2, or add `AND … != 'null'`"
)
_READERS = frozenset({"->>", "json_extract"})
_KEEPING = frozenset({"cast text", "lower", "trim", "ltrim", "rtrim"})


def may_read_null(expr: Expression, dialect: Dialect) -> bool:
    """Whether the value is the text `null` where JSON has null."""
    if dialect.fixed_json_extract or not isinstance(expr, Call):
        return False
    if expr.name in ("ifnull", "coalesce"):
        return any(may_read_null(arg, dialect) for arg in expr.args)
    return expr.name in _READERS or (expr.name in _KEEPING and may_read_null(expr.args[0], dialect))


def both_may_read_null(test: Expression, dialect: Dialect) -> bool:
    """Whether this is an equality of two such values."""
    match test:
        case Call("=" | "is not distinct", (left, right)):
            return may_read_null(left, dialect) and may_read_null(right, dialect)
        case Call("in list", (one, *others)):
            return may_read_null(one, dialect) and any(may_read_null(other, dialect) for other in others)
    return False
