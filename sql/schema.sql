-- Everything at rest, in full: what a storage database holds once every migration has run.
-- Unqualified on purpose: it is created in, and found through, the one schema the configuration names.

-- Which migrations made this schema what it is.
CREATE TABLE migrations (
    number      integer     PRIMARY KEY,
    name        text        NOT NULL,
    applied_at  timestamptz NOT NULL DEFAULT now()
);

-- How far one slot's stream has been stored: every source change up to lsn is in ops up to op_id.
-- The row changes only inside the transaction that appends the ops it speaks of.
CREATE TABLE checkpoints (
    slot         text        PRIMARY KEY,
    op_id        bigint      NOT NULL CHECK (op_id >= 0),
    lsn          pg_lsn      NOT NULL,
    -- The newest of these at which every table had been copied: what readers see. It stands still while a
    -- table is being copied, and there is none before the first copy is complete.
    shown_op_id  bigint,
    shown_lsn    pg_lsn,
    -- Raised by each writer that takes over; a writer that finds another number here has been replaced.
    fence        bigint      NOT NULL CHECK (fence > 0),
    -- Whose WAL this is: positions of another system, or of another timeline, mean nothing here.
    system_id    text        NOT NULL,
    timeline     integer     NOT NULL,
    recorded_at  timestamptz NOT NULL,
    -- What an operator has given up as lost: the source and the slot as they stood at that moment. While they
    -- still stand so, every table may be copied again, from wherever the source is now.
    given_up     text,
    -- The time, in seconds since 1970, at which rows are where they are: rules may speak of it.
    clock        float8      NOT NULL DEFAULT 0,
    -- Which set was in force at the shown checkpoint: what readers go by.
    shown_rules  bigint,
    -- When the newest transaction up to `lsn` that there were rows of was committed, by the source's clock.
    committed_at timestamptz,
    CHECK (shown_op_id <= op_id AND shown_lsn <= lsn),
    CHECK ((shown_op_id IS NULL) = (shown_lsn IS NULL))
);

-- The source tables of a slot's stream, and how far the copy of each has come.
CREATE TABLE tables (
    slot           text        NOT NULL REFERENCES checkpoints ON DELETE CASCADE,
    oid            bigint      NOT NULL,
    namespace      text        NOT NULL,
    name           text        NOT NULL,
    -- Which catalogue entry publishes it; another one means that it left the publication and came back.
    membership     text        NOT NULL,
    -- Its columns as last described, to notice when they change.
    columns        text        NOT NULL,
    -- What else the catalogue said of it, to notice what the log does not tell.
    form           text        NOT NULL DEFAULT '',
    state          text        NOT NULL CHECK (state IN ('wanted', 'copying', 'copied')),
    -- What was put before this op and not since is no longer in the table when the copy ends.
    begun_op_id    bigint,
    -- The key of the last row copied, one text per key column.
    copied_to      text[],
    rows_copied    bigint      NOT NULL DEFAULT 0,
    rows_expected  bigint      NOT NULL DEFAULT 0,
    -- Whether buckets may hold rows of it that have gone unseen: not in a first copy, which began empty.
    may_be_stale   boolean     NOT NULL DEFAULT false,
    -- Whether rows are missing because they arrived without all their values.
    has_holes      boolean     NOT NULL DEFAULT false,
    wanted_at      timestamptz NOT NULL,
    begun_at       timestamptz,
    copied_at      timestamptz,
    -- Set while only the set that is being prepared reads it, and 0 if no rules do but what is mapped: what readers
    -- see does not wait for it.
    for_rules      bigint,
    PRIMARY KEY (slot, oid)
);

-- Every set of rules that was deployed. At most one is in force, and at most one is being prepared.
CREATE TABLE rule_sets (
    slot         text        NOT NULL,
    -- The number of the deploy: the version of whatever first means in it what it means.
    id           bigint      NOT NULL,
    content      text        NOT NULL,
    -- Whether the configuration named it, or somebody deployed it by hand.
    origin       text        NOT NULL CHECK (origin IN ('config', 'command')),
    state        text        NOT NULL CHECK (state IN ('preparing', 'active', 'retired', 'failed')),
    -- Why it never was in force, or is so no more.
    why          text,
    -- The version of each of its definitions and lookups.
    versions     jsonb       NOT NULL,
    stored_at    timestamptz NOT NULL DEFAULT now(),
    begun_at     timestamptz,
    active_at    timestamptz,
    ended_at     timestamptz,
    -- When everything that only it needed had been removed.
    cleaned_at   timestamptz,
    PRIMARY KEY (slot, id)
);
CREATE UNIQUE INDEX rule_sets_active ON rule_sets (slot) WHERE state = 'active';
CREATE UNIQUE INDEX rule_sets_preparing ON rule_sets (slot) WHERE state = 'preparing';

