-- Jobs for the record system: appended, taken by lane, finished, and decided about by people.
-- Whoever changes several lanes takes them in the order of their ids, so that nobody waits in a circle. What
-- only reads a lane's jobs begins after `done_upto`: those before it may still lie there, dead.

-- name: extend_lanes
-- So many jobs more in each of these lanes; answers the number of the last. From here to the commit the lanes
-- are ours, so that numbers become visible in their order.
INSERT INTO ehr_lanes AS l (id, name, patient, appended, state, priority, urgent_upto, due_at)
SELECT id, name, patient, jobs, 'waiting', priority, urgent_upto, now()
FROM unnest(%(ids)s::bigint[], %(names)s::text[], %(patients)s::text[], %(jobs)s::bigint[], %(priorities)s::integer[],
            %(urgent)s::bigint[]) AS given (id, name, patient, jobs, priority, urgent_upto)
ORDER BY id
ON CONFLICT (id) DO UPDATE
SET appended = l.appended + excluded.appended,
    state = CASE l.state WHEN 'idle' THEN 'waiting' ELSE l.state END,
    due_at = CASE l.state WHEN 'idle' THEN excluded.due_at ELSE l.due_at END,
    priority = CASE WHEN l.state = 'idle' THEN excluded.priority ELSE least(l.priority, excluded.priority) END,
    urgent_upto = CASE WHEN l.state = 'idle' OR excluded.priority <= l.priority
                       THEN l.appended + excluded.urgent_upto ELSE l.urgent_upto END
RETURNING id, appended

-- name: append_jobs
COPY ehr_sync_queue_open (lane, seq, source_table, mapping, record_key, operation, patient, ehr_id, composition_id,
    template_id, commit_lsn, ordinal, part, snapshot, priority, may_merge, trouble) FROM STDIN

-- name: append_arrivals
COPY ehr_arrivals (lane, seq, source_table, mapping, record_key, operation, patient, ehr_id, composition_id,
    template_id, commit_lsn, ordinal, part, snapshot, priority, may_merge, trouble) FROM STDIN

-- name: take_in
-- Everything that has arrived in this transaction: into its lanes, in the order in which it came.
WITH given AS (
    SELECT lane, count(*) AS jobs, min(priority) AS priority, min(patient) AS patient, min(mapping) AS mapping,
           min(record_key) AS key
    FROM ehr_arrivals GROUP BY lane),
extended AS (
    INSERT INTO ehr_lanes AS l (id, name, patient, appended, state, priority, urgent_upto, due_at)
    SELECT lane, CASE WHEN patient IS NULL
                      THEN 'row/' || replace(replace(mapping, '~', '~0'), '/', '~1') || '/'
                           || replace(replace(key, '~', '~0'), '/', '~1')
                      ELSE 'patient/' || replace(replace(patient, '~', '~0'), '/', '~1') END,
           patient, jobs, 'waiting', priority, jobs, now()
    FROM given ORDER BY lane
    ON CONFLICT (id) DO UPDATE
    SET appended = l.appended + excluded.appended,
        state = CASE l.state WHEN 'idle' THEN 'waiting' ELSE l.state END,
        due_at = CASE l.state WHEN 'idle' THEN excluded.due_at ELSE l.due_at END,
        priority = CASE WHEN l.state = 'idle' THEN excluded.priority ELSE least(l.priority, excluded.priority) END,
        urgent_upto = CASE WHEN l.state = 'idle' OR excluded.priority <= l.priority
                           THEN l.appended + excluded.urgent_upto ELSE l.urgent_upto END
    RETURNING id, appended)
INSERT INTO ehr_sync_queue_open (
    lane, seq, source_table, mapping, record_key, operation, patient, ehr_id, composition_id, template_id, commit_lsn,
    ordinal, part, snapshot, priority, may_merge, trouble, state)
SELECT a.lane, e.appended - g.jobs + row_number() OVER (PARTITION BY a.lane ORDER BY a.seq), a.source_table, a.mapping,
       a.record_key, a.operation, a.patient, a.ehr_id, a.composition_id, a.template_id, a.commit_lsn, a.ordinal, a.part,
       a.snapshot, a.priority, a.may_merge, a.trouble, a.state
FROM ehr_arrivals AS a JOIN extended AS e ON e.id = a.lane JOIN given AS g ON g.lane = a.lane

-- name: clear_arrivals
DELETE FROM ehr_arrivals

-- name: tell
-- Workers that wait hear of it when this is committed.
SELECT pg_catalog.pg_notify('replicator_jobs', '')

