-- What the parts of a running replicator tell of themselves, for whoever looks.

-- name: take_over
-- Go on in the row of a process of the same kind that has ended; whose was it does not matter, but whether it left.
UPDATE parts SET node = %(node)s::text, starts = starts + (backend <> 0)::integer, started_at = now(), told_at = now(),
                 waits_for = NULL, waits_since = NULL, (backend, backend_start) = (
                     SELECT pid, backend_start FROM pg_catalog.pg_stat_activity WHERE pid = pg_catalog.pg_backend_pid())
WHERE id = (SELECT p.id FROM parts AS p
            WHERE p.part = %(part)s::text AND NOT EXISTS (
                SELECT FROM pg_catalog.pg_stat_activity AS a
                WHERE a.pid = p.backend AND a.backend_start = p.backend_start)
            ORDER BY p.id LIMIT 1 FOR UPDATE SKIP LOCKED)
RETURNING id, figures

-- name: enter
INSERT INTO parts (part, node, backend, backend_start, starts, started_at, told_at, figures)
SELECT %(part)s::text, %(node)s::text, pid, backend_start, 1, now(), now(), '{}'
FROM pg_catalog.pg_stat_activity WHERE pid = pg_catalog.pg_backend_pid()
RETURNING id, figures

-- name: enter_again
-- With another session, if nobody has gone on there meanwhile.
UPDATE parts SET told_at = now(), (backend, backend_start) = (
    SELECT pid, backend_start FROM pg_catalog.pg_stat_activity WHERE pid = pg_catalog.pg_backend_pid())
WHERE id = %(id)s::bigint AND part = %(part)s::text AND node = %(node)s::text RETURNING id

-- name: tell
UPDATE parts SET told_at = now(), waits_for = %(why)s::text, waits_since = to_timestamp(%(since)s::float8),
                 figures = %(figures)s::jsonb
WHERE id = %(id)s::bigint

-- name: leave
-- No session has this number.
UPDATE parts SET backend = 0, told_at = now() WHERE id = %(id)s::bigint AND node = %(node)s::text

-- name: parts
-- Every process that has told something, and whether it is still there.
SELECT p.part, p.node, EXISTS (SELECT FROM pg_catalog.pg_stat_activity AS a
                               WHERE a.pid = p.backend AND a.backend_start = p.backend_start),
       p.starts, extract(epoch FROM p.started_at)::float8, extract(epoch FROM p.told_at)::float8,
       p.waits_for, extract(epoch FROM p.waits_since)::float8, p.figures
FROM parts AS p ORDER BY p.part, p.id

-- name: job_ages
-- How many jobs were delivered after the one moment and up to the other, by how long that had taken since they
-- were queued, and for how many seconds together. Of moments just gone, some may not be seen yet.
SELECT width_bucket(extract(epoch FROM finished_at - created_at)::float8, %(bounds)s::float8[]),
       count(*), sum(extract(epoch FROM finished_at - created_at))::float8
FROM ehr_jobs_done
WHERE state = 'done' AND finished_at > to_timestamp(%(since)s::float8) AND finished_at <= to_timestamp(%(upto)s::float8)
GROUP BY 1

-- name: now
SELECT extract(epoch FROM now())::float8
