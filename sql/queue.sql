-- Jobs for the record system: appended, taken by lane, finished, and decided about by people.
-- Whoever changes several lanes takes them in the order of their ids, so that nobody waits in a circle. What
-- only reads a lane's jobs begins after `done_upto`: those before it may still lie there, dead.

-- name: note_manners
-- What the jobs to come have in common, where it is new. Before any lane is taken, and in the order of their ids.
INSERT INTO ehr_manners (
    id, source_table, mapping, operation, template_id, priority, may_merge, columns, key_at, begun)
SELECT id, source_table, mapping, operation, template_id, priority, may_merge,
       CASE WHEN columns IS NOT NULL THEN ARRAY(SELECT json_array_elements_text(columns)) END, key_at, begun
FROM unnest(%(ids)s::bigint[], %(tables)s::text[], %(mappings)s::text[], %(operations)s::text[], %(templates)s::text[],
            %(priorities)s::integer[], %(may_merge)s::boolean[], %(columns)s::json[], %(key_at)s::integer[],
            %(begun)s::text[])
     AS given (id, source_table, mapping, operation, template_id, priority, may_merge, columns, key_at, begun)
ORDER BY id
ON CONFLICT (id) DO NOTHING

-- name: extend_lanes
-- So many jobs more in each of these lanes; answers the number of the last, and whether the jobs have to say their
-- patient and their EHR, which are not the lane's. From here to the commit the lanes are ours, so that numbers become
-- visible in their order.
WITH given AS (
    SELECT * FROM unnest(%(ids)s::bigint[], %(names)s::text[], %(patients)s::text[], %(ehrs)s::uuid[], %(jobs)s::bigint[],
                         %(priorities)s::integer[], %(urgent)s::bigint[])
        AS given (id, name, patient, ehr_id, jobs, priority, urgent_upto)),
extended AS (
    INSERT INTO ehr_lanes AS l (id, name, patient, own_ehr_id, appended, state, priority, urgent_upto, due_at)
    SELECT id, name, patient, ehr_id, jobs, 'waiting', priority, urgent_upto, now() FROM given ORDER BY id
    ON CONFLICT (id) DO UPDATE
    SET appended = l.appended + excluded.appended,
        own_ehr_id = CASE WHEN l.name = excluded.name THEN coalesce(l.own_ehr_id, excluded.own_ehr_id)
                          ELSE l.own_ehr_id END,
        state = CASE l.state WHEN 'idle' THEN 'waiting' ELSE l.state END,
        due_at = CASE l.state WHEN 'idle' THEN excluded.due_at ELSE l.due_at END,
        priority = CASE WHEN l.state = 'idle' THEN excluded.priority ELSE least(l.priority, excluded.priority) END,
        urgent_upto = CASE WHEN l.state = 'idle' OR excluded.priority <= l.priority
                           THEN l.appended + excluded.urgent_upto ELSE l.urgent_upto END
    RETURNING id, name, own_ehr_id, appended)
SELECT e.id, e.appended, e.name <> g.name OR e.own_ehr_id IS DISTINCT FROM g.ehr_id
FROM extended AS e JOIN given AS g USING (id)

-- name: in_order
-- For the rest of the transaction: what is joined with lanes by their ids meets them in the order of those, from an
-- index or for each id. A hash, or the table as it lies, would give them in any.
SET LOCAL enable_hashjoin = off; SET LOCAL enable_seqscan = off

-- name: extend_known_lanes
-- The same for lanes that are all there, and whose jobs do not have to say anything: less than half the work.
UPDATE ehr_lanes AS l
SET appended = l.appended + given.jobs,
    state = CASE l.state WHEN 'idle' THEN 'waiting' ELSE l.state END,
    due_at = CASE l.state WHEN 'idle' THEN now() ELSE l.due_at END,
    priority = CASE WHEN l.state = 'idle' THEN given.priority ELSE least(l.priority, given.priority) END,
    urgent_upto = CASE WHEN l.state = 'idle' OR given.priority <= l.priority
                       THEN l.appended + given.urgent_upto ELSE l.urgent_upto END
FROM (SELECT * FROM unnest(%(ids)s::bigint[], %(jobs)s::bigint[], %(priorities)s::integer[], %(urgent)s::bigint[])
          AS given (id, jobs, priority, urgent_upto) ORDER BY id) AS given
WHERE l.id = given.id
RETURNING l.id, l.appended, false

-- name: append_parcels
COPY ehr_parcels (lane, seq, count, jobs, patient, ehr_id) FROM STDIN (FORMAT binary)

-- name: append_arrivals
COPY ehr_arrivals (lane, seq, count, jobs, patient, ehr_id, name, priority) FROM STDIN (FORMAT binary)

