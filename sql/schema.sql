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
