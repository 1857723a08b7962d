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
    -- Set while only the set that is being prepared reads it: what readers see does not wait for it.
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

-- The recorded history of every bucket. op_id orders all buckets together, so that a reader at a
-- checkpoint sees one moment of the source across all of them.
CREATE TABLE ops (
    bucket       text        COLLATE "C" NOT NULL,
    op_id        bigint      NOT NULL,
    op           text        COLLATE "C" NOT NULL CHECK (op IN ('PUT', 'REMOVE')),
    object_type  text        COLLATE "C" NOT NULL,
    object_id    text        COLLATE "C" NOT NULL,
    -- Tells apart two source rows that show themselves under one type and id.
    subkey       text        COLLATE "C" NOT NULL,
    checksum     bigint      NOT NULL CHECK (checksum BETWEEN 0 AND 4294967295),
    -- The row as JSON text; nothing for a REMOVE.
    data         text,
    PRIMARY KEY (bucket, op_id)
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
