-- When the newest transaction up to `lsn` that there were rows of was committed, by the source's clock.
ALTER TABLE checkpoints ADD COLUMN committed_at timestamptz;
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
