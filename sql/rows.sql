-- The newest version of each row of a table whose changes do not carry the row as it was.
-- Lists of text go as %b: as %s the driver quotes them value by value, which takes longer than storing them.

-- name: forget_rows
DELETE FROM row_states WHERE slot = %(slot)s::text AND oid = %(oid)s::bigint

-- name: read_states
-- The rows in these places, as they were last stored. Those wanted together come together; of those wanted after
-- so many bytes of others, only the keys. Each is looked up by itself: joined, they would all be looked through
-- by a plan that was made when there were few.
SELECT oid, key, CASE WHEN upto - own < %(most)s::bigint THEN found.row END
FROM (SELECT wanted.oid, wanted.key, s.row,
             sum(octet_length(s.row)) OVER (ORDER BY wanted.at) AS upto,
             sum(octet_length(s.row)) OVER (PARTITION BY wanted.at) AS own
      FROM unnest(%(oids)b::bigint[], %(keys)b::text[], %(ats)b::bigint[]) AS wanted (oid, key, at)
      CROSS JOIN LATERAL (
          SELECT row_states.row FROM row_states
          WHERE slot = %(slot)s::text AND row_states.oid = wanted.oid AND row_states.key = wanted.key
          OFFSET 0) AS s) AS found

-- name: bring_states
-- Rows in places where there are none.
COPY row_states (slot, oid, key, row) FROM STDIN

-- name: write_states
-- Rows in places where there may be some.
INSERT INTO row_states (slot, oid, key, row)
SELECT %(slot)s::text, * FROM unnest(%(oids)b::bigint[], %(keys)b::text[], %(rows)b::text[])
ON CONFLICT (slot, oid, key) DO UPDATE SET row = excluded.row

-- name: drop_states
DELETE FROM row_states s USING unnest(%(oids)b::bigint[], %(keys)b::text[]) AS gone (oid, key)
WHERE s.slot = %(slot)s::text AND s.oid = gone.oid AND s.key = gone.key
