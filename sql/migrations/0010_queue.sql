-- Clinical changes on their way to the record system, in lanes of one patient each.

-- A patient's clinical changes for the record system, which wait for each other: a lane. Lanes do not wait for
-- one another. Every time in here is the database's, so that the clocks of those who work do not matter.
CREATE TABLE ehr_lanes (
    -- A hash of the name, so that who appends knows it without asking. Two that shared one would share a lane.
    id           bigint       PRIMARY KEY,
    name         text         COLLATE "C" NOT NULL,
    patient      text,
    -- Its jobs are numbered from 1, without gaps: so many there have been, and up to here they are done.
    appended     bigint       NOT NULL,
    done_upto    bigint       NOT NULL DEFAULT 0,
    -- idle: nothing waits; held: for what `held_by` names; parked: for a person.
    state        text         COLLATE "C" NOT NULL CHECK (state IN ('idle', 'waiting', 'held', 'parked')),
    held_by      text,
    -- That of its most urgent job, which is this one: those before it are as urgent.
    priority     integer      NOT NULL,
    urgent_upto  bigint       NOT NULL,
    -- When it is next to be taken: at the latest when its lease ends.
    due_at       timestamptz  NOT NULL,
    lease_until  timestamptz,
    holder       text,
    -- Raised by each who takes it: who comes with another number has been replaced.
    token        bigint       NOT NULL DEFAULT 0,
    -- In a row.
    failures     integer      NOT NULL DEFAULT 0,
    -- The EHR the patient has on the server, which is not always the one we would give them, and the server's name.
    ehr_id       uuid,
    system_id    text,
    CHECK (done_upto <= appended),
    CHECK ((state = 'idle') = (done_upto = appended))
) WITH (fillfactor = 50);
CREATE INDEX ehr_lanes_due ON ehr_lanes (priority, due_at) WHERE state = 'waiting';
CREATE INDEX ehr_lanes_stopped ON ehr_lanes (state) WHERE state IN ('held', 'parked');

-- Clinical changes on their way to the record system, written in the transaction that advances the checkpoint.
-- What is delivered leaves the part that is worked in.
CREATE TABLE ehr_sync_queue (
    lane             bigint       NOT NULL,
    seq              bigint       NOT NULL,
    source_table     text         COLLATE "C" NOT NULL,
    mapping          text         COLLATE "C" NOT NULL,
    record_key       text         COLLATE "C" NOT NULL,
    operation        text         COLLATE "C" NOT NULL
                     CHECK (operation IN ('create', 'update', 'delete', 'mark', 'status')),
    patient          text,
    ehr_id           uuid,
    composition_id   uuid,
    template_id      text,
    -- Which change of the source it is.
    commit_lsn       pg_lsn       NOT NULL,
    ordinal          bigint       NOT NULL,
    part             integer      NOT NULL,
    -- The row as JSON, column: text; nothing for a deletion, or where the row is to be read when its turn comes.
    snapshot         text,
    priority         integer      NOT NULL,
    -- Whether a newer version of the same record may be delivered in its place.
    may_merge        boolean      NOT NULL,
    -- Why it cannot be delivered as it is.
    trouble          text,
    -- skipping: a person has decided so, and its turn has not come yet.
    state            text         COLLATE "C" NOT NULL DEFAULT 'waiting'
                     CHECK (state IN ('waiting', 'retrying', 'held', 'parked', 'skipping', 'done', 'skipped', 'merged')),
    attempts         integer      NOT NULL DEFAULT 0,
    next_attempt_at  timestamptz,
    -- The number of the lease under which it was last tried.
    lease_token      bigint,
    error_class      text         COLLATE "C",
    error_message    text,
    composition_uid  text,
    version          integer,
    note             text,
    created_at       timestamptz  NOT NULL DEFAULT now(),
    updated_at       timestamptz,
    finished_at      timestamptz
) PARTITION BY LIST (state);
CREATE TABLE ehr_sync_queue_open PARTITION OF ehr_sync_queue (PRIMARY KEY (lane, seq))
    FOR VALUES IN ('waiting', 'retrying', 'held', 'parked', 'skipping');
CREATE INDEX ehr_sync_queue_open_error ON ehr_sync_queue_open (error_class) WHERE error_class IS NOT NULL;
CREATE TABLE ehr_sync_queue_done PARTITION OF ehr_sync_queue (PRIMARY KEY (lane, seq))
    FOR VALUES IN ('done', 'skipped', 'merged');
CREATE INDEX ehr_sync_queue_done_at ON ehr_sync_queue_done USING brin (finished_at);

-- The jobs of a storage transaction that are too many to be kept back until it ends. They arrive here, so that no
-- lane has to be held before then; nobody else ever sees any.
CREATE UNLOGGED TABLE ehr_arrivals (LIKE ehr_sync_queue INCLUDING DEFAULTS);

-- What the record holds of ours, as far as we know: the newest version of each composition, and its change.
CREATE TABLE ehr_compositions (
    id            uuid         PRIMARY KEY,
    ehr_id        uuid         NOT NULL,
    mapping       text         COLLATE "C" NOT NULL,
    record_key    text         COLLATE "C" NOT NULL,
    uid           text         NOT NULL,
    is_deleted    boolean      NOT NULL,
    commit_lsn    pg_lsn       NOT NULL,
    ordinal       bigint       NOT NULL,
    delivered_at  timestamptz  NOT NULL
);

-- What many lanes wait for: a template the server does not have, or the server itself.
CREATE TABLE ehr_holds (
    name      text         COLLATE "C" PRIMARY KEY,
    reason    text         NOT NULL,
    since     timestamptz  NOT NULL,
    -- When somebody is to look next whether it still stands.
    check_at  timestamptz  NOT NULL
);

-- What people have decided about jobs.
CREATE TABLE ehr_queue_audit (
    id          bigint       GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at          timestamptz  NOT NULL DEFAULT now(),
    who         text         NOT NULL,
    action      text         COLLATE "C" NOT NULL,
    why         text         NOT NULL,
    lane        bigint,
    seq         bigint,
    mapping     text,
    record_key  text
);

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
