"""Ops, as COPY's lines → storage, which takes them in while more are made."""

from __future__ import annotations

from contextlib import AsyncExitStack, suppress

import psycopg
from psycopg import AsyncCopy

from replicator import queries
from replicator.database import Connection

_q = queries.load("buckets")

#: So much is sent before storage has to say that it has taken it in: it may be waiting in our memory.
_UNANSWERED_BYTES = 4 << 20


class Inflow:
    """The COPY into `ops` of one connection, begun when there are lines and ended by `rest`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._end: AsyncExitStack | None = None
        self._copy: AsyncCopy | None = None
        self._unanswered = 0

    async def send(self, lines: bytes) -> None:
        """Give storage these lines, and go on without waiting for it."""
        if self._copy is None:
            self._end = AsyncExitStack()
            copying = self._connection.cursor().copy(_q.append_ops)
            self._copy = await self._end.enter_async_context(copying)
        await self._copy.write(lines)
        self._unanswered += len(lines)
        if self._unanswered >= _UNANSWERED_BYTES:
            await self.rest()

    async def rest(self) -> None:
        """Wait until storage has taken in what it was given, and can be told something else."""
        end, self._end, self._copy, self._unanswered = self._end, None, None, 0
        if end is not None:
            await end.aclose()

    async def abandon(self) -> None:
        """End the COPY, if one is under way, in such a way that nothing of it is stored."""
        if self._end is not None:
            reason = _Abandoned("the replicator has stopped")
            with suppress(psycopg.Error, _Abandoned):
                await self._end.__aexit__(_Abandoned, reason, None)


class _Abandoned(Exception):
    """Tells a COPY that it is not to be completed."""
