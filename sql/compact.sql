-- Compacting buckets: dead ops are merged, and what no reader asks for any more is forgotten.

-- name: lock
-- One compaction at a time: held by its storage session until that session ends.
SELECT pg_try_advisory_lock(hashtextextended('replicator compact ' || current_schema(), 0))

-- name: horizon
-- The newest op that is at least so old, of those that readers see.
SELECT max(least(c.op_id, k.shown_op_id)) FROM changes AS c
JOIN checkpoints AS k ON k.slot = %(slot)s::text AND k.shown_op_id IS NOT NULL
WHERE c.recorded_at <= now() - make_interval(secs => %(age)s::float8)

-- name: page_of_buckets
-- The next buckets, and how much there is in each: ops since it was compacted, as far as they are worth counting,
-- and all of them as far as they have been counted; and whether its last compaction was interrupted.
SELECT b.id, b.name, (coalesce(was.count, 0) + since.count - coalesce(anchor.count, 0))::bigint,
       (coalesce(was.count, 0) + since.count - coalesce(c.removed, 0))::bigint,
       coalesce(c.at_op_id < c.op_id, false)
FROM buckets AS b
LEFT JOIN compacted AS c ON c.bucket = b.id
LEFT JOIN totals AS anchor ON anchor.bucket = b.id AND anchor.op_id = c.op_id
LEFT JOIN LATERAL (
    SELECT * FROM totals AS t WHERE t.bucket = b.id AND t.op_id <= %(horizon)s::bigint
    ORDER BY op_id DESC LIMIT 1) AS was ON true
CROSS JOIN LATERAL (
    SELECT count(*) FROM (
        SELECT FROM ops AS o
        WHERE o.bucket = b.id AND o.op_id > coalesce(was.op_id, 0) AND o.op_id <= %(horizon)s::bigint
        LIMIT greatest(%(most)s::bigint,
                       (%(part)s::float8 * (coalesce(was.count, 0) - coalesce(c.removed, 0)))::bigint)) AS found) AS since
WHERE b.id > %(after)s::integer AND (%(name)s::text IS NULL OR b.name = %(name)s::text)
ORDER BY b.id LIMIT %(limit)s::integer

-- name: hold
-- The bucket, which is not taken away until the transaction ends; no row if it has been.
SELECT FROM buckets WHERE id = %(bucket)s::integer FOR KEY SHARE

-- name: standing
-- How far one bucket has been compacted, and how far that has come.
SELECT op_id, from_op_id, at_op_id FROM compacted WHERE bucket = %(bucket)s::integer

-- name: left
-- How many ops the bucket has, up to where it has been compacted.
SELECT t.count - c.removed FROM compacted AS c JOIN totals AS t ON t.bucket = c.bucket AND t.op_id = c.op_id
WHERE c.bucket = %(bucket)s::integer

-- name: far_enough
-- The op of the bucket up to which it is compacted next: the last one, unless there are very many.
SELECT max(op_id) FROM (
    SELECT op_id FROM ops
    WHERE bucket = %(bucket)s::integer AND op_id > %(from_op_id)s::bigint AND op_id <= %(horizon)s::bigint
    ORDER BY op_id LIMIT %(most)s::integer) AS next

-- name: sum_up_to
-- What the bucket comes to there, which is counted on from for ever.
INSERT INTO totals (bucket, op_id, checksum, count)
SELECT %(bucket)s::integer, %(op_id)s::bigint, mod(coalesce(was.checksum, 0) + since.checksum, 4294967296),
       coalesce(was.count, 0) + since.count
FROM (SELECT) AS one
LEFT JOIN LATERAL (
    SELECT * FROM totals AS t WHERE t.bucket = %(bucket)s::integer AND t.op_id <= %(op_id)s::bigint
    ORDER BY op_id DESC LIMIT 1) AS was ON true
CROSS JOIN LATERAL (
    SELECT coalesce(sum(o.checksum::bigint & 4294967295), 0) AS checksum, count(*) AS count FROM ops AS o
    WHERE o.bucket = %(bucket)s::integer AND o.op_id > coalesce(was.op_id, 0) AND o.op_id <= %(op_id)s::bigint)
    AS since
ON CONFLICT (bucket, op_id) DO NOTHING

-- name: forget_totals
DELETE FROM totals WHERE bucket = %(bucket)s::integer AND op_id < %(op_id)s::bigint

-- name: begin
-- From here on nobody can be told what the bucket held before this op.
INSERT INTO compacted (bucket, op_id, from_op_id, at_op_id, removed, begun_at)
VALUES (%(bucket)s::integer, %(op_id)s::bigint, 0, 0, 0, now())
ON CONFLICT (bucket) DO UPDATE
SET from_op_id = compacted.op_id, op_id = excluded.op_id, at_op_id = 0, begun_at = now()

-- name: forget_overtaking
TRUNCATE overtaking

-- name: note_overtaking
-- The newest op of each row that the ops since the last time are about.
INSERT INTO overtaking (hash, object_type, object_id, subkey, op_id)
SELECT hashtextextended(subkey, 0), object_type, object_id, subkey, max(op_id) FROM ops
WHERE bucket = %(bucket)s::integer AND op_id > %(from_op_id)s::bigint AND op_id <= %(op_id)s::bigint
  AND op IN ('PUT', 'REMOVE')
GROUP BY object_type, object_id, subkey

-- name: read_large
-- The next ops, and what has overtaken each.
SELECT o.op_id, o.op, o.checksum,
       CASE WHEN o.op IN ('MOVE', 'CLEAR') THEN o.data::bigint ELSE later.op_id END, m.ops
