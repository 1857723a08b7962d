-- Looking back: which buckets held a row, from when to when.

-- name: table_like
-- The tables of this name whose rows are stored.
SELECT oid, namespace, name FROM tables
WHERE slot = %(slot)s::text AND (name = %(name)s::text OR namespace || '.' || name = %(name)s::text)

-- name: size
-- About how many ops there are.
SELECT greatest(reltuples, 0)::bigint FROM pg_catalog.pg_class WHERE oid = 'ops'::regclass

-- name: ops_of
-- Every op of a row, in all buckets or in some.
SELECT b.name, o.object_type, o.subkey, o.op_id, o.op = 'PUT', coalesce(o.op_id <= c.op_id, false)
FROM ops AS o
JOIN buckets AS b ON b.id = o.bucket
LEFT JOIN compacted AS c ON c.bucket = o.bucket
WHERE o.object_id = %(id)s::text AND starts_with(o.subkey, %(prefix)s::text)
  AND (%(buckets)s::text[] IS NULL
       OR o.bucket IN (SELECT id FROM buckets WHERE name = ANY (%(buckets)s::text[])))
  AND o.op IN ('PUT', 'REMOVE')
ORDER BY b.name, o.object_type, o.subkey, o.op_id

-- name: compacted
-- How many buckets have been compacted, and up to where.
SELECT count(*), max(op_id) FROM compacted

-- name: forgotten
-- What else is not there any more, and up to where.
SELECT what, op_id FROM forgotten

-- name: times
-- When these ops were stored: not before the one time, and by the other.
SELECT asked.op_id,
       greatest((SELECT recorded_at FROM moments WHERE op_id < asked.op_id ORDER BY op_id DESC LIMIT 1),
                (SELECT recorded_at FROM changes WHERE op_id < asked.op_id ORDER BY op_id DESC LIMIT 1)),
       least((SELECT recorded_at FROM moments WHERE op_id >= asked.op_id ORDER BY op_id LIMIT 1),
             (SELECT recorded_at FROM changes WHERE op_id >= asked.op_id ORDER BY op_id LIMIT 1))
FROM unnest(%(op_ids)s::bigint[]) AS asked (op_id)

-- name: entries
-- The entries of a lookup, also those that have ended and are not forgotten; those after one of them.
SELECT key, subkey, ctid::text, value, op_id, until_op_id FROM lookups
WHERE lookup = %(lookup)s::text AND (key, subkey, ctid) > (%(key)s::text, %(subkey)s::text, %(at)s::tid)
ORDER BY key, subkey, ctid LIMIT %(limit)s::integer
