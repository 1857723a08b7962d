-- How far replication has come, for who asks over HTTP. Nothing here reads a row's value.

-- name: stands
-- Of storage: where the stream stands, and how many clients wait for a write of theirs.
SELECT c.op_id, c.lsn::text, c.shown_op_id, c.shown_lsn::text,
       extract(epoch FROM c.recorded_at)::double precision,
       (SELECT count(*) FROM write_checkpoints AS w WHERE c.shown_lsn IS NULL OR w.lsn > c.shown_lsn)
FROM checkpoints AS c WHERE c.slot = %(slot)s::text

-- name: writes
-- Of storage: the newest write of each client of one user, and whether readers see it.
SELECT w.client_id, w.id, coalesce(w.lsn <= c.shown_lsn, false),
       extract(epoch FROM w.requested_at)::double precision
FROM write_checkpoints AS w CROSS JOIN checkpoints AS c
WHERE w.user_id = %(user_id)s::text AND c.slot = %(slot)s::text
ORDER BY w.requested_at DESC LIMIT 100

-- name: tables
-- Of storage: what is known of each table, and what its last full copy took.
SELECT oid, namespace, name, state, rows_copied, rows_expected, has_holes,
       extract(epoch FROM copied_at)::double precision
FROM tables WHERE slot = %(slot)s::text ORDER BY namespace, name

-- name: history_bytes
-- Of storage: what reading all of the history would mean.
SELECT pg_catalog.pg_relation_size('ops')

-- name: rows_held
-- Of storage, where the history is short: how many rows of each source table some bucket holds.
SELECT split_part(subkey, '/', 1)::bigint, count(DISTINCT subkey)
FROM (SELECT DISTINCT ON (bucket, object_type, object_id, subkey) subkey, op FROM ops
      WHERE op IN ('PUT', 'REMOVE') AND op_id <= %(upto)s::bigint
      ORDER BY bucket, object_type, object_id, subkey, op_id DESC) AS newest
WHERE op = 'PUT' GROUP BY 1

-- name: held
-- Of storage: how many rows of each name these buckets hold, each bucket counted by itself.
SELECT object_type, count(*)
FROM (SELECT DISTINCT ON (o.bucket, o.object_type, o.object_id, o.subkey) o.object_type, o.op
      FROM buckets AS b JOIN ops AS o ON o.bucket = b.id
      WHERE b.name = ANY (%(buckets)s::text[]) AND o.op IN ('PUT', 'REMOVE') AND o.op_id <= %(upto)s::bigint
      ORDER BY o.bucket, o.object_type, o.object_id, o.subkey, o.op_id DESC) AS newest
WHERE op = 'PUT' GROUP BY object_type

-- name: source_stands
-- Of the source: whether the slot is read, what is not shown yet, and for how long, as far as the source sees it.
SELECT s.active, pg_catalog.pg_wal_lsn_diff(here.lsn, %(shown)s::pg_lsn)::bigint,
       extract(epoch FROM r.flush_lag)::double precision
FROM (SELECT CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn()
                  ELSE pg_catalog.pg_current_wal_lsn() END) AS here (lsn)
LEFT JOIN pg_catalog.pg_replication_slots AS s ON s.slot_name = %(slot)s::text
LEFT JOIN pg_catalog.pg_stat_replication AS r ON r.pid = s.active_pid

-- name: source_sizes
-- Of the source: its own estimate of how many rows tables have, if it has one, and how large they are.
SELECT c.oid::bigint, CASE WHEN c.reltuples >= 0 AND (c.reltuples > 0 OR c.relpages > 0) THEN c.reltuples::bigint END,
       pg_catalog.pg_relation_size(c.oid), c.relkind::text
FROM pg_catalog.pg_class AS c WHERE c.oid = ANY (%(oids)s::oid[])

-- name: columns
-- Of the source: every table and its columns, but for the system's and our own.
SELECT n.nspname::text, c.relname::text, a.attname::text, a.atttypid::bigint,
       pg_catalog.format_type(a.atttypid, a.atttypmod), t.typname::text
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid
WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence <> 't'
  AND n.nspname NOT IN ('pg_catalog', 'information_schema', %(ours)s::text) AND n.nspname NOT LIKE 'pg\_t%%'
ORDER BY n.nspname, c.relname, a.attnum
LIMIT %(most)s::integer
