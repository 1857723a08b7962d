-- Sets of rules: one in force, perhaps one that is built beside it, and those that were.

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

-- Which set was in force at the shown checkpoint: what readers go by.
ALTER TABLE checkpoints ADD COLUMN shown_rules bigint;

-- Set while only the set that is being prepared reads a table: what readers see does not wait for it.
ALTER TABLE tables ADD COLUMN for_rules bigint;
-- What rows in buckets were made by is told by the buckets' names.
ALTER TABLE tables DROP COLUMN rules;

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