-- name: take_in
-- Everything that has arrived in this transaction: into its lanes, in the order in which it came.
WITH given AS (
    -- Two patients may have come for a lane, whose number both have: its name and its patient are those of one.
    SELECT lane, sum(count) AS jobs, min(priority) AS priority, min(ARRAY[name, nullif(patient, '')] COLLATE "C") AS whose
    FROM ehr_arrivals GROUP BY lane),
extended AS (
    INSERT INTO ehr_lanes AS l (id, name, patient, appended, state, priority, urgent_upto, due_at)
    SELECT lane, whose[1], whose[2], jobs, 'waiting', priority, jobs, now() FROM given ORDER BY lane
    ON CONFLICT (id) DO UPDATE
    SET appended = l.appended + excluded.appended,
        state = CASE l.state WHEN 'idle' THEN 'waiting' ELSE l.state END,
        due_at = CASE l.state WHEN 'idle' THEN excluded.due_at ELSE l.due_at END,
        priority = CASE WHEN l.state = 'idle' THEN excluded.priority ELSE least(l.priority, excluded.priority) END,
        urgent_upto = CASE WHEN l.state = 'idle' OR excluded.priority <= l.priority
                           THEN l.appended + excluded.urgent_upto ELSE l.urgent_upto END
    RETURNING id, appended)
INSERT INTO ehr_parcels (lane, seq, count, jobs, patient, ehr_id)
SELECT a.lane, e.appended - g.jobs + sum(a.count) OVER (PARTITION BY a.lane ORDER BY a.seq) - a.count + 1, a.count, a.jobs,
       a.patient, a.ehr_id
FROM ehr_arrivals AS a JOIN extended AS e ON e.id = a.lane JOIN given AS g ON g.lane = a.lane

-- name: clear_arrivals
DELETE FROM ehr_arrivals

-- name: tell
-- Workers that wait hear of it when this is committed.
SELECT pg_catalog.pg_notify('replicator_jobs', '')

-- name: listen
LISTEN replicator_jobs

-- name: take_parcels
-- The parcels of these lanes, up to these jobs, until the end of the transaction; how many jobs each has, and those
-- that do not say the id of their composition, with what it is named by. Who comes at the same time takes them in the
-- same order.
WITH meant AS (
    SELECT p.lane, p.seq, p.count, p.jobs, p.patient FROM ehr_parcels AS p
    JOIN unnest(%(lanes)s::bigint[], %(uptos)s::bigint[]) AS given (lane, upto)
      ON p.lane = given.lane AND p.seq <= given.upto
    ORDER BY p.lane, p.seq FOR UPDATE OF p)
SELECT p.lane, p.seq, p.count, (
    SELECT json_agg(json_build_array(j.place, m.begun, coalesce(j.patient, p.patient, l.patient),
                                     ehr_key(j.record_key, j.snapshot, m.key_at)))
    FROM ehr_jobs_of(p.jobs) AS j JOIN ehr_manners AS m ON m.id = j.manner
    WHERE j.composition_id IS NULL AND m.begun IS NOT NULL)
FROM meant AS p JOIN ehr_lanes AS l ON l.id = p.lane

-- name: lay_out
-- These parcels, which are ours, with the ids of those compositions.
WITH opened AS (
    DELETE FROM ehr_parcels AS p
    USING unnest(%(lanes)s::bigint[], %(seqs)s::bigint[], %(compositions)s::text[]) AS given (lane, seq, compositions)
    WHERE p.lane = given.lane AND p.seq = given.seq
    RETURNING p.lane, p.seq, p.jobs, p.patient, p.ehr_id, p.created_at, given.compositions::uuid[] AS compositions)
INSERT INTO ehr_jobs (
    lane, seq, manner, record_key, composition_id, commit_lsn, ordinal, snapshot, part, patient, ehr_id, trouble,
    created_at)
SELECT p.lane, p.seq + j.place, j.manner, coalesce(ehr_key(j.record_key, j.snapshot, m.key_at), ''),
       coalesce(j.composition_id, p.compositions[j.place + 1]), j.commit_lsn, j.ordinal, j.snapshot, j.part,
       coalesce(j.patient, p.patient), CASE WHEN j.patient IS NULL THEN p.ehr_id ELSE j.ehr_id END,
       coalesce(j.trouble, CASE WHEN ehr_key(j.record_key, j.snapshot, m.key_at) IS NULL
                                THEN 'nobody knows any more which row it is of' END), p.created_at
FROM opened AS p CROSS JOIN LATERAL ehr_jobs_of(p.jobs) AS j LEFT JOIN ehr_manners AS m ON m.id = j.manner

-- name: last_parcels
-- Up to where these lanes are to be laid out, that nothing of them be left.
SELECT lane, max(seq) FROM ehr_parcels WHERE lane = ANY (%(lanes)s::bigint[]) GROUP BY lane

