"""Ops and entries of a batch → which buckets and lookups it changes, to tell those who wait. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from replicator.rules.route import Enter, Leave

#: More changed buckets than this, or lookups, are not told one by one.
MOST_TOLD = 10_000
#: Wherever an op's number is divisible by this, its bucket is summed up: without anything being counted, a
#: bucket's last sum is then about so many of its ops back, and summing up costs each op the same.
SUMMED_UP = 256


class Changed:
    """Which buckets and lookups a batch changes, and which buckets are to be summed up at its end."""

    def __init__(self) -> None:
        self._buckets: set[int] = set()
        self._lookups: set[str] = set()
        self._are_many_lookups = False
        #: The buckets to be summed up; some, when there are very many.
        self.due: set[int] = set()

    def add(self, buckets: Sequence[int], op_id: int) -> None:
        """The buckets of the ops that follow `op_id`."""
        if len(self._buckets) <= MOST_TOLD:
            self._buckets.update(buckets)
        if len(self.due) <= MOST_TOLD:
            self.due.update(buckets[SUMMED_UP - 1 - op_id % SUMMED_UP :: SUMMED_UP])

    def enter(self, entries: Iterable[Enter | Leave]) -> None:
        """Entries made, or ended."""
        if len(self._lookups) <= MOST_TOLD:
            self._lookups.update([f"{entry.lookup}\t{entry.key}" for entry in entries])

    def sweep(self, buckets: Sequence[int]) -> None:
        """These buckets have been swept, and whatever the rows in question had entered; of many, some."""
        self._are_many_lookups = True
        self._buckets.update(buckets)
        self.due.update(buckets)

    def told(self) -> dict[str, str | list[str] | None]:
        """What readers are told of it: nothing where it is too many to say."""
        are_many = self._are_many_lookups or len(self._lookups) > MOST_TOLD
        return {
            "buckets": numbers(self._buckets) if len(self._buckets) <= MOST_TOLD else None,
            "lookups": None if are_many else list(self._lookups),
        }


def numbers(some: Iterable[int]) -> str:
    """An array as Postgres reads it: twenty times faster than the driver writes one, which looks at each."""
    return "{" + ",".join(map(str, some)) + "}"
