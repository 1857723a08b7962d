-- Appending ops and advancing the checkpoint, and reading both.

-- name: lock_writer
-- One writer per slot: held by its storage session until that session ends.
SELECT pg_try_advisory_lock(hashtextextended('replicator writer ' || current_schema() || ' ' || %(slot)s::text, 0))

-- name: is_writing
-- Whether somebody holds that lock, without touching it.
SELECT EXISTS (
    SELECT FROM pg_locks
    JOIN (SELECT hashtextextended('replicator writer ' || current_schema() || ' ' || %(slot)s::text, 0)) AS k (key)
      ON classid = ((key >> 32) & 4294967295)::oid AND objid = (key & 4294967295)::oid
    WHERE locktype = 'advisory' AND objsubid = 1 AND granted
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))

-- name: begin_checkpoint
-- The first checkpoint of a slot: nothing stored, at the position its stream begins.
INSERT INTO checkpoints (slot, op_id, lsn, fence, system_id, timeline, recorded_at)
VALUES (%(slot)s::text, 0, %(lsn)s::pg_lsn, 1, %(system_id)s::text, %(timeline)s::integer, now())

-- name: other_slot
-- Whose ops are stored here already: they say nothing of their slot, and op ids are counted for one.
SELECT slot FROM checkpoints WHERE slot <> %(slot)s::text ORDER BY slot LIMIT 1

-- name: raise_fence
-- A writer takes over: from here on the one before it can no longer advance.
UPDATE checkpoints SET fence = fence + 1 WHERE slot = %(slot)s::text RETURNING fence

-- name: checkpoint
SELECT op_id, lsn, fence, system_id, timeline, recorded_at, shown_op_id, shown_lsn,
       given_up, clock
FROM checkpoints WHERE slot = %(slot)s::text

-- name: want_all
-- Every table is to be copied again.
UPDATE tables
SET may_be_stale = true, state = 'wanted', wanted_at = now(), begun_op_id = NULL, copied_to = NULL,
    rows_copied = 0, begun_at = NULL, copied_at = NULL, has_holes = false
WHERE slot = %(slot)s::text

-- name: give_up
-- What is lost as things stand, and nothing that is lost later, may be passed over by copying everything again.
UPDATE checkpoints SET given_up = %(standing)s::text WHERE slot = %(slot)s::text

-- name: agree
-- Nothing is lost, so nothing is given up any more.
UPDATE checkpoints SET given_up = NULL WHERE slot = %(slot)s::text AND given_up IS NOT NULL

-- name: begin_again
-- Another log, or another place in it. What readers see stays as it is until everything has been copied.
UPDATE checkpoints
SET lsn = %(lsn)s::pg_lsn, shown_lsn = least(shown_lsn, %(lsn)s::pg_lsn), system_id = %(system_id)s::text,
    timeline = %(timeline)s::integer, recorded_at = now(), given_up = NULL
WHERE slot = %(slot)s::text

-- name: hold_checkpoint
-- The checkpoint as this storage transaction finds it, and keeps it.
SELECT op_id, lsn FROM checkpoints
WHERE slot = %(slot)s::text AND fence = %(fence)s::bigint
FOR UPDATE

-- name: append_ops
COPY ops (bucket, op_id, op, object_type, object_id, subkey, checksum, data) FROM STDIN

-- name: sweep_table
-- Rows of one source table that buckets still hold, last put at or before an op, are removed from them.
INSERT INTO ops (bucket, op_id, op, object_type, object_id, subkey, checksum)
SELECT bucket, %(after)s::bigint + row_number() OVER (ORDER BY op_id), 'REMOVE', object_type, object_id,
       subkey, hashtext(object_type || chr(9) || object_id)::bigint & 4294967295
FROM (SELECT DISTINCT ON (bucket, object_type, object_id, subkey) * FROM ops
      WHERE starts_with(subkey, %(prefix)s::text)
      ORDER BY bucket, object_type, object_id, subkey, op_id DESC) AS latest
WHERE op = 'PUT' AND op_id <= %(begun)s::bigint

-- name: advance
-- Forward only, and only by the writer whose fence stands. Readers follow, and to another set of rules, unless
-- a table that they see rows of is being copied.
WITH stored AS (
    SELECT %(op_id)s::bigint AS op_id, %(lsn)s::pg_lsn AS lsn, NOT EXISTS (
        SELECT FROM tables
        WHERE tables.slot = %(slot)s::text AND state <> 'copied' AND for_rules IS NULL) AS is_whole)
UPDATE checkpoints AS c
SET op_id = stored.op_id, lsn = stored.lsn, clock = %(clock)s::float8, recorded_at = now(),
    shown_op_id = CASE WHEN is_whole THEN stored.op_id ELSE shown_op_id END,
    shown_lsn = CASE WHEN is_whole THEN stored.lsn ELSE shown_lsn END,
    shown_rules = CASE WHEN is_whole THEN (SELECT id FROM rule_sets AS r
                                           WHERE r.slot = %(slot)s::text AND r.state = 'active') ELSE shown_rules END
FROM stored
WHERE slot = %(slot)s::text AND fence = %(fence)s::bigint
  AND c.op_id <= stored.op_id AND c.lsn <= stored.lsn

-- name: announce
-- Wake whoever reads buckets. One name, no payload: Postgres folds the notices of one transaction.
NOTIFY replicator_checkpoint

-- name: listen
LISTEN replicator_checkpoint

-- name: has_bucket
SELECT EXISTS (SELECT FROM ops WHERE bucket = %(bucket)s::text)

-- name: buckets_like
-- Some buckets of this name, each found by one look into the index.
WITH RECURSIVE found AS (
    (SELECT bucket FROM ops WHERE bucket >= %(bucket)s::text AND starts_with(bucket, %(bucket)s::text)
     ORDER BY bucket LIMIT 1)
    UNION ALL
    SELECT (SELECT bucket FROM ops WHERE bucket > found.bucket AND starts_with(bucket, %(bucket)s::text)
            ORDER BY bucket LIMIT 1)
    FROM found WHERE found.bucket IS NOT NULL)
SELECT bucket FROM found WHERE bucket IS NOT NULL LIMIT 5

-- name: read_ops
-- Ops of any bucket, or of one, in order, after a position and up to a checkpoint.
SELECT op_id, bucket, op, object_type, object_id, subkey, checksum, data FROM ops
WHERE op_id > %(after)s::bigint AND op_id <= %(upto)s::bigint
  AND (%(bucket)s::text IS NULL OR bucket = %(bucket)s::text)
ORDER BY op_id
LIMIT %(limit)s::integer