-- Tables whose rows the buckets in force have, and which are read once more for what is new in a set.
CREATE TABLE rule_copies (
    slot           text    NOT NULL,
    rules          bigint  NOT NULL,
    oid            bigint  NOT NULL,
    state          text    NOT NULL CHECK (state IN ('wanted', 'copying', 'copied')),
    -- The key of the last row copied, one text per key column.
    copied_to      text[],
    rows_copied    bigint  NOT NULL DEFAULT 0,
    rows_expected  bigint  NOT NULL DEFAULT 0,
    begun_at       timestamptz,
    copied_at      timestamptz,
    PRIMARY KEY (slot, rules, oid),
    FOREIGN KEY (slot, rules) REFERENCES rule_sets ON DELETE CASCADE,
    FOREIGN KEY (slot, oid) REFERENCES tables ON DELETE CASCADE
);

-- The newest version of each row of a table whose changes do not carry the row as it was (any replica
-- identity but FULL): what a change leaves out is found here.
CREATE TABLE row_states (
    slot  text   COLLATE "C" NOT NULL,
    oid   bigint NOT NULL,
    key   text   COLLATE "C" NOT NULL,
    -- A JSON array of the columns' text.
    row   text   NOT NULL,
    PRIMARY KEY (slot, oid, key)
);

-- What a bucket's ops go by. A name stands here from just before its first op is stored.
CREATE TABLE buckets (
    id    integer  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name  text     COLLATE "C" NOT NULL UNIQUE
);

-- The recorded history of every bucket. op_id orders all buckets together, so that a reader at a
-- checkpoint sees one moment of the source across all of them.
CREATE TABLE ops (
    op_id        bigint   NOT NULL,
    bucket       integer  NOT NULL,
    -- 32 bits. A bucket's checksum is the sum of those of its ops, modulo 2^32.
    checksum     integer  NOT NULL,
    op           text     COLLATE "C" NOT NULL CHECK (op IN ('PUT', 'REMOVE', 'MOVE', 'CLEAR')),
    object_type  text     COLLATE "C" NOT NULL,
    object_id    text     COLLATE "C" NOT NULL,
    -- Tells apart two source rows that show themselves under one type and id.
    subkey       text     COLLATE "C" NOT NULL,
    -- The row as JSON text, for a PUT; nothing for a REMOVE. For a MOVE or CLEAR, which stand for ops that later
    -- ones have overtaken, the last of those later ones: a reader at a checkpoint before it sees too little.
    data         text,
    PRIMARY KEY (bucket, op_id)
);

-- The same, for people: every op with its bucket's name.
CREATE VIEW history AS
SELECT o.op_id, b.name AS bucket, o.op, o.object_type, o.object_id, o.subkey, o.checksum, o.data
FROM ops AS o JOIN buckets AS b ON b.id = o.bucket;

-- What a bucket's ops come to, up to one of them. Not every op has such a row, but the next one is never far.
CREATE TABLE totals (
    bucket    integer  NOT NULL,
    op_id     bigint   NOT NULL,
    checksum  bigint   NOT NULL CHECK (checksum BETWEEN 0 AND 4294967295),
    count     bigint   NOT NULL CHECK (count >= 0),
    PRIMARY KEY (bucket, op_id)
);

-- Which buckets, and which lookups under which keys, the ops up to here have changed since the row before;
-- nothing where it is too many to say. Readers need the newest only.
CREATE TABLE changes (
    op_id        bigint       PRIMARY KEY,
    buckets      integer[],
    lookups      text[],
    recorded_at  timestamptz  NOT NULL
);

-- The newest write of each client of a user: once readers see the source up to `lsn`, they see it.
CREATE TABLE write_checkpoints (
    user_id       text         COLLATE "C" NOT NULL,
    client_id     text         COLLATE "C" NOT NULL,
    id            bigint       NOT NULL CHECK (id > 0),
    lsn           pg_lsn       NOT NULL,
    requested_at  timestamptz  NOT NULL,
    PRIMARY KEY (user_id, client_id)
);

