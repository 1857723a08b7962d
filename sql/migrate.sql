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

-- name: applied
SELECT number, name FROM migrations ORDER BY number

-- name: record
INSERT INTO migrations (number, name) VALUES (%(number)s::integer, %(name)s::text)
