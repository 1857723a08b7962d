-- Entries of lookups: "these values lead to those values, because of this row", from one op on, until another.

-- name: leave
-- Entries that stand no more; those that are entered again at once are among them.
UPDATE lookups AS l SET until_op_id = gone.op_id
FROM unnest(%(lookups)b::text[], %(keys)b::text[], %(values)b::text[], %(subkeys)b::text[], %(op_ids)b::bigint[])
     AS gone (lookup, key, value, subkey, op_id)
WHERE l.lookup = gone.lookup AND l.key = gone.key AND l.subkey = gone.subkey AND l.value = gone.value
  AND l.until_op_id IS NULL

-- name: leave_rows
-- The same for rows that are entered as they are: of them there is one for each key, and nobody asks later
-- which there were.
DELETE FROM lookups AS l
USING unnest(%(lookups)b::text[], %(keys)b::text[], %(subkeys)b::text[]) AS gone (lookup, key, subkey)
WHERE l.lookup = gone.lookup AND l.key = gone.key AND l.subkey = gone.subkey

-- name: enter
INSERT INTO lookups (lookup, key, value, subkey, op_id)
SELECT * FROM unnest(%(lookups)b::text[], %(keys)b::text[], %(values)b::text[], %(subkeys)b::text[],
                     %(op_ids)b::bigint[])

-- name: read_entries
-- What stands under these keys: to which values they lead, because of which of some rows, and whether because
-- of these alone. However many other rows are the reason, they are not brought.
SELECT l.lookup, l.key, l.value,
       coalesce(array_agg(turning.subkey) FILTER (WHERE turning.subkey IS NOT NULL), '{}'),
       bool_and(turning.subkey IS NOT NULL)
FROM lookups AS l
JOIN unnest(%(lookups)b::text[], %(keys)b::text[]) AS asked (lookup, key)
  ON l.lookup = asked.lookup AND l.key = asked.key
LEFT JOIN unnest(%(subkeys)b::text[]) AS turning (subkey) ON turning.subkey = l.subkey
WHERE l.until_op_id IS NULL
GROUP BY l.lookup, l.key, l.value

-- name: read_rows
-- The rows that look these keys up; of each key no more than so many. While a table is copied again, a row
-- from before that may have gone or become another: it is not moved, but put anew or swept.
SELECT l.lookup, l.key, l.value, l.subkey
FROM unnest(%(lookups)b::text[], %(keys)b::text[]) AS asked (lookup, key)
CROSS JOIN LATERAL (
    SELECT * FROM lookups AS l
    WHERE l.lookup = asked.lookup AND l.key = asked.key
      AND NOT EXISTS (SELECT FROM tables AS t WHERE t.state = 'copying' AND t.may_be_stale
                      AND t.oid = split_part(l.subkey, '/', 1)::bigint AND l.op_id <= t.begun_op_id)
    LIMIT %(limit)s::bigint) AS l

-- name: read_page
-- The same for one key, in the order of the rows.
SELECT value, subkey FROM lookups AS l
WHERE lookup = %(lookup)s::text AND key = %(key)s::text AND subkey > %(after)s::text
  AND NOT EXISTS (SELECT FROM tables AS t WHERE t.state = 'copying' AND t.may_be_stale
                  AND t.oid = split_part(l.subkey, '/', 1)::bigint AND l.op_id <= t.begun_op_id)
ORDER BY subkey LIMIT %(limit)s::bigint

-- name: read_due
-- The rows whose moment has come, the earliest first; but for those that are not moved, as above.
SELECT key, value, subkey FROM lookups AS l
WHERE lookup = '@due' AND key <= %(upto)s::text
  AND NOT EXISTS (SELECT FROM tables AS t WHERE t.state = 'copying' AND t.may_be_stale
                  AND t.oid = split_part(l.subkey, '/', 1)::bigint AND l.op_id <= t.begun_op_id)
ORDER BY key, subkey LIMIT %(limit)s::bigint

-- name: next_due
SELECT min(key) FROM lookups AS l
WHERE lookup = '@due'
  AND NOT EXISTS (SELECT FROM tables AS t WHERE t.state = 'copying' AND t.may_be_stale
                  AND t.oid = split_part(l.subkey, '/', 1)::bigint AND l.op_id <= t.begun_op_id)

-- name: stands_any
SELECT EXISTS (SELECT FROM lookups)

-- name: read_stale
-- Entries of these lookups because of one table's rows, made at or before an op, from one place on.
SELECT lookup, key, value, subkey FROM lookups
WHERE lookup = ANY (%(lookups)b::text[]) AND until_op_id IS NULL AND starts_with(subkey, %(prefix)s::text)
  AND op_id <= %(begun)s::bigint AND (lookup, key, subkey) >= (%(lookup)s::text, %(key)s::text, %(after)s::text)
ORDER BY lookup, key, subkey LIMIT %(limit)s::bigint

-- name: sweep_rows
-- The rows of one table that were entered as they are, at or before an op.
DELETE FROM lookups
WHERE lookup >= '@' AND lookup < 'A' AND starts_with(subkey, %(prefix)s::text) AND op_id <= %(begun)s::bigint

-- name: sweep_entries
-- Everything else that was entered because of one table's rows, at or before an op.
UPDATE lookups SET until_op_id = %(op_id)s::bigint
WHERE until_op_id IS NULL AND starts_with(subkey, %(prefix)s::text) AND op_id <= %(begun)s::bigint
