-- What the catalogue says of a publication, its tables, and the role that reads them. Nothing here locks a table.

-- name: database
SELECT current_setting('server_version_num')::integer, current_database()::text

-- name: publication
-- One publication. What one version has and another has not is read by way of JSON.
SELECT puballtables, pubinsert, pubupdate, pubdelete, pubtruncate, pubviaroot,
       to_jsonb(p) ->> 'pubgencols' = 's'
FROM pg_catalog.pg_publication AS p WHERE pubname = %(publication)s::text

-- name: publication_oid
SELECT oid::bigint FROM pg_catalog.pg_publication WHERE pubname = %(publication)s::text

-- name: members
-- The tables a publication names, and the schemas (from 15 on; known by their dependencies, so that 14 can read this).
SELECT n.nspname, c.relname
FROM pg_catalog.pg_publication AS p
JOIN pg_catalog.pg_publication_rel AS pr ON pr.prpubid = p.oid
JOIN pg_catalog.pg_class AS c ON c.oid = pr.prrelid
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE p.pubname = %(publication)s::text
UNION ALL
SELECT n.nspname, NULL
FROM pg_catalog.pg_publication AS p
JOIN pg_catalog.pg_depend AS of_publication
  ON of_publication.refclassid = 'pg_catalog.pg_publication'::regclass AND of_publication.refobjid = p.oid
 AND of_publication.classid = to_regclass('pg_catalog.pg_publication_namespace')
JOIN pg_catalog.pg_depend AS of_schema
  ON of_schema.classid = of_publication.classid AND of_schema.objid = of_publication.objid
 AND of_schema.refclassid = 'pg_catalog.pg_namespace'::regclass
JOIN pg_catalog.pg_namespace AS n ON n.oid = of_schema.refobjid
WHERE p.pubname = %(publication)s::text
ORDER BY 1, 2

-- name: without_identity
-- Tables of a publication whose updates Postgres would refuse as soon as it published updates.
SELECT n.nspname, c.relname
FROM pg_catalog.pg_publication AS p
CROSS JOIN pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE p.pubname = %(publication)s::text
  AND c.relkind = 'r' AND c.relpersistence = 'p' AND n.nspname NOT IN ('pg_catalog', 'information_schema')
  AND (c.relreplident = 'n' OR c.relreplident = 'd' AND NOT EXISTS (
          SELECT FROM pg_catalog.pg_index AS i WHERE i.indrelid = c.oid AND i.indisprimary AND i.indimmediate))
  AND (p.puballtables
       OR EXISTS (SELECT FROM pg_catalog.pg_publication_rel AS pr WHERE pr.prpubid = p.oid AND pr.prrelid = c.oid)
       OR EXISTS (
          SELECT FROM pg_catalog.pg_depend AS of_publication
          JOIN pg_catalog.pg_depend AS of_schema
            ON of_schema.classid = of_publication.classid AND of_schema.objid = of_publication.objid
          WHERE of_publication.classid = to_regclass('pg_catalog.pg_publication_namespace')
            AND of_publication.refclassid = 'pg_catalog.pg_publication'::regclass
            AND of_publication.refobjid = p.oid
            AND of_schema.refclassid = 'pg_catalog.pg_namespace'::regclass
            AND of_schema.refobjid = c.relnamespace))
ORDER BY 1, 2
LIMIT 100

-- name: tables
-- The relations of these names that are there, with what replication depends on.
WITH wanted AS (
    SELECT c.*, n.nspname
    FROM unnest(%(namespaces)s::text[], %(names)s::text[]) AS w (namespace, name)
    JOIN pg_catalog.pg_namespace AS n ON n.nspname = w.namespace
    JOIN pg_catalog.pg_class AS c
      ON c.relnamespace = n.oid AND c.relname = w.name AND c.relkind IN ('r', 'p', 'v', 'm', 'f'))
