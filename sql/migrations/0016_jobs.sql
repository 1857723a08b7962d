-- A job was a row with everything that is known of it, most of which is the same for all jobs of a table or of a
-- patient. What is the same is written once, and the queue as it was is a view.
--
-- Whoever looks at the queue, or works in it, has some of these tables and wants others: they are had all at once, or
-- waited for without having any.
DO $$
BEGIN
    LOOP
        BEGIN
            LOCK TABLE ehrbase_sync_queue, ehr_lanes, ehr_sync_queue, ehr_arrivals IN ACCESS EXCLUSIVE MODE NOWAIT;
            EXIT;
        EXCEPTION WHEN lock_not_available THEN
            PERFORM pg_sleep(0.02);
        END;
    END LOOP;
END $$;
ALTER TABLE ehr_lanes ADD COLUMN own_ehr_id uuid;

-- What jobs have in common that come of the same table in the same way; so that it is not written with each.
CREATE TABLE ehr_manners (
    -- A hash of the rest, so that who appends knows it without asking. None is ever removed.
    id            bigint   PRIMARY KEY,
    source_table  text     COLLATE "C" NOT NULL,
    mapping       text     COLLATE "C" NOT NULL,
    operation     text     COLLATE "C" NOT NULL
                  CHECK (operation IN ('create', 'update', 'delete', 'mark', 'status')),
    template_id   text,
    priority      integer  NOT NULL,
    -- Whether a newer version of the same record may be delivered in the place of such a job.
    may_merge     boolean  NOT NULL
);

-- Clinical changes on their way to the record system, written in the transaction that advances the checkpoint. A
-- row of the source costs one here, so this holds what is that job's alone; all of it is in `ehr_sync_queue_open`.
CREATE TABLE ehr_jobs (
    lane             bigint       NOT NULL,
    seq              bigint       NOT NULL,
    manner           bigint       NOT NULL,
    record_key       text         COLLATE "C" NOT NULL,
    composition_id   uuid,
    -- Which change of the source it is.
    commit_lsn       pg_lsn       NOT NULL,
    ordinal          bigint       NOT NULL,
    -- The row as JSON, column: text; nothing for a deletion, or where the row is to be read when its turn comes.
    snapshot         text,
    part             integer      NOT NULL DEFAULT 0,
    -- Both are the lane's where there is no patient here; an empty one is none.
    patient          text,
    ehr_id           uuid,
    -- Why it cannot be delivered as it is.
    trouble          text,
    -- skipping: a person has decided so, and its turn has not come yet.
    state            text         COLLATE "C" NOT NULL DEFAULT 'waiting'
                     CHECK (state IN ('waiting', 'retrying', 'held', 'parked', 'skipping')),
    attempts         integer      NOT NULL DEFAULT 0,
    next_attempt_at  timestamptz,
    -- The number of the lease under which it was last tried.
    lease_token      bigint,
    error_class      text         COLLATE "C",
    error_message    text,
    created_at       timestamptz  NOT NULL DEFAULT now(),
    updated_at       timestamptz,
    PRIMARY KEY (lane, seq)
);
CREATE INDEX ehr_jobs_error ON ehr_jobs (error_class) WHERE error_class IS NOT NULL;

INSERT INTO ehr_manners (id, source_table, mapping, operation, template_id, priority, may_merge)
SELECT DISTINCT hashtextextended(jsonb_build_array(source_table, mapping, operation, template_id, priority, may_merge)::text, 0),
       source_table, mapping, operation, template_id, priority, may_merge
FROM ehr_sync_queue;
INSERT INTO ehr_jobs (
    lane, seq, manner, record_key, composition_id, commit_lsn, ordinal, snapshot, part, patient, ehr_id, trouble, state,
    attempts, next_attempt_at, lease_token, error_class, error_message, created_at, updated_at)
SELECT lane, seq,
       hashtextextended(jsonb_build_array(source_table, mapping, operation, template_id, priority, may_merge)::text, 0),
       record_key, composition_id, commit_lsn, ordinal, snapshot, part, coalesce(patient, ''), ehr_id, trouble, state,
       attempts, next_attempt_at, lease_token, error_class, error_message, created_at, updated_at
FROM ehr_sync_queue_open ORDER BY lane, seq;

