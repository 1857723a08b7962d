-- What has been forgotten besides what compaction merged, and up to which op: whoever looks back is told.
CREATE TABLE forgotten (
    -- entries: of lookups, which had ended by then; buckets: of rules that were over.
    what   text    COLLATE "C" PRIMARY KEY CHECK (what IN ('entries', 'buckets')),
    op_id  bigint  NOT NULL
);
