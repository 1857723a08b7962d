-- Copying tables while their changes stream past.

-- name: tables
-- What the source's catalogue says of these tables, as far as they exist and are published. What one version
-- has and another has not is read by way of JSON, or of pg_depend, or is a NULL of that name further out.
-- Nothing but the catalogue is read: pg_publication_tables and pg_partition_tree lock every table they come by,
-- so they wait for whoever truncates one, and in a transaction that has read another, for each other.
WITH schemas (entry, namespace) AS (
    SELECT of_publication.objid, of_schema.refobjid
    FROM pg_catalog.pg_depend of_publication
    JOIN pg_catalog.pg_depend of_schema
      ON of_schema.classid = of_publication.classid AND of_schema.objid = of_publication.objid
    WHERE of_publication.classid = to_regclass('pg_catalog.pg_publication_namespace')
      AND of_publication.refclassid = 'pg_catalog.pg_publication'::regclass
      AND of_publication.refobjid = (SELECT oid FROM pg_catalog.pg_publication WHERE pubname = %(publication)s::text)
      AND of_schema.refclassid = 'pg_catalog.pg_namespace'::regclass),
-- Found first: there may be thousands of tables, and one of them may be asked about again and again.
named AS MATERIALIZED (
    SELECT c.oid, n.nspname, c.relname, c.relnamespace, c.relkind, c.relreplident
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p') AND EXISTS (
        SELECT FROM unnest(%(namespaces)s::text[], %(names)s::text[]) AS wanted (namespace, name)
        WHERE n.nspname LIKE wanted.namespace AND c.relname LIKE wanted.name))
SELECT c.oid::bigint, c.nspname, c.relname, c.relkind::text, c.relreplident::text,
       h.rows,
       coalesce('table ' || entry.oid,
                (SELECT 'table ' || min(r.oid) FROM pg_catalog.pg_publication_rel r
                 WHERE r.prpubid = p.oid AND r.prrelid IN (SELECT pg_catalog.pg_partition_ancestors(c.oid))
                 HAVING count(*) > 0),
                (SELECT 'schema ' || schemas.entry FROM schemas WHERE schemas.namespace = c.relnamespace),
                'publication ' || p.oid) AS membership,
       pg_catalog.pg_get_expr(entry.row_filter, c.oid),
       k.names, sent.columns,
       jsonb_build_object(
           'publication', p.oid::bigint, 'altered', p.xmin::text, 'operations', p.pubinsert AND p.pubupdate AND p.pubdelete AND p.pubtruncate,
           'kind', c.relkind::text, 'key', k.names, 'columns', sent.places, 'written', sent.written, 'labels', e.labels,
           'heaps', h.heaps)
FROM pg_catalog.pg_publication p
CROSS JOIN named c
-- Its own entry, with the rows and columns that it keeps to: Postgres 14 keeps to none, and a schema's to none.
LEFT JOIN LATERAL (
    SELECT r.oid,
           (SELECT prqual FROM pg_catalog.pg_publication_rel own
            WHERE own.oid = r.oid AND c.relnamespace NOT IN (SELECT namespace FROM schemas)),
           (SELECT prattrs::int2[] FROM pg_catalog.pg_publication_rel own
            WHERE own.oid = r.oid AND c.relnamespace NOT IN (SELECT namespace FROM schemas))
    FROM pg_catalog.pg_publication_rel r
    CROSS JOIN (SELECT NULL::pg_node_tree, NULL::int2vector) none (prqual, prattrs)
    WHERE r.prpubid = p.oid AND r.prrelid = c.oid) entry (oid, row_filter, columns) ON true
-- Whether the publication means the table itself, and whether it means one that this is a partition of.
CROSS JOIN LATERAL (
    SELECT bool_or(one.oid = c.oid), bool_or(one.oid <> c.oid)
    FROM pg_catalog.pg_class one
    WHERE (one.oid = c.oid OR one.oid IN (SELECT pg_catalog.pg_partition_ancestors(c.oid)))
      AND (p.puballtables OR one.relnamespace IN (SELECT namespace FROM schemas)
           OR EXISTS (SELECT FROM pg_catalog.pg_publication_rel r WHERE r.prpubid = p.oid AND r.prrelid = one.oid))
    ) meant (itself, above)
