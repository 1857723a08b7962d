"""Jobs as they are delivered → a histogram of how long each took, read from storage a little at a time."""

from __future__ import annotations

from replicator import queries
from replicator.database import Connect, rows
from replicator.observe.metrics.figures import JOB_BOUNDS, Histogram
from replicator.observe.status.model import Look, Silent

_q = queries.load("status_parts")

#: What was delivered so recently may not be seen yet, where it was in a longer transaction.
_MARGIN_S = 5.0


class JobAges:
    """How old jobs were when they were delivered, from when this was first asked on."""

    def __init__(self, storage: Connect, margin_s: float = _MARGIN_S) -> None:
        self.histogram = Histogram(JOB_BOUNDS)
        self._storage, self._margin_s = storage, margin_s
        self._upto: float | None = None

    async def read(self, look: Look) -> Histogram:
        """With what was delivered since it was read last; storage that is silent is not asked."""
        if isinstance(look.stored, Silent):
            return self.histogram
        async with self._storage() as storage:
            now = float((await rows(storage, _q.now))[0][0]) - self._margin_s
            since, self._upto = self._upto or now, max(now, self._upto or now)
            found = await rows(storage, _q.job_ages, bounds=list(JOB_BOUNDS), since=since, upto=self._upto)
        counts, total = [0] * len(self.histogram.counts), 0.0
        for bucket, count, seconds in found:
            counts[bucket] += count
            total += seconds
        self.histogram.add(counts, total)
        return self.histogram
