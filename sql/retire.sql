-- Taking away what only rules that are over needed: a few rows at a time.

-- name: over
-- Sets that have been over for so long that no reader is still at it.
SELECT id FROM rule_sets
WHERE slot = %(slot)s::text AND state IN ('retired', 'failed') AND cleaned_at IS NULL
  AND ended_at < now() - make_interval(secs => %(grace_s)s::float8)

-- name: remove_ops
-- Ops of the buckets of a name: no name has a bracket in it.
DELETE FROM ops WHERE (bucket, op_id) IN (
    SELECT o.bucket, o.op_id FROM buckets AS b JOIN ops AS o ON o.bucket = b.id
    WHERE b.name >= %(name)s::text || '[' AND b.name < %(name)s::text || chr(92)
    LIMIT %(limit)s::bigint)

-- name: remove_buckets
-- The buckets of a name that have no ops any more, with what was known of them.
WITH gone AS (
    DELETE FROM buckets WHERE id IN (
        SELECT b.id FROM buckets AS b
        WHERE b.name >= %(name)s::text || '[' AND b.name < %(name)s::text || chr(92)
          AND NOT EXISTS (SELECT FROM ops AS o WHERE o.bucket = b.id)
        LIMIT %(limit)s::bigint)
    RETURNING id),
totals_gone AS (DELETE FROM totals USING gone WHERE bucket = gone.id),
merged_gone AS (DELETE FROM merged USING gone WHERE bucket = gone.id),
compacted_gone AS (DELETE FROM compacted USING gone WHERE bucket = gone.id)
SELECT id FROM gone

-- name: remove_entries
-- Entries of one lookup, or rows that were entered for it.
DELETE FROM lookups WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM lookups WHERE lookup = %(name)s::text LIMIT %(limit)s::bigint))

-- name: cleaned
UPDATE rule_sets SET cleaned_at = now() WHERE slot = %(slot)s::text AND id = ANY (%(ids)s::bigint[])

-- name: forget_sets
-- All but the last few sets that are over and taken away.
DELETE FROM rule_sets WHERE slot = %(slot)s::text AND cleaned_at IS NOT NULL AND id NOT IN (
    SELECT id FROM rule_sets WHERE slot = %(slot)s::text AND state IN ('retired', 'failed')
    ORDER BY id DESC LIMIT %(most)s::bigint)