CROSS JOIN LATERAL (
    SELECT ARRAY(SELECT a.attname::text
                 FROM pg_catalog.pg_index i CROSS JOIN unnest(i.indkey::int2[]) WITH ORDINALITY k (attnum, place)
                 JOIN pg_catalog.pg_attribute a ON a.attnum = k.attnum AND a.attrelid = i.indrelid
                 -- Under one that is checked later, two rows may have one key for a moment.
                 WHERE i.indrelid = c.oid AND k.place <= i.indnkeyatts AND i.indimmediate
                   AND CASE c.relreplident WHEN 'i' THEN i.indisreplident ELSE i.indisprimary END
                 ORDER BY k.place)) k (names)
-- Its columns as the log has them: which may hold something in rows from before they were added, where they
-- stand (one that is dropped leaves its place empty for ever), and what last changed any of them.
CROSS JOIN LATERAL (
    SELECT jsonb_agg(jsonb_build_array(a.attname, a.atttypid::bigint, a.atttypmod,
                                       pg_catalog.format_type(a.atttypid, a.atttypmod),
                                       a.atthasdef OR a.atthasmissing OR a.attnotnull OR a.attidentity <> '')
                     ORDER BY a.attnum),
           jsonb_agg(a.attnum ORDER BY a.attnum),
           md5(string_agg(a.attnum || ' ' || a.xmin, ',' ORDER BY a.attnum))
    FROM pg_catalog.pg_attribute a
    WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
      AND coalesce(a.attnum = ANY (entry.columns),
                   a.attgenerated = '' OR (a.attgenerated = 's' AND to_jsonb(p) ->> 'pubgencols' = 's'), false)
    ) sent (columns, places, written)
-- How the values of enums are printed that its columns are made of, at whatever depth.
CROSS JOIN LATERAL (
    WITH RECURSIVE made_of (oid) AS (
        SELECT a.atttypid FROM pg_catalog.pg_attribute a
        WHERE a.attrelid = c.oid AND a.attnum = ANY (ARRAY(SELECT jsonb_array_elements_text(sent.places)::int2))
        UNION
        SELECT part.oid FROM made_of JOIN pg_catalog.pg_type y ON y.oid = made_of.oid
        CROSS JOIN LATERAL (
            SELECT y.typelem UNION ALL SELECT y.typbasetype
            UNION ALL SELECT r.rngsubtype FROM pg_catalog.pg_range r WHERE r.rngtypid = y.oid
            UNION ALL SELECT a.atttypid FROM pg_catalog.pg_attribute a
                      WHERE a.attrelid = y.typrelid AND a.attnum > 0 AND NOT a.attisdropped) part (oid)
        WHERE part.oid <> 0)
    SELECT coalesce(jsonb_object_agg(one.oid::text, one.enumlabel), '{}')
    FROM pg_catalog.pg_enum one WHERE one.enumtypid IN (SELECT oid FROM made_of)
    ) e (labels)
-- Where its rows are: in itself, or in its partitions. And about how many: as it was analysed, or, where nobody has
-- done that, as the server has counted them. To measure the table would wait for whoever has locked it.
CROSS JOIN LATERAL (
    WITH RECURSIVE below (oid) AS (
        SELECT c.oid
        UNION ALL
        SELECT i.inhrelid FROM below JOIN pg_catalog.pg_inherits i ON i.inhparent = below.oid
        WHERE c.relkind = 'p' AND NOT i.inhdetachpending)
    SELECT coalesce(jsonb_object_agg(leaf.oid::text, jsonb_build_array(
               leaf.relfilenode::bigint, leaf.relreplident::text, quote_ident(s.nspname) || '.' || quote_ident(leaf.relname))),
               '{}'),
           coalesce(sum(CASE WHEN leaf.reltuples > 0 THEN leaf.reltuples
                         ELSE pg_catalog.pg_stat_get_live_tuples(leaf.oid) END), 0)::bigint
    FROM pg_catalog.pg_class leaf JOIN pg_catalog.pg_namespace s ON s.oid = leaf.relnamespace
    WHERE leaf.relkind = 'r' AND leaf.oid IN (SELECT oid FROM below)
    ) h (heaps, rows)
WHERE p.pubname = %(publication)s::text AND pg_catalog.pg_relation_is_publishable(c.oid)
  AND CASE WHEN p.pubviaroot THEN meant.itself AND NOT meant.above ELSE c.relkind = 'r' AND (meant.itself OR meant.above) END
ORDER BY 2, 3

-- name: may_read
-- Whether a table can be read by who asks: first its schema, then itself.
SELECT pg_catalog.has_schema_privilege(relnamespace, 'USAGE'), pg_catalog.has_table_privilege(oid, 'SELECT')
FROM pg_catalog.pg_class WHERE oid = %(oid)s::oid

