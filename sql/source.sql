-- What the replicator asks the source database.

-- name: slot
-- One slot, and how it stands.
SELECT plugin, slot_type, database, active_pid, restart_lsn, confirmed_flush_lsn, wal_status
FROM pg_catalog.pg_replication_slots WHERE slot_name = %(slot)s::text

-- name: drop_slot
SELECT pg_catalog.pg_drop_replication_slot(%(slot)s::name)

-- name: is_held_up
-- Whether the process is in the one write it does not wait for with patience: that of its last words.
SELECT EXISTS (SELECT FROM pg_catalog.pg_stat_activity WHERE pid = %(pid)s::integer AND wait_event = 'ClientWrite')

-- name: sender_timeout_s
SELECT setting::double precision / 1000 FROM pg_catalog.pg_settings WHERE name = 'wal_sender_timeout'

-- name: wal_level
SELECT setting FROM pg_catalog.pg_settings WHERE name = 'wal_level'

-- name: has_publication
SELECT EXISTS (SELECT FROM pg_catalog.pg_publication WHERE pubname = %(publication)s::text)