-- name: claim
-- The most urgent lanes that are due and nobody's. Nobody is given any while the server itself is held. Where the last
-- one never gave the lane back, each of its jobs may have been sent, and may be on its way still: that counts as a try,
-- and is noted next. Their jobs are read once the lanes are ours: before, somebody might decide about them unseen.
WITH found AS (
    SELECT id, lease_until IS NOT NULL AS was_left FROM ehr_lanes
    WHERE state = 'waiting' AND due_at <= now()
      AND NOT EXISTS (SELECT FROM ehr_holds WHERE name = %(server)s::text)
    ORDER BY priority, due_at LIMIT %(lanes)s::integer
    FOR UPDATE SKIP LOCKED)
UPDATE ehr_lanes AS l
SET token = l.token + 1, holder = %(holder)s::text, lease_until = now() + %(lease)s::interval,
    due_at = now() + %(lease)s::interval, decided = false
FROM found WHERE l.id = found.id
RETURNING l.id, l.token, l.failures, l.ehr_id::text, l.system_id, l.patient, l.own_ehr_id::text, found.was_left,
          l.done_upto, l.appended

-- name: note_left
-- Of lanes that were left, the jobs that somebody had: so many after these, and the rest of the transaction of the last.
UPDATE ehr_jobs AS q SET attempts = 1
FROM unnest(%(lanes)s::bigint[], %(after)s::bigint[]) AS given (lane, after)
WHERE q.lane = given.lane AND q.attempts = 0
  AND q.seq > given.after AND q.seq <= given.after + %(jobs)s::bigint + %(rest)s::bigint
  AND (q.seq <= given.after + %(jobs)s::bigint OR q.commit_lsn = (
      SELECT o.commit_lsn FROM ehr_jobs AS o WHERE o.lane = given.lane AND o.seq = given.after + %(jobs)s::bigint))

-- name: laid_out
-- Of lanes that are held, the jobs after these, once they are laid out; with what is known of their compositions.
SELECT given.lane, j.seq, m.source_table, m.mapping, j.record_key, m.operation,
       CASE WHEN j.patient IS NULL THEN l.patient ELSE nullif(j.patient, '') END,
       CASE WHEN j.patient IS NULL THEN l.own_ehr_id ELSE j.ehr_id END::text, j.composition_id::text, m.template_id,
       j.commit_lsn::text, j.ordinal, j.part, j.snapshot, m.columns, m.priority, m.may_merge, j.trouble, j.state,
       j.attempts, c.uid, c.is_deleted, c.commit_lsn::text, c.ordinal
FROM unnest(%(lanes)s::bigint[], %(after)s::bigint[]) AS given (lane, after)
JOIN ehr_lanes AS l ON l.id = given.lane
JOIN LATERAL (
    SELECT * FROM ehr_jobs AS j WHERE j.lane = given.lane AND j.seq > given.after
    ORDER BY j.seq LIMIT %(most)s::integer) AS j ON true
LEFT JOIN ehr_manners AS m ON m.id = j.manner
LEFT JOIN ehr_compositions AS c ON c.id = j.composition_id
ORDER BY given.lane, j.seq

-- name: rest_of_transaction
-- Of a lane that is held and laid out, what follows this job of the same transaction: up to a job of another, for what
-- is replayed may come in any order. Not what has come since it was laid out: that would be done with, and lie there.
SELECT j.seq, m.source_table, m.mapping, j.record_key, m.operation,
       CASE WHEN j.patient IS NULL THEN l.patient ELSE nullif(j.patient, '') END,
       CASE WHEN j.patient IS NULL THEN l.own_ehr_id ELSE j.ehr_id END::text, j.composition_id::text, m.template_id,
       j.commit_lsn::text, j.ordinal, j.part, j.snapshot, m.columns, m.priority, m.may_merge, j.trouble, j.state,
       j.attempts, c.uid, c.is_deleted, c.commit_lsn::text, c.ordinal
FROM ehr_jobs AS j
JOIN ehr_lanes AS l ON l.id = j.lane
LEFT JOIN ehr_manners AS m ON m.id = j.manner
LEFT JOIN ehr_compositions AS c ON c.id = j.composition_id
WHERE j.lane = %(lane)s::bigint AND j.seq > %(after)s::bigint AND j.seq <= %(after)s::bigint + %(most)s::bigint
  AND j.seq < coalesce((
      SELECT o.seq FROM ehr_jobs AS o
      WHERE o.lane = %(lane)s::bigint AND o.seq > %(after)s::bigint AND o.seq <= %(after)s::bigint + %(most)s::bigint
        AND o.commit_lsn <> %(lsn)s::pg_lsn
      ORDER BY o.seq LIMIT 1), %(after)s::bigint + %(most)s::bigint + 1)
