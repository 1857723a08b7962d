"""A condition on a request → whether it compares what some tokens say, and others do not. No I/O."""

from __future__ import annotations

import re
from collections.abc import Iterator

from replicator.rules.definitions.requests import VERIFIED
from replicator.rules.expression import Call, Expression, Literal, Request

#: What a claim can be compared with a constant by, beside equality.
ORDERED = frozenset({"<", "<=", ">", ">=", "between", "like", "ilike"})
#: Every token has these, and every valid one the same, or nearly.
_OF_EVERY_TOKEN = frozenset({"iss", "aud", "exp", "nbf", "iat", "jti", "typ"})
#: What a sign-in service writes into the token of whoever signs in; and what says nothing.
_OF_EVERYBODY = frozenset({"authenticated", ""})
#: What many tokens say alike.
_ROLES = frozenset({"role", "roles"})
PATHS = frozenset({"->", "->>", "json_extract"})
_STEP = re.compile(r"[.\[]")


def within(expr: Expression) -> Iterator[Expression]:
    """What an expression is made of."""
    for arg in expr.args if isinstance(expr, Call) else ():
        yield arg
        yield from within(arg)


def apart(sides: tuple[Expression, ...]) -> tuple[list[Expression], list[Literal]]:
    """What is asked about; and the constants, if all of them say anything."""
    values: list[Expression] = [side for side in sides if not isinstance(side, Literal)]
    constants = [side for side in sides if isinstance(side, Literal)]
    return values, constants if all(map(says, constants)) else []


def says(constant: Literal) -> bool:
    """Whether being like this constant tells one token from another."""
    value = constant.value
    return value is not None and not (isinstance(value, str) and value.strip("%") in _OF_EVERYBODY)


def is_claim(expr: Expression) -> bool:
    """Whether this is a claim that a token may lack, perhaps in another form."""
    match expr:
        case Call(name, (inner, Literal())) if name in PATHS:
            return _is_of_token(inner) and not is_of_every_token(expr)
        case Call(name, (inner, *_)) if name.startswith("cast ") or name in ("lower", "upper"):
            return is_claim(inner)
    return False


def _is_of_token(expr: Expression) -> bool:
    match expr:
        case Request(what):
            return what in VERIFIED - {"user_id"}
        case Call(name, (inner, Literal())) if name in PATHS:
            return _is_of_token(inner)
    return False


def is_of_every_token(expr: Expression) -> bool:
    """Whether it is about nothing but what every token says."""
    match expr:
        case Call(name, (Request("jwt"), Literal(str() as path))) if name in PATHS:
            return _keys(path)[0] in _OF_EVERY_TOKEN
        case Call(_, args):
            about = [arg for arg in args if not isinstance(arg, Literal)]
            return bool(about) and all(map(is_of_every_token, about))
    return False


def is_role(expr: Expression) -> bool:
    """Whether it is what many tokens say alike: rows that have it are not one user's."""
    match expr:
        case Call(name, (inner, Literal(str() as path))) if name in PATHS:
            return _is_of_token(inner) and not _ROLES.isdisjoint(_keys(path))
        case Call(name, (inner, Literal(int()))) if name in PATHS:
            return is_role(inner)
    return False


def _keys(path: str) -> list[str]:
    """What a path leads through; a dot in a name is taken for one."""
    return _STEP.split(path.removeprefix("$."))
