-- How far buckets have been compacted, what the MOVEs in them stand for, and when ops were stored.

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