ORDER BY j.seq

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
-- and nothing for one that is not. Answers those that are. What people have decided meanwhile stays decided: of a job
-- that was not delivered; and of its lane, which is looked at anew.
WITH held AS MATERIALIZED (
    SELECT given.*, l.patient, l.own_ehr_id, l.decided, l.decided AND given.delay IS NOT NULL AS is_anew
    FROM ehr_lanes AS l JOIN json_to_recordset(%(lanes)s::json) AS given (
        id bigint, token bigint, upto bigint, state text, held_by text, delay float8, failures integer, ehr_id uuid,
        system_id text) ON (l.id, l.token) = (given.id, given.token)
    ORDER BY l.id FOR UPDATE OF l),
said AS (
    SELECT given.*, held.token, coalesce(given.ehr_id, held.ehr_id) AS home, held.patient, held.own_ehr_id FROM json_to_recordset(%(said)s::json) AS given (
        lane bigint, seq bigint, state text, uid text, version integer, is_deleted boolean, error_class text,
        message text, delay float8, newer_lsn pg_lsn, newer_ordinal bigint, ehr_id uuid)
    JOIN held ON held.id = given.lane),
gone AS (
    DELETE FROM ehr_jobs AS q USING said
    WHERE q.lane = said.lane AND q.seq = said.seq AND said.state IN ('done', 'skipped', 'merged')
    RETURNING q.lane, q.seq, q.manner, q.record_key,
              CASE WHEN q.patient IS NULL THEN said.patient ELSE nullif(q.patient, '') END AS patient,
              q.composition_id, q.commit_lsn, q.ordinal, q.part, q.snapshot, q.trouble, q.attempts, q.error_class,
              q.error_message, q.created_at, q.updated_at, said.state AS ended, said.uid, said.version AS at_version, said.is_deleted, said.token,
              CASE WHEN q.state = 'skipping' AND said.state = 'done'
                   THEN concat_ws('; ', said.message, 'it was skipped while it was being delivered') ELSE said.message
              END AS message,
              coalesce(said.home, CASE WHEN q.patient IS NULL THEN said.own_ehr_id ELSE q.ehr_id END) AS home, coalesce(said.newer_lsn, q.commit_lsn) AS at_lsn,
              coalesce(said.newer_ordinal, q.ordinal) AS at_ordinal),
moved AS (SELECT * FROM gone LEFT JOIN ehr_manners AS m ON m.id = gone.manner),
kept AS (
    INSERT INTO ehr_jobs_done (
        lane, seq, source_table, mapping, record_key, operation, patient, ehr_id, composition_id, template_id,
        commit_lsn, ordinal, part, snapshot, priority, may_merge, trouble, state, attempts, lease_token, error_class,
        error_message, composition_uid, version, note, created_at, updated_at, finished_at)
    SELECT lane, seq, source_table, mapping, record_key, operation, patient, home, composition_id, template_id,
           commit_lsn, ordinal, part, CASE WHEN columns IS NULL THEN snapshot ELSE ehr_row(snapshot, columns) END,
           priority, may_merge, trouble, ended, attempts, token, error_class,
           error_message, uid, at_version, message, created_at, updated_at, now()
    FROM moved),
known AS (
    INSERT INTO ehr_compositions AS c (
        id, ehr_id, mapping, record_key, uid, is_deleted, commit_lsn, ordinal, delivered_at, begun)
    SELECT DISTINCT ON (composition_id) composition_id, home, mapping, record_key, uid, is_deleted, at_lsn, at_ordinal,
           now(), begun
    FROM moved WHERE ended = 'done' AND uid IS NOT NULL AND composition_id IS NOT NULL
    ORDER BY composition_id, seq DESC
    ON CONFLICT (id) DO UPDATE
    SET ehr_id = excluded.ehr_id, uid = excluded.uid, is_deleted = excluded.is_deleted, record_key = excluded.record_key,
        delivered_at = excluded.delivered_at, begun = coalesce(excluded.begun, c.begun), commit_lsn = greatest(c.commit_lsn, excluded.commit_lsn),
        ordinal = CASE WHEN (c.commit_lsn, c.ordinal) > (excluded.commit_lsn, excluded.ordinal)
                       THEN c.ordinal ELSE excluded.ordinal END),
tried AS (
    UPDATE ehr_jobs AS q
    SET attempts = q.attempts + 1, next_attempt_at = now() + said.delay * interval '1 s', lease_token = said.token,
        updated_at = now(),
        (state, error_class, error_message) = (
            SELECT q.state, q.error_class, q.error_message WHERE q.state IN ('skipping', 'parked')
            UNION ALL
            SELECT said.state, said.error_class, said.message WHERE q.state NOT IN ('skipping', 'parked'))
    FROM said
    WHERE q.lane = said.lane AND q.seq = said.seq AND said.state IN ('retrying', 'held', 'parked')),
never_sent AS (
    UPDATE ehr_jobs AS q SET error_class = NULL, error_message = NULL
    FROM held
    WHERE held.is_anew AND q.lane = held.id AND q.seq > held.upto AND q.state = 'skipping' AND q.error_class = 'operator'
      AND NOT EXISTS (SELECT FROM said WHERE said.lane = q.lane AND said.seq = q.seq))
