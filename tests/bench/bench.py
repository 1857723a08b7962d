"""Which measurements there are, and what each of them is given."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from replicator.demo.postgres import Server
from tests.bench.result import Result


@dataclass(frozen=True, slots=True)
class Bench:
    """How much is measured, and where."""

    is_quick: bool
    #: How often; the medians are told.
    runs: int
    #: Starts the server, the first time.
    serve: Callable[[], Server]

    def count(self, whole: int, quick: int) -> int:
        return quick if self.is_quick else whole

    def each(self, what: str) -> Iterator[int]:
        """One number for each run, telling the progress."""
        for run in range(1, self.runs + 1):
            self.say(f"{what}, run {run} of {self.runs}")
            yield run

    def say(self, what: str) -> None:
        print(f"bench: {what} …", file=sys.stderr, flush=True)


Measure = Callable[[Bench], Iterator[Result]]