-- How far the history of a bucket has been compacted. Its totals still count every op there ever was.
CREATE TABLE compacted (
    bucket      integer      PRIMARY KEY REFERENCES buckets ON DELETE CASCADE,
    -- An op of the bucket. Readers at a checkpoint before it cannot be told what the bucket held there.
    op_id       bigint       NOT NULL,
    -- Up to here it had been compacted before that.
    from_op_id  bigint       NOT NULL,
    -- Up to here that has been done; it is complete where this is op_id.
    at_op_id    bigint       NOT NULL,
    -- How many ops there were that are not there any more.
    removed     bigint       NOT NULL,
    begun_at    timestamptz  NOT NULL,
    CHECK (from_op_id <= op_id AND at_op_id <= op_id AND removed >= 0)
);

-- The ops, besides itself, that a MOVE stands for: a client that stands between them is told of the rest.
CREATE TABLE merged (
    bucket  integer  NOT NULL REFERENCES buckets ON DELETE CASCADE,
    op_id   bigint   NOT NULL,
    -- Eight bytes each: how many ids before the MOVE, and the checksum; of four bytes, the least first.
    ops     bytea    NOT NULL,
    PRIMARY KEY (bucket, op_id)
);

-- While a large bucket is being compacted: the newest op of each of its rows that the ops since the last time are
-- about. Emptied by a crash, and made again.
CREATE UNLOGGED TABLE overtaking (
    hash         bigint  NOT NULL,
    object_type  text    COLLATE "C" NOT NULL,
    object_id    text    COLLATE "C" NOT NULL,
    subkey       text    COLLATE "C" NOT NULL,
    op_id        bigint  NOT NULL
);
CREATE INDEX overtaking_hash ON overtaking (hash);

-- By when the ops up to here were stored: of every minute in which there were some, the first.
CREATE TABLE moments (
    op_id        bigint       PRIMARY KEY,
    recorded_at  timestamptz  NOT NULL
);

-- What has been forgotten besides what compaction merged, and up to which op: whoever looks back is told.
CREATE TABLE forgotten (
    -- entries: of lookups, which had ended by then; buckets: of rules that were over.
    what   text    COLLATE "C" PRIMARY KEY CHECK (what IN ('entries', 'buckets')),
    op_id  bigint  NOT NULL
);

-- "These values lead to those values", because of one row: what buckets depend on besides the row itself, and
-- what tells which buckets a user gets. An entry stands from one op on, and until another.
CREATE TABLE lookups (
    lookup       text        COLLATE "C" NOT NULL,
    key          text        COLLATE "C" NOT NULL,
    value        text        NOT NULL,
    -- Which source row it is there for.
    subkey       text        COLLATE "C" NOT NULL,
    op_id        bigint      NOT NULL,
    until_op_id  bigint      CHECK (until_op_id >= op_id)
);
CREATE INDEX lookups_key ON lookups (lookup, key, subkey);
-- It has no key. Where a publication FOR ALL TABLES holds our tables too, Postgres would refuse to change it.
ALTER TABLE lookups REPLICA IDENTITY FULL;

-- Ops are appended in op_id order, so a few bytes per block find a position in all buckets together.
CREATE INDEX ops_op_id ON ops USING brin (op_id) WITH (pages_per_range = 32, autosummarize = on);

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
    CHECK ((state = 'idle') = (done_upto = appended)),
    -- Whether people have decided about its jobs since it was taken.
    decided      boolean      NOT NULL DEFAULT false,
    -- The one we would give them.
    own_ehr_id   uuid
) WITH (fillfactor = 50);
CREATE INDEX ehr_lanes_due ON ehr_lanes (priority, due_at) WHERE state = 'waiting';
CREATE INDEX ehr_lanes_stopped ON ehr_lanes (state) WHERE state IN ('held', 'parked');

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
    may_merge     boolean  NOT NULL,
    -- Whose texts the snapshots are, as a list; nothing where each says them itself.
    columns       text[],
    -- Which of the columns is the key, from 0, where jobs do not say it again.
    key_at        integer,
    -- What the names of their compositions begin with, where only the patient and the key follow: the ids are hashes of
    -- that, and jobs need not say them.
    begun         text     COLLATE "C"
);

