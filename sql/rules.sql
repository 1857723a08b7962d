-- What the rules' verbs ask the source. Nothing here locks a table.

-- name: tables
-- The relations that some names stand for, as far as they are there. A name is what it begins with, and whether
-- anything may follow.
SELECT c.oid::bigint, n.nspname, c.relname, c.relkind::text, c.relreplident::text,
       (SELECT coalesce(json_agg(json_build_array(a.attname, a.atttypid::bigint, a.atttypmod, a.attgenerated)
                                 ORDER BY a.attnum), '[]')
        FROM pg_catalog.pg_attribute AS a
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
       (SELECT coalesce(json_agg(a.attname ORDER BY k.place), '[]')
        FROM pg_catalog.pg_index AS i, unnest(i.indkey::smallint[]) WITH ORDINALITY AS k (attnum, place),
             pg_catalog.pg_attribute AS a
        WHERE i.indrelid = c.oid AND i.indisprimary AND a.attrelid = c.oid AND a.attnum = k.attnum)
FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND c.relpersistence <> 't'
  AND n.nspname NOT IN ('pg_catalog', 'information_schema')
  AND EXISTS (
      SELECT FROM unnest(%(namespaces)s::text[], %(any_namespace)s::boolean[],
                         %(names)s::text[], %(any_name)s::boolean[])
           AS wanted (namespace, any_namespace, name, any_name)
      WHERE CASE WHEN wanted.any_namespace THEN starts_with(n.nspname::text, wanted.namespace)
                 ELSE n.nspname = wanted.namespace END
        AND CASE WHEN wanted.any_name THEN starts_with(c.relname::text, wanted.name)
                 ELSE c.relname = wanted.name END)
ORDER BY n.nspname, c.relname

-- name: names
-- Every other name somebody may have meant.
SELECT n.nspname, c.relname
FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f')
  AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\_t%%'
ORDER BY n.nspname, c.relname
LIMIT %(most)s::integer

-- name: now
SELECT extract(epoch FROM transaction_timestamp())::double precision

-- name: sizes
-- How many rows these tables are thought to have, and how many bytes they take, with those of their partitions.
-- As Postgres's planner thinks: as full as when they were last looked at, as large as they are. Where nobody has
-- looked yet, as full as pages of rows are whose values take what their types say; text takes 32 bytes, then, and
-- each row 28 more.
SELECT wanted.oid, coalesce(sum(leaf.pages * leaf.row_density), 0)::bigint,
       coalesce(sum(pg_catalog.pg_table_size(leaf.oid)), 0)::bigint
FROM unnest(%(oids)s::bigint[]) AS wanted (oid)
JOIN pg_catalog.pg_class AS c ON c.oid = wanted.oid
LEFT JOIN LATERAL (
    SELECT t.oid, (pg_catalog.pg_relation_size(t.oid) / current_setting('block_size')::bigint)::float8 AS pages,
           CASE WHEN t.reltuples >= 0 AND t.relpages > 0 THEN t.reltuples::float8 / t.relpages
                ELSE (current_setting('block_size')::float8 - 24) / (
                    SELECT 28 + coalesce(sum(CASE WHEN a.attlen > 0 THEN a.attlen ELSE 32 END), 0)
                    FROM pg_catalog.pg_attribute AS a
                    WHERE a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped) END AS row_density
    FROM pg_catalog.pg_class AS t
    WHERE t.relkind = 'r' AND CASE c.relkind WHEN 'p' THEN t.oid IN (SELECT relid FROM pg_catalog.pg_partition_tree(c.oid))
                                             ELSE t.oid = c.oid END) AS leaf ON true
GROUP BY wanted.oid
