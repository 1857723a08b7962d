"""A formula → its branches: the alternatives, each with all it reads and all it demands. No I/O."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product
from typing import NamedTuple

from replicator.rules.streams.scoped import (
    Condition,
    Either,
    Every,
    Flat,
    Formula,
    Origin,
    Place,
    Refusal,
    Some,
)

#: Of one branch. Every use of a query under `with` reads its tables once more.
MOST_ORIGINS = 100


class Branch(NamedTuple):
    """One alternative. Everything in it must hold together."""

    origins: tuple[Origin, ...]
    conditions: tuple[Condition, ...]


def _together(parts: Iterable[Branch]) -> Branch:
    """What holds where all of these do."""
    parts = tuple(parts)
    origins = tuple(origin for part in parts for origin in part.origins)
    return Branch(origins, tuple(dict.fromkeys(known for part in parts for known in part.conditions)))


def branches(flat: Flat, limit: int) -> tuple[Branch, ...]:
    """The branches of a query; each begins with what FROM reads."""
    place = Place(flat.statement, 0)
    first = Branch(flat.origins, ())
    found = tuple(_together((first, branch)) for branch in _alternatives(flat.formula, limit, place))
    if any(len(branch.origins) > MOST_ORIGINS for branch in found):
        raise Refusal(f"more than {MOST_ORIGINS} tables are read, subqueries and `with` included", place)
    return found


def _alternatives(formula: Formula, limit: int, place: Place) -> list[Branch]:
    match formula:
        case Condition():
            return [Branch((), (formula,))]
        case Some(origins, inner):
            first = Branch(origins, ())
            return [_together((first, branch)) for branch in _alternatives(inner, limit, place)]
        case Either(parts):
            found = [branch for part in parts for branch in _alternatives(part, limit, place)]
            _check(len(found), limit, place)
            return found
        case Every(parts):
            ways, many = [], 1
            for part in parts:
                ways.append(_alternatives(part, limit, place))
                many *= len(ways[-1])
                _check(many, limit, place)
            return [_together(way) for way in product(*ways)]


def _check(count: int, limit: int, place: Place) -> None:
    if count > limit:
        what = f"this comes to more than {limit} alternatives; split it into several `queries`"
        raise Refusal(what, place)