-- name: listen
LISTEN replicator_jobs

-- name: claim
-- The most urgent lanes that are due and nobody's, and the next jobs of each, with what is known of their
-- compositions. Nobody is given any while the server itself is held.
WITH found AS (
    SELECT id FROM ehr_lanes
    WHERE state = 'waiting' AND due_at <= now()
      AND NOT EXISTS (SELECT FROM ehr_holds WHERE name = %(server)s::text)
    ORDER BY priority, due_at LIMIT %(lanes)s::integer
    FOR UPDATE SKIP LOCKED),
taken AS (
    UPDATE ehr_lanes AS l
    SET token = l.token + 1, holder = %(holder)s::text, lease_until = now() + %(lease)s::interval,
        due_at = now() + %(lease)s::interval
    FROM found WHERE l.id = found.id
    RETURNING l.id, l.token, l.done_upto, l.failures, l.ehr_id, l.system_id)
SELECT t.id, t.token, t.failures, t.ehr_id::text, t.system_id, j.seq, j.source_table, j.mapping, j.record_key,
       j.operation, j.patient, j.ehr_id::text, j.composition_id::text, j.template_id, j.commit_lsn::text, j.ordinal,
       j.part, j.snapshot, j.priority, j.may_merge, j.trouble, j.state, j.attempts,
       c.uid, c.is_deleted, c.commit_lsn::text, c.ordinal
FROM taken AS t
LEFT JOIN LATERAL (
    SELECT * FROM ehr_sync_queue_open AS j WHERE j.lane = t.id AND j.seq > t.done_upto
    ORDER BY j.seq LIMIT %(jobs)s::integer) AS j ON true
LEFT JOIN ehr_compositions AS c ON c.id = j.composition_id
ORDER BY t.id, j.seq

-- name: renew
-- Of these lanes, those that are still held under these numbers: longer.
WITH held AS (
    SELECT l.id FROM ehr_lanes AS l
    JOIN unnest(%(ids)s::bigint[], %(tokens)s::bigint[]) AS given (id, token) ON (l.id, l.token) = (given.id, given.token)
    ORDER BY l.id FOR UPDATE OF l)
UPDATE ehr_lanes AS l SET lease_until = now() + %(lease)s::interval, due_at = now() + %(lease)s::interval
FROM held WHERE l.id = held.id AND l.lease_until IS NOT NULL
RETURNING l.id

-- name: record
-- What became of jobs, and how their lanes go on: all of it for a lane that is held under this number still,
-- and nothing for one that is not. Answers those that are.
WITH lanes AS (
    SELECT * FROM unnest(
        %(ids)s::bigint[], %(tokens)s::bigint[], %(upto)s::bigint[], %(states)s::text[], %(held_by)s::text[],
        %(delays)s::float8[], %(failures)s::integer[], %(ehrs)s::uuid[], %(systems)s::text[])
        AS given (id, token, upto, state, held_by, delay, failures, ehr_id, system_id)),
held AS MATERIALIZED (
    SELECT l.id, l.token FROM ehr_lanes AS l JOIN lanes ON (l.id, l.token) = (lanes.id, lanes.token)
    ORDER BY l.id FOR UPDATE OF l),
said AS (
    SELECT given.*, held.token FROM unnest(
        %(job_lanes)s::bigint[], %(seqs)s::bigint[], %(job_states)s::text[], %(uids)s::text[], %(versions)s::integer[],
        %(deleted)s::boolean[], %(classes)s::text[], %(messages)s::text[], %(job_delays)s::float8[])
        AS given (lane, seq, state, uid, version, is_deleted, error_class, message, delay)
    JOIN held ON held.id = given.lane),
moved AS (
    DELETE FROM ehr_sync_queue_open AS q USING said
    WHERE q.lane = said.lane AND q.seq = said.seq AND said.state IN ('done', 'skipped', 'merged')
    RETURNING q.*, said.state AS ended, said.uid, said.version AS at_version, said.is_deleted, said.message, said.token),
kept AS (
    INSERT INTO ehr_sync_queue_done (
        lane, seq, source_table, mapping, record_key, operation, patient, ehr_id, composition_id, template_id,
        commit_lsn, ordinal, part, snapshot, priority, may_merge, trouble, state, attempts, lease_token, error_class,
        error_message, composition_uid, version, note, created_at, updated_at, finished_at)
    SELECT m.lane, m.seq, m.source_table, m.mapping, m.record_key, m.operation, m.patient,
           coalesce(lanes.ehr_id, m.ehr_id), m.composition_id, m.template_id, m.commit_lsn, m.ordinal, m.part,
           m.snapshot, m.priority, m.may_merge, m.trouble, m.ended, m.attempts, m.token, m.error_class,
           m.error_message, m.uid, m.at_version, m.message, m.created_at, m.updated_at, now()
    FROM moved AS m JOIN lanes ON lanes.id = m.lane),
