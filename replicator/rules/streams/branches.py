"""A formula → its branches: the alternatives, each with all it reads and all it demands. No I/O."""

from __future__ import annotations

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

    def plus(self, other: Branch) -> Branch:
        new = tuple(condition for condition in other.conditions if condition not in self.conditions)
        return Branch(self.origins + other.origins, self.conditions + new)


def branches(flat: Flat, limit: int) -> tuple[Branch, ...]:
    """The branches of a query; each begins with what FROM reads."""
    place = Place(flat.statement, 0)
    first = Branch(flat.origins, ())
    found = tuple(first.plus(branch) for branch in _alternatives(flat.formula, limit, place))
    if any(len(branch.origins) > MOST_ORIGINS for branch in found):
        raise Refusal(f"more than {MOST_ORIGINS} tables are read, subqueries and `with` included", place)
    return found


def _alternatives(formula: Formula, limit: int, place: Place) -> list[Branch]:
    match formula:
        case Condition():
            return [Branch((), (formula,))]
        case Some(origins, inner):
            return [Branch(origins, ()).plus(branch) for branch in _alternatives(inner, limit, place)]
        case Either(parts):
            found = [branch for part in parts for branch in _alternatives(part, limit, place)]
            _check(len(found), limit, place)
            return found
        case Every(parts):
            found = [Branch((), ())]
            for part in parts:
                more = _alternatives(part, limit, place)
                _check(len(found) * len(more), limit, place)
                found = [one.plus(other) for one in found for other in more]
            return found


def _check(count: int, limit: int, place: Place) -> None:
    if count > limit:
        what = f"this comes to more than {limit} alternatives; split it into several `queries`"
        raise Refusal(what, place)