UPDATE ehr_lanes AS l
SET done_upto = greatest(l.done_upto, held.upto), failures = held.failures,
    ehr_id = held.ehr_id, system_id = held.system_id,
    state = CASE WHEN greatest(l.done_upto, held.upto) = l.appended THEN 'idle' WHEN held.is_anew THEN 'waiting'
                 ELSE coalesce(held.state, l.state) END,
    held_by = CASE WHEN NOT held.is_anew THEN held.held_by END,
    lease_until = CASE WHEN held.delay IS NULL THEN l.lease_until END,
    holder = CASE WHEN held.delay IS NULL THEN l.holder END,
    decided = held.decided AND NOT held.is_anew,
    due_at = CASE WHEN held.is_anew THEN now() ELSE coalesce(now() + held.delay * interval '1 s', l.due_at) END,
    (priority, urgent_upto) = (
        SELECT coalesce(min(next.priority), l.priority), coalesce(min(next.seq), l.urgent_upto) FROM (
            SELECT * FROM (
                SELECT m.priority, n.seq
                FROM (
                    SELECT n.manner, n.seq FROM ehr_jobs AS n
                    WHERE n.lane = l.id AND n.seq > held.upto AND n.seq <= held.upto + 50
                    UNION ALL
                    SELECT j.manner, p.seq + j.place
                    FROM ehr_parcels AS p CROSS JOIN LATERAL ehr_jobs_of(p.jobs) AS j
                    WHERE p.lane = l.id AND p.seq <= held.upto + 50) AS n
                JOIN ehr_manners AS m ON m.id = n.manner
                WHERE held.upto >= l.urgent_upto AND held.upto < l.appended) AS soon
            ORDER BY priority, seq DESC LIMIT 1) AS next)
FROM held WHERE l.id = held.id
RETURNING l.id

-- name: hold
-- Many lanes are to wait for this.
INSERT INTO ehr_holds (name, reason, since, check_at)
VALUES (%(name)s::text, %(reason)s::text, now(), now() + %(pause)s::interval)
ON CONFLICT (name) DO UPDATE SET reason = excluded.reason

-- name: due_hold
-- One that is to be looked at now; nobody else looks for as long as it has stood, within bounds.
UPDATE ehr_holds
SET check_at = now() + least(%(most)s::interval, greatest(%(least)s::interval, now() - since))
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
-- What was finished so long ago; so many at once. What was merged into a job that is not finished may be wanted yet.
DELETE FROM ehr_jobs_done WHERE (lane, seq) IN (
    SELECT d.lane, d.seq FROM ehr_jobs_done AS d
    WHERE d.finished_at < now() - %(age)s::interval
      AND NOT EXISTS (
          SELECT FROM ehr_jobs AS q
          WHERE q.lane = d.lane AND q.seq = CASE d.state WHEN 'merged' THEN split_part(d.note, '.', 2)::bigint END)
    LIMIT %(limit)s::integer
    -- Those that somebody is about to replay are forgotten later.
    FOR UPDATE OF d SKIP LOCKED)

-- name: one_worker_at_a_time
-- Until the end of the transaction, nobody else divides; one that stands still in it is ended.
SELECT pg_catalog.set_config('idle_in_transaction_session_timeout', '5s', true),
       pg_catalog.pg_advisory_xact_lock(hashtextextended('replicator work ' || current_schema(), 0))

-- name: divide
-- How many lanes we may have at work: our part of all, or as many of it as the others have left. Those that are at
-- work still count until they end.
WITH gone AS (
    DELETE FROM ehr_workers WHERE until < clock_timestamp() AND holder <> %(holder)s::text),
others AS (
    SELECT coalesce(sum(lanes), 0)::integer AS lanes, ceil(%(most)s::float8 / (count(*) + 1))::integer AS fair
    FROM ehr_workers WHERE url = %(url)s::text AND holder <> %(holder)s::text AND until >= clock_timestamp())
INSERT INTO ehr_workers AS w (holder, url, lanes, until)
SELECT %(holder)s::text, %(url)s::text, greatest(%(used)s::integer, least(fair, %(most)s::integer - lanes), 0),
       clock_timestamp() + %(lease)s::interval
FROM others
ON CONFLICT (holder) DO UPDATE SET url = excluded.url, lanes = excluded.lanes, until = excluded.until
RETURNING least(w.lanes, (SELECT fair FROM others))

-- name: leave_workers
DELETE FROM ehr_workers WHERE holder = %(holder)s::text

-- name: find_jobs
-- Jobs, oldest first, that fit what is asked; what is not asked is NULL.
SELECT q.lane, q.seq, q.source_table, q.mapping, q.record_key, q.operation, q.patient, q.state, q.attempts, q.error_class,
       q.error_message, q.commit_lsn::text || ':' || q.ordinal, q.composition_id::text, q.composition_uid,
       extract(epoch FROM now() - q.created_at)::float8, q.priority, q.created_at, q.finished_at, q.next_attempt_at,
       q.note, q.ehr_id::text, q.template_id, l.state, q.seq = l.done_upto + 1
