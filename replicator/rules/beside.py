"""What rules come to for a relation, and what new ones beside them do → both as one. No I/O.

Each keeps its own dialect and its own names: nothing that one puts or enters is of the other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from replicator.rules.compile import Compiled, Known, Placed
from replicator.wal.messages import Row

_T = TypeVar("_T")


def together(old: Compiled | None, new: Compiled | None) -> Compiled | None:
    """The functions of both; those of the one if the other is not about this relation."""
    if old is None or new is None:
        return old or new
    shapes = len(old.shapes)

    def later(placed: list[Placed]) -> list[Placed]:
        return [(bucket, output, at + shapes) for bucket, output, at in placed]

    def place(row: Row, now: float) -> list[Placed]:
        return [*old.place(row, now), *later(new.place(row, now))]

    def place_joined(row: Row, now: float, known: Known) -> list[Placed]:
        return [*old.place_joined(row, now, known), *later(new.place_joined(row, now, known))]

    def turn(row: Row, then: float, now: float) -> float | None:
        # The new ones may not have entered this row yet; if these are to move it on, they certainly have.
        at = old.turn(row, then, now)
        return new.turn(row, then, now) if at is None else at

    return Compiled(
        old.relation,
        old.prefix,
        old.subkey,
        place,
        (*old.shapes, *new.shapes),
        _both(old.entries, new.entries),
        old.has_entries or new.has_entries,
        lambda row: list(dict.fromkeys([*old.needs(row), *new.needs(row)])),
        place_joined,
        _both(old.dues, new.dues),
        turn,
        old.is_joined or new.is_joined,
        old.is_kept or new.is_kept,
        # What is new is not asked what clients have written: in force, it is asked alone.
        old.writes,
        old.has_writes,
        old.looks_up | new.looks_up,
        (old._replace(turn=turn), new._replace(turn=turn)),
    )


def _both(
    old: Callable[[Row, float], list[_T]], new: Callable[[Row, float], list[_T]]
) -> Callable[[Row, float], list[_T]]:
    return lambda row, now: [*old(row, now), *new(row, now)]
