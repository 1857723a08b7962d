"""What happens in a process → counts and histograms of it, and as JSON for others to add up. No I/O.

Labels have few values that are known beforehand: the names of parts, of log lines and of states. Never a
user's, a patient's, a bucket's or a table's name.
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

#: Seconds from a commit on: a phone at a bedside, and a night without network.
COMMIT_BOUNDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0)
JOB_BOUNDS = (0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 21600.0, 86400.0)


@dataclass(slots=True)
class Histogram:
    """How many values were up to each bound, and what they come to together."""

    bounds: tuple[float, ...]
    #: Between the bounds, and one more beyond the last.
    counts: list[int] = field(default_factory=list)
    sum: float = 0.0

    def __post_init__(self) -> None:
        self.counts = self.counts or [0] * (len(self.bounds) + 1)

    @property
    def count(self) -> int:
        return sum(self.counts)

    def observe(self, value: float) -> None:
        # Two clocks may differ: what arrives before it was sent has taken no time.
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += max(value, 0.0)

    def add(self, counts: Sequence[int], total: float) -> None:
        """The same, of somebody who had the same bounds; what had others is left out."""
        if len(counts) == len(self.counts):
            self.counts = [one + other for one, other in zip(self.counts, counts, strict=True)]
            self.sum += total


#: What is counted: name → whether a label's value comes with it.
COUNTERS = ("rows", "transactions", "ops", "bytes", "errors", "sent")
HISTOGRAMS = {"commit_to_checkpoint": COMMIT_BOUNDS, "commit_to_client": COMMIT_BOUNDS}


class Figures:
    """All that is counted in one process, or in several, added up."""

    def __init__(self) -> None:
        #: Name → label's value, or nothing → how many.
        self.counters: dict[str, dict[str, float]] = {name: {} for name in COUNTERS}
        self.histograms = {name: Histogram(bounds) for name, bounds in HISTOGRAMS.items()}
        #: How many apps are connected, where there can be any.
        self.clients: Callable[[], int] = lambda: 0
        #: Raised by whatever is counted.
        self.version = 0

    def count(self, name: str, amount: float = 1, label: str = "") -> None:
        of = self.counters[name]
        of[label] = of.get(label, 0) + amount
        self.version += 1

    def stored(self, rows: int, ops: int, size: int, committed: Iterable[float], now: float) -> None:
        """A checkpoint has been stored, with transactions that were committed at these times."""
        histogram, transactions = self.histograms["commit_to_checkpoint"], 0
        for at in committed:
            histogram.observe(now - at)
            transactions += 1
        for name, amount in (("rows", rows), ("ops", ops), ("bytes", size), ("transactions", transactions)):
            if amount:
                self.count(name, amount)

    def sent(self, committed_at: float | None, now: float) -> None:
        """A client that follows has been sent what a checkpoint changed for it."""
        self.count("sent")
        if committed_at is not None:
            self.histograms["commit_to_client"].observe(now - committed_at)

    # -- elsewhere ---------------------------------------------------------------------------------

    def facts(self) -> dict[str, Any]:
        """As JSON can hold it."""
        histograms = {name: {"counts": h.counts, "sum": h.sum} for name, h in self.histograms.items()}
        return {"counters": {name: dict(of) for name, of in self.counters.items()}, "histograms": histograms}

    def add(self, facts: Mapping[str, Any]) -> None:
        """What another process has told; of another release, perhaps, so what is unknown is passed over."""
        for name, of in facts.get("counters", {}).items():
            for label, amount in of.items() if name in self.counters else ():
                self.count(name, amount, label)
        for name, told in facts.get("histograms", {}).items():
            if name in self.histograms:
                self.histograms[name].add(told["counts"], told["sum"])


#: Of this process, which has one part to do.
ours: Final = Figures()


class Counted(logging.Handler):
    """Counts what is logged as a warning or an error, by its event; and writes nothing."""

    def __init__(self, figures: Figures) -> None:
        super().__init__(logging.WARNING)
        self._figures = figures

    def emit(self, record: logging.LogRecord) -> None:
        self._figures.count("errors", label=record.getMessage())
