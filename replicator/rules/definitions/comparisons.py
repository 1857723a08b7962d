"""Conditions → comparisons in them that hold for every row, or for none. No I/O.

Values are compared by their type first, and types are ordered: number < text < bytes. So `name > 5` holds for
every row that has a name, and `name = 5` for none. What Postgres calls numeric, money, date or timestamp is
text in the rules, and nobody sees that of a condition: `temperature > 37` would show all rows. If the source
has been looked at, what holds for every row is refused.
"""

from __future__ import annotations

from collections.abc import Iterator

from replicator.rules.definitions.json_null import WARNING as NULL_IN_JSON
from replicator.rules.definitions.json_null import both_may_read_null
from replicator.rules.definitions.known_types import (
    NUMBERS,
    RANKS,
    Types,
    differ,
    named,
    native_of,
    shown,
    type_of,
)
from replicator.rules.definitions.memberships import check_memberships
from replicator.rules.expression import Call, Column, Expression, Literal
from replicator.rules.sql.sqltext import SqlNode, location_of
from replicator.rules.sql.statement import Statement

_ORDERED = frozenset({"<", "<=", ">", ">=", "between"})
_EQUAL = frozenset({"=", "in list", "is not distinct"})
_UNEQUAL = frozenset({"!=", "is distinct"})
#: Of money and the like, no expression makes a number.
_NO_NUMBER = frozenset({"money", "interval", "timetz"})


def check_comparisons(statement: Statement, test: Expression, node: SqlNode, scope: Types) -> None:
    """Tell of comparisons that are always the same; refuse one that holds for every row of the source."""
    at = location_of(node)
    check_memberships(statement, test, at, scope)
    for part, is_negated in _comparisons(test):
        name, (first, *others) = part.name, part.args
        if both_may_read_null(part, statement.context.dialect):
            statement.warn(NULL_IN_JSON, at)
        holds = _always(part, scope)
        if holds is not None:
            holds = None if is_negated is None else holds is not is_negated
        pairs = [(first, other) for other in others if _pair_differs(first, other, scope)]
        if holds is True:
            why = f"{_described(*pairs[0], scope)}: this holds for every row that has one; "
            _tell(statement, why + _remedy(*pairs[0], scope), at)
        elif Literal(None) in part.args and name in ("=", "in list"):
            statement.warn("nothing equals NULL: write IS NULL", at)
        elif pairs and name in _EQUAL | _UNEQUAL:
            why = f"{_described(*pairs[0], scope)}: these are never equal; {_remedy(*pairs[0], scope)}"
            statement.warn(why, at)
        elif pairs and name in _ORDERED:
            what = "this is the same for every row" if holds is None else "this holds for no row"
            why = f"{_described(*pairs[0], scope)}: {what}; {_remedy(*pairs[0], scope)}"
            statement.warn(why, at)
        elif name in _ORDERED and (culprit := _by_letters(part.args, scope)):
            what = f"{shown(culprit)} is compared as text, letter by letter: '9' comes after '10'; "
            statement.warn(what + _as_number(culprit, scope), at)


def _tell(statement: Statement, what: str, at: int) -> None:
    """What shows rows to those who should not see them is no matter of taste, once it is known."""
    if statement.context.tables is None or not statement.context.is_strict:
        statement.warn(what, at)
    else:
        statement.refuse(what, at)


def _comparisons(test: Expression) -> Iterator[tuple[Call, bool | None]]:
    """Every comparison, and whether it is negated; None where that depends on what it is part of."""
    unseen: list[tuple[Expression, bool | None]] = [(test, False)]
    while unseen:
        part, is_negated = unseen.pop()
        if not isinstance(part, Call):
            continue
        if part.name in _EQUAL | _UNEQUAL | _ORDERED and len(part.args) > 1:
            yield part, is_negated
        inner: bool | None = None
        if part.name in ("and", "or"):
            inner = is_negated
        elif part.name == "not" and is_negated is not None:
            inner = not is_negated
        unseen += [(arg, inner) for arg in reversed(part.args)]


def _pair_differs(left: Expression, right: Expression, scope: Types) -> bool:
    return differ(type_of(left, scope), type_of(right, scope))


def _always(test: Call, scope: Types) -> bool | None:
    """Whether a comparison holds for all values but NULL, or for none; None if it depends on them."""
    first, *others = (type_of(arg, scope) for arg in test.args)
    if test.name == "between":
        low, high = _ordered(">=", first, others[0]), _ordered("<=", first, others[1])
        if False in (low, high):
            return False
        # A bound that everything keeps is none.
        return True if True in (low, high) else None
    if test.name in _ORDERED:
        return _ordered(test.name, first, others[0])
    if not all(differ(first, other) for other in others):
        return None
    return test.name in _UNEQUAL


def _ordered(name: str, one: str | None, other: str | None) -> bool | None:
    if one is None or other is None or not differ(one, other):
        return None
    return (RANKS[one] < RANKS[other]) is name.startswith("<")


def _described(left: Expression, right: Expression, scope: Types) -> str:
    one, other = type_of(left, scope) or "", type_of(right, scope) or ""
    return f"{named(left, one, scope)} and {named(right, other, scope)}".removesuffix(",")


def _remedy(left: Expression, right: Expression, scope: Types) -> str:
    kinds = type_of(left, scope), type_of(right, scope)
    if "blob" in kinds:
        return "compare hex(…) of the bytes"
    text, other = (left, right) if kinds[0] == "text" else (right, left)
    if isinstance(text, Literal):
        return "compare with a number"
    if native_of(text, scope):
        return _as_number(text, scope)
    if isinstance(other, Literal):
        return f"compare with text, or write CAST({shown(text)} AS numeric)"
    return f"compare {shown(other)}::text"


def _as_number(text: Expression, scope: Types) -> str:
    """What makes a number of a column that is text here."""
    native = native_of(text, scope)
    if native in _NO_NUMBER:
        return f"nothing makes a number of {native}: keep a numeric column for it"
    if native in NUMBERS.values():
        return f"write CAST({shown(text)} AS numeric)"
    if native == "time":
        return "compare with text such as '08:30:00'"
    return f"compare with text such as '2024-01-31', or write unixepoch({shown(text)})"


def _by_letters(args: tuple[Expression, ...], scope: Types) -> Expression | None:
    """The first number of the source that is compared with text as text."""
    if any(type_of(arg, scope) not in ("text", None) for arg in args):
        return None
    numbers = [arg for arg in args if native_of(arg, scope) in (*NUMBERS.values(), "interval", "timetz")]
    return next((arg for arg in numbers if isinstance(arg, Column)), None)