-- Clinical changes on their way to the record system, written in the transaction that advances the checkpoint: a
-- parcel is what came for a lane together, as one row, for a row of the source would cost another one here. It is laid
-- out in `ehr_jobs` before anybody works on a job of it, or decides about one: never before an earlier one of its lane.
-- So whoever sees only what is laid out sees no job before its turn. `ehr_sync_queue_open` shows both.
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

-- Jobs that have been laid out. This holds what is each job's alone; all of it is in `ehr_sync_queue_open`.
CREATE TABLE ehr_jobs (
    lane             bigint       NOT NULL,
    seq              bigint       NOT NULL,
    manner           bigint       NOT NULL,
    record_key       text         COLLATE "C" NOT NULL,
    composition_id   uuid,
    -- Which change of the source it is.
    commit_lsn       pg_lsn       NOT NULL,
    ordinal          bigint       NOT NULL,
    -- The row as JSON, column: text, or the texts alone where its manner has the columns; nothing for a deletion, or
    -- where the row is to be read when its turn comes.
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

-- What a row said, as JSON, column: text; where its columns are not said with it, they are these.
CREATE FUNCTION ehr_row(snapshot text, columns text[]) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN columns IS NULL OR snapshot IS NULL THEN snapshot
            ELSE json_object(columns, ARRAY(SELECT json_array_elements_text(snapshot::json)))::text END;
-- Who may read the view may do this, also where functions are not everybody's: it knows nothing by itself.
GRANT EXECUTE ON FUNCTION ehr_row(text, text[]) TO PUBLIC;

-- The key of a row: as its job says it, or as the row does.
CREATE FUNCTION ehr_key(said text, snapshot text, key_at integer) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN coalesce(said, snapshot::json ->> key_at);
-- Who may read the view may do this, also where functions are not everybody's: it knows nothing by itself.
GRANT EXECUTE ON FUNCTION ehr_key(text, text, integer) TO PUBLIC;

-- Every job that waits, with all that is known of it; the number of the first of its parcel, or its own, by which an index
-- finds it; and what its composition is named by.
CREATE VIEW ehr_jobs_open AS
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
CREATE VIEW ehr_sync_queue_open AS
SELECT lane, seq, source_table, mapping, record_key, operation, patient, ehr_id, composition_id, template_id, commit_lsn,
       ordinal, part, snapshot, priority, may_merge, trouble, state, attempts, next_attempt_at, lease_token, error_class,
       error_message, composition_uid, version, note, created_at, updated_at, finished_at
FROM ehr_jobs_open;
CREATE VIEW ehr_sync_queue AS
SELECT * FROM ehr_sync_queue_open UNION ALL SELECT * FROM ehr_jobs_done;

-- The jobs of a storage transaction that are too many to be kept back until it ends. They arrive here, so that no
-- lane has to be held before then; nobody else ever sees any.
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
    delivered_at  timestamptz  NOT NULL,
    -- What its name begins with, where only the patient and the key follow.
    begun         text         COLLATE "C"
);

-- The rows a table had before it was mapped, as far as they have been queued.
CREATE TABLE ehr_existing (
    mapping    text     COLLATE "C" PRIMARY KEY,
    -- gone: not in the mapping file, so that changes pass by.
    state      text     COLLATE "C" NOT NULL CHECK (state IN ('queueing', 'queued', 'gone')),
    -- The position of the log that they are changes at; from before the first was read.
    at         pg_lsn,
    -- The key of the last one, and how many there were.
    upto       text[],
    rows       bigint   NOT NULL DEFAULT 0,
    -- Raised whenever the table was emptied.
    emptied    bigint   NOT NULL DEFAULT 0,
    -- Whether changes had passed by, so that all are queued, also those the record may have.
    is_behind  boolean  NOT NULL DEFAULT false
);

-- What many lanes wait for: a template the server does not have, or the server itself.
CREATE TABLE ehr_holds (
    name      text         COLLATE "C" PRIMARY KEY,
    reason    text         NOT NULL,
    since     timestamptz  NOT NULL,
    -- When somebody is to look next whether it still stands.
    check_at  timestamptz  NOT NULL
);

