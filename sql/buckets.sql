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
       given_up, clock, shown_rules, extract(epoch FROM committed_at)::float8
FROM checkpoints WHERE slot = %(slot)s::text

-- name: want_all
-- Every table is to be copied again.
UPDATE tables
SET may_be_stale = true, state = 'wanted', wanted_at = now(), begun_op_id = NULL, copied_to = NULL,
    rows_copied = 0, begun_at = NULL, copied_at = NULL, has_holes = false
WHERE slot = %(slot)s::text

-- name: miss_jobs
-- Changes of mapped tables are lost with the log: all their rows are to be queued, as if they had not been mapped.
UPDATE ehr_existing SET state = 'gone' WHERE state <> 'gone'

-- name: give_up
-- What is lost as things stand, and nothing that is lost later, may be passed over by copying everything again.
UPDATE checkpoints SET given_up = %(standing)s::text WHERE slot = %(slot)s::text

-- name: agree
-- Nothing is lost, so nothing is given up any more.
UPDATE checkpoints SET given_up = NULL WHERE slot = %(slot)s::text AND given_up IS NOT NULL

-- name: begin_again
-- Another log, or another place in it. What readers see stays as it is until everything has been copied; it may be
-- nothing yet, which least() would pass over.
UPDATE checkpoints
SET lsn = %(lsn)s::pg_lsn, system_id = %(system_id)s::text,
    timeline = %(timeline)s::integer, recorded_at = now(), given_up = NULL,
    shown_lsn = CASE WHEN shown_lsn IS NOT NULL THEN least(shown_lsn, %(lsn)s::pg_lsn) END
WHERE slot = %(slot)s::text

-- name: hold_checkpoint
-- The checkpoint as this storage transaction finds it, and keeps it.
SELECT op_id, lsn FROM checkpoints
WHERE slot = %(slot)s::text AND fence = %(fence)s::bigint
FOR UPDATE

-- name: append_ops
COPY ops (op_id, bucket, checksum, op, object_type, object_id, subkey, data) FROM STDIN (FORMAT binary)

-- name: numbered_before
-- Of the last buckets that were given a number before one: how many, the first of them, and of each 128 bits of its
-- name's SHA-256 with its number.
SELECT count(*), coalesce(min(id), 0),
       string_agg(substr(sha256(convert_to(name, 'UTF8')), 1, 16) || int4send(id), '')
FROM (SELECT id, name FROM buckets WHERE id < %(before)s::bigint ORDER BY id DESC LIMIT %(most)s::bigint) AS last

-- name: numbers_of_buckets
-- The numbers of buckets, in the order of their names; nothing for those without one.
SELECT array_agg(b.id ORDER BY asked.at)
FROM unnest(%(names)b::text[]) WITH ORDINALITY AS asked (name, at) LEFT JOIN buckets AS b USING (name)

-- name: number_buckets
-- The numbers of buckets, those without one given one. Of names given to two at once, both see the same number.
WITH made AS (
    INSERT INTO buckets (name)
    SELECT wanted.name FROM unnest(%(names)b::text[]) AS wanted (name)
    WHERE NOT EXISTS (SELECT FROM buckets AS b WHERE b.name = wanted.name)
    ON CONFLICT (name) DO UPDATE SET name = excluded.name
    RETURNING name, id)
SELECT name, id FROM made
UNION ALL
SELECT b.name, b.id FROM buckets AS b WHERE b.name = ANY (%(names)b::text[])

-- name: sweep_table
-- Rows of one source table that buckets still hold, last put at or before an op, are removed from them.
WITH swept AS (
    INSERT INTO ops (bucket, op_id, op, object_type, object_id, subkey, checksum)
    SELECT bucket, %(after)s::bigint + row_number() OVER (ORDER BY op_id), 'REMOVE', object_type, object_id,
           subkey, hashtext(object_type || chr(9) || object_id)
    FROM (SELECT DISTINCT ON (bucket, object_type, object_id, subkey) * FROM ops
          WHERE starts_with(subkey, %(prefix)s::text)
          ORDER BY bucket, object_type, object_id, subkey, op_id DESC) AS latest
    WHERE op = 'PUT' AND op_id <= %(begun)s::bigint
    RETURNING bucket)
SELECT (SELECT count(*) FROM swept), ARRAY(SELECT DISTINCT bucket FROM swept LIMIT %(limit)s::integer)

-- name: sum_up
-- What these buckets come to, up to the last op each has.
INSERT INTO totals (bucket, op_id, checksum, count)
SELECT asked.bucket, since.op_id, mod(coalesce(was.checksum, 0) + since.checksum, 4294967296),
       coalesce(was.count, 0) + since.count
