"""A loop that goes round → the pulse of its process: that it lives, and what it is at. No I/O.

Whoever keeps watch over a process (a supervisor, a service manager) has to see the work itself. A timer
beside it would beat on while the work stands still, so the loops say so themselves, once in each round: the
one that follows the log, the one that listens to storage, the one that takes jobs. A process has one of them.
"""

from __future__ import annotations

from typing import NamedTuple


class Pulse(NamedTuple):
    """What there is to feel."""

    #: How often the loop has gone round.
    rounds: int = 0
    #: Whether it does what it is there for.
    is_ready: bool = False
    doing: str = "starting"


_now = Pulse()


def went_round() -> None:
    """The loop has come to its beginning again."""
    global _now
    _now = Pulse(_now.rounds + 1, _now.is_ready, _now.doing)


def at(doing: str, *, is_ready: bool) -> None:
    """What it does from here on, in words for an operator: places and counts, and nothing of a row."""
    global _now
    _now = Pulse(_now.rounds + 1, is_ready, doing)


def felt() -> Pulse:
    """The pulse as it is."""
    return _now