-- How many lanes each worker of a record system may have at work: the sum is what the server is to get at once. Not
-- kept through a crash of storage, after which they tell again.
CREATE UNLOGGED TABLE ehr_workers (
    holder  text         COLLATE "C" PRIMARY KEY,
    url     text         NOT NULL,
    lanes   integer      NOT NULL,
    -- One that has not told until then is gone, or stands still: what was its is the others'.
    until   timestamptz  NOT NULL
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

-- How each process that replicates, serves or works is, as it tells itself; not kept through a crash of storage.
-- One that begins goes on in the row of one that has ended, so that what is counted never falls.
CREATE UNLOGGED TABLE parts (
    id               bigint       GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    part             text         NOT NULL CHECK (part IN ('replicate', 'serve', 'work')),
    -- host:pid
    node             text         NOT NULL,
    -- The session that tells: the process is there as long as this is.
    backend          integer      NOT NULL,
    backend_start    timestamptz  NOT NULL,
    -- How many processes have gone on in this row.
    starts           bigint       NOT NULL,
    started_at       timestamptz  NOT NULL,
    told_at          timestamptz  NOT NULL,
    -- What it waits for, and since when; nothing while it goes on.
    waits_for        text,
    waits_since      timestamptz,
    -- Counts by name, and the like: see observe/metrics.
    figures          jsonb        NOT NULL
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

-- What has become of each job, in the names and statuses of `ehrbase_sync_queue`, as rows of a table: rules can name
-- it, and so apps are told; the log knows no views. Empty, until `ehr_mirror` has been asked to have it kept by
-- triggers on the tables above. Nobody but them writes to it.
CREATE TABLE ehr_sync_status (
    id                      text         COLLATE "C" PRIMARY KEY,
    -- Of two jobs of a record, the later one has the greater number, as long as they are in one lane.
    seq                     bigint       NOT NULL,
    table_name              text,
    record_id               text,
    patient_id              text,
    template_id             text,
    sync_type               text,
    sync_status             text         NOT NULL,
    retry_count             integer      NOT NULL,
    error_message           text,
    ehrbase_composition_id  text,
    ehr_id                  text,
    created_at              timestamptz  NOT NULL,
    processed_at            timestamptz,
    updated_at              timestamptz  NOT NULL
);

CREATE FUNCTION ehr_status_of(state text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN state = 'done' THEN 'completed' WHEN state IN ('skipped', 'merged', 'skipping') THEN 'skipped'
            WHEN state = 'parked' THEN 'failed' ELSE 'pending' END;
CREATE FUNCTION ehr_sync_type(operation text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE operation WHEN 'status' THEN 'ehr_status_update' WHEN 'create' THEN 'composition_create'
            WHEN 'delete' THEN 'composition_delete' ELSE 'composition_update' END;

-- These are planned once in a session, and go by the indices, whatever the first of them were about. They may do what
-- their owner may, and know their tables by themselves: whoever feeds the queue need not know that it is looked at.
SELECT set_config('search_path', quote_ident(current_schema()) || ', pg_temp', true);
-- Parcels have come: all that is in them waits.
CREATE FUNCTION ehr_mirror_parcels() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT SET enable_seqscan = off SET enable_hashjoin = off
SET enable_mergejoin = off AS $$
BEGIN
    INSERT INTO ehr_sync_status (
        id, seq, table_name, record_id, patient_id, template_id, sync_type, sync_status, retry_count, ehr_id,
        created_at, updated_at)
    SELECT p.lane || '.' || p.seq + j.place, p.seq + j.place, split_part(m.source_table, '.', 2),
           ehr_key(j.record_key, j.snapshot, m.key_at),
           CASE WHEN coalesce(j.patient, p.patient) IS NULL THEN l.patient
                ELSE nullif(coalesce(j.patient, p.patient), '') END,
           m.template_id, ehr_sync_type(m.operation), 'pending', 0,
           CASE WHEN coalesce(j.patient, p.patient) IS NULL THEN l.own_ehr_id WHEN j.patient IS NULL THEN p.ehr_id
                ELSE j.ehr_id END, p.created_at, p.created_at
    FROM added AS p CROSS JOIN LATERAL ehr_jobs_of(p.jobs) AS j
    LEFT JOIN ehr_manners AS m ON m.id = j.manner LEFT JOIN ehr_lanes AS l ON l.id = p.lane
    ON CONFLICT (id) DO UPDATE  -- where somebody has emptied the queue, and its numbers begin anew
    SET seq = excluded.seq, table_name = excluded.table_name, record_id = excluded.record_id,
        patient_id = excluded.patient_id, template_id = excluded.template_id, sync_type = excluded.sync_type,
        sync_status = 'pending', retry_count = 0, error_message = NULL, ehrbase_composition_id = NULL,
        ehr_id = excluded.ehr_id, created_at = excluded.created_at, processed_at = NULL,
        updated_at = excluded.updated_at;
    RETURN NULL;
END $$;
-- Jobs have been laid out, which have a row; or are to be delivered once more, and have none.
CREATE FUNCTION ehr_mirror_jobs() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT SET enable_seqscan = off SET enable_hashjoin = off
SET enable_mergejoin = off AS $$
BEGIN
    INSERT INTO ehr_sync_status (
        id, seq, table_name, record_id, patient_id, template_id, sync_type, sync_status, retry_count, error_message,
        ehr_id, created_at, updated_at)
    SELECT j.lane || '.' || j.seq, j.seq, split_part(m.source_table, '.', 2), j.record_key,
           CASE WHEN j.patient IS NULL THEN l.patient ELSE nullif(j.patient, '') END, m.template_id,
           ehr_sync_type(m.operation), ehr_status_of(j.state), j.attempts,
           nullif(concat_ws(': ', j.error_class, j.error_message), ''),
           CASE WHEN j.patient IS NULL THEN l.own_ehr_id ELSE j.ehr_id END, j.created_at,
           coalesce(j.updated_at, j.created_at)
    FROM added AS j LEFT JOIN ehr_manners AS m ON m.id = j.manner LEFT JOIN ehr_lanes AS l ON l.id = j.lane
    ON CONFLICT (id) DO NOTHING;
    RETURN NULL;
END $$;
-- Jobs have been tried, or decided about.
CREATE FUNCTION ehr_mirror_tries() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT SET enable_seqscan = off SET enable_hashjoin = off
SET enable_mergejoin = off AS $$
BEGIN
    UPDATE ehr_sync_status AS s
    SET sync_status = ehr_status_of(j.state), retry_count = j.attempts,
        error_message = nullif(concat_ws(': ', j.error_class, j.error_message), ''), record_id = j.record_key,
        patient_id = CASE WHEN j.patient IS NULL THEN s.patient_id ELSE nullif(j.patient, '') END,
        updated_at = coalesce(j.updated_at, j.created_at)
    FROM changed AS j
    WHERE s.id = j.lane || '.' || j.seq
      AND (s.sync_status, s.retry_count, s.error_message, s.record_id, s.patient_id) IS DISTINCT FROM (
          ehr_status_of(j.state), j.attempts, nullif(concat_ws(': ', j.error_class, j.error_message), ''), j.record_key,
          CASE WHEN j.patient IS NULL THEN s.patient_id ELSE nullif(j.patient, '') END);
    RETURN NULL;
END $$;
-- Jobs are over, or what is kept of them is other. Of those that were merged into others nothing is left: these say
-- what became of both.
CREATE FUNCTION ehr_mirror_done() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT SET enable_seqscan = off SET enable_hashjoin = off
SET enable_mergejoin = off AS $$
BEGIN
    DELETE FROM ehr_sync_status WHERE id IN (SELECT lane || '.' || seq FROM added WHERE state = 'merged');
    INSERT INTO ehr_sync_status AS s
    SELECT j.lane || '.' || j.seq, j.seq, split_part(j.source_table, '.', 2), j.record_key, j.patient, j.template_id,
           ehr_sync_type(j.operation), ehr_status_of(j.state), j.attempts,
           nullif(concat_ws(': ', j.error_class, j.error_message), ''), j.composition_uid, j.ehr_id, j.created_at,
           j.finished_at, coalesce(j.updated_at, j.finished_at, j.created_at)
    FROM added AS j WHERE j.state <> 'merged'
    ON CONFLICT (id) DO UPDATE
    SET record_id = excluded.record_id, patient_id = excluded.patient_id, sync_status = excluded.sync_status,
        retry_count = excluded.retry_count, error_message = excluded.error_message,
        ehrbase_composition_id = excluded.ehrbase_composition_id, ehr_id = excluded.ehr_id,
        processed_at = excluded.processed_at, updated_at = excluded.updated_at;
    RETURN NULL;
END $$;
-- What was finished long ago has been let go.
CREATE FUNCTION ehr_mirror_gone() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT SET enable_seqscan = off SET enable_hashjoin = off
SET enable_mergejoin = off AS $$
BEGIN
    DELETE FROM ehr_sync_status WHERE id IN (SELECT lane || '.' || seq FROM gone);
    RETURN NULL;
END $$;
-- A lane says otherwise whose its jobs are: who is erased there is erased here.
CREATE FUNCTION ehr_mirror_patients() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT SET enable_seqscan = off SET enable_hashjoin = off
SET enable_mergejoin = off AS $$
BEGIN
    UPDATE ehr_sync_status SET patient_id = new.patient
    WHERE id >= new.id || '.' AND id < new.id || '/' AND patient_id IS NOT DISTINCT FROM old.patient;
    RETURN NULL;
END $$;
-- Whoever could hang them onto a table of their own could say what became of anybody's jobs.
REVOKE EXECUTE ON FUNCTION ehr_mirror_parcels(), ehr_mirror_jobs(), ehr_mirror_tries(), ehr_mirror_done(),
    ehr_mirror_gone(), ehr_mirror_patients() FROM PUBLIC;

-- Have `ehr_sync_status` kept from now on, or no more; whether that is new. Nobody appends or records meanwhile.
CREATE FUNCTION ehr_mirror(is_kept boolean) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    -- Others have these in an order of their own: all of it is had at once, or waited for without having any.
    PERFORM set_config('lock_timeout', '200ms', true);
    FOR try IN 1 .. 100 LOOP
        BEGIN
            IF is_kept THEN
                LOCK TABLE ehr_lanes, ehr_parcels, ehr_jobs, ehr_jobs_done IN SHARE ROW EXCLUSIVE MODE;
            ELSE  -- who reads them is in the way of taking triggers from them, too
                LOCK TABLE ehr_lanes, ehr_parcels, ehr_jobs, ehr_jobs_done IN ACCESS EXCLUSIVE MODE;
            END IF;
            EXIT;
        EXCEPTION WHEN lock_not_available THEN
            IF try = 100 THEN
                RAISE;
            END IF;
            PERFORM pg_sleep(0.1 * random());
        END;
    END LOOP;
    PERFORM set_config('lock_timeout', '0', true);
    IF is_kept = EXISTS (
        SELECT FROM pg_trigger WHERE (tgrelid, tgname) = ('ehr_parcels'::regclass, 'ehr_mirror_parcels')) THEN
        RETURN false;
    END IF;
    DELETE FROM ehr_sync_status;
    IF NOT is_kept THEN
        DROP TRIGGER ehr_mirror_parcels ON ehr_parcels;
        DROP TRIGGER ehr_mirror_jobs ON ehr_jobs;
        DROP TRIGGER ehr_mirror_tries ON ehr_jobs;
        DROP TRIGGER ehr_mirror_done ON ehr_jobs_done;
        DROP TRIGGER ehr_mirror_altered ON ehr_jobs_done;
        DROP TRIGGER ehr_mirror_gone ON ehr_jobs_done;
        DROP TRIGGER ehr_mirror_patients ON ehr_lanes;
    ELSE
        CREATE TRIGGER ehr_mirror_parcels AFTER INSERT ON ehr_parcels
            REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION ehr_mirror_parcels();
        CREATE TRIGGER ehr_mirror_jobs AFTER INSERT ON ehr_jobs
            REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION ehr_mirror_jobs();
        CREATE TRIGGER ehr_mirror_tries AFTER UPDATE ON ehr_jobs
            REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION ehr_mirror_tries();
        CREATE TRIGGER ehr_mirror_done AFTER INSERT ON ehr_jobs_done
            REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION ehr_mirror_done();
        CREATE TRIGGER ehr_mirror_altered AFTER UPDATE ON ehr_jobs_done
            REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION ehr_mirror_done();
        CREATE TRIGGER ehr_mirror_patients AFTER UPDATE OF patient ON ehr_lanes FOR EACH ROW
            WHEN (old.patient IS DISTINCT FROM new.patient) EXECUTE FUNCTION ehr_mirror_patients();
        CREATE TRIGGER ehr_mirror_gone AFTER DELETE ON ehr_jobs_done
            REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION ehr_mirror_gone();
        INSERT INTO ehr_sync_status
        SELECT lane || '.' || seq, seq, split_part(source_table, '.', 2), record_key, patient, template_id,
               ehr_sync_type(operation), ehr_status_of(state), attempts,
               nullif(concat_ws(': ', error_class, error_message), ''), composition_uid, ehr_id, created_at,
               finished_at, coalesce(updated_at, finished_at, created_at)
        FROM ehr_sync_queue WHERE state <> 'merged';
    END IF;
    RETURN true;
END $$;