-- name: tables_like
-- The tables that a name of the rules means; partitions go by the name of their table, and tables of storage only by
-- their own.
SELECT n.nspname, c.relname FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname LIKE %(namespace)s::text AND c.relname LIKE %(name)s::text AND c.relkind IN ('r', 'p')
  AND (NOT c.relispartition AND n.nspname <> %(storage_schema)s::text OR %(is_exact)s::boolean)
ORDER BY 1, 2

-- name: write_mark
-- A transactional logical message: it stands in the log among the commits, and reaches us in its place.
SELECT pg_catalog.pg_logical_emit_message(true, 'replicator', %(content)s::text)

-- name: visibility
SELECT pg_catalog.pg_current_snapshot()::text

-- name: known
-- Every table of a slot's stream.
SELECT oid, namespace, name, membership, columns, form, for_rules, state, copied_to, rows_copied, rows_expected,
       has_holes
FROM tables WHERE slot = %(slot)s::text ORDER BY namespace, name

-- name: is_asked
-- Whether a table waits to be copied.
SELECT EXISTS (SELECT FROM tables WHERE slot = %(slot)s::text AND state = 'wanted')

-- name: want
-- A table to be copied, or copied again.
INSERT INTO tables (slot, oid, namespace, name, membership, columns, form, for_rules, state, rows_expected, wanted_at)
VALUES (%(slot)s::text, %(oid)s::bigint, %(namespace)s::text, %(name)s::text, %(membership)s::text,
        %(columns)s::text, %(form)s::text, %(for_rules)s::bigint, 'wanted', %(rows)s::bigint, now())
ON CONFLICT (slot, oid) DO UPDATE
SET namespace = excluded.namespace, name = excluded.name, membership = excluded.membership,
    columns = excluded.columns, form = excluded.form, for_rules = excluded.for_rules, state = 'wanted',
    may_be_stale = tables.may_be_stale OR tables.state <> 'wanted',
    rows_expected = excluded.rows_expected, wanted_at = now(),
    begun_op_id = NULL, copied_to = NULL, rows_copied = 0, begun_at = NULL, copied_at = NULL, has_holes = false

-- name: accept_columns
-- The table was only given columns that are empty in every row there was.
UPDATE tables SET columns = %(columns)s::text WHERE slot = %(slot)s::text AND oid = %(oid)s::bigint

-- name: accept_form
-- The catalogue says something else of it than before, which its rows have nothing to do with.
UPDATE tables SET form = %(form)s::text WHERE slot = %(slot)s::text AND oid = %(oid)s::bigint

-- name: begin_copy
-- Everything put before this op is older than the copy.
UPDATE tables
SET may_be_stale = may_be_stale OR EXISTS (
        SELECT FROM row_states AS s WHERE s.slot = tables.slot AND s.oid = tables.oid),
    state = 'copying', begun_op_id = coalesce(begun_op_id, %(op_id)s::bigint), begun_at = coalesce(begun_at, now())
WHERE slot = %(slot)s::text AND oid = %(oid)s::bigint

-- name: advance_copy
UPDATE tables
SET copied_to = %(copied_to)s::text[], rows_copied = rows_copied + %(rows)s::bigint
WHERE slot = %(slot)s::text AND oid = %(oid)s::bigint AND state = 'copying'

-- name: mark_holes
-- Rows of this table arrived without all their values; a copy that is interrupted starts over.
UPDATE tables SET has_holes = %(has_holes)s::boolean WHERE slot = %(slot)s::text AND oid = %(oid)s::bigint

-- name: finish_copy
UPDATE tables SET state = 'copied', copied_at = now(), rows_expected = rows_copied, has_holes = false
WHERE slot = %(slot)s::text AND oid = %(oid)s::bigint AND state = 'copying'
RETURNING begun_op_id, may_be_stale

-- name: want_again
-- Copy this table again from its first row.
UPDATE tables
SET may_be_stale = may_be_stale OR state <> 'wanted', state = 'wanted', wanted_at = now(), begun_op_id = NULL,
    copied_to = NULL, rows_copied = 0, begun_at = NULL, copied_at = NULL, has_holes = false,
    columns = coalesce(%(columns)s::text, columns)
WHERE slot = %(slot)s::text AND oid = %(oid)s::bigint

-- name: forget_table
DELETE FROM tables WHERE slot = %(slot)s::text AND oid = %(oid)s::bigint
