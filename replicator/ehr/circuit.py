"""Whether the record system answers × now → whether to send. No I/O.

While it does not answer, nothing is sent but one probe now and then: an outage costs as much as one job.

    Closed   everything goes through; so many failures in a row, from any lane, open it
    Open     nothing goes through until a time
    Probing  that time has come, and one request is under way: its answer decides
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

from replicator.ehr.retry import delay_s

FAILURES_MAX: Final = 5
#: The shortest pause, and the longest; each failed probe doubles the one after.
PAUSE_S: Final = 1.0
PAUSE_MAX_S: Final = 60.0
#: After so long a probe's answer is not waited for: whoever sent it may be gone.
PROBE_S: Final = 120.0


@dataclass(frozen=True, slots=True)
class Closed:
    failures: int = 0


@dataclass(frozen=True, slots=True)
class Open:
    until: float
    #: Failed probes so far.
    probes: int = 0


@dataclass(frozen=True, slots=True)
class Probing:
    since: float
    probes: int = 0


Circuit: TypeAlias = Closed | Open | Probing


class Asked(NamedTuple):
    """Whether to send, and the circuit from here on."""

    may_send: bool
    circuit: Circuit


def ask(circuit: Circuit, now: float) -> Asked:
    """Whether a request may be sent now. Of many that ask at once, one is told to."""
    match circuit:
        case Closed():
            return Asked(True, circuit)
        case Open(until, probes) if now >= until:
            return Asked(True, Probing(now, probes))
        case Probing(since, probes) if now >= since + PROBE_S:
            return Asked(True, Probing(now, probes))
    return Asked(False, circuit)


def hear(circuit: Circuit, *, is_outage: bool, now: float, luck: float) -> Circuit:
    """The circuit after an answer; any answer that is no outage shows that somebody is there."""
    match circuit:
        case Closed(failures) if is_outage and failures + 1 >= FAILURES_MAX:
            return Open(now + pause_s(0, luck))
        case Closed(failures):
            return Closed(failures + 1) if is_outage else Closed()
        case Probing(_, probes):
            return Open(now + pause_s(probes + 1, luck), probes + 1) if is_outage else Closed()
    # Open: the answer to what was sent before says nothing about now.
    return circuit


def pause_s(probes: int, luck: float) -> float:
    """Half of it certain, half of it chance: several workers are not to probe together."""
    bound = min(PAUSE_MAX_S, PAUSE_S * 2.0 ** min(probes, 60))
    return bound / 2 + delay_s(0, luck, base_s=bound / 2, cap_s=bound / 2)
