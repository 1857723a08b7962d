-- Replication slots: what there is, who stands in the way of a new one, and the end of one.

-- name: slots
-- Every slot of the server. What one version has and another has not is read by way of JSON.
SELECT s.slot_name::text, s.slot_type = 'logical', s.plugin::text, s.database::text, s.temporary, s.active_pid, a.application_name,
       s.wal_status, pg_wal_lsn_diff(here.lsn, coalesce(s.confirmed_flush_lsn, s.restart_lsn))::bigint,
       pg_wal_lsn_diff(here.lsn, s.restart_lsn)::bigint, s.safe_wal_size,
       s.restart_lsn::text, s.confirmed_flush_lsn::text,
       (to_jsonb(s) ->> 'failover')::boolean, to_jsonb(s) ->> 'inactive_since',
       to_jsonb(s) ->> 'invalidation_reason'
FROM pg_catalog.pg_replication_slots AS s
LEFT JOIN pg_catalog.pg_stat_activity AS a ON a.pid = s.active_pid
CROSS JOIN LATERAL (SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
                                ELSE pg_current_wal_lsn() END) AS here (lsn)
ORDER BY s.slot_name

-- name: drop_slot
SELECT pg_catalog.pg_drop_replication_slot(%(slot)s::name)

-- name: writers
-- Transactions that write, anywhere on the server: a new slot waits until those that ran before it have ended.
-- How long they have run, and what state they are in, is shown for others' only to members of pg_read_all_stats.
SELECT pid, application_name, backend_type, state,
       extract(epoch FROM clock_timestamp() - xact_start)::double precision, age(backend_xid)::bigint
FROM pg_catalog.pg_stat_activity
WHERE backend_xid IS NOT NULL AND pid <> ALL (%(but)s::integer[])
ORDER BY age(backend_xid) DESC

-- name: prepared
-- Transactions that wait to be committed by somebody else, and hold a slot up just the same.
SELECT gid, owner::text, database::text, extract(epoch FROM clock_timestamp() - prepared)::double precision
FROM pg_catalog.pg_prepared_xacts ORDER BY prepared