FROM unnest(%(buckets)s::integer[]) AS asked (bucket)
LEFT JOIN LATERAL (SELECT * FROM totals AS t WHERE t.bucket = asked.bucket ORDER BY op_id DESC LIMIT 1) AS was
  ON true
CROSS JOIN LATERAL (
    SELECT max(o.op_id) AS op_id, sum(o.checksum::bigint & 4294967295) AS checksum, count(*) AS count FROM ops AS o
    WHERE o.bucket = asked.bucket AND o.op_id > coalesce(was.op_id, 0)) AS since
WHERE since.op_id IS NOT NULL

-- name: advance
-- Forward only, and only by the writer whose fence stands. Readers follow, and to another set of rules, unless
-- a table that they see rows of is being copied, or no set is in force before the one in preparation is; and they
-- are told what has changed, with the time at which they can see it: a transaction may have begun long before.
-- Postgres folds the notices of one transaction.
WITH stored AS (
    SELECT %(op_id)s::bigint AS op_id, %(lsn)s::pg_lsn AS lsn, NOT EXISTS (
        SELECT FROM tables
        WHERE tables.slot = %(slot)s::text AND state <> 'copied' AND for_rules IS NULL)
    AND (NOT EXISTS (SELECT FROM rule_sets AS r WHERE r.slot = %(slot)s::text AND r.state = 'preparing')
         OR EXISTS (SELECT FROM rule_sets AS r WHERE r.slot = %(slot)s::text AND r.state = 'active')) AS is_whole),
advanced AS (
    UPDATE checkpoints AS c
    SET op_id = stored.op_id, lsn = stored.lsn, clock = %(clock)s::float8, recorded_at = now(),
        committed_at = coalesce(to_timestamp(%(committed_at)s::float8), committed_at),
        shown_op_id = CASE WHEN is_whole THEN stored.op_id ELSE shown_op_id END,
        shown_lsn = CASE WHEN is_whole THEN stored.lsn ELSE shown_lsn END,
        shown_rules = CASE WHEN is_whole THEN (SELECT id FROM rule_sets AS r
                                               WHERE r.slot = %(slot)s::text AND r.state = 'active') ELSE shown_rules END
    FROM stored
    WHERE slot = %(slot)s::text AND fence = %(fence)s::bigint
      AND c.op_id <= stored.op_id AND c.lsn <= stored.lsn
    RETURNING stored.op_id),
told AS (
    INSERT INTO changes (op_id, buckets, lookups, recorded_at)
    SELECT op_id, %(buckets)s::integer[], %(lookups)b::text[], clock_timestamp()
    FROM advanced WHERE %(is_change)s::boolean)
SELECT pg_catalog.pg_notify('replicator_checkpoint', '') FROM advanced

-- name: listen
LISTEN replicator_checkpoint

-- name: listen_to_writes
LISTEN replicator_write

-- name: has_bucket
SELECT EXISTS (SELECT FROM buckets WHERE name = %(bucket)s::text)

-- name: buckets_like
-- Some buckets of this name.
SELECT name FROM buckets WHERE name >= %(bucket)s::text AND starts_with(name, %(bucket)s::text)
ORDER BY name LIMIT 5

-- name: read_ops
-- Ops of any bucket, or of one, in order, after a position and up to a checkpoint.
SELECT op_id, bucket, op, object_type, object_id, subkey, checksum, data FROM history
WHERE op_id > %(after)s::bigint AND op_id <= %(upto)s::bigint
  AND (%(bucket)s::text IS NULL OR bucket = %(bucket)s::text)
ORDER BY op_id
LIMIT %(limit)s::integer

-- name: totals
-- What the ops of these buckets come to, up to a checkpoint; and whether compaction has gone past it. Sums count
-- every op there ever was, so there is one from where a bucket has been compacted.
SELECT b.name, mod(coalesce(was.checksum, 0) + coalesce(since.checksum, 0), 4294967296)::bigint,
       coalesce(was.count, 0) + since.count - coalesce(c.removed, 0), coalesce(c.op_id > %(upto)s::bigint, false)
FROM buckets AS b
LEFT JOIN compacted AS c ON c.bucket = b.id
LEFT JOIN LATERAL (
    SELECT * FROM totals AS t WHERE t.bucket = b.id AND t.op_id <= %(upto)s::bigint
    ORDER BY op_id DESC LIMIT 1) AS was ON true
CROSS JOIN LATERAL (
    SELECT sum(o.checksum::bigint & 4294967295) AS checksum, count(*) AS count FROM ops AS o
    WHERE o.bucket = b.id AND o.op_id > coalesce(was.op_id, 0) AND o.op_id <= %(upto)s::bigint) AS since
WHERE b.name = ANY (%(buckets)b::text[])

