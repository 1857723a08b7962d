"""A connection to storage that listens → what it hears, as soon as it is told.

What the driver itself offers for this takes the connection for as long as one listens; here it can be asked
something in between, and what comes with the answer is heard, too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from psycopg import Notify, generators

from replicator.database import Connection


class Ear:
    """Hears what is told on one connection, also between what is asked of it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._heard: list[Notify] = []
        connection.add_notify_handler(self._heard.append)

    async def hear(self, seconds: float) -> Sequence[Notify]:
        """What has been told since it was asked last; waits for something, but no longer than this."""
        self._heard += self._read_already()
        if not self._heard:
            telling = generators.notifies(self._connection.pgconn)
            try:
                async with asyncio.timeout(seconds), self._connection.lock:
                    await self._connection.wait(telling)
            except TimeoutError:
                pass
        heard = list(self._heard)
        self._heard.clear()
        return heard

    def _read_already(self) -> list[Notify]:
        """What came with the end of an answer: it is in the driver's buffer, and the socket is empty."""
        found = []
        while (told := self._connection.pgconn.notifies()) is not None:
            found.append(Notify(told.relname.decode(), told.extra.decode(), told.be_pid))
        return found
