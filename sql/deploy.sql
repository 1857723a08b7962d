-- Sets of rules: storing them, preparing one beside another, and putting it in force.

-- name: lock
-- One at a time changes which sets there are; reading goes on.
LOCK TABLE rule_sets IN SHARE ROW EXCLUSIVE MODE

-- name: sets
-- Every set that is still known, the newest first.
SELECT id, content, origin, state, why, versions, stored_at, begun_at, active_at, ended_at, cleaned_at
FROM rule_sets WHERE slot = %(slot)s::text ORDER BY id DESC

-- name: standing
-- Which set is in force, and which is being prepared.
SELECT (SELECT id FROM rule_sets WHERE slot = %(slot)s::text AND state = 'active'),
       (SELECT id FROM rule_sets WHERE slot = %(slot)s::text AND state = 'preparing')

-- name: store
INSERT INTO rule_sets (slot, id, content, origin, state, versions)
VALUES (%(slot)s::text, %(id)s::bigint, %(content)s::text, %(origin)s::text, 'preparing', %(versions)s::jsonb)

-- name: replace
-- The set that was being prepared gives way to a newer one.
UPDATE rule_sets SET state = 'retired', ended_at = now(), why = 'replaced by ' || %(id)s::bigint || ' before it was complete'
WHERE slot = %(slot)s::text AND state = 'preparing'

-- name: begin
-- Somebody begins to prepare it; no row if somebody has.
UPDATE rule_sets SET begun_at = now()
WHERE slot = %(slot)s::text AND id = %(rules)s::bigint AND begun_at IS NULL RETURNING id

-- name: fail
UPDATE rule_sets SET state = 'failed', ended_at = now(), why = %(why)s::text
WHERE slot = %(slot)s::text AND id = %(rules)s::bigint AND state = 'preparing' RETURNING id

-- name: is_ready
-- Whether everything that a set needs has been copied.
SELECT EXISTS (SELECT FROM rule_sets WHERE slot = %(slot)s::text AND id = %(rules)s::bigint AND state = 'preparing')
   AND NOT EXISTS (SELECT FROM tables WHERE slot = %(slot)s::text AND state <> 'copied' AND for_rules IS DISTINCT FROM 0)
   AND NOT EXISTS (SELECT FROM rule_copies
                   WHERE slot = %(slot)s::text AND rules = %(rules)s::bigint AND state <> 'copied')

-- name: retire
UPDATE rule_sets SET state = 'retired', ended_at = now() WHERE slot = %(slot)s::text AND state = 'active'

-- name: give_up
-- The set in force is over before the one in preparation is ready, which has begun with this.
UPDATE rule_sets SET state = CASE WHEN state = 'active' THEN 'retired' ELSE state END,
                     why = CASE WHEN state = 'active' THEN %(why)s::text END,
                     ended_at = CASE WHEN state = 'active' THEN now() END,
                     begun_at = coalesce(begun_at, now())
WHERE slot = %(slot)s::text AND (state = 'active' OR id = %(rules)s::bigint)

-- name: forget_copies
DELETE FROM rule_copies WHERE slot = %(slot)s::text AND rules = %(rules)s::bigint

-- name: put_in_force
UPDATE rule_sets SET state = 'active', active_at = now()
WHERE slot = %(slot)s::text AND id = %(rules)s::bigint AND state = 'preparing'

-- name: free_tables
-- Tables that only the set in preparation read are like any other.
UPDATE tables SET for_rules = NULL WHERE slot = %(slot)s::text AND for_rules > 0

-- name: set_for
UPDATE tables SET for_rules = %(for_rules)s::bigint WHERE slot = %(slot)s::text AND oid = %(oid)s::bigint

-- name: copies
-- The tables that are read once more for a set, and how far each has come.
SELECT oid, state, copied_to, rows_copied, rows_expected
FROM rule_copies WHERE slot = %(slot)s::text AND rules = %(rules)s::bigint

-- name: want_copy
-- A table to be read for a set, from its first row; or one whose copy for everybody does that as well.
INSERT INTO rule_copies (slot, rules, oid, state, rows_expected)
VALUES (%(slot)s::text, %(rules)s::bigint, %(oid)s::bigint, %(state)s::text, %(rows)s::bigint)
ON CONFLICT (slot, rules, oid) DO UPDATE SET state = excluded.state

-- name: begin_copy
UPDATE rule_copies SET state = 'copying', begun_at = coalesce(begun_at, now())
WHERE slot = %(slot)s::text AND rules = %(rules)s::bigint AND oid = %(oid)s::bigint AND state <> 'copied'

-- name: advance_copy
UPDATE rule_copies SET copied_to = %(copied_to)s::text[], rows_copied = rows_copied + %(rows)s::bigint
WHERE slot = %(slot)s::text AND rules = %(rules)s::bigint AND oid = %(oid)s::bigint AND state = 'copying'

-- name: finish_copy
UPDATE rule_copies SET state = 'copied', copied_at = now()
WHERE slot = %(slot)s::text AND rules = %(rules)s::bigint AND oid = %(oid)s::bigint

-- name: progress
-- How far the tables that a set waits for have come.
SELECT c.oid, t.namespace, t.name, c.state, c.rows_copied, greatest(c.rows_expected, c.rows_copied)
FROM rule_copies AS c JOIN tables AS t USING (slot, oid)
WHERE c.slot = %(slot)s::text AND c.rules = %(rules)s::bigint AND t.state = 'copied' AND t.for_rules IS NULL
UNION ALL
SELECT oid, namespace, name, state, rows_copied, greatest(rows_expected, rows_copied)
FROM tables
WHERE slot = %(slot)s::text AND for_rules IS DISTINCT FROM 0 AND (state <> 'copied' OR for_rules = %(rules)s::bigint)
ORDER BY 2, 3

-- name: rate
-- How many rows a second were copied, where that was long enough to tell.
SELECT sum(rows_copied) / sum(extract(epoch FROM copied_at - begun_at))
FROM (SELECT rows_copied, begun_at, copied_at FROM tables WHERE slot = %(slot)s::text
      UNION ALL SELECT rows_copied, begun_at, copied_at FROM rule_copies WHERE slot = %(slot)s::text) AS copies
WHERE copied_at - begun_at > interval '1 second' AND rows_copied > 1000

-- name: has_begun
SELECT EXISTS (SELECT FROM checkpoints WHERE slot = %(slot)s::text)
