-- What clients have written through their backend, and when a checkpoint holds it.

-- name: head
-- On the source: where its log ends. Whatever was committed before this was asked for is before it.
SELECT pg_catalog.pg_current_wal_insert_lsn()

-- name: move_on
-- On the source: a transaction of ours, so that its log goes on beyond that also when nobody writes anything.
SELECT pg_catalog.pg_logical_emit_message(true, 'replicator', '{"mark": "written"}')

-- name: request
-- A client's next write, or the one it has numbered itself if that is further; the same one is asked for again
-- with the place that it was first given. Readers hear of it when this is committed.
WITH asked AS (
    SELECT DISTINCT ON (user_id, client_id) * FROM unnest(
        %(user_ids)s::text[], %(client_ids)s::text[], %(ids)s::bigint[]) AS asked (user_id, client_id, id)
    ORDER BY user_id, client_id, id DESC NULLS LAST),
stored AS (
    INSERT INTO write_checkpoints AS w (user_id, client_id, id, lsn, requested_at)
    SELECT user_id, client_id, coalesce(id, 1), %(lsn)s::pg_lsn, now() FROM asked ORDER BY user_id, client_id
    ON CONFLICT (user_id, client_id) DO UPDATE
    SET id = greatest(w.id, coalesce((SELECT a.id FROM asked AS a WHERE (a.user_id, a.client_id) = (w.user_id, w.client_id)),
                                     -- The last number stays: an error would be one for all who ask at once.
                                     w.id + (w.id < 9223372036854775807)::int)),
        lsn = CASE WHEN w.id >= (SELECT a.id FROM asked AS a WHERE (a.user_id, a.client_id) = (w.user_id, w.client_id))
                   THEN w.lsn ELSE excluded.lsn END,
        requested_at = excluded.requested_at
    RETURNING user_id, client_id, id),
told AS (
    SELECT count(pg_catalog.pg_notify('replicator_write', md5(user_id || chr(10) || client_id))) FROM stored)
SELECT user_id, client_id, id FROM stored, told

-- name: newest
-- The newest writes of these clients, and whether readers see the source as far.
SELECT w.user_id, w.client_id, w.id, w.lsn <= %(lsn)s::pg_lsn FROM write_checkpoints AS w
JOIN unnest(%(user_ids)s::text[], %(client_ids)s::text[]) AS asked (user_id, client_id)
  ON (w.user_id, w.client_id) = (asked.user_id, asked.client_id)

-- name: tell
-- What rows say: these writes are seen by who sees the source up to there. Numbers only grow.
WITH stored AS (
    INSERT INTO write_checkpoints AS w (user_id, client_id, id, lsn, requested_at)
    SELECT user_id, client_id, id, %(lsn)s::pg_lsn, now()
    FROM unnest(%(user_ids)b::text[], %(client_ids)b::text[], %(ids)b::bigint[]) AS told (user_id, client_id, id)
    ORDER BY user_id, client_id
    ON CONFLICT (user_id, client_id) DO UPDATE
    SET id = excluded.id, lsn = excluded.lsn, requested_at = excluded.requested_at
    WHERE excluded.id > w.id
    RETURNING user_id, client_id)
SELECT count(pg_catalog.pg_notify('replicator_write', md5(user_id || chr(10) || client_id))) FROM stored

-- name: place
-- Those that were told before the place was known.
UPDATE write_checkpoints SET lsn = %(lsn)s::pg_lsn WHERE lsn = %(nowhere)s::pg_lsn