FROM ehr_sync_queue AS q JOIN ehr_lanes AS l ON l.id = q.lane
WHERE (%(states)s::text[] IS NULL OR q.state = ANY (%(states)s::text[]))
  AND (%(table)s::text IS NULL OR %(table)s::text IN (q.source_table, q.mapping))
  AND (%(lane)s::bigint IS NULL OR q.lane = %(lane)s::bigint)
  AND (%(error_class)s::text IS NULL OR q.error_class = %(error_class)s::text)
  AND (%(older)s::interval IS NULL OR q.created_at < now() - %(older)s::interval)
ORDER BY q.created_at, q.lane, q.seq
LIMIT %(limit)s::integer

-- name: find_given_jobs
-- The same among these alone, which are found by their numbers, one after another: a parcel has no more than 64.
SELECT q.lane, q.seq, q.source_table, q.mapping, q.record_key, q.operation, q.patient, q.state, q.attempts, q.error_class,
       q.error_message, q.commit_lsn::text || ':' || q.ordinal, q.composition_id::text, q.composition_uid,
       extract(epoch FROM now() - q.created_at)::float8, q.priority, q.created_at, q.finished_at, q.next_attempt_at,
       q.note, q.ehr_id::text, q.template_id, l.state, q.seq = l.done_upto + 1
FROM unnest(%(lanes)s::bigint[], %(seqs)s::bigint[]) AS given (lane, seq)
JOIN LATERAL (
    SELECT * FROM ehr_jobs_open AS j
    WHERE (j.lane, j.seq) = (given.lane, given.seq) AND j.parcel BETWEEN given.seq - 63 AND given.seq
    UNION ALL
    SELECT *, d.seq, NULL FROM ehr_jobs_done AS d WHERE (d.lane, d.seq) = (given.lane, given.seq)
    OFFSET 0) AS q ON true
JOIN ehr_lanes AS l ON l.id = q.lane
WHERE (%(states)s::text[] IS NULL OR q.state = ANY (%(states)s::text[]))
  AND (%(table)s::text IS NULL OR %(table)s::text IN (q.source_table, q.mapping))
  AND (%(lane)s::bigint IS NULL OR q.lane = %(lane)s::bigint)
  AND (%(error_class)s::text IS NULL OR q.error_class = %(error_class)s::text)
  AND (%(older)s::interval IS NULL OR q.created_at < now() - %(older)s::interval)
ORDER BY q.created_at, q.lane, q.seq
LIMIT %(limit)s::integer

-- name: show_job
-- All there is about one job but its row.
SELECT to_jsonb(q) - 'snapshot' - 'parcel' - 'begun' FROM (
    SELECT * FROM ehr_jobs_open AS j
    WHERE (j.lane, j.seq) = (%(lane)s::bigint, %(seq)s::bigint)
      AND j.parcel BETWEEN %(seq)s::bigint - 63 AND %(seq)s::bigint
    UNION ALL
    SELECT *, d.seq, NULL FROM ehr_jobs_done AS d WHERE (d.lane, d.seq) = (%(lane)s::bigint, %(seq)s::bigint)) AS q

-- name: job_audit
SELECT at, who, action, why FROM ehr_queue_audit WHERE (lane, seq) = (%(lane)s::bigint, %(seq)s::bigint) ORDER BY id

-- name: stop_lanes
-- Nobody records anything of these lanes until we have decided.
SELECT id FROM ehr_lanes WHERE id = ANY (%(lanes)s::bigint[]) ORDER BY id FOR UPDATE

-- name: interrupt
-- Those of these lanes that somebody has taken are to be looked at anew when they come back. Answers who has them, and
-- whether still: one whose lease has ended says nothing more about his.
UPDATE ehr_lanes SET decided = true, token = CASE WHEN lease_until > now() THEN token ELSE token + 1 END
WHERE id = ANY (%(lanes)s::bigint[]) AND lease_until IS NOT NULL
RETURNING id, holder, lease_until > now()

-- name: tell_taken
-- Workers hear of it when this is committed, and give back what they have.
SELECT pg_catalog.pg_notify('replicator_jobs', 'decided')

-- name: retry_jobs
-- They are tried as if for the first time; but what was sent without an answer may be in the record. One that is to be
-- left out may be left out just now, where its lane is taken.
UPDATE ehr_jobs AS q
SET state = 'waiting', attempts = CASE state WHEN 'parked' THEN 0 ELSE least(attempts, 1) END,
    error_class = NULL, error_message = NULL, next_attempt_at = NULL, updated_at = now()
