-- Taking away what only rules that are over needed: a few rows at a time.

-- name: over
-- Sets that have been over for so long that no reader is still at it.
SELECT id FROM rule_sets
WHERE slot = %(slot)s::text AND state IN ('retired', 'failed') AND cleaned_at IS NULL
  AND ended_at < now() - make_interval(secs => %(grace_s)s::float8)

-- name: remove_ops
-- Ops of the buckets of a name: no name has a bracket in it.
DELETE FROM ops WHERE (bucket, op_id) IN (
    SELECT bucket, op_id FROM ops
    WHERE bucket >= %(name)s::text || '[' AND bucket < %(name)s::text || chr(92)
    LIMIT %(limit)s::bigint)

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