known AS (
    INSERT INTO ehr_compositions AS c (id, ehr_id, mapping, record_key, uid, is_deleted, commit_lsn, ordinal, delivered_at)
    SELECT DISTINCT ON (m.composition_id) m.composition_id, coalesce(lanes.ehr_id, m.ehr_id), m.mapping, m.record_key,
           m.uid, m.is_deleted, m.commit_lsn, m.ordinal, now()
    FROM moved AS m JOIN lanes ON lanes.id = m.lane
    WHERE m.ended = 'done' AND m.uid IS NOT NULL AND m.composition_id IS NOT NULL
    ORDER BY m.composition_id, m.seq DESC
    ON CONFLICT (id) DO UPDATE
    SET ehr_id = excluded.ehr_id, uid = excluded.uid, is_deleted = excluded.is_deleted, record_key = excluded.record_key,
        delivered_at = excluded.delivered_at, commit_lsn = greatest(c.commit_lsn, excluded.commit_lsn),
        ordinal = CASE WHEN (c.commit_lsn, c.ordinal) > (excluded.commit_lsn, excluded.ordinal)
                       THEN c.ordinal ELSE excluded.ordinal END),
tried AS (
    UPDATE ehr_sync_queue_open AS q
    SET state = said.state, attempts = q.attempts + 1, error_class = said.error_class, error_message = said.message,
        next_attempt_at = now() + said.delay * interval '1 s', lease_token = said.token, updated_at = now()
    FROM said
    WHERE q.lane = said.lane AND q.seq = said.seq AND said.state IN ('retrying', 'held', 'parked'))
UPDATE ehr_lanes AS l
SET done_upto = greatest(l.done_upto, lanes.upto), failures = lanes.failures,
    ehr_id = lanes.ehr_id, system_id = lanes.system_id,
    state = CASE WHEN greatest(l.done_upto, lanes.upto) = l.appended THEN 'idle' ELSE coalesce(lanes.state, l.state) END,
    held_by = lanes.held_by,
    lease_until = CASE WHEN lanes.delay IS NULL THEN l.lease_until END,
    holder = CASE WHEN lanes.delay IS NULL THEN l.holder END,
    due_at = CASE WHEN lanes.delay IS NULL THEN l.due_at ELSE now() + lanes.delay * interval '1 s' END,
    priority = CASE WHEN lanes.upto < l.urgent_upto OR lanes.upto >= l.appended THEN l.priority ELSE coalesce((
        SELECT min(priority) FROM (
            SELECT n.priority FROM ehr_sync_queue_open AS n WHERE n.lane = l.id AND n.seq > lanes.upto
            ORDER BY n.seq LIMIT 50) AS next), l.priority) END,
    urgent_upto = CASE WHEN lanes.upto < l.urgent_upto OR lanes.upto >= l.appended THEN l.urgent_upto ELSE coalesce((
        SELECT seq FROM (
            SELECT n.seq, n.priority FROM ehr_sync_queue_open AS n WHERE n.lane = l.id AND n.seq > lanes.upto
            ORDER BY n.seq LIMIT 50) AS next ORDER BY priority, seq DESC LIMIT 1), l.urgent_upto) END
FROM lanes JOIN held ON held.id = lanes.id
WHERE l.id = lanes.id
RETURNING l.id

-- name: hold
-- Many lanes are to wait for this.
INSERT INTO ehr_holds (name, reason, since, check_at)
VALUES (%(name)s::text, %(reason)s::text, now(), now() + %(pause)s::interval)
ON CONFLICT (name) DO UPDATE SET reason = excluded.reason

-- name: due_hold
-- One that is to be looked at now; nobody else looks for a while.
UPDATE ehr_holds SET check_at = now() + %(pause)s::interval
WHERE name = (SELECT name FROM ehr_holds WHERE check_at <= now() ORDER BY check_at LIMIT 1 FOR UPDATE SKIP LOCKED)
RETURNING name

-- name: holds
SELECT name, reason, since FROM ehr_holds ORDER BY name

-- name: end_hold
DELETE FROM ehr_holds WHERE name = %(name)s::text

