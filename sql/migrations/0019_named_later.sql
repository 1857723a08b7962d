-- A job of a new row said its key, which the row says as well, and the id of its composition, which follows from both and
-- took longer to compute than the rest. Now its manner says how these are found, and the id is computed when the job is
-- laid out. Until then nobody needs it.
--
-- Whoever looks at the queue has it and what it is made of, in an order of their own: all of it is had at once, or
-- waited for without having any.
DO $$
BEGIN
    LOOP
        BEGIN
            LOCK TABLE ehr_sync_queue_open, ehr_arrivals IN ACCESS EXCLUSIVE MODE NOWAIT;
            EXIT;
        EXCEPTION WHEN lock_not_available THEN
            PERFORM pg_sleep(0.02);
        END;
    END LOOP;
END $$;

-- Which of the columns is the key, from 0, where jobs do not say it again.
ALTER TABLE ehr_manners ADD key_at integer;
-- What the names of their compositions begin with, where only the patient and the key follow: the ids are hashes of that,
-- and jobs need not say them.
ALTER TABLE ehr_manners ADD begun text COLLATE "C";
-- The same, of one that has been delivered.
ALTER TABLE ehr_compositions ADD begun text COLLATE "C";

-- The key of a row: as its job says it, or as the row does.
CREATE FUNCTION ehr_key(said text, snapshot text, key_at integer) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN coalesce(said, snapshot::json ->> key_at);
-- Who may read the view may do this, also where functions are not everybody's: it knows nothing by itself.
GRANT EXECUTE ON FUNCTION ehr_key(text, text, integer) TO PUBLIC;

CREATE OR REPLACE VIEW ehr_jobs_open AS
SELECT j.lane, j.seq, m.source_table, m.mapping, ehr_key(j.record_key, j.snapshot, m.key_at) AS record_key, m.operation,
       CASE WHEN j.patient IS NULL THEN l.patient ELSE nullif(j.patient, '') END AS patient,
       CASE WHEN j.patient IS NULL THEN l.own_ehr_id ELSE j.ehr_id END AS ehr_id,
       j.composition_id, m.template_id, j.commit_lsn, j.ordinal, j.part, ehr_row(j.snapshot, m.columns) AS snapshot,
       m.priority, m.may_merge, j.trouble, j.state, j.attempts, j.next_attempt_at, j.lease_token, j.error_class,
       j.error_message, NULL::text AS composition_uid, NULL::integer AS version, NULL::text AS note, j.created_at,
       j.updated_at, NULL::timestamptz AS finished_at, j.parcel, m.begun
FROM (
    SELECT lane, seq, manner, record_key, composition_id, commit_lsn, ordinal, snapshot, part, patient, ehr_id, trouble,
           state, attempts, next_attempt_at, lease_token, error_class, error_message, created_at, updated_at, seq AS parcel
    FROM ehr_jobs
    UNION ALL
    SELECT p.lane, p.seq + j.place, j.manner, j.record_key, j.composition_id, j.commit_lsn, j.ordinal, j.snapshot, j.part,
           coalesce(j.patient, p.patient), CASE WHEN j.patient IS NULL THEN p.ehr_id ELSE j.ehr_id END, j.trouble,
           'waiting', 0, NULL, NULL, NULL, NULL, p.created_at, NULL, p.seq
    FROM ehr_parcels AS p CROSS JOIN LATERAL ehr_jobs_of(p.jobs) AS j) AS j
LEFT JOIN ehr_manners AS m ON m.id = j.manner LEFT JOIN ehr_lanes AS l ON l.id = j.lane;
