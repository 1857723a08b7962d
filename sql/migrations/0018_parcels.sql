-- A job was written as a row of its own, with a place of its own in the index, which was half of what the main path
-- paid for it. Now those of a lane that come together are one row, and are laid out when somebody works on them.
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

CREATE TABLE ehr_parcels (
    lane        bigint       NOT NULL,
    -- The number of the first of its jobs; the others follow it.
    seq         bigint       NOT NULL,
    count       integer      NOT NULL CHECK (count BETWEEN 1 AND 64),
    -- As JSON: see `ehr_jobs_of`.
    jobs        text         NOT NULL,
    -- Both are the lane's where there is no patient here, and those of each job that does not say its own.
    patient     text,
    ehr_id      uuid,
    created_at  timestamptz  NOT NULL DEFAULT now(),
    PRIMARY KEY (lane, seq)
) WITH (toast_tuple_target = 4080);

-- The jobs of a parcel, and which one of it each is, from 0.
CREATE FUNCTION ehr_jobs_of(jobs text) RETURNS TABLE (
    place bigint, manner bigint, record_key text, composition_id uuid, commit_lsn pg_lsn, ordinal bigint, snapshot text,
    part integer, patient text, ehr_id uuid, trouble text) LANGUAGE sql STABLE PARALLEL SAFE ROWS 16
BEGIN ATOMIC
    SELECT j.place - 1, j.manner, j.key, j.id, j.lsn, j.ordinal, j."row", coalesce(j.part, 0), j.patient, j.ehr, j.trouble
    FROM ROWS FROM (json_to_recordset(jobs::json) AS (
             manner bigint, key text, id uuid, lsn pg_lsn, ordinal bigint, "row" text, part integer, patient text,
             ehr uuid, trouble text))
         WITH ORDINALITY AS j (manner, key, id, lsn, ordinal, "row", part, patient, ehr, trouble, place);
END;
-- Who may read the view may do this, also where functions are not everybody's: it knows nothing by itself.
GRANT EXECUTE ON FUNCTION ehr_jobs_of(text) TO PUBLIC;

CREATE VIEW ehr_jobs_open AS
SELECT j.lane, j.seq, m.source_table, m.mapping, j.record_key, m.operation,
       CASE WHEN j.patient IS NULL THEN l.patient ELSE nullif(j.patient, '') END AS patient,
       CASE WHEN j.patient IS NULL THEN l.own_ehr_id ELSE j.ehr_id END AS ehr_id,
       j.composition_id, m.template_id, j.commit_lsn, j.ordinal, j.part, ehr_row(j.snapshot, m.columns) AS snapshot,
       m.priority, m.may_merge, j.trouble, j.state, j.attempts, j.next_attempt_at, j.lease_token, j.error_class,
       j.error_message, NULL::text AS composition_uid, NULL::integer AS version, NULL::text AS note, j.created_at,
       j.updated_at, NULL::timestamptz AS finished_at, j.parcel
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
CREATE OR REPLACE VIEW ehr_sync_queue_open AS
SELECT lane, seq, source_table, mapping, record_key, operation, patient, ehr_id, composition_id, template_id, commit_lsn,
       ordinal, part, snapshot, priority, may_merge, trouble, state, attempts, next_attempt_at, lease_token, error_class,
       error_message, composition_uid, version, note, created_at, updated_at, finished_at
FROM ehr_jobs_open;

DROP TABLE ehr_arrivals;
CREATE UNLOGGED TABLE ehr_arrivals (
    lane      bigint   NOT NULL,
    -- How many had arrived before, and one.
    seq       bigint   NOT NULL,
    count     integer  NOT NULL,
    jobs      text     NOT NULL,
    patient   text     NOT NULL,
    ehr_id    uuid,
    -- The lane's; and how urgent the most urgent of them is.
    name      text     COLLATE "C" NOT NULL,
    priority  integer  NOT NULL
);
