"""Steps with marks, and conditions → steps in an order in which each finds what it needs. No I/O.

While a query is being read, nobody knows which number a step will have. So each step that brings something
has a mark, expressions refer to it by that mark, and here the marks become numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from replicator.rules.expression import Call, Expression, Found
from replicator.rules.model import Each, Find, ForEach, Key, Predicate, Step, When
from replicator.rules.sql.reader import dependencies

#: Marks begin here, so that no mark is the number of a step.
FIRST_MARK = 1_000_000


def in_order(
    whens: Iterable[Predicate], bringing: Iterable[tuple[int, Step]]
) -> tuple[tuple[Step, ...], dict[int, int]]:
    """The steps that bring something, each condition as early as it can be; and the number of each mark."""
    places: dict[int, int] = {}
    steps: list[Step] = []
    waiting = list(whens)
    for mark, step in bringing:
        waiting = _add_ready(waiting, places, steps)
        steps.append(_numbered(step, places))
        places[mark] = len(steps) - 1
    left = _add_ready(waiting, places, steps)
    assert not left
    return tuple(steps), places


def _add_ready(waiting: list[Predicate], places: dict[int, int], steps: list[Step]) -> list[Predicate]:
    """Add the conditions for which everything is there; those that are left."""
    left: list[Predicate] = []
    for when in waiting:
        if dependencies(when.test).found <= places.keys():
            steps.append(When(Predicate(numbered(when.test, places), when.text)))
        else:
            left.append(when)
    return left


def _numbered(step: Step, places: Mapping[int, int]) -> Step:
    match step:
        case Find(lookup, keys):
            return Find(lookup, tuple(_numbered_key(key, places) for key in keys))
        case ForEach(of):
            return ForEach(numbered(of, places))
        case When(condition):
            return When(Predicate(numbered(condition.test, places), condition.text))


def _numbered_key(key: Key, places: Mapping[int, int]) -> Key:
    return Each(numbered(key.of, places)) if isinstance(key, Each) else numbered(key, places)


def numbered(expr: Expression, places: Mapping[int, int]) -> Expression:
    """The expression with numbers of steps for their marks."""
    match expr:
        case Found(mark, at):
            return Found(places[mark], at)
        case Call(name, args):
            return Call(name, tuple(numbered(arg, places) for arg in args))
    return expr