-- name: let_go
-- The lanes that wait for what does not hold anybody any more are due.
UPDATE ehr_lanes SET state = 'waiting', held_by = NULL, due_at = now()
WHERE id IN (
    SELECT id FROM ehr_lanes WHERE state = 'held' AND held_by NOT IN (SELECT name FROM ehr_holds)
    ORDER BY id FOR UPDATE)

-- name: forget_done
-- What was finished so long ago; so many at once.
DELETE FROM ehr_sync_queue_done WHERE (lane, seq) IN (
    SELECT lane, seq FROM ehr_sync_queue_done WHERE finished_at < now() - %(age)s::interval LIMIT %(limit)s::integer)

-- name: next_due
-- In how many seconds the next lane is due that waits for nothing but the time; none if there is none.
SELECT extract(epoch FROM min(due_at) - now())::float8 FROM ehr_lanes WHERE state = 'waiting'

-- name: find_jobs
-- Jobs, oldest first, that fit what is asked; what is not asked is NULL.
SELECT q.lane, q.seq, q.source_table, q.mapping, q.record_key, q.operation, q.patient, q.state, q.attempts, q.error_class,
       q.error_message, q.commit_lsn::text || ':' || q.ordinal, q.composition_id::text, q.composition_uid,
       extract(epoch FROM now() - q.created_at)::float8, q.priority, q.created_at, q.finished_at, q.next_attempt_at,
       q.note, q.ehr_id::text, q.template_id, l.state, q.seq = l.done_upto + 1
FROM ehr_sync_queue AS q JOIN ehr_lanes AS l ON l.id = q.lane
WHERE (%(states)s::text[] IS NULL OR q.state = ANY (%(states)s::text[]))
  AND (%(lanes)s::bigint[] IS NULL OR (q.lane, q.seq) IN (
          SELECT * FROM unnest(%(lanes)s::bigint[], %(seqs)s::bigint[]) AS given (lane, seq)))
  AND (%(table)s::text IS NULL OR %(table)s::text IN (q.source_table, q.mapping))
  AND (%(lane)s::bigint IS NULL OR q.lane = %(lane)s::bigint)
  AND (%(error_class)s::text IS NULL OR q.error_class = %(error_class)s::text)
  AND (%(older)s::interval IS NULL OR q.created_at < now() - %(older)s::interval)
ORDER BY q.created_at, q.lane, q.seq
LIMIT %(limit)s::integer

-- name: show_job
-- All there is about one job but its row.
SELECT to_jsonb(q) - 'snapshot' FROM ehr_sync_queue AS q WHERE (lane, seq) = (%(lane)s::bigint, %(seq)s::bigint)

-- name: job_audit
SELECT at, who, action, why FROM ehr_queue_audit WHERE (lane, seq) = (%(lane)s::bigint, %(seq)s::bigint) ORDER BY id

-- name: stop_lanes
-- Nobody records anything of these lanes until we have decided.
SELECT id FROM ehr_lanes WHERE id = ANY (%(lanes)s::bigint[]) ORDER BY id FOR UPDATE

-- name: retry_jobs
-- They are tried as if for the first time.
UPDATE ehr_sync_queue_open
SET state = 'waiting', attempts = 0, error_class = NULL, error_message = NULL, next_attempt_at = NULL, updated_at = now()
WHERE (lane, seq) IN (SELECT * FROM unnest(%(lanes)s::bigint[], %(seqs)s::bigint[]) AS given (lane, seq))
  AND state <> 'waiting'
RETURNING lane, seq, mapping, record_key

-- name: skip_jobs
-- They leave the queue, undelivered, when their turn comes.
UPDATE ehr_sync_queue_open SET state = 'skipping', updated_at = now()
WHERE (lane, seq) IN (SELECT * FROM unnest(%(lanes)s::bigint[], %(seqs)s::bigint[]) AS given (lane, seq))
  AND state <> 'skipping'
RETURNING lane, seq, mapping, record_key

-- name: park_jobs
-- Their lanes stop when they come to them.
UPDATE ehr_sync_queue_open
SET state = 'parked', error_class = 'operator', error_message = %(why)s::text, updated_at = now()
WHERE (lane, seq) IN (SELECT * FROM unnest(%(lanes)s::bigint[], %(seqs)s::bigint[]) AS given (lane, seq))
  AND state <> 'parked'
RETURNING lane, seq, mapping, record_key

