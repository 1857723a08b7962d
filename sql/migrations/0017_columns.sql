-- Rows that wait said the name of each column, the same for all rows of a table: nearly half of it. Now
-- their manner says them, once; and what is over says all of it still, by itself.
--
-- Whoever looks at the queue has it and what it is made of, in an order of their own: all of it is had at once, or
-- waited for without having any. Also the arrivals, which the next step wants: it would wait for them with all this.
DO $$
BEGIN
    LOOP
        BEGIN
            LOCK TABLE ehr_sync_queue_open, ehr_arrivals IN ACCESS EXCLUSIVE MODE NOWAIT;
            EXIT;
        EXCEPTION WHEN lock_not_available THEN
            PERFORM pg_sleep(0.02);
        END;
    END LOOP;
END $$;
ALTER TABLE ehr_manners ADD COLUMN columns text[];

CREATE FUNCTION ehr_row(snapshot text, columns text[]) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN columns IS NULL OR snapshot IS NULL THEN snapshot
            ELSE json_object(columns, ARRAY(SELECT json_array_elements_text(snapshot::json)))::text END;
-- Who may read the view may do this, also where functions are not everybody's: it knows nothing by itself.
GRANT EXECUTE ON FUNCTION ehr_row(text, text[]) TO PUBLIC;

CREATE OR REPLACE VIEW ehr_sync_queue_open AS
SELECT j.lane, j.seq, m.source_table, m.mapping, j.record_key, m.operation,
       CASE WHEN j.patient IS NULL THEN l.patient ELSE nullif(j.patient, '') END AS patient,
       CASE WHEN j.patient IS NULL THEN l.own_ehr_id ELSE j.ehr_id END AS ehr_id,
       j.composition_id, m.template_id, j.commit_lsn, j.ordinal, j.part, ehr_row(j.snapshot, m.columns) AS snapshot,
       m.priority, m.may_merge, j.trouble, j.state, j.attempts, j.next_attempt_at, j.lease_token, j.error_class,
       j.error_message, NULL::text AS composition_uid, NULL::integer AS version, NULL::text AS note, j.created_at,
       j.updated_at, NULL::timestamptz AS finished_at
FROM ehr_jobs AS j LEFT JOIN ehr_manners AS m ON m.id = j.manner LEFT JOIN ehr_lanes AS l ON l.id = j.lane;
