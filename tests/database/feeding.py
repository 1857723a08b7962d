"""A queue that was fed → one whose jobs have been delivered, as a worker would have noted it."""

from __future__ import annotations

from tests.database.laying import laid_out
from tests.fixtures.postgres import Database


async def deliver(database: Database) -> None:
    """All that waits is done."""
    await laid_out(database)
    database.execute(
        """SET search_path TO replicator;
        INSERT INTO ehr_compositions AS c
        SELECT DISTINCT ON (composition_id) composition_id, ehr_id, mapping, record_key, 'uid',
               operation = 'delete', commit_lsn, ordinal, now(), begun
        FROM ehr_jobs_open WHERE composition_id IS NOT NULL ORDER BY composition_id, seq DESC
        ON CONFLICT (id) DO UPDATE SET is_deleted = excluded.is_deleted;
        UPDATE ehr_lanes AS l SET ehr_id = q.ehr_id, done_upto = appended, state = 'idle'
        FROM ehr_sync_queue_open AS q WHERE q.lane = l.id;
        CREATE TEMPORARY TABLE delivered AS SELECT * FROM ehr_sync_queue_open WHERE state = 'waiting';
        UPDATE delivered SET state = 'done', finished_at = now();
        DELETE FROM ehr_jobs WHERE state = 'waiting';
        DELETE FROM ehr_parcels;
        INSERT INTO ehr_jobs_done SELECT * FROM delivered;
        DROP TABLE delivered;
        RESET search_path"""
    )
