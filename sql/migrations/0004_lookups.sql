-- What buckets depend on besides a row itself, and the time at which rows are where they are.

ALTER TABLE checkpoints ADD COLUMN clock float8 NOT NULL DEFAULT 0;

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