SELECT c.oid, c.nspname, c.relname, c.relkind::text, c.relpersistence::text, c.relreplident::text,
       c.relispartition,
       (SELECT coalesce(json_agg(json_build_array(a.attname, a.attgenerated) ORDER BY a.attnum), '[]')
        FROM pg_catalog.pg_attribute AS a
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
       (SELECT coalesce(json_agg(a.attname ORDER BY k.place), '[]')
        FROM pg_catalog.pg_index AS i, unnest(i.indkey::smallint[]) WITH ORDINALITY AS k (attnum, place),
             pg_catalog.pg_attribute AS a
        WHERE i.indrelid = c.oid AND i.indisprimary AND a.attrelid = c.oid AND a.attnum = k.attnum),
       CASE WHEN c.reltuples > 0
            THEN ((c.relpages::bigint + coalesce(toast.relpages, 0))
                  * current_setting('block_size')::integer / c.reltuples)::bigint END,
       c.relrowsecurity AND NOT coalesce(
           r.rolsuper OR r.rolbypassrls
           OR pg_has_role(r.oid, c.relowner, 'USAGE') AND NOT c.relforcerowsecurity, false),
       coalesce(has_table_privilege(r.oid, c.oid, 'SELECT'), false),
       (SELECT late.conname FROM pg_catalog.pg_constraint AS late
        WHERE late.conrelid = c.oid AND late.contype = 'p' AND late.condeferrable)
FROM wanted AS c
LEFT JOIN pg_catalog.pg_class AS toast ON toast.oid = c.reltoastrelid
LEFT JOIN pg_catalog.pg_roles AS r ON r.rolname = %(role)s::text
ORDER BY c.nspname, c.relname

-- name: leaves
-- The partitions that hold the rows of these tables.
WITH RECURSIVE below AS (
    SELECT root, root AS oid FROM unnest(%(oids)s::oid[]) AS roots (root)
    UNION
    SELECT below.root, i.inhrelid
    FROM below JOIN pg_catalog.pg_inherits AS i ON i.inhparent = below.oid
    JOIN pg_catalog.pg_class AS child ON child.oid = i.inhrelid AND child.relispartition)
SELECT below.root, n.nspname, c.relname, c.relreplident::text
FROM below
JOIN pg_catalog.pg_class AS c ON c.oid = below.oid AND c.relkind = 'r'
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE below.oid <> below.root
ORDER BY 2, 3

-- name: memberships
-- Every publication these tables are in, and how: by name, by an ancestor's name, by schema, or with all tables.
WITH RECURSIVE above AS (
    SELECT relation, relation AS oid FROM unnest(%(oids)s::oid[]) AS t (relation)
    UNION
    SELECT above.relation, i.inhparent
    FROM above JOIN pg_catalog.pg_class AS c ON c.oid = above.oid AND c.relispartition
    JOIN pg_catalog.pg_inherits AS i ON i.inhrelid = above.oid),
schemas AS (
    SELECT of_publication.refobjid AS publication, of_schema.refobjid AS namespace
    FROM pg_catalog.pg_depend AS of_publication
    JOIN pg_catalog.pg_depend AS of_schema
      ON of_schema.classid = of_publication.classid AND of_schema.objid = of_publication.objid
    WHERE of_publication.classid = to_regclass('pg_catalog.pg_publication_namespace')
      AND of_publication.refclassid = 'pg_catalog.pg_publication'::regclass
      AND of_schema.refclassid = 'pg_catalog.pg_namespace'::regclass)
SELECT above.relation, p.pubname, bool_or(above.oid = above.relation), bool_or(above.oid <> above.relation),
       coalesce(bool_or((to_jsonb(pr) ->> 'prattrs') IS NOT NULL), false),
       coalesce(bool_or((to_jsonb(pr) ->> 'prqual') IS NOT NULL), false),
       coalesce(to_jsonb(p) ->> 'pubgencols' = 's', false),
       p.pubupdate OR p.pubdelete
FROM above
JOIN pg_catalog.pg_class AS c ON c.oid = above.oid
CROSS JOIN pg_catalog.pg_publication AS p
LEFT JOIN pg_catalog.pg_publication_rel AS pr ON pr.prpubid = p.oid AND pr.prrelid = above.oid
WHERE pr.oid IS NOT NULL OR p.puballtables
   OR EXISTS (SELECT FROM schemas AS s WHERE s.publication = p.oid AND s.namespace = c.relnamespace)
GROUP BY above.relation, p.oid, p.pubname, p.pubupdate, p.pubdelete, to_jsonb(p) ->> 'pubgencols'
ORDER BY p.pubname

-- name: followable
-- The tables of which Postgres tells; a partition is told of by its table.
SELECT n.nspname, c.relname
FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence <> 't'
  AND n.nspname NOT IN ('pg_catalog', 'information_schema', %(storage_schema)s) AND n.nspname NOT LIKE 'pg\_t%%'
ORDER BY n.nspname, c.relname

-- name: relations
-- Every name somebody may have meant.
SELECT n.nspname, c.relname
FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f')
  AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\_t%%'
ORDER BY n.nspname, c.relname
LIMIT 20000

-- name: role
-- A role and what it may do here; one row also for a role that does not exist yet.
SELECT r.rolname IS NOT NULL, coalesce(r.rolsuper, false),
       coalesce(r.rolsuper OR r.rolreplication OR pg_has_role(r.oid, managed.oid, 'MEMBER'), false),
       coalesce(has_database_privilege(r.oid, current_database(), 'CONNECT'), false),
       coalesce(has_database_privilege(r.oid, current_database(), 'CREATE'), false),
       managed.rolname
FROM (VALUES (%(role)s::text)) AS wanted (name)
LEFT JOIN pg_catalog.pg_roles AS r ON r.rolname = wanted.name
-- Where a provider keeps superuser to itself, membership in this role stands for REPLICATION.
LEFT JOIN pg_catalog.pg_roles AS managed ON managed.rolname = 'rds_replication'

-- name: schemas
-- Which of these schemas exist, and what the role may do in each.
SELECT n.nspname, coalesce(has_schema_privilege(r.oid, n.oid, 'USAGE'), false),
       coalesce(has_schema_privilege(r.oid, n.oid, 'CREATE'), false)
FROM pg_catalog.pg_namespace AS n
LEFT JOIN pg_catalog.pg_roles AS r ON r.rolname = %(role)s::text
WHERE n.nspname = ANY (%(schemas)s::text[])

-- name: silent_functions
-- What we use to leave a mark in the log, where the role has lost the right that everybody has by default.
SELECT p.oid::regprocedure::text
FROM pg_catalog.pg_proc AS p JOIN pg_catalog.pg_roles AS r ON r.rolname = %(role)s::text
WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.proname = 'pg_logical_emit_message'
  AND 'text'::regtype = (p.proargtypes::oid[])[2] AND NOT has_function_privilege(r.oid, p.oid, 'EXECUTE')
ORDER BY 1

-- name: lockers
-- Who uses a table at this moment.
SELECT a.pid, a.application_name, a.backend_type, a.state,
       extract(epoch FROM clock_timestamp() - a.xact_start)::double precision
FROM pg_catalog.pg_locks AS l JOIN pg_catalog.pg_stat_activity AS a ON a.pid = l.pid
WHERE l.locktype = 'relation' AND l.granted AND l.pid <> pg_backend_pid()
  AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
  AND l.relation = to_regclass(%(table)s::text)
ORDER BY a.xact_start
