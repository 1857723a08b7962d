"""A part of a running replicator → its row in storage: that it is there, what it waits for, what it counted.

So one place knows of every process, wherever it runs: `status`, /metrics and the page of any server. A row is
written when something has changed, and not more often than every five seconds unless it is how the part is;
on an idle system nothing is. Whether the process is still there is told by the session that wrote the row.
Storage that does not answer costs nothing but the telling.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

from psycopg.types.json import Jsonb

from replicator import marks, pulse, queries
from replicator.buckets.write import Batch
from replicator.database import Connection, check_migrated, connected, rows
from replicator.errors import ReplicatorError
from replicator.marks import mark
from replicator.observe.metrics.figures import Counted, Figures, ours
from replicator.sync.feed import Moment

_q = queries.load("status_parts")

#: How often it is looked whether there is something to tell; and how often counts alone are.
_LOOK_S, _COUNTS_S = 1.0, 5.0
#: After storage did not answer.
_RETRY_S = 5.0
#: How long whoever ends waits for its last word to be taken.
_LEAVE_S = 1.0
#: How the pulse of a part says that it waits.
_WAITS = "waiting: "


class Told:
    """What one process has to tell."""

    def __init__(self, part: str, clock: Callable[[], float] = time.time) -> None:
        self.part, self.figures, self._clock = part, ours, clock
        #: Since when it has waited, for whatever it was.
        self._since: float | None = None

    @property
    def waits(self) -> tuple[str, float] | None:
        """What it waits for, and since when."""
        now = pulse.felt()
        if now.is_ready or not now.doing.startswith(_WAITS):
            self._since = None
            return None
        self._since = self._since or self._clock()
        return now.doing.removeprefix(_WAITS), self._since

    def standing(self) -> dict[str, object]:
        """How it is, besides what it has counted."""
        return {"clients": self.figures.clients()}


def count_batch(batch: Batch) -> None:
    """What has been stored with a checkpoint."""
    ours.stored(batch.changes, batch.rows, batch.bytes, batch.committed, time.time())


def count_sent(moment: Moment) -> None:
    """What an app has been sent."""
    ours.sent(moment.committed_at, time.time())


@asynccontextmanager
async def telling(dsn: str, schema: str, part: str) -> AsyncIterator[None]:
    """Tell how this process is for as long as one stays inside."""
    told = Told(part)
    counted = Counted(told.figures)
    marks.log.addHandler(counted)
    row = _Row(told)
    task = asyncio.create_task(_again_and_again(dsn, schema, row))
    try:
        yield
        await _end(task)
        with suppress(ReplicatorError, TimeoutError):
            async with asyncio.timeout(_LEAVE_S), connected(dsn, f"{part} status", schema=schema) as storage:
                await row.leave(storage)
    finally:
        await _end(task)
        marks.log.removeHandler(counted)


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def _again_and_again(dsn: str, schema: str, row: _Row) -> None:
    while True:
        with suppress(ReplicatorError):  # who works with storage says what is wrong with it
            async with connected(dsn, f"{row.part} status", schema=schema) as storage:
                await check_migrated(storage, schema)
                await row.keep(storage)
        await asyncio.sleep(_RETRY_S)


class _Row:
    """Where it is told."""

    def __init__(self, told: Told) -> None:
        self._told, self.part = told, told.part
        self._node = f"{socket.gethostname()}:{os.getpid()}"
        self._id: int | None = None
        #: What others had counted who were in this row before.
        self._before: dict[str, Any] = {}

    async def keep(self, storage: Connection) -> None:
        """Tell what is new, until the session ends."""
        await self._enter(storage)
        said: object = None
        said_version, said_at = -1, 0.0
        while True:
            told, now = self._told, time.monotonic()
            standing, version = (told.waits, told.standing()), told.figures.version
            is_counted = version != said_version and now - said_at >= _COUNTS_S
            if standing != said or is_counted:
                await self._tell(storage)
                said, said_version, said_at = standing, version, now
            await asyncio.sleep(_LOOK_S)

    async def leave(self, storage: Connection) -> None:
        """Say the last of what was counted, and that it is meant to end: whoever follows is no restart."""
        if self._id is not None:
            await self._tell(storage)
            await storage.execute(_q.leave, {"id": self._id, "node": self._node})

    async def _enter(self, storage: Connection) -> None:
        values = {"part": self.part, "node": self._node}
        if self._id is not None and await rows(storage, _q.enter_again, id=self._id, **values):
            return
        found = await rows(storage, _q.take_over, **values) or await rows(storage, _q.enter, **values)
        self._id, self._before = found[0]
        mark("telling", level=logging.DEBUG, part=self._told.part, row=self._id)

    async def _tell(self, storage: Connection) -> None:
        told, figures = self._told, Figures()
        figures.add(self._before)
        figures.add(told.figures.facts())
        why, since = told.waits or (None, None)
        facts = Jsonb(figures.facts() | told.standing())
        await storage.execute(_q.tell, {"id": self._id, "why": why, "since": since, "figures": facts})
