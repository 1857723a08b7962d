-- What storage holds, asked by whoever compares it with the source.

-- name: shown
-- What readers see, how far it has come in the log, the time at which rows are where they are, and by which rules.
SELECT shown_op_id, shown_lsn, clock, shown_rules
FROM checkpoints WHERE slot = %(slot)s::text

-- name: uncopied
-- A table that is being copied, or waits for it: until that is done what is shown stands still.
SELECT namespace, name FROM tables WHERE slot = %(slot)s::text AND state <> 'copied' LIMIT 1

-- name: some_buckets
-- So many buckets that hold something, by chance.
SELECT b.name FROM buckets AS b WHERE EXISTS (SELECT FROM ops AS o WHERE o.bucket = b.id)
ORDER BY random() LIMIT %(count)s::integer

-- name: next_buckets
SELECT name FROM buckets WHERE name > %(after)s::text ORDER BY name LIMIT %(limit)s::integer

-- name: wrong_sums
-- Sums of a bucket that are not what its ops come to, each counted on from the one before; and in what.
SELECT t.op_id,
       mod(coalesce(t.checksum_before, 0) + coalesce(since.checksum, 0), 4294967296) IS DISTINCT FROM t.checksum,
       coalesce(t.count_before, CASE WHEN t.op_id >= c.op_id THEN c.removed ELSE 0 END) + since.count <> t.count
FROM buckets AS b
LEFT JOIN compacted AS c ON c.bucket = b.id
CROSS JOIN LATERAL (
    SELECT *, lag(op_id) OVER w AS before, lag(checksum) OVER w AS checksum_before, lag(count) OVER w AS count_before
    FROM totals WHERE totals.bucket = b.id WINDOW w AS (ORDER BY op_id)) AS t
CROSS JOIN LATERAL (
    SELECT sum(o.checksum::bigint & 4294967295) AS checksum, count(*) AS count FROM ops AS o
    WHERE o.bucket = b.id AND o.op_id > coalesce(t.before, 0) AND o.op_id <= t.op_id) AS since
WHERE b.name = %(bucket)s::text
  AND (mod(coalesce(t.checksum_before, 0) + coalesce(since.checksum, 0), 4294967296) IS DISTINCT FROM t.checksum
       OR coalesce(t.count_before, CASE WHEN t.op_id >= c.op_id THEN c.removed ELSE 0 END) + since.count <> t.count)
ORDER BY t.op_id LIMIT 5

-- name: nameless
-- Numbers that ops go by, and no bucket does. The name is stored before the first op, and removed after the last.
SELECT DISTINCT o.bucket FROM ops AS o WHERE NOT EXISTS (SELECT FROM buckets AS b WHERE b.id = o.bucket)
ORDER BY o.bucket LIMIT %(limit)s::integer

-- name: newest_ops
-- The newest op up to a checkpoint of each of these rows, in each of these buckets.
SELECT DISTINCT ON (b.name, o.object_type, o.object_id, o.subkey)
       b.name, o.object_type, o.object_id, o.subkey, o.op_id, o.data
FROM buckets AS b JOIN ops AS o ON o.bucket = b.id
WHERE b.name = ANY (%(buckets)s::text[]) AND o.subkey = ANY (%(subkeys)s::text[])
  AND o.op IN ('PUT', 'REMOVE') AND o.op_id <= %(upto)s::bigint
ORDER BY b.name, o.object_type, o.object_id, o.subkey, o.op_id DESC

-- name: next_entries
-- Entries of lookups that stand, in the order of the index, and where each is stored; those after one of them.
SELECT lookup, key, subkey, ctid::text, value FROM lookups
WHERE until_op_id IS NULL
  AND (lookup, key, subkey, ctid) > (%(lookup)s::text, %(key)s::text, %(subkey)s::text, %(at)s::tid)
ORDER BY lookup, key, subkey, ctid LIMIT %(limit)s::integer

-- name: entries_of
-- What stands, or stood, under these keys because of these rows; and the newest op that has to do with it.
SELECT l.lookup, l.key, l.value, l.subkey, l.until_op_id IS NULL, greatest(l.op_id, l.until_op_id)
FROM (SELECT DISTINCT * FROM unnest(%(lookups)s::text[], %(keys)s::text[], %(subkeys)s::text[])
          AS asked (lookup, key, subkey)) AS asked
JOIN lookups AS l ON l.lookup = asked.lookup AND l.key = asked.key AND l.subkey = asked.subkey

-- name: kept_tables
-- Tables that have been copied, whose rows may be kept.
SELECT oid, namespace, name FROM tables WHERE slot = %(slot)s::text AND state = 'copied'

-- name: followed
SELECT oid FROM tables WHERE slot = %(slot)s::text

-- name: next_kept
-- Kept rows of some tables, in the order of the index; those after one of them.
SELECT oid, key, row FROM row_states
WHERE slot = %(slot)s::text AND oid = ANY (%(oids)s::bigint[])
  AND (oid, key) > (%(oid)s::bigint, %(key)s::text)
ORDER BY oid, key LIMIT %(limit)s::integer

-- name: kept_rows
-- What is kept in these places, and since which copy of its table; and what tells whether it is still the same.
SELECT asked.oid, asked.key, t.copied_at, s.row, s.xmin::text
FROM unnest(%(oids)s::bigint[], %(keys)s::text[]) AS asked (oid, key)
JOIN tables AS t ON t.slot = %(slot)s::text AND t.oid = asked.oid AND t.state = 'copied'
LEFT JOIN row_states AS s ON s.slot = t.slot AND s.oid = asked.oid AND s.key = asked.key

-- name: visibility
SELECT pg_catalog.pg_current_snapshot()::text

-- name: log_position
SELECT pg_catalog.pg_current_wal_insert_lsn()

-- name: nudge
-- Something that passes through the log, where nothing else does.
SELECT pg_catalog.pg_logical_emit_message(true, 'replicator verify', '')
