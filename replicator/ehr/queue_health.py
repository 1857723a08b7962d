"""The queue → how it is: what waits, for how long and for what, and whether somebody should look."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from replicator import queries
from replicator.database import Connection, rows

_q = queries.load("queue")

#: What has waited for longer is too late, whatever it waits for.
LATE_S = 300.0


@dataclass(frozen=True, slots=True)
class Health:
    """One look at the queue."""

    #: State → lanes, and the jobs in them.
    lanes: Mapping[str, tuple[int, int]]
    oldest_s: float | None
    #: Error class → jobs that stand with it.
    errors: Mapping[str, int]
    #: How many ended in the last hour, and how.
    finished: Mapping[str, int]
    #: What many lanes wait for → why.
    holds: Mapping[str, str]

    @property
    def undelivered(self) -> int:
        return sum(jobs for _, jobs in self.lanes.values())

    @property
    def stopped(self) -> int:
        """Lanes in which nothing goes on until a person or a server has done something."""
        return sum(self.lanes.get(state, (0, 0))[0] for state in ("parked", "held"))

    @property
    def status(self) -> Literal["healthy", "degraded"]:
        is_late = self.oldest_s is not None and self.oldest_s > LATE_S
        return "degraded" if self.stopped or self.holds or is_late else "healthy"

    def facts(self, now: datetime | None = None) -> dict[str, object]:
        """As a monitor asks for it."""
        return {
            "status": self.status,
            "checks": {
                "pending_syncs": self.undelivered,
                "failed_syncs": self.lanes.get("parked", (0, 0))[0],
                "oldest_undelivered_s": None if self.oldest_s is None else round(self.oldest_s, 3),
                "lanes": {state: lanes for state, (lanes, _) in self.lanes.items()},
                "errors": dict(self.errors),
                "finished_last_hour": dict(self.finished),
                "holds": dict(self.holds),
            },
            "last_check": now or datetime.now(UTC),
        }


async def health(connection: Connection) -> Health:
    """How the queue is now."""
    lanes = await rows(connection, _q.lanes_by_state)
    oldest = await rows(connection, _q.oldest)
    errors = await rows(connection, _q.errors_by_class)
    finished = await rows(connection, _q.finished_lately)
    holds = await rows(connection, _q.holds)
    return Health(
        {state: (count, jobs) for state, count, jobs in lanes},
        oldest[0][0],
        dict(errors),
        dict(finished),
        {name: reason for name, reason, _ in holds},
    )
