"""Storage and source, as they stand → what a status request is told; looked at once in a few seconds.

What everybody's rows come to is counted only where that is little to read; else it is what Postgres
estimates, and what the last full copy took. Whether a table is in sync is decided by positions: it has been
copied, and what was committed since is seen within moments. (Not every row of a table need be in a bucket.)

One user's rows are counted on both sides: in the buckets that the user is granted at the checkpoint readers
see, and in the source by the same rules. Where the buckets are long, only positions decide here, too.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

import psycopg

from replicator import queries
from replicator.buckets.model import OpId, Total
from replicator.buckets.read import answers, position, totals
from replicator.config import Config
from replicator.database import Connect, Connection, rows
from replicator.errors import ReplicatorError
from replicator.marks import mark
from replicator.rules.model import Rules
from replicator.sync.auth import User
from replicator.sync.grants import Grants, Most, TooMany, grants
from replicator.sync.request import Request
from replicator.sync.status_answer import Count, Standing, Write, answer, answer_of_patient

_T = TypeVar("_T")
_q = queries.load("status")

#: For a user: how many rows of each name the source holds now, by the rules.
AtSource: TypeAlias = Callable[[User], Awaitable[Mapping[str, int]]]

#: For so long the same is told again.
_KEPT_S = 5.0
#: And of no more users than this.
_KEPT_MOST = 1000
#: Up to this size, a table or the history is read to be counted.
_SMALL_BYTES = 4 << 20
#: Up to so many ops, one user's buckets are.
_FEW_OPS = 20_000
#: Counting for one user takes no longer than this, or is given up.
_COUNT_S = 5.0
#: At once.
_COUNTS = 2
#: The source sees a lag of more than this: what is committed is not seen within moments.
_LEVEL_S = 10.0


class Status:
    """What can be told of replication to who may ask."""

    def __init__(
        self, config: Config, rules: Rules, storage: Connect, source: Connect, at_source: AtSource
    ) -> None:
        self._slot, self._most = config.source.slot, Most(config.sync.max_buckets, config.sync.max_results)
        self._rules, self._storage, self._source, self._at_source = rules, storage, source, at_source
        self._counting = asyncio.Semaphore(_COUNTS)
        self._kept: dict[object, tuple[float, asyncio.Task[Any]]] = {}

    async def overall(self) -> dict[str, object]:
        """Of everybody's rows."""
        return await self._once("all", self._overall)

    async def of_user(self, user: User) -> dict[str, object]:
        """Of one user's."""
        # Other claims may grant other buckets.
        said = tuple(sorted((name, repr(value)) for name, value in user.claims.items()))
        return await self._once((user.sub, said), lambda: self._of_user(user))

    async def _once(self, key: object, work: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        now = time.monotonic()
        kept = self._kept.get(key)
        if kept is None or kept[0] <= now or _has_failed(kept[1]):
            if len(self._kept) >= _KEPT_MOST:
                self._kept = {one: known for one, known in self._kept.items() if known[0] > now}
            if len(self._kept) >= _KEPT_MOST:
                self._kept.pop(next(iter(self._kept)))
            kept = self._kept[key] = now + _KEPT_S, asyncio.ensure_future(work())
        # One who leaves does not take it from the others.
        found: _T = await asyncio.shield(kept[1])
        return found

    # -- everybody ---------------------------------------------------------------------------------

    async def _overall(self) -> dict[str, object]:
        async with self._storage() as storage:
            known = await rows(storage, _q.tables, slot=self._slot)
            standing = await self._standing(storage, known)
            held = await self._held_by_table(storage, standing)
        sizes = await self._source_sizes([row[0] for row in known])
        return answer(standing, [_count(row, sizes, held, standing) for row in known], time.time())

    async def _standing(self, storage: Connection, known: Sequence[Sequence[Any]]) -> Standing:
        found = await rows(storage, _q.stands, slot=self._slot)
        if not found:
            return Standing(False, False, False, None, None, None, None, None, 0)
        op_id, _, shown_op_id, shown_lsn, recorded_at, pending = found[0]
        async with self._source() as source:
            [(active, lag_bytes, lag_s)] = await rows(
                source, _q.source_stands, slot=self._slot, shown=shown_lsn
            )
        is_copying = any(state != "copied" for _, _, _, state, *_ in known)
        is_level = bool(active) and shown_op_id == op_id and (lag_s is None or lag_s < _LEVEL_S)
        return Standing(
            bool(active),
            is_copying,
            is_level and not is_copying,
            shown_op_id,
            shown_lsn,
            recorded_at if shown_op_id is not None else None,
            None if lag_bytes is None else max(0, lag_bytes),
            (lag_s or 0.0) if active else None,
            pending,
        )

    async def _held_by_table(self, storage: Connection, standing: Standing) -> dict[int, int] | None:
        """By oid, how many rows are in some bucket; None where that is too much to read."""
        size: int = (await rows(storage, _q.history_bytes))[0][0]
        if size > _SMALL_BYTES or standing.op_id is None:
            return None
        return {oid: count for oid, count in await rows(storage, _q.rows_held, upto=standing.op_id)}

    async def _source_sizes(self, oids: Sequence[int]) -> dict[int, tuple[int | None, bool]]:
        """By oid, how many rows the source has, as far as that is known, and whether they were counted."""
        found: dict[int, tuple[int | None, bool]] = {}
        async with self._source() as source:
            for oid, estimate, size, kind in await rows(source, _q.source_sizes, oids=list(oids)):
                is_small = kind == "r" and size <= _SMALL_BYTES
                counted = await _counted(source, oid) if is_small else None
                found[oid] = (estimate, False) if counted is None else (counted, True)
        return found

    # -- one user ----------------------------------------------------------------------------------

    async def _of_user(self, user: User) -> dict[str, object]:
        async with self._storage() as storage:
            known = await rows(storage, _q.tables, slot=self._slot)
            standing = await self._standing(storage, known)
            found = await rows(storage, _q.writes, user_id=user.sub, slot=self._slot)
            writes = [Write(*row) for row in found]
            standing = standing._replace(pending_writes=sum(not write.is_reached for write in writes))
            buckets = await self._granted(storage, user, standing.op_id)
            held = await self._held_by_user(storage, buckets, standing)
        there = await self._there(user) if held is not None else None
        names = self._names(buckets) | set(held or ()) | set(there or ())
        counts = [_count_of_user(name, there, held, standing) for name in sorted(names)]
        return answer_of_patient(user.sub, standing, counts, writes, time.time())

    async def buckets(self, user: User) -> dict[str, Total]:
        """The buckets that the user has by default, and what each comes to."""
        async with self._storage() as storage:
            stands = await position(storage, self._slot)
            if stands is None or stands.shown is None:
                return {}
            upto = stands.shown.op_id
            return await totals(storage, await self._granted(storage, user, upto), upto)

    async def _granted(self, storage: Connection, user: User, upto: int | None) -> list[str]:
        """The buckets that the user has by default."""
        if upto is None:
            return []
        asking = grants(self._rules, user, Request(), most=self._most)
        try:
            needs = next(asking)
            while True:
                needs = asking.send(await answers(storage, needs, OpId(upto)))
        except StopIteration as end:
            granted: Grants = end.value
        except TooMany:
            return []
        return sorted({grant.bucket for grant in granted.granted})

    async def _held_by_user(
        self, storage: Connection, buckets: Sequence[str], standing: Standing
    ) -> dict[str, int] | None:
        if standing.op_id is None:
            return None
        sums = await totals(storage, buckets, OpId(standing.op_id))
        if sum(total.ops for total in sums.values()) > _FEW_OPS:
            return None
        return dict(await rows(storage, _q.held, buckets=list(buckets), upto=standing.op_id))

    async def _there(self, user: User) -> Mapping[str, int] | None:
        """What the source has for the user, unless that takes too long."""
        try:
            # Waiting for one's turn counts: where many ask, they rather get no count than each a late one.
            async with asyncio.timeout(_COUNT_S), self._counting:
                return await self._at_source(user)
        except (ReplicatorError, TimeoutError) as error:
            why = error.what if isinstance(error, ReplicatorError) else f"not within {_COUNT_S:g} s"
            mark("status not counted", level=logging.WARNING, why=why)
            return None

    def _names(self, buckets: Sequence[str]) -> set[str]:
        """What clients call the tables that these buckets may hold rows of."""
        kinds = {bucket[: bucket.index("[")] for bucket in buckets}
        return {
            query.output
            for variant in self._rules.variants()
            for query in variant.data
            if query.output is not None and variant.name in kinds
        }


async def _counted(source: Connection, oid: int) -> int | None:
    """How many rows a small table has, unless that cannot be read within a moment."""
    try:
        async with source.transaction():
            await source.execute("SET LOCAL statement_timeout = '1s'")
            await source.execute("SET LOCAL lock_timeout = '100ms'")
            name: str = (await rows(source, b"SELECT %(oid)s::oid::regclass::text", oid=oid))[0][0]
            if name.isdecimal():
                return None
            # As the source's own catalogue prints it, quoted where it must be.
            found = await rows(source, b"SELECT count(*) FROM ONLY " + name.encode())
            count: int = found[0][0]
            return count
    except (psycopg.errors.QueryCanceled, psycopg.errors.LockNotAvailable, psycopg.ProgrammingError):
        return None


def _count(
    row: Sequence[Any],
    sizes: Mapping[int, tuple[int | None, bool]],
    held: Mapping[int, int] | None,
    standing: Standing,
) -> Count:
    oid, namespace, name, state, rows_copied, rows_expected, has_holes, _ = row
    source, is_counted = sizes.get(oid, (None, False))
    is_exact = is_counted and held is not None
    return Count(
        name if namespace == "public" else f"{namespace}.{name}",
        rows_expected if source is None else source,
        held.get(oid, 0) if is_exact and held is not None else rows_copied,
        standing.is_level and state == "copied" and not has_holes,
        not is_exact,
        has_holes,
    )


def _count_of_user(
    name: str, there: Mapping[str, int] | None, held: Mapping[str, int] | None, standing: Standing
) -> Count:
    if there is None or held is None:
        return Count(name, None, None if held is None else held.get(name, 0), standing.is_level, True)
    source, synced = there.get(name, 0), held.get(name, 0)
    return Count(name, source, synced, source == synced, False)


def _has_failed(task: asyncio.Task[Any]) -> bool:
    return task.done() and (task.cancelled() or task.exception() is not None)