FROM ehr_manners AS m
WHERE m.id = q.manner
  AND (q.lane, q.seq) IN (SELECT * FROM unnest(%(lanes)s::bigint[], %(seqs)s::bigint[]) AS given (lane, seq))
  AND q.state <> 'waiting' AND NOT (q.state = 'skipping' AND q.lane = ANY (%(taken)s::bigint[]))
RETURNING q.lane, q.seq, m.mapping, q.record_key

-- name: skip_jobs
-- They leave the queue, undelivered, when their turn comes; but of those in a lane that is taken, one may be sent
-- already.
UPDATE ehr_jobs AS q
SET state = 'skipping', updated_at = now(),
    error_class = CASE WHEN l.lease_until IS NULL THEN q.error_class ELSE 'operator' END,
    error_message = CASE WHEN l.lease_until IS NULL THEN q.error_message
                         ELSE 'skipped while its lane was taken by ' || l.holder || ': the record may hold it' END
FROM ehr_lanes AS l, ehr_manners AS m
WHERE l.id = q.lane AND m.id = q.manner AND q.state <> 'skipping'
  AND (q.lane, q.seq) IN (SELECT * FROM unnest(%(lanes)s::bigint[], %(seqs)s::bigint[]) AS given (lane, seq))
RETURNING q.lane, q.seq, m.mapping, q.record_key

-- name: merged_into
-- The finished jobs for which these were to stand, and those for which such a one had stood before. Which one stands
-- for a job is in its note.
WITH RECURSIVE found AS (
    SELECT d.lane, given.seq AS instead, d.seq
    FROM unnest(%(lanes)s::bigint[], %(seqs)s::bigint[]) AS given (lane, seq)
    JOIN ehr_jobs_done AS d ON d.lane = given.lane AND split_part(d.note, '.', 2) = given.seq::text
    WHERE d.state = 'merged'
    UNION
    SELECT d.lane, found.instead, d.seq
    FROM found
    JOIN ehr_jobs_done AS d ON d.lane = found.lane AND split_part(d.note, '.', 2) = found.seq::text
    WHERE d.state = 'merged')
SELECT lane, instead, seq FROM found ORDER BY lane, instead, seq

-- name: park_jobs
-- Their lanes stop when they come to them.
UPDATE ehr_jobs AS q
SET state = 'parked', error_class = 'operator', error_message = %(why)s::text, updated_at = now()
FROM ehr_manners AS m
WHERE m.id = q.manner AND q.state <> 'parked'
  AND (q.lane, q.seq) IN (SELECT * FROM unnest(%(lanes)s::bigint[], %(seqs)s::bigint[]) AS given (lane, seq))
RETURNING q.lane, q.seq, m.mapping, q.record_key

-- name: free_lanes
-- Lanes that stopped go on at once; one that somebody holds goes on anyway.
UPDATE ehr_lanes
SET state = 'waiting', held_by = NULL, failures = 0, due_at = CASE WHEN lease_until > now() THEN due_at ELSE now() END
WHERE id = ANY (%(lanes)s::bigint[]) AND state <> 'idle'

-- name: park_lanes
-- Lanes whose next job is parked, and that nobody holds.
UPDATE ehr_lanes AS l SET state = 'parked', held_by = NULL
FROM ehr_jobs AS q
WHERE l.id = ANY (%(lanes)s::bigint[]) AND l.state <> 'idle' AND (l.lease_until IS NULL OR l.lease_until < now())
  AND q.lane = l.id AND q.seq = l.done_upto + 1 AND q.state = 'parked'

-- name: replay_jobs
-- Once more what was finished: after everything that waits in its lane, in the order it was in. But what has been deleted
-- since must not come there now, whatever is known of it: of a deletion the record does not say which change it is of.
INSERT INTO ehr_jobs (
    lane, seq, manner, record_key, composition_id, commit_lsn, ordinal, snapshot, part, patient, ehr_id, trouble, state,
    error_message)
SELECT d.lane, before.seq + row_number() OVER (PARTITION BY d.lane ORDER BY d.seq), (
           SELECT m.id FROM ehr_manners AS m
           WHERE (m.source_table, m.mapping, m.operation, m.priority, m.may_merge)
                 = (d.source_table, d.mapping, d.operation, d.priority, d.may_merge)
             AND m.template_id IS NOT DISTINCT FROM d.template_id AND m.columns IS NULL
           -- The id is said; what it is named by may be another mapping's than it was.
           ORDER BY m.begun IS NOT NULL, m.id LIMIT 1),
       d.record_key, d.composition_id, d.commit_lsn, d.ordinal, d.snapshot, d.part, coalesce(d.patient, ''), d.ehr_id,
       d.trouble,
       CASE WHEN (o.commit_lsn, o.ordinal) > (d.commit_lsn, d.ordinal) THEN 'skipping' ELSE 'waiting' END,
       CASE WHEN (o.commit_lsn, o.ordinal) > (d.commit_lsn, d.ordinal) THEN 'it has been deleted since' END