-- name: changed
-- What has changed between two checkpoints, as far as it was told. Those before the first are forgotten first: if
-- there still is one, none is missing after it.
SELECT c.buckets IS NOT NULL, ARRAY(SELECT b.name FROM buckets AS b WHERE b.id = ANY (c.buckets)), c.lookups
FROM changes AS c WHERE c.op_id > %(after)s::bigint AND c.op_id <= %(upto)s::bigint
  AND EXISTS (SELECT FROM changes AS before WHERE before.op_id <= %(after)s::bigint)
UNION ALL
SELECT false, NULL, NULL WHERE NOT EXISTS (SELECT FROM changes AS before WHERE before.op_id <= %(after)s::bigint)

-- name: read_plain
-- Ops of one bucket, in order, after a position and up to a checkpoint. Without its data comes what is large;
-- without their bucket's name, all, if compaction has gone past the checkpoint. The limit stands where the bucket's
-- number is known, so that a page is read in the order of the index, however large the bucket is.
SELECT o.op_id, CASE WHEN c.op_id > %(upto)s::bigint THEN NULL ELSE b.name END, o.op, o.object_type, o.object_id,
       o.subkey, o.checksum, CASE WHEN octet_length(o.data) <= %(large)s::integer THEN o.data END
FROM buckets AS b
LEFT JOIN compacted AS c ON c.bucket = b.id
CROSS JOIN LATERAL (
    SELECT * FROM ops AS o
    WHERE o.bucket = b.id AND o.op_id > %(after)s::bigint AND o.op_id <= %(upto)s::bigint
    ORDER BY o.op_id LIMIT %(limit)s::integer) AS o
WHERE b.name = %(name)s::text
ORDER BY o.op_id

-- name: read_bucket
-- The same where not all is so plain; one empty row where there are none.
-- Of those that follow so many bytes of others, none; and how many there would have been. With the first comes
-- what it stands for, if it is a MOVE; with each, whether compaction has gone past the checkpoint.
SELECT page.op_id, b.name, page.op, page.object_type, page.object_id, page.subkey, page.checksum, page.data,
       page.among, CASE WHEN page.at = 1 AND page.op = 'MOVE' THEN
           (SELECT m.ops FROM merged AS m WHERE m.bucket = b.id AND m.op_id = page.op_id) END,
       coalesce(c.op_id > %(upto)s::bigint, false)
FROM buckets AS b
LEFT JOIN compacted AS c ON c.bucket = b.id
LEFT JOIN LATERAL (
    SELECT *, count(*) OVER () AS among, row_number() OVER (ORDER BY op_id) AS at,
           sum(octet_length(data)) OVER (ORDER BY op_id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before
    FROM (SELECT * FROM ops AS o
          WHERE o.bucket = b.id AND o.op_id > %(after)s::bigint AND o.op_id <= %(upto)s::bigint
          ORDER BY o.op_id LIMIT %(limit)s::integer) AS found) AS page
  ON coalesce(page.before, 0) < %(bytes)s::bigint
WHERE b.name = %(name)s::text
ORDER BY page.op_id

-- name: overtaken
-- Which ops of that range another one in it has overtaken: their ids in order, eight bytes each; and whether
-- compaction has gone past the checkpoint. Few rows are in an op twice, so those that may be are found by a number.
SELECT told.ids, coalesce(c.op_id > %(upto)s::bigint, false)
FROM buckets AS b
LEFT JOIN compacted AS c ON c.bucket = b.id
CROSS JOIN LATERAL (
    SELECT string_agg(int8send(op_id), '' ORDER BY op_id) FILTER (WHERE by IS NOT NULL) AS ids FROM (
        SELECT o.op_id,
               lead(o.op_id) OVER (PARTITION BY object_type, object_id, subkey ORDER BY o.op_id) AS by
        FROM ops AS o
        WHERE o.bucket = b.id AND o.op_id > %(after)s::bigint AND o.op_id <= %(upto)s::bigint
          AND o.op IN ('PUT', 'REMOVE')
          AND hashtextextended(o.subkey, hashtext(o.object_id)) IN (
              SELECT hashtextextended(t.subkey, hashtext(t.object_id)) FROM ops AS t
              WHERE t.bucket = b.id AND t.op_id > %(after)s::bigint AND t.op_id <= %(upto)s::bigint
                AND t.op IN ('PUT', 'REMOVE')
              GROUP BY 1 HAVING count(*) > 1)) AS each) AS told
WHERE b.name = %(name)s::text

-- name: entries_at
-- To which values these keys of lookups lead, as of a checkpoint.
SELECT DISTINCT l.lookup, l.key, l.value
FROM unnest(%(lookups)b::text[], %(keys)b::text[]) AS asked (lookup, key)
JOIN lookups AS l ON l.lookup = asked.lookup AND l.key = asked.key
WHERE l.op_id <= %(upto)s::bigint AND (l.until_op_id IS NULL OR l.until_op_id > %(upto)s::bigint)