FROM (SELECT * FROM ops
      WHERE bucket = %(bucket)s::integer AND op_id > %(after)s::bigint AND op_id <= %(op_id)s::bigint
      ORDER BY op_id LIMIT %(limit)s::integer) AS o
LEFT JOIN merged AS m ON o.op = 'MOVE' AND m.bucket = o.bucket AND m.op_id = o.op_id
LEFT JOIN LATERAL (
    SELECT l.op_id FROM overtaking AS l
    WHERE o.op IN ('PUT', 'REMOVE') AND l.hash = hashtextextended(o.subkey, 0) AND l.subkey = o.subkey
      AND l.object_id = o.object_id AND l.object_type = o.object_type AND l.op_id > o.op_id
    OFFSET 0) AS later ON true
ORDER BY o.op_id

-- name: read_small
-- The same of a bucket whose ops are few enough to be compared with each other.
SELECT o.op_id, o.op, o.checksum,
       CASE WHEN o.op IN ('MOVE', 'CLEAR') THEN o.data::bigint ELSE
           lead(o.op_id) OVER (PARTITION BY o.op IN ('MOVE', 'CLEAR'), o.object_type, o.object_id, o.subkey
                               ORDER BY o.op_id) END, m.ops
FROM (SELECT * FROM ops
      WHERE bucket = %(bucket)s::integer AND op_id > %(after)s::bigint AND op_id <= %(op_id)s::bigint
      ORDER BY op_id LIMIT %(limit)s::integer) AS o
LEFT JOIN merged AS m ON o.op = 'MOVE' AND m.bucket = o.bucket AND m.op_id = o.op_id
ORDER BY o.op_id

-- name: drop_ops
-- Ops that others stand for, and how many bytes they took.
WITH gone AS (
    DELETE FROM ops WHERE bucket = %(bucket)s::integer AND op_id = ANY (%(op_ids)s::bigint[])
    RETURNING octet_length(data) AS bytes),
unmerged AS (
    DELETE FROM merged WHERE bucket = %(bucket)s::integer AND op_id = ANY (%(op_ids)s::bigint[]))
SELECT count(*), coalesce(sum(bytes), 0)::bigint FROM gone

-- name: place_ops
-- The ops that stand for them, each in the place of the last.
WITH made AS (
    SELECT * FROM unnest(%(op_ids)s::bigint[], %(ops)s::text[], %(checksums)s::integer[], %(targets)s::text[])
        AS made (op_id, op, checksum, target)),
was AS (SELECT coalesce(sum(octet_length(o.data)), 0)::bigint AS bytes FROM ops AS o JOIN made USING (op_id)
        WHERE o.bucket = %(bucket)s::integer),
placed AS (
    UPDATE ops AS o SET op = made.op, checksum = made.checksum, object_type = '', object_id = '', subkey = '',
                        data = made.target
    FROM made WHERE o.bucket = %(bucket)s::integer AND o.op_id = made.op_id RETURNING octet_length(o.data) AS bytes)
SELECT (SELECT count(*) FROM placed), (SELECT bytes FROM was) - coalesce((SELECT sum(bytes) FROM placed), 0)::bigint

-- name: place_merged
INSERT INTO merged (bucket, op_id, ops)
SELECT %(bucket)s::integer, op_id, ops FROM unnest(%(op_ids)s::bigint[], %(merged)s::bytea[]) AS m (op_id, ops)
WHERE ops IS NOT NULL
ON CONFLICT (bucket, op_id) DO UPDATE SET ops = excluded.ops

-- name: advance
UPDATE compacted SET at_op_id = %(at_op_id)s::bigint, removed = removed + %(removed)s::bigint
WHERE bucket = %(bucket)s::integer

-- name: note_moments
-- Of the changes that are about to be forgotten, one a minute is kept.
INSERT INTO moments (op_id, recorded_at)
SELECT DISTINCT ON (date_trunc('minute', c.recorded_at)) c.op_id, c.recorded_at FROM changes AS c
WHERE c.recorded_at >= coalesce((SELECT date_trunc('minute', max(m.recorded_at)) + interval '1 minute'
                                 FROM moments AS m), '-infinity')
ORDER BY date_trunc('minute', c.recorded_at), c.op_id
ON CONFLICT (op_id) DO NOTHING

-- name: forget_changes
-- Those that no reader has been waiting since. Some newer than that, the newest of the others, and so the newest
-- of all are kept.
WITH last AS (
    SELECT max(op_id) AS op_id FROM changes WHERE recorded_at <= now() - make_interval(secs => %(age)s::float8))
DELETE FROM changes AS c USING last
WHERE c.op_id < last.op_id
  AND c.op_id IN (SELECT op_id FROM changes ORDER BY op_id LIMIT %(limit)s::integer)

-- name: blocks_of_lookups
SELECT (pg_relation_size('lookups') / current_setting('block_size')::bigint)::bigint

-- name: forget_entries
-- Entries of these blocks that no longer stood at the horizon.
WITH gone AS (
    DELETE FROM lookups
    WHERE ctid >= format('(%%s,0)', %(first)s::bigint)::tid AND ctid < format('(%%s,0)', %(beyond)s::bigint)::tid
      AND until_op_id <= %(horizon)s::bigint
    RETURNING until_op_id),
noted AS (
    INSERT INTO forgotten (what, op_id) SELECT 'entries', max(until_op_id) FROM gone HAVING count(*) > 0
    ON CONFLICT (what) DO UPDATE SET op_id = greatest(forgotten.op_id, excluded.op_id))
SELECT FROM gone
