-- What clients have written through their backend, and when a checkpoint holds it.

-- The newest write of each client of a user: once readers see the source up to `lsn`, they see it.
CREATE TABLE write_checkpoints (
    user_id       text         COLLATE "C" NOT NULL,
    client_id     text         COLLATE "C" NOT NULL,
    id            bigint       NOT NULL CHECK (id > 0),
    lsn           pg_lsn       NOT NULL,
    requested_at  timestamptz  NOT NULL,
    PRIMARY KEY (user_id, client_id)
);
