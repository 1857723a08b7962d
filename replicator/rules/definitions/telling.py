"""An expression about a token or a row → whether different ones come to different values. No I/O.

`substring(request.user_id(), 1, 0)` and `coalesce('public', request.user_id())` read like the user, and are
the same for everybody. Which functions lose what they are given, with which arguments, is not to be read off
an expression; so it is computed for some tokens, or rows, that differ in everything they say. If no kind of
value comes through it, it tells nobody from anybody.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from hashlib import blake2b
from itertools import islice, product

from replicator.rules.compute.expressions import plain
from replicator.rules.compute.scalars import EvaluationError, truth
from replicator.rules.definitions.gates import PATHS, is_of_every_token, within
from replicator.rules.expression import EDITION_3, Call, Expression, Literal, Request, Scalar

_ASKED = range(5)
#: Of more ways than this through nested CASE, the first decide.
_MOST_WAYS = 64


@lru_cache(1 << 10)
def tells_apart(expr: Expression) -> bool:
    """Whether it has values that depend on what it is about, for some kind of values it may be about."""
    if not isinstance(expr, Call):
        return not isinstance(expr, Literal) and not is_of_every_token(expr)
    return any(
        _comes_through(way, about, kind)
        for way in islice(_ways(expr), _MOST_WAYS)
        if (about := list(dict.fromkeys(_leaves(way))))
        for kind in _KINDS
    )


def _ways(expr: Expression) -> Iterator[Expression]:
    """What an expression comes to by each of the branches in it; conditions are taken to hold or not."""
    match expr:
        case Call("case", (when, then, *rest)):
            holds = _is_there(when)
            if holds is not False:
                yield from _ways(then)
            if holds is not True:
                yield from _ways(Call("case", tuple(rest)) if len(rest) > 1 else rest[0])
        case Call(name, args):
            for chosen in product(*map(_ways, args)):
                yield Call(name, chosen)
        case _:
            yield expr


def _is_there(condition: Expression) -> bool | None:
    """What is known beforehand: something is asked about that is always there."""
    match condition:
        case Call("is not null", (Request("user_id" | "jwt"),)):
            return True
        case Call("is null", (Request("user_id" | "jwt"),)):
            return False
        case Literal(value):
            return truth(value)
    return None


def _leaves(expr: Expression) -> Iterator[Expression]:
    """What an expression is about: columns, and what is in them and in the token by the whole of its path."""
    match expr:
        case Literal():
            return
        case Call(name, (_, Literal())) if name in PATHS and not is_of_every_token(expr):
            yield expr
        case Call(_, args) if not is_of_every_token(expr):
            for arg in args:
                yield from _leaves(arg)
        case _ if not is_of_every_token(expr):
            yield expr


def _comes_through(expr: Expression, about: list[Expression], kind: Callable[[int], Scalar]) -> bool:
    found = set()
    for asked in _ASKED:
        said: dict[Expression, Scalar] = {
            leaf: kind(asked * len(about) + at) for at, leaf in enumerate(about)
        }
        try:
            value = plain(_with(expr, said), lambda _: "the same", EDITION_3)
        except EvaluationError:
            return False
        if value is None or value in found:
            return False
        found.add(value)
    return True


def _with(expr: Expression, said: dict[Expression, Scalar]) -> Expression:
    if expr in said:
        return Literal(said[expr])
    if isinstance(expr, Call) and any(part in said for part in within(expr)):
        return Call(expr.name, tuple(_with(arg, said) for arg in expr.args))
    return expr


def _id(at: int) -> str:
    return blake2b(str(at).encode(), digest_size=16).hexdigest()


#: What tokens and rows say who somebody is by: for each number another one.
_KINDS: tuple[Callable[[int], Scalar], ...] = (
    _id,
    lambda at: f"{_id(at)[:8]}@clinic.example",
    lambda at: 1_000 + 7_919 * at,
    lambda at: str(1_000 + 7_919 * at),
    lambda at: f'["{_id(at)}"]',
    lambda at: f"20{10 + at % 80}-0{1 + at % 9}-1{at % 9}T1{at % 9}:0{at % 9}:2{at % 9}Z",
)
