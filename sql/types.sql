-- What the source's catalogue says of types.

-- name: types
-- These types and all they are made of, once each, whatever they are called and whoever may use them.
WITH RECURSIVE wanted (oid) AS (
    SELECT unnest(%(oids)s::oid[])
    UNION
    SELECT part.oid
    FROM wanted JOIN pg_catalog.pg_type AS t ON t.oid = wanted.oid
    CROSS JOIN LATERAL (
        -- Not by typelem alone: a point has elements, and is no array. A domain over an array prints as one.
        SELECT t.typelem WHERE t.typtype = 'b' AND t.typoutput = 'pg_catalog.array_out'::regproc
        UNION ALL
        SELECT t.typbasetype WHERE t.typtype = 'd'
        UNION ALL
        SELECT a.atttypid FROM pg_catalog.pg_attribute AS a
        WHERE t.typtype = 'c' AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
        UNION ALL
        -- Read as JSON, because multiranges came with 14.
        SELECT r.rngsubtype FROM pg_catalog.pg_range AS r
        WHERE t.typtype IN ('r', 'm') AND t.oid IN (r.rngtypid, (to_jsonb(r) ->> 'rngmultitypid')::oid)
    ) AS part (oid))
SELECT t.oid,
       CASE WHEN t.typtype = 'd' THEN 'domain'
            WHEN t.typtype = 'c' THEN 'composite'
            WHEN t.typtype = 'e' THEN 'enum'
            WHEN t.typtype = 'r' THEN 'range'
            WHEN t.typtype = 'm' THEN 'multirange'
            WHEN element.oid IS NOT NULL THEN 'array'
            ELSE 'base' END,
       coalesce(element.oid, r.rngsubtype, t.typbasetype),
       coalesce(element.typdelim, ',')::text,
       coalesce(part.names, '{}'), coalesce(part.oids, '{}')
FROM wanted JOIN pg_catalog.pg_type AS t ON t.oid = wanted.oid
LEFT JOIN pg_catalog.pg_type AS element
  ON element.oid = t.typelem AND t.typtype = 'b' AND t.typoutput = 'pg_catalog.array_out'::regproc
LEFT JOIN pg_catalog.pg_range AS r
  ON t.typtype IN ('r', 'm') AND t.oid IN (r.rngtypid, (to_jsonb(r) ->> 'rngmultitypid')::oid)
LEFT JOIN LATERAL (
    SELECT array_agg(a.attname::text ORDER BY a.attnum) AS names, array_agg(a.atttypid ORDER BY a.attnum) AS oids
    FROM pg_catalog.pg_attribute AS a
    WHERE t.typtype = 'c' AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped) AS part ON true
ORDER BY t.oid