-- Those that are over.
CREATE TABLE ehr_jobs_done (
    lane             bigint       NOT NULL,
    seq              bigint       NOT NULL,
    source_table     text         COLLATE "C" NOT NULL,
    mapping          text         COLLATE "C" NOT NULL,
    record_key       text         COLLATE "C" NOT NULL,
    operation        text         COLLATE "C" NOT NULL,
    patient          text,
    ehr_id           uuid,
    composition_id   uuid,
    template_id      text,
    commit_lsn       pg_lsn       NOT NULL,
    ordinal          bigint       NOT NULL,
    part             integer      NOT NULL,
    snapshot         text,
    priority         integer      NOT NULL,
    may_merge        boolean      NOT NULL,
    trouble          text,
    state            text         COLLATE "C" NOT NULL CHECK (state IN ('done', 'skipped', 'merged')),
    attempts         integer      NOT NULL DEFAULT 0,
    next_attempt_at  timestamptz,
    lease_token      bigint,
    error_class      text         COLLATE "C",
    error_message    text,
    composition_uid  text,
    version          integer,
    note             text,
    created_at       timestamptz  NOT NULL DEFAULT now(),
    updated_at       timestamptz,
    finished_at      timestamptz,
    PRIMARY KEY (lane, seq)
);
CREATE INDEX ehr_jobs_done_at ON ehr_jobs_done USING brin (finished_at);
INSERT INTO ehr_jobs_done SELECT * FROM ehr_sync_queue_done ORDER BY finished_at;

DROP VIEW ehrbase_sync_queue;
DROP TABLE ehr_arrivals, ehr_sync_queue;

-- Every job that waits, with all that is known of it.
CREATE VIEW ehr_sync_queue_open AS
SELECT j.lane, j.seq, m.source_table, m.mapping, j.record_key, m.operation,
       CASE WHEN j.patient IS NULL THEN l.patient ELSE nullif(j.patient, '') END AS patient,
       CASE WHEN j.patient IS NULL THEN l.own_ehr_id ELSE j.ehr_id END AS ehr_id,
       j.composition_id, m.template_id, j.commit_lsn, j.ordinal, j.part, j.snapshot, m.priority, m.may_merge, j.trouble,
       j.state, j.attempts, j.next_attempt_at, j.lease_token, j.error_class, j.error_message,
       NULL::text AS composition_uid, NULL::integer AS version, NULL::text AS note, j.created_at, j.updated_at,
       NULL::timestamptz AS finished_at
FROM ehr_jobs AS j LEFT JOIN ehr_manners AS m ON m.id = j.manner LEFT JOIN ehr_lanes AS l ON l.id = j.lane;
CREATE VIEW ehr_sync_queue AS
SELECT * FROM ehr_sync_queue_open UNION ALL SELECT * FROM ehr_jobs_done;

CREATE UNLOGGED TABLE ehr_arrivals (LIKE ehr_jobs INCLUDING DEFAULTS);

-- The queue, with the names and the statuses that its predecessors had.
CREATE VIEW ehrbase_sync_queue AS
SELECT q.lane || '.' || q.seq AS id, split_part(q.source_table, '.', 2) AS table_name, q.record_key AS record_id,
       q.template_id,
       CASE WHEN q.state = 'done' THEN 'completed' WHEN q.state IN ('skipped', 'merged', 'skipping') THEN 'skipped'
            WHEN q.state = 'parked' THEN 'failed'
            WHEN l.lease_until > now() AND q.seq = l.done_upto + 1 THEN 'processing' ELSE 'pending' END AS sync_status,
       q.attempts AS retry_count, concat_ws(': ', q.error_class, q.error_message) AS error_message,
       q.composition_uid AS ehrbase_composition_id, q.created_at, q.finished_at AS processed_at,
       coalesce(q.updated_at, q.finished_at, q.created_at) AS updated_at,
       CASE WHEN q.attempts > 0 THEN q.updated_at END AS last_retry_at,
       NULL::text AS user_role, NULL::text AS composition_category,
       CASE q.operation WHEN 'status' THEN 'ehr_status_update' WHEN 'create' THEN 'composition_create'
            WHEN 'delete' THEN 'composition_delete' ELSE 'composition_update' END AS sync_type,
       q.snapshot::jsonb AS data_snapshot, q.ehr_id::text AS ehr_id
FROM ehr_sync_queue AS q LEFT JOIN ehr_lanes AS l ON l.id = q.lane;
ANALYZE ehr_jobs, ehr_jobs_done, ehr_manners;
