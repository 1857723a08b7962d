"""Tables of the source → one moment in which they can all be read, beside an application that locks some.

To wait for one table with another in hand is how one comes to wait for somebody who waits for that one.
Postgres then ends one of the two, and it may be the application's. So all are locked at once, or none is; and
where a table has partitions, that is true of them as well.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import psycopg
from psycopg import sql
from psycopg.errors import LockNotAvailable

from replicator.database import Connection

#: How long to leave tables alone of which somebody has locked one: at first, and at most.
_PAUSE_S = 0.01
_PAUSE_S_MAX = 0.5


@asynccontextmanager
async def beside(
    source: Connection, tables: Sequence[tuple[str, str]], within_s: float | None = None
) -> AsyncIterator[None]:
    """A snapshot that only reads; LockNotAvailable if there was no such moment for so long."""
    began, pause_s = time.monotonic(), _PAUSE_S
    names = sql.SQL(", ").join(sql.Identifier(*table) for table in tables)
    query = sql.SQL("LOCK TABLE {} IN ACCESS SHARE MODE NOWAIT").format(names)
    is_over = False
    while not is_over:
        async with source.transaction() as transaction:
            await source.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            try:
                if tables:
                    await source.execute(query)
            except LockNotAvailable:
                if within_s is not None and time.monotonic() - began > within_s:
                    raise
                raise psycopg.Rollback(transaction) from None
            is_over = True
            yield
        if not is_over:
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _PAUSE_S_MAX)
