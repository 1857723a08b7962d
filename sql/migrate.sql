-- Bringing the storage to the schema this release knows.

-- name: lock
-- One migration of one schema at a time; held until the transaction ends.
SELECT pg_advisory_xact_lock(hashtextextended('replicator migrate ' || %(schema)s::text, 0))

-- name: schema_exists
SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = %(schema)s::text)

-- name: is_migrated
-- Whether the schema holds our list of migrations; anything else in it is not ours to touch.
SELECT EXISTS (
    SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = %(schema)s::text AND c.relname = 'migrations' AND c.relkind = 'r')

-- name: occupied
-- A relation that already stands in a schema we have never migrated.
SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %(schema)s::text AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
ORDER BY c.relname LIMIT 1

-- name: who_may_not_read
-- The role that we are, if it may not see the list, and what would let it: without the schema's USAGE, Postgres says
-- that there is none.
SELECT current_user::text, format(
    'GRANT USAGE ON SCHEMA %%1$I TO %%2$I; GRANT SELECT ON ALL TABLES IN SCHEMA %%1$I TO %%2$I;',
    n.nspname, current_user)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %(schema)s::text AND c.relname = 'migrations' AND c.relkind = 'r'
  AND NOT (has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT'))

-- name: applied
SELECT number, name FROM migrations ORDER BY number

-- name: record
INSERT INTO migrations (number, name) VALUES (%(number)s::integer, %(name)s::text)
