"""The steps of a plan → a source that has what was planned, without the application noticing.

ALTER TABLE needs a table's lock for an instant. Waiting for it is what hurts: whoever comes after has to
queue behind us. So each such statement is a transaction of its own, which waits for a moment and gives up;
everything else, which locks nobody out, is one transaction.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

import psycopg

from replicator import queries
from replicator.database import Connection, rows
from replicator.errors import SourceUnready, Unavailable
from replicator.wal.finding import Finding
from replicator.wal.slots import Blocker

_q = queries.load("publication")

#: For how long others may have to wait behind us.
LOCK_TIMEOUT = "SET lock_timeout = '3s';"
#: Whose statements lock a table, or say BEGIN themselves.
_ALONE = frozenset({"table.identity", "table.column_list"})


def batches(steps: Sequence[Finding]) -> Iterator[list[Finding]]:
    """The steps, in order, as transactions."""
    for alone, group in itertools.groupby(steps, key=lambda step: step.code in _ALONE):
        if alone:
            yield from ([step] for step in group)
        else:
            yield list(group)


async def mend(source: Connection, steps: Sequence[Finding], done: Callable[[Finding], None]) -> None:
    """Run every step; `done` is told of each that is committed."""
    await source.execute(LOCK_TIMEOUT.encode())
    for batch in batches(steps):
        try:
            await _run(source, batch)
        except psycopg.errors.LockNotAvailable:
            raise await _in_use(source, batch[0]) from None
        except psycopg.errors.InsufficientPrivilege as error:
            raise SourceUnready(
                f"the role of source.dsn may not do this: {error.diag.message_primary}",
                "Let the owner of the tables do it, and keep that role as small as it is:\n"
                "replicator publication plan | psql …",
            ) from None
        for step in batch:
            done(step)


async def _run(source: Connection, batch: Sequence[Finding]) -> None:
    if batch[0].code in _ALONE:
        await source.execute(batch[0].sql.encode())
        return
    async with source.transaction():
        for step in batch:
            await source.execute(step.sql.encode())


async def _in_use(source: Connection, step: Finding) -> Unavailable:
    found = await rows(source, _q.lockers, table=step.about)
    users = [Blocker(pid, name or kind, state or "", age) for pid, name, kind, state, age in found]
    lines = "".join(f"\nin use by {user}" for user in users)
    return Unavailable(
        f"{step.about} is in use: its lock was not to be had within 3 s",
        "Nothing waits for it now, and what was done before stays done. Run this again at a quieter moment."
        + lines,
    )
