"""A configuration, its source and its storage → a Look; both are asked at once, and neither for long."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from psycopg.conninfo import conninfo_to_dict

from replicator import queries
from replicator.buckets.read import position
from replicator.config import Config
from replicator.database import Connect, check_migrated, rows
from replicator.dsn import describe_dsn
from replicator.ehr.queue_health import health
from replicator.errors import ReplicatorError
from replicator.observe.status.model import Copy, Hold, Look, PartState, RuleState, Silent, Source, Stored
from replicator.wal.slots import find_slot

_q = queries.load("status_look")
_parts = queries.load("status_parts")
_buckets = queries.load("buckets")
_T = TypeVar("_T")

_ANSWER_S = 8.0
#: A pace that was seen over less says nothing.
_PACE_S = 60.0
_LOCAL = ("localhost", "127.0.0.1", "::1")


class Looker:
    """Looks as often as it is asked, and remembers how far the log was, to see how fast it grows."""

    def __init__(
        self,
        config: Config,
        storage: Connect,
        source: Connect,
        *,
        serves: bool,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._config, self._storage, self._source, self._clock = config, storage, source, clock
        self._serves, self._slot = serves, config.source.slot
        #: When the log was first looked at, and how far it was.
        self._first: tuple[float, int] | None = None

    async def look(self) -> Look:
        config, at = self._config, self._clock()
        source, stored = await asyncio.gather(
            _answered(self._look_at_source, "the source"), _answered(self._look_at_storage, "storage")
        )
        return Look(
            at,
            self._slot,
            config.source.publication,
            describe_dsn(config.source_dsn),
            f"{describe_dsn(config.storage_dsn)} schema {config.storage.schema_name}",
            source,
            stored,
            self._serves,
            config.ehr.url is not None,
        )

    async def _look_at_source(self) -> Source:
        async with self._source() as source:
            slot = await find_slot(source, self._slot)
            [(here, limit_mb, folder, written, seconds, lag_s)] = await rows(
                source, _q.source, slot=self._slot
            )
        pace, pace_s = self._pace(here, written, seconds)
        return Source(
            slot,
            here,
            None if limit_mb is None or limit_mb < 0 else limit_mb << 20,
            _free_bytes(self._config.source_dsn, folder),
            pace,
            pace_s,
            lag_s,
        )

    def _pace(
        self, here: int, written: float | None, seconds: float | None
    ) -> tuple[float | None, float | None]:
        """As it was while we looked, if that is long enough; else since the server's statistics began."""
        now = self._clock()
        if self._first is None:
            self._first = now, here
        began, there = self._first
        if now - began >= _PACE_S and here >= there:
            return (here - there) / (now - began), now - began
        if written is None or seconds is None or seconds < _PACE_S:
            return None, None
        return written / seconds, seconds

    async def _look_at_storage(self) -> Stored:
        async with self._storage() as storage:
            await check_migrated(storage, self._config.storage.schema_name)
            stands = await position(storage, self._slot)
            [(is_writing,)] = await rows(storage, _buckets.is_writing, slot=self._slot)
            copies = await rows(storage, _q.copies, slot=self._slot)
            rules = await rows(storage, _q.rules, slot=self._slot)
            parts = await rows(storage, _parts.parts)
            queue, holds = await health(storage), await rows(storage, _q.holds_since)
            [(parked_since,)] = await rows(storage, _q.parked_since)
        return Stored(
            stands and stands.stored.op_id,
            None if stands is None else str(stands.stored.lsn),
            None if stands is None else stands.recorded_at.timestamp(),
            stands and stands.committed_at,
            stands and stands.shown and stands.shown.op_id,
            is_writing,
            tuple(Copy(*row) for row in copies),
            tuple(RuleState(*row) for row in rules),
            tuple(PartState(*row) for row in parts),
            queue,
            tuple(Hold(*row) for row in holds),
            parked_since,
        )


async def _answered(ask: Callable[[], Awaitable[_T]], who: str) -> _T | Silent:
    try:
        async with asyncio.timeout(_ANSWER_S):
            return await ask()
    except ReplicatorError as error:
        return Silent(error.what, error.hint)
    except TimeoutError:
        return Silent(
            f"{who} did not answer within {_ANSWER_S:g} s", "Is it running, reachable, and at ease?"
        )


def _free_bytes(dsn: str, folder: str | None) -> int | None:
    """What is left on the disk of the source's data: known only on its own machine, to a role that may."""
    host = str(conninfo_to_dict(dsn).get("host") or "")
    if folder is None or not (host in _LOCAL or host.startswith("/") or not host):
        return None
    try:
        found = os.statvfs(folder)
    except OSError:
        return None
    return found.f_bavail * found.f_frsize
