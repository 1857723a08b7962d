-- What the server says of itself. Everything here is read by anybody, locks nothing, and changes nothing.

-- name: server
SELECT current_setting('server_version_num')::integer, current_setting('server_version'), current_user::text,
       current_database()::text, pg_is_in_recovery(), pg_backend_pid(),
       pg_has_role('pg_read_all_stats', 'USAGE'),
       (SELECT count(*) FROM pg_catalog.pg_stat_replication),
       -- Whoever runs it for others has settings of their own.
       (SELECT min(split_part(name, '.', 1)) FROM pg_catalog.pg_settings
        WHERE name ~ '^(rds|cloudsql|azure|alloydb)[.]')

-- name: settings
SELECT name, setting, pending_restart FROM pg_catalog.pg_settings WHERE name = ANY (%(names)s::text[])

-- name: system
-- Which cluster this is, and which database of it.
SELECT system_identifier::text, (SELECT oid::text FROM pg_catalog.pg_database WHERE datname = current_database())
FROM pg_catalog.pg_control_system()

-- name: wal_written
-- How much log was written since the statistics began, and in how many seconds.
SELECT wal_bytes::double precision,
       extract(epoch FROM clock_timestamp() - stats_reset)::double precision
FROM pg_catalog.pg_stat_wal

-- name: position
-- How far the log has come, as a number of bytes.
SELECT pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
                            ELSE pg_current_wal_lsn() END, '0/0')::bigint

-- name: holders
-- Who has kept dead rows from being vacuumed for longer than this.
SELECT pid, application_name, backend_type, state,
       extract(epoch FROM clock_timestamp() - xact_start)::double precision
FROM pg_catalog.pg_stat_activity
WHERE backend_xmin IS NOT NULL AND backend_type = 'client backend'
  AND xact_start < clock_timestamp() - make_interval(secs => %(seconds)s::double precision)
ORDER BY xact_start

-- name: foreign_objects
-- What stands in the storage schema and belongs to somebody whose rights the role does not have, if it exists.
SELECT c.relname, c.relkind::text
FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = %(schema)s::text AND c.relkind IN ('r', 'p', 'v', 'S')
  AND NOT coalesce(pg_has_role((SELECT oid FROM pg_catalog.pg_roles WHERE rolname = %(role)s::text),
                               c.relowner, 'USAGE'), false)
  -- A sequence that belongs to a column goes with its table.
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                  WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid AND d.deptype IN ('a', 'i'))
ORDER BY c.relname
