"""A Config → its buckets compacted: those that are worth it, when somebody asks or now and then by itself."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from replicator import queries
from replicator.buckets.compact import (
    AGE_S,
    Candidate,
    Step,
    candidates,
    compact_bucket,
    count_left,
    horizon,
    lock,
)
from replicator.buckets.compact_rest import forget_changes, forget_entries
from replicator.buckets.deploy import named_in_force
from replicator.buckets.model import OpId
from replicator.config import Config
from replicator.database import Connection, check_migrated, connected, rows
from replicator.errors import ConfigError, ReplicatorError, StandingBy
from replicator.marks import mark

_q = queries.load("buckets")

#: By itself, it rests so many times as long as it has worked: the storage may be the clinic's own server.
_REST = 3.0
#: Looking for entries that have ended means reading all of them.
_ENTRIES_EVERY_S = 3600.0


@dataclass(slots=True)
class Report:
    """What a compaction came to."""

    buckets: int = 0
    #: How many ops there were in them, and how many there are.
    ops_before: int = 0
    ops_after: int = 0
    #: What was taken out of tables; it is theirs to use again.
    bytes_freed: int = 0
    entries_forgotten: int = 0


@dataclass(slots=True)
class Work:
    """What is ahead."""

    buckets: int = 0
    ops: int = 0


#: Told how much is ahead, as far as that is known, and how many ops have been read since it was told last.
Say = Callable[[Work, int], None]


async def compact(
    config: Config, name: str | None, *, everything: bool, say: Say, age_s: float = AGE_S
) -> Report:
    """Compact the buckets that are worth it; or one, or all, whatever it is worth."""
    schema = config.storage.schema_name
    async with connected(config.storage_dsn, "compact", schema=schema) as connection:
        await check_migrated(connection, schema)
        name = name and await named_in_force(connection, config.source.slot, name)
        if name is not None and not (await rows(connection, _q.has_bucket, bucket=name))[0][0]:
            like = [one for (one,) in await rows(connection, _q.buckets_like, bucket=name.partition("[")[0])]
            known = f"Buckets that begin so: {', '.join(like)}" if like else "None begins so."
            raise ConfigError(f"there is no bucket {name}", known)
        await lock(connection)
        report, is_wanted = Report(), name is not None or everything
        upto = await horizon(connection, config.source.slot, age_s)
        if upto is None:
            return report
        work = Work()
        async for one in _wanted(connection, upto, name, is_wanted):
            work.buckets, work.ops = work.buckets + 1, work.ops + one.ops
        say(work, 0)
        async for one in _wanted(connection, upto, name, is_wanted):
            await _compact_one(connection, one, upto, report, lambda step: say(work, step.read))
        async for count in forget_entries(connection, upto):
            report.entries_forgotten += count
        async for _ in forget_changes(connection):
            pass
        return report


async def _wanted(
    connection: Connection, upto: OpId, name: str | None, is_wanted: bool
) -> AsyncIterator[Candidate]:
    async for page in candidates(connection, upto, name):
        for one in page:
            if (is_wanted and one.ops) or one.is_due:
                yield one


async def _compact_one(
    connection: Connection, one: Candidate, upto: OpId, report: Report, say: Callable[[Step], None]
) -> None:
    report.buckets += 1
    async for step in compact_bucket(connection, one.number, upto):
        report.ops_before += step.removed
        report.bytes_freed += step.bytes
        say(step)
    left = await count_left(connection, one.number)
    report.ops_before += left
    report.ops_after += left


# -- by itself -------------------------------------------------------------------------------------


async def keep_compacted(config: Config, every_s: float) -> None:
    """Compact what has become worth it, now and then, for ever; whatever happens to it stays here."""
    said = ""
    entries_at = time.monotonic() + _ENTRIES_EVERY_S
    while True:
        await asyncio.sleep(every_s)
        is_for_entries = time.monotonic() >= entries_at
        try:
            await _compact_slowly(config, is_for_entries)
        except StandingBy:
            continue
        except ReplicatorError as error:
            if error.what != said:
                mark("compaction waits", level=logging.WARNING, why=error.what)
            said = error.what
            continue
        except Exception as error:
            # Clients are served all the same: only their downloads grow.
            mark("compaction failed", level=logging.ERROR, why=repr(error))
            continue
        said = ""
        entries_at = time.monotonic() + _ENTRIES_EVERY_S if is_for_entries else entries_at


async def _compact_slowly(config: Config, is_for_entries: bool) -> None:
    async with connected(config.storage_dsn, "compact", schema=config.storage.schema_name) as connection:
        await lock(connection)
        pace = _Pace()
        async for _ in forget_changes(connection):
            await pace.rest()
        upto = await horizon(connection, config.source.slot)
        if upto is None:
            return
        report = Report()
        async for page in candidates(connection, upto):
            await pace.rest()
            for one in page:
                if one.is_due:
                    report.buckets += 1
                    async for step in compact_bucket(connection, one.number, upto):
                        report.ops_before += step.read
                        report.ops_after += step.read - step.removed
                        await pace.rest()
        if is_for_entries:
            async for _ in forget_entries(connection, upto):
                await pace.rest()
        if report.buckets:
            fields = {"ops": report.ops_before, "left": report.ops_after}
            mark("compacted buckets", level=logging.INFO, buckets=report.buckets, **fields)


class _Pace:
    """Rests in proportion to the time that the work between two rests has taken."""

    def __init__(self) -> None:
        self._since = time.monotonic()

    async def rest(self) -> None:
        await asyncio.sleep(_REST * (time.monotonic() - self._since))
        self._since = time.monotonic()
