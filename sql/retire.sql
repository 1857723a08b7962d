-- Taking away what only rules that are over needed: a few rows at a time.
-- Each statement says how many it found, and how many of them it took away: others were before it with the rest, and
-- there may be more.

-- name: over
-- Sets that have been over for so long that no reader is still at it; but one that was given up is read until
-- another is in force.
SELECT id FROM rule_sets
WHERE slot = %(slot)s::text AND state IN ('retired', 'failed') AND cleaned_at IS NULL
  AND ended_at < now() - make_interval(secs => %(grace_s)s::float8)
  AND id NOT IN (SELECT shown_rules FROM checkpoints WHERE slot = %(slot)s::text AND shown_rules IS NOT NULL)

-- name: wait_for_batch
-- Until whoever writes has stored what is being stored: a sweep among it has seen ops, and entries, that were still
-- there, and what it makes of them was not to be seen when they were removed.
SELECT FROM checkpoints WHERE slot = %(slot)s::text FOR SHARE

-- name: remove_ops
-- Ops of the buckets of a name: no name has a bracket in it. The buckets are held, so that none is in the middle of a
-- step of compaction.
WITH chosen AS MATERIALIZED (
    SELECT o.bucket, o.op_id FROM buckets AS b JOIN ops AS o ON o.bucket = b.id
    WHERE b.name >= %(name)s::text || '[' AND b.name < %(name)s::text || chr(92)
    LIMIT %(limit)s::bigint FOR UPDATE OF b),
gone AS (
    DELETE FROM ops WHERE (bucket, op_id) IN (SELECT bucket, op_id FROM chosen)
    RETURNING op_id),
noted AS (
    INSERT INTO forgotten (what, op_id) SELECT 'buckets', max(op_id) FROM gone HAVING count(*) > 0
    ON CONFLICT (what) DO UPDATE SET op_id = greatest(forgotten.op_id, excluded.op_id))
SELECT (SELECT count(*) FROM chosen), (SELECT count(*) FROM gone)

-- name: remove_buckets
-- The buckets of a name that have no ops any more, with what was known of them.
WITH chosen AS MATERIALIZED (
    SELECT b.id FROM buckets AS b
    WHERE b.name >= %(name)s::text || '[' AND b.name < %(name)s::text || chr(92)
      AND NOT EXISTS (SELECT FROM ops AS o WHERE o.bucket = b.id)
    LIMIT %(limit)s::bigint),
gone AS (DELETE FROM buckets WHERE id IN (SELECT id FROM chosen) RETURNING id),
totals_gone AS (DELETE FROM totals USING gone WHERE bucket = gone.id),
merged_gone AS (DELETE FROM merged USING gone WHERE bucket = gone.id),
compacted_gone AS (DELETE FROM compacted USING gone WHERE bucket = gone.id)
SELECT (SELECT count(*) FROM chosen), (SELECT count(*) FROM gone)

-- name: remove_entries
-- Entries of one lookup, or rows that were entered for it.
WITH chosen AS MATERIALIZED (
    SELECT ctid FROM lookups WHERE lookup = %(name)s::text LIMIT %(limit)s::bigint),
gone AS (DELETE FROM lookups WHERE ctid = ANY (ARRAY(SELECT ctid FROM chosen)) RETURNING lookup)
SELECT (SELECT count(*) FROM chosen), (SELECT count(*) FROM gone)

-- name: cleaned
UPDATE rule_sets SET cleaned_at = now() WHERE slot = %(slot)s::text AND id = ANY (%(ids)s::bigint[])

-- name: forget_sets
-- All but the last few sets that are over and taken away.
DELETE FROM rule_sets WHERE slot = %(slot)s::text AND cleaned_at IS NOT NULL AND id NOT IN (
    SELECT id FROM rule_sets WHERE slot = %(slot)s::text AND state IN ('retired', 'failed')
    ORDER BY id DESC LIMIT %(most)s::bigint)
