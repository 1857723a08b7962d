"""Somebody's wish → a table of what became of each job, which rules can name, kept in storage or no more."""

from __future__ import annotations

from typing import NamedTuple

import psycopg

from replicator import queries
from replicator.database import Connection, rows
from replicator.errors import Unavailable

_q = queries.load("queue")

#: The table.
MIRROR = "ehr_sync_status"


class Mirrored(NamedTuple):
    """How it is now."""

    #: Whether it was otherwise before.
    has_changed: bool
    rows: int


async def mirror(storage: Connection, *, is_kept: bool) -> Mirrored:
    """Keep it, or do not. All there is in the queue is in it at once; what comes, as it comes."""
    try:
        async with storage.transaction():
            # What was committed while we waited for the tables is to be seen, too.
            await storage.execute("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")
            ((has_changed,),) = await rows(storage, _q.mirror, is_kept=is_kept)
            ((count,),) = await rows(storage, _q.mirrored)
            return Mirrored(has_changed, count)
    except psycopg.errors.LockNotAvailable:
        raise Unavailable(
            "somebody has had the tables of the queue for half a minute; nothing was changed",
            "A long transaction, or a VACUUM of ehr_jobs, ehr_jobs_done, ehr_parcels or ehr_lanes: "
            "pg_stat_activity shows it. Try again when it is over.",
        ) from None
