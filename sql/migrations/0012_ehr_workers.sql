-- How many lanes each worker of a record system may have at work: the sum is what the server is to get at once. Not
-- kept through a crash of storage, after which they tell again.
CREATE UNLOGGED TABLE ehr_workers (
    holder  text         COLLATE "C" PRIMARY KEY,
    url     text         NOT NULL,
    lanes   integer      NOT NULL,
    -- One that has not told until then is gone, or stands still: what was its is the others'.
    until   timestamptz  NOT NULL
);
