"""A queue with parcels → one without: all that waits is laid out, as for a worker, and named."""

from __future__ import annotations

from replicator.database import connected
from replicator.ehr.queue_laid_out import lay_out
from tests.fixtures.postgres import Database


async def laid_out(database: Database) -> None:
    uptos = {lane: 1 << 62 for (lane,) in database.execute("SELECT id FROM replicator.ehr_lanes")}
    async with connected(database.dsn, "lay out", schema="replicator") as storage, storage.transaction():
        await lay_out(storage, uptos)
