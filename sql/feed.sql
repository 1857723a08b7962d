-- What making jobs asks of the source, and of storage.

-- name: columns
-- Of the source: the columns of these tables, and the oids of their types.
SELECT n.nspname::text, c.relname::text, a.attname::text, a.atttypid::bigint
FROM unnest(%(schemas)s::text[], %(tables)s::text[]) AS wanted (schema, name)
JOIN pg_catalog.pg_namespace AS n ON n.nspname = wanted.schema
JOIN pg_catalog.pg_class AS c ON c.relnamespace = n.oid AND c.relname = wanted.name AND c.relkind IN ('r', 'p')
JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY 1, 2, a.attnum

-- name: note_mappings
-- Which mappings there are. The rows of one that is new are queued, if that is wanted; one that is not there any
-- more misses changes from now on, so that all its rows are queued should it come back.
WITH given AS (SELECT * FROM unnest(%(names)s::text[], %(wanted)s::boolean[]) AS given (mapping, is_wanted)),
gone AS (
    UPDATE ehr_existing SET state = 'gone'
    WHERE state <> 'gone' AND mapping NOT IN (SELECT mapping FROM given))
INSERT INTO ehr_existing AS e (mapping, state)
SELECT mapping, CASE WHEN is_wanted THEN 'queueing' ELSE 'queued' END FROM given
ON CONFLICT (mapping) DO UPDATE
SET state = excluded.state, is_behind = true, at = NULL, upto = NULL, rows = 0 WHERE e.state = 'gone'

-- name: unfilled
SELECT mapping FROM ehr_existing WHERE state = 'queueing' ORDER BY mapping

-- name: existing
-- How far the rows of a mapping have been queued; nothing once all of them are.
SELECT at::text, upto, rows, emptied, is_behind FROM ehr_existing
WHERE mapping = %(mapping)s::text AND state = 'queueing'

-- name: begin_existing
UPDATE ehr_existing SET at = %(at)s::pg_lsn WHERE mapping = %(mapping)s::text AND at IS NULL

-- name: advance_existing
-- So many rows are queued, if the last ones still count, and it is we who go on.
UPDATE ehr_existing
SET rows = %(rows)s::bigint, upto = %(upto)s::text[], state = CASE WHEN %(is_last)s::boolean THEN 'queued' ELSE state END,
    is_behind = is_behind AND NOT %(is_last)s::boolean
WHERE mapping = %(mapping)s::text AND state = 'queueing' AND emptied = %(emptied)s::bigint AND rows = %(before)s::bigint
RETURNING mapping

-- name: is_copied
SELECT FROM tables
WHERE slot = %(slot)s::text AND namespace = %(namespace)s::text AND name = %(name)s::text AND state = 'copied'

-- name: known_records
-- Those of these records, by their places, of which there is or was a job. Where several rows are one record,
-- it is of one row that is asked.
WITH given AS (
    SELECT * FROM unnest(%(compositions)s::uuid[], %(lanes)s::bigint[], %(keys)s::text[], %(patients)s::text[])
        WITH ORDINALITY AS given (composition, lane, key, patient, at)),
arrived AS MATERIALIZED (
    SELECT p.lane, j.composition_id, ehr_key(j.record_key, j.snapshot, m.key_at) AS record_key,
           CASE WHEN m.begun = %(begun)s::text THEN coalesce(j.patient, p.patient, l.patient) END AS patient
    FROM ehr_parcels AS p CROSS JOIN LATERAL ehr_jobs_of(p.jobs) AS j
    JOIN ehr_manners AS m ON m.id = j.manner JOIN ehr_lanes AS l ON l.id = p.lane
    WHERE p.lane = ANY (%(lanes)s::bigint[]))
SELECT given.at FROM given
WHERE given.at IN (SELECT g.at FROM given AS g
                   JOIN arrived AS a ON a.lane = g.lane AND a.composition_id = g.composition
                   WHERE %(is_one)s::boolean OR a.record_key = g.key
                   UNION ALL
                   -- One that does not say which composition it is: that follows from its patient and its key.
                   SELECT g.at FROM given AS g
                   JOIN arrived AS a ON (a.lane, a.patient, a.record_key) = (g.lane, g.patient, g.key)
                   WHERE a.composition_id IS NULL)
   OR EXISTS (SELECT FROM ehr_compositions AS c
              WHERE c.id = given.composition AND (%(is_one)s::boolean OR c.record_key = given.key))
   OR EXISTS (SELECT FROM ehr_jobs AS q
              WHERE q.lane = given.lane AND q.composition_id = given.composition
                AND (%(is_one)s::boolean OR q.record_key = given.key))
   OR EXISTS (SELECT FROM ehr_jobs_done AS q
              WHERE q.lane = given.lane AND q.composition_id = given.composition
                AND (%(is_one)s::boolean OR q.record_key = given.key))

-- name: is_emptied
-- Whoever has read rows of it without having queued them must read again.
UPDATE ehr_existing SET emptied = emptied + 1 WHERE mapping = %(mapping)s::text

-- name: begun
-- What the names of a mapping's compositions begin with, or began with when it was another.
SELECT DISTINCT begun FROM ehr_manners WHERE mapping = %(mapping)s::text AND begun IS NOT NULL

-- name: join_many
-- For the next statement: what is joined is many rows, however few they are believed to be.
SET LOCAL enable_nestloop = off

