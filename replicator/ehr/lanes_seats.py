"""Workers of one record system, on any machines → how many lanes each may have at work.

They divide what the server is to get at once evenly among those that are there. Who has more than its part
takes no further lane until it has not; who has less takes what the others have left: so the sum is never
more, whoever comes and goes. One that dies, or stands still, loses its part when its lease ends, as it does
its lanes.
"""

from __future__ import annotations

from datetime import timedelta
from types import TracebackType
from typing import Self

from replicator import queries
from replicator.database import Connect, rows
from replicator.ehr.pace import Pace
from replicator.errors import ReplicatorError

_q = queries.load("queue")


class Seats:
    """The part of one worker; used as a context, at whose end the others have it."""

    def __init__(self, connect: Connect, holder: str, url: str, pace: Pace) -> None:
        self._connect, self._holder = connect, holder
        lease = timedelta(seconds=pace.lease_s)
        self._given = {"holder": holder, "url": url, "most": pace.concurrency, "lease": lease}

    async def __aenter__(self) -> Self:
        return self

    async def settle(self, used: int) -> int:
        """How many lanes may be at work here; `used` are."""
        async with self._connect() as connection, connection.transaction():
            await connection.execute(_q.one_worker_at_a_time)
            return int((await rows(connection, _q.divide, **self._given, used=used))[0][0])

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            async with self._connect() as connection:
                await connection.execute(_q.leave_workers, {"holder": self._holder})
        except ReplicatorError:
            return  # storage is away, perhaps because of which we end