FROM ehr_jobs_done AS d
LEFT JOIN (
    SELECT DISTINCT ON (lane, composition_id) lane, composition_id, commit_lsn, ordinal FROM ehr_jobs_done
    WHERE lane = ANY (%(before_lanes)s::bigint[]) AND operation = 'delete' AND state = 'done'
    ORDER BY lane, composition_id, commit_lsn DESC, ordinal DESC
) AS o ON (o.lane, o.composition_id) = (d.lane, d.composition_id)
JOIN unnest(%(before_lanes)s::bigint[], %(before)s::bigint[]) AS before (lane, seq) ON before.lane = d.lane
WHERE (d.lane, d.seq) IN (SELECT * FROM unnest(%(lanes)s::bigint[], %(seqs)s::bigint[]) AS given (lane, seq))
RETURNING lane, seq, (SELECT m.mapping FROM ehr_manners AS m WHERE m.id = manner), record_key

-- name: forget_compositions
-- What we believed of them is not believed any more: the record is asked. But it would not say which change a
-- deletion is of; so one that came after all of these stays known, or they would bring back what it has deleted.
WITH meant AS (
    SELECT c.id FROM ehr_compositions AS c JOIN ehr_jobs_done AS d ON d.composition_id = c.id
    WHERE (NOT c.is_deleted OR (d.commit_lsn, d.ordinal) >= (c.commit_lsn, c.ordinal))
      AND (d.lane, d.seq) IN (SELECT * FROM unnest(%(lanes)s::bigint[], %(seqs)s::bigint[]) AS given (lane, seq))
    ORDER BY c.id FOR UPDATE OF c)
DELETE FROM ehr_compositions AS c USING meant WHERE c.id = meant.id

-- name: forget_mappings
-- The same of all that these mappings have made, and that has not been deleted: what is known of a deletion stays, or
-- whatever is replayed later would bring back what it has deleted.
WITH meant AS (
    SELECT id FROM ehr_compositions WHERE mapping = ANY (%(mappings)s::text[]) AND NOT is_deleted ORDER BY id FOR UPDATE)
DELETE FROM ehr_compositions AS c USING meant WHERE c.id = meant.id

-- name: lanes_of_jobs
-- How many of these finished jobs each lane has, with what makes it known. From here on none of them is forgotten.
WITH meant AS (
    SELECT d.lane, d.priority FROM ehr_jobs_done AS d
    WHERE (d.lane, d.seq) IN (SELECT * FROM unnest(%(lanes)s::bigint[], %(seqs)s::bigint[]) AS given (lane, seq))
    ORDER BY d.lane, d.seq FOR UPDATE)
SELECT d.lane, l.name, l.patient, count(*), min(d.priority)
FROM meant AS d JOIN ehr_lanes AS l ON l.id = d.lane
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
CROSS JOIN LATERAL (
    SELECT coalesce(
        (SELECT created_at FROM ehr_jobs AS j WHERE j.lane = l.id AND j.seq > l.done_upto ORDER BY j.seq LIMIT 1),
        (SELECT created_at FROM ehr_parcels AS p WHERE p.lane = l.id ORDER BY p.seq LIMIT 1)) AS created_at) AS q
WHERE l.state <> 'idle'

-- name: errors_by_class
SELECT error_class, count(*) FROM ehr_jobs WHERE error_class IS NOT NULL GROUP BY error_class

-- name: finished_lately
SELECT state, count(*) FROM ehr_jobs_done WHERE finished_at > now() - interval '1 hour' GROUP BY state

-- name: position_and_newest
-- On the source: up to where its log is safe, and then a transaction that is newer than any with a commit before that:
-- our own. A snapshot ends with the newest that is over, and tells nothing of those that have only begun since. And
-- where the log is not safe yet, it may be written anew, by other commits, after a crash.
SELECT pg_catalog.pg_current_wal_flush_lsn()::text, pg_catalog.pg_current_xact_id()::text

-- name: are_over
-- On the source: whether every transaction older than this one has ended, for all to see.
SELECT pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot()) >= %(newest)s::text::xid8

-- name: delivered_after
-- Of one lane, what has been finished since the job of this number.
SELECT seq, mapping, record_key, operation, version, composition_uid FROM ehr_jobs_done
WHERE lane = %(lane)s::bigint AND seq > %(seq)s::bigint AND state = 'done' ORDER BY seq

-- name: mirror
-- Whether `ehr_sync_status` is to be kept from now on; whether it was otherwise before.
SELECT ehr_mirror(%(is_kept)s::boolean)

-- name: is_mirrored
SELECT EXISTS (SELECT FROM pg_catalog.pg_trigger
               WHERE (tgrelid, tgname) = ('ehr_parcels'::regclass, 'ehr_mirror_parcels'))

-- name: mirrored
SELECT count(*) FROM ehr_sync_status