-- name: join_any
SET LOCAL enable_nestloop = DEFAULT

-- name: arrive_emptied
-- A table was emptied: a job for each record of a mapping that has been fed, and not been ended since, by what
-- waits, what has arrived in this transaction, and what the record holds. It says what the newest one said. Of a job that
-- does not say its composition, another of the same record may; if none does, all of these are about the same one.
WITH known AS (
    SELECT 0 AS turn, lane, seq, record_key, operation, patient, ehr_id, composition_id, begun,
           CASE WHEN %(operation)s::text = 'mark' THEN snapshot END AS snapshot
    FROM ehr_jobs_open WHERE mapping = %(mapping)s::text
    UNION ALL
    SELECT 1, a.lane, a.seq + j.place, ehr_key(j.record_key, j.snapshot, m.key_at), m.operation,
           nullif(coalesce(j.patient, a.patient), ''), CASE WHEN j.patient IS NULL THEN a.ehr_id ELSE j.ehr_id END,
           j.composition_id, m.begun, CASE WHEN %(operation)s::text = 'mark' THEN ehr_row(j.snapshot, m.columns) END
    FROM ehr_arrivals AS a CROSS JOIN LATERAL ehr_jobs_of(a.jobs) AS j JOIN ehr_manners AS m ON m.id = j.manner
    WHERE m.mapping = %(mapping)s::text),
told AS (
    SELECT *, coalesce(composition_id, max(composition_id::text) OVER (PARTITION BY begun, patient, record_key)::uuid) AS id
    FROM known WHERE composition_id IS NOT NULL OR begun IS NOT NULL AND record_key IS NOT NULL),
fed AS (
    SELECT DISTINCT ON (record)
           turn, lane, seq, record_key, operation, patient, ehr_id, id AS composition_id, begun, snapshot
    FROM (SELECT *, coalesce(id::text, json_build_array(begun, patient, record_key)::text) COLLATE "C" AS record
          FROM told) AS told
    ORDER BY record, turn DESC, seq DESC),
held AS (
    SELECT l.id AS lane, c.record_key, l.patient, c.ehr_id, c.id AS composition_id, c.begun, d.snapshot, d.operation
    FROM ehr_compositions AS c
    JOIN ehr_lanes AS l ON l.ehr_id = c.ehr_id AND l.patient IS NOT NULL
    LEFT JOIN LATERAL (
        SELECT d.snapshot, d.operation FROM ehr_jobs_done AS d
        WHERE %(operation)s::text = 'mark' AND d.lane = l.id AND d.composition_id = c.id AND d.snapshot IS NOT NULL
        ORDER BY d.seq DESC LIMIT 1) AS d ON true
    WHERE c.mapping = %(mapping)s::text AND NOT c.is_deleted
      AND NOT EXISTS (SELECT FROM fed WHERE fed.composition_id = c.id)
      AND NOT EXISTS (
          SELECT FROM fed WHERE fed.composition_id IS NULL
          AND (fed.begun, fed.patient, fed.record_key) = (c.begun, l.patient, c.record_key))),
ending AS (
    SELECT lane, record_key, patient, ehr_id, composition_id, begun, snapshot FROM fed
    WHERE operation NOT IN ('delete', 'mark')
    UNION ALL
    SELECT lane, record_key, patient, ehr_id, composition_id, begun, snapshot FROM held
    WHERE operation IS DISTINCT FROM 'mark'),
counted AS (SELECT *, row_number() OVER (ORDER BY lane, record_key COLLATE "C", composition_id) AS number FROM ending),
named AS (
    SELECT id, min(name) AS name FROM (
        SELECT id, name FROM ehr_lanes WHERE id IN (SELECT lane FROM ending)
        UNION ALL
        SELECT lane, name FROM ehr_arrivals) AS lanes
    GROUP BY id),
arrived AS (
    INSERT INTO ehr_arrivals (lane, seq, count, jobs, patient, ehr_id, name, priority)
    SELECT c.lane, %(arrived)s::bigint + c.number, 1, json_build_array(json_build_object(
               'manner', m.id, 'key', c.record_key, 'id', c.composition_id, 'lsn', %(lsn)s::text,
               'ordinal', %(ordinal)s::bigint, 'part', c.number - 1,
               'row', CASE WHEN m.operation = 'mark' THEN c.snapshot::json END,
               'trouble', CASE WHEN m.operation = 'mark' AND c.snapshot IS NULL
                               THEN 'its row is gone, and nobody knows any more what it said' END))::text,
           coalesce(c.patient, ''), c.ehr_id, coalesce(o.name, n.name), m.priority
    FROM counted AS c JOIN named AS n ON n.id = c.lane
    -- A lane that is new yet, whose number two patients have, gets its name and its patient from one.
    LEFT JOIN (SELECT lane, patient, min(name) AS name FROM ehr_arrivals GROUP BY lane, patient) AS o
        ON (o.lane, o.patient) = (c.lane, coalesce(c.patient, ''))
    JOIN unnest(%(manners)s::bigint[], %(begun)s::text[]) AS given (id, begun)
        ON given.begun IS NOT DISTINCT FROM CASE WHEN c.begun = ANY (%(begun)s::text[]) THEN c.begun END
    JOIN ehr_manners AS m ON m.id = given.id RETURNING 1)
SELECT count(*) FROM arrived
