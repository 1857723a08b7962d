"""Failures of the record system in a row → whether it is an outage, and how careful to be after one. No I/O.

One failure is the job's affair. Several in a row, from whichever lanes, are an outage: then nothing is sent
but a probe now and then, by one worker for all. An answer to a probe shows that somebody is there, and not
that jobs succeed; so the first lane after an outage goes alone, and its failure is an outage at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

FAILURES_MAX: Final = 5
#: The pause before the first probe; it doubles with each outage that follows before any job has succeeded.
PAUSE_S: Final = 1.0
PAUSE_MAX_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Circuit:
    """What has been heard lately."""

    #: In a row.
    failures: int = 0
    #: Outages, with no success between them.
    outages: int = 0

    @property
    def is_broken(self) -> bool:
        return self.failures >= (1 if self.outages else FAILURES_MAX)

    @property
    def pause_s(self) -> float:
        return min(PAUSE_MAX_S, PAUSE_S * 2.0 ** min(self.outages - 1, 60))

    def lanes(self, most: int) -> int:
        """How many may be at work."""
        return 1 if self.outages else most


def hear(circuit: Circuit, *, is_outage: bool) -> Circuit:
    """After an answer; any that is no outage shows that jobs come through."""
    return Circuit(circuit.failures + 1, circuit.outages) if is_outage else Circuit()


def broken(circuit: Circuit) -> Circuit:
    """After an outage was declared."""
    return Circuit(0, circuit.outages + 1)
