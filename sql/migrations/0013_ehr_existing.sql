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