-- name: free_lanes
-- Lanes that stopped go on at once; one that somebody holds goes on anyway.
UPDATE ehr_lanes
SET state = 'waiting', held_by = NULL, failures = 0, due_at = CASE WHEN lease_until > now() THEN due_at ELSE now() END
WHERE id = ANY (%(lanes)s::bigint[]) AND state <> 'idle'

-- name: park_lanes
-- Lanes whose next job is parked, and that nobody holds.
UPDATE ehr_lanes AS l SET state = 'parked', held_by = NULL
FROM ehr_sync_queue_open AS q
WHERE l.id = ANY (%(lanes)s::bigint[]) AND l.state <> 'idle' AND (l.lease_until IS NULL OR l.lease_until < now())
  AND q.lane = l.id AND q.seq = l.done_upto + 1 AND q.state = 'parked'

-- name: replay_jobs
-- Once more what was finished: after everything that waits in its lane, in the order it was in.
INSERT INTO ehr_sync_queue_open (
    lane, seq, source_table, mapping, record_key, operation, patient, ehr_id, composition_id, template_id, commit_lsn,
    ordinal, part, snapshot, priority, may_merge, trouble, state)
SELECT d.lane, before.seq + row_number() OVER (PARTITION BY d.lane ORDER BY d.seq), d.source_table, d.mapping,
       d.record_key, d.operation, d.patient, d.ehr_id, d.composition_id, d.template_id, d.commit_lsn, d.ordinal, d.part,
       d.snapshot, d.priority, d.may_merge, d.trouble, 'waiting'
FROM ehr_sync_queue_done AS d
JOIN unnest(%(before_lanes)s::bigint[], %(before)s::bigint[]) AS before (lane, seq) ON before.lane = d.lane
WHERE (d.lane, d.seq) IN (SELECT * FROM unnest(%(lanes)s::bigint[], %(seqs)s::bigint[]) AS given (lane, seq))
RETURNING lane, seq, mapping, record_key

-- name: forget_compositions
-- What we believed of them is not believed any more: the record is asked.
DELETE FROM ehr_compositions WHERE id IN (
    SELECT composition_id FROM ehr_sync_queue_done
    WHERE (lane, seq) IN (SELECT * FROM unnest(%(lanes)s::bigint[], %(seqs)s::bigint[]) AS given (lane, seq)))

-- name: lanes_of_jobs
-- How many of these finished jobs each lane has, with what makes it known.
SELECT d.lane, l.name, l.patient, count(*), min(d.priority)
FROM ehr_sync_queue_done AS d JOIN ehr_lanes AS l ON l.id = d.lane
WHERE (d.lane, d.seq) IN (SELECT * FROM unnest(%(lanes)s::bigint[], %(seqs)s::bigint[]) AS given (lane, seq))
GROUP BY d.lane, l.name, l.patient ORDER BY d.lane

-- name: audit
-- Who has decided what about which job, and why.
INSERT INTO ehr_queue_audit (who, action, why, lane, seq, mapping, record_key)
SELECT %(who)s::text, %(action)s::text, %(why)s::text, lane, seq, mapping, record_key
FROM unnest(%(lanes)s::bigint[], %(seqs)s::bigint[], %(mappings)s::text[], %(keys)s::text[])
     AS given (lane, seq, mapping, record_key)

-- name: lanes_by_state
SELECT state, count(*), sum(appended - done_upto)::bigint FROM ehr_lanes WHERE state <> 'idle' GROUP BY state

-- name: oldest
-- For how many seconds the longest waiting job has waited; the first of each lane is its oldest.
SELECT extract(epoch FROM now() - min(q.created_at))::float8 FROM ehr_lanes AS l
JOIN LATERAL (
    SELECT created_at FROM ehr_sync_queue_open AS q WHERE q.lane = l.id AND q.seq > l.done_upto ORDER BY q.seq LIMIT 1
) AS q ON true
WHERE l.state <> 'idle'

-- name: errors_by_class
SELECT error_class, count(*) FROM ehr_sync_queue_open WHERE error_class IS NOT NULL GROUP BY error_class

-- name: finished_lately
SELECT state, count(*) FROM ehr_sync_queue_done WHERE finished_at > now() - interval '1 hour' GROUP BY state

-- name: position_and_newest
-- On the source: where its log ends, and a transaction that is newer than any that could have committed before.
SELECT pg_catalog.pg_current_wal_insert_lsn()::text, pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())::text

-- name: are_over
-- On the source: whether every transaction older than this one has ended, for all to see.
SELECT pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot()) >= %(newest)s::text::xid8
