-- What is looked at for `status`, /metrics and the page: a handful of short queries, which read no row of a patient.

-- name: source
-- The server: how far its log is, the limit of slots in MB, where its data is if we may know, how fast its log has
-- grown since its statistics began and over how long; and how late the reader of our slot is, as the server sees it.
SELECT pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END, '0/0')::bigint,
       (SELECT setting::bigint FROM pg_catalog.pg_settings WHERE name = 'max_slot_wal_keep_size'),
       (SELECT setting FROM pg_catalog.pg_settings WHERE name = 'data_directory'),
       (SELECT wal_bytes::float8 FROM pg_catalog.pg_stat_wal),
       (SELECT extract(epoch FROM clock_timestamp() - stats_reset)::float8 FROM pg_catalog.pg_stat_wal),
       (SELECT extract(epoch FROM r.flush_lag)::float8 FROM pg_catalog.pg_replication_slots AS s
        JOIN pg_catalog.pg_stat_replication AS r ON r.pid = s.active_pid WHERE s.slot_name = %(slot)s::text)

-- name: copies
-- How far the copy of each table has come; and of each that is read once more for rules in preparation.
SELECT namespace, name, state, rows_copied, rows_expected, has_holes, NULL::bigint,
       extract(epoch FROM coalesce(begun_at, wanted_at))::float8
FROM tables WHERE slot = %(slot)s::text
UNION ALL
SELECT t.namespace, t.name, c.state, c.rows_copied, c.rows_expected, false, c.rules, extract(epoch FROM c.begun_at)::float8
FROM rule_copies AS c JOIN tables AS t USING (slot, oid)
JOIN rule_sets AS r ON r.slot = c.slot AND r.id = c.rules AND r.state = 'preparing'
WHERE c.slot = %(slot)s::text
ORDER BY 1, 2, 7 NULLS FIRST

-- name: rules
-- The sets that matter now: the one in force, the one in preparation, and what has failed since.
SELECT id, state, why, extract(epoch FROM coalesce(ended_at, active_at, begun_at, stored_at))::float8
FROM rule_sets
WHERE slot = %(slot)s::text AND (state IN ('active', 'preparing') OR state = 'failed' AND id = (
    SELECT max(id) FROM rule_sets WHERE slot = %(slot)s::text))
ORDER BY id

-- name: holds_since
SELECT name, reason, extract(epoch FROM since)::float8 FROM ehr_holds ORDER BY name

-- name: parked_since
-- For how long the lane that has been parked longest has been so.
SELECT extract(epoch FROM min(coalesce(q.updated_at, q.created_at)))::float8
FROM ehr_lanes AS l JOIN ehr_jobs AS q ON q.lane = l.id AND q.seq = l.done_upto + 1
WHERE l.state = 'parked'
