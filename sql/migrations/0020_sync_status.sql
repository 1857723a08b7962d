-- Rules cannot name a view: what becomes of jobs can be had as rows of a table now, by whoever asks for it.

-- What has become of each job, in the names and statuses of `ehrbase_sync_queue`, as rows of a table: rules can name
-- it, and so apps are told; the log knows no views. Empty, until `ehr_mirror` has been asked to have it kept by
-- triggers on the tables above. Nobody but them writes to it.
CREATE TABLE ehr_sync_status (
    id                      text         COLLATE "C" PRIMARY KEY,
    -- Of two jobs of a record, the later one has the greater number, as long as they are in one lane.
    seq                     bigint       NOT NULL,
    table_name              text,
    record_id               text,
    patient_id              text,
    template_id             text,
    sync_type               text,
    sync_status             text         NOT NULL,
    retry_count             integer      NOT NULL,
    error_message           text,
    ehrbase_composition_id  text,
    ehr_id                  text,
    created_at              timestamptz  NOT NULL,
    processed_at            timestamptz,
    updated_at              timestamptz  NOT NULL
);

CREATE FUNCTION ehr_status_of(state text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN state = 'done' THEN 'completed' WHEN state IN ('skipped', 'merged', 'skipping') THEN 'skipped'
            WHEN state = 'parked' THEN 'failed' ELSE 'pending' END;
CREATE FUNCTION ehr_sync_type(operation text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE operation WHEN 'status' THEN 'ehr_status_update' WHEN 'create' THEN 'composition_create'
            WHEN 'delete' THEN 'composition_delete' ELSE 'composition_update' END;

-- These are planned once in a session, and go by the indices, whatever the first of them were about. They may do what
-- their owner may, and know their tables by themselves: whoever feeds the queue need not know that it is looked at.
SELECT set_config('search_path', quote_ident(current_schema()) || ', pg_temp', true);
-- Parcels have come: all that is in them waits.
CREATE FUNCTION ehr_mirror_parcels() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT SET enable_seqscan = off SET enable_hashjoin = off
SET enable_mergejoin = off AS $$
BEGIN
    INSERT INTO ehr_sync_status (
        id, seq, table_name, record_id, patient_id, template_id, sync_type, sync_status, retry_count, ehr_id,
        created_at, updated_at)
    SELECT p.lane || '.' || p.seq + j.place, p.seq + j.place, split_part(m.source_table, '.', 2),
           ehr_key(j.record_key, j.snapshot, m.key_at),
           CASE WHEN coalesce(j.patient, p.patient) IS NULL THEN l.patient
                ELSE nullif(coalesce(j.patient, p.patient), '') END,
           m.template_id, ehr_sync_type(m.operation), 'pending', 0,
           CASE WHEN coalesce(j.patient, p.patient) IS NULL THEN l.own_ehr_id WHEN j.patient IS NULL THEN p.ehr_id
                ELSE j.ehr_id END, p.created_at, p.created_at
    FROM added AS p CROSS JOIN LATERAL ehr_jobs_of(p.jobs) AS j
    LEFT JOIN ehr_manners AS m ON m.id = j.manner LEFT JOIN ehr_lanes AS l ON l.id = p.lane
    ON CONFLICT (id) DO UPDATE  -- where somebody has emptied the queue, and its numbers begin anew
    SET seq = excluded.seq, table_name = excluded.table_name, record_id = excluded.record_id,
        patient_id = excluded.patient_id, template_id = excluded.template_id, sync_type = excluded.sync_type,
        sync_status = 'pending', retry_count = 0, error_message = NULL, ehrbase_composition_id = NULL,
        ehr_id = excluded.ehr_id, created_at = excluded.created_at, processed_at = NULL,
        updated_at = excluded.updated_at;
    RETURN NULL;
END $$;
-- Jobs have been laid out, which have a row; or are to be delivered once more, and have none.
CREATE FUNCTION ehr_mirror_jobs() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT SET enable_seqscan = off SET enable_hashjoin = off
SET enable_mergejoin = off AS $$
BEGIN
    INSERT INTO ehr_sync_status (
        id, seq, table_name, record_id, patient_id, template_id, sync_type, sync_status, retry_count, error_message,
        ehr_id, created_at, updated_at)
    SELECT j.lane || '.' || j.seq, j.seq, split_part(m.source_table, '.', 2), j.record_key,
           CASE WHEN j.patient IS NULL THEN l.patient ELSE nullif(j.patient, '') END, m.template_id,
           ehr_sync_type(m.operation), ehr_status_of(j.state), j.attempts,
           nullif(concat_ws(': ', j.error_class, j.error_message), ''),
           CASE WHEN j.patient IS NULL THEN l.own_ehr_id ELSE j.ehr_id END, j.created_at,
           coalesce(j.updated_at, j.created_at)
    FROM added AS j LEFT JOIN ehr_manners AS m ON m.id = j.manner LEFT JOIN ehr_lanes AS l ON l.id = j.lane
    ON CONFLICT (id) DO NOTHING;
    RETURN NULL;
END $$;
-- Jobs have been tried, or decided about.
CREATE FUNCTION ehr_mirror_tries() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT SET enable_seqscan = off SET enable_hashjoin = off
SET enable_mergejoin = off AS $$
BEGIN
    UPDATE ehr_sync_status AS s
    SET sync_status = ehr_status_of(j.state), retry_count = j.attempts,
        error_message = nullif(concat_ws(': ', j.error_class, j.error_message), ''), record_id = j.record_key,
        patient_id = CASE WHEN j.patient IS NULL THEN s.patient_id ELSE nullif(j.patient, '') END,
        updated_at = coalesce(j.updated_at, j.created_at)
    FROM changed AS j
    WHERE s.id = j.lane || '.' || j.seq
      AND (s.sync_status, s.retry_count, s.error_message, s.record_id, s.patient_id) IS DISTINCT FROM (
          ehr_status_of(j.state), j.attempts, nullif(concat_ws(': ', j.error_class, j.error_message), ''), j.record_key,
          CASE WHEN j.patient IS NULL THEN s.patient_id ELSE nullif(j.patient, '') END);
    RETURN NULL;
END $$;
-- Jobs are over, or what is kept of them is other. Of those that were merged into others nothing is left: these say
-- what became of both.
CREATE FUNCTION ehr_mirror_done() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT SET enable_seqscan = off SET enable_hashjoin = off
SET enable_mergejoin = off AS $$
BEGIN
    DELETE FROM ehr_sync_status WHERE id IN (SELECT lane || '.' || seq FROM added WHERE state = 'merged');
    INSERT INTO ehr_sync_status AS s
    SELECT j.lane || '.' || j.seq, j.seq, split_part(j.source_table, '.', 2), j.record_key, j.patient, j.template_id,
           ehr_sync_type(j.operation), ehr_status_of(j.state), j.attempts,
           nullif(concat_ws(': ', j.error_class, j.error_message), ''), j.composition_uid, j.ehr_id, j.created_at,
           j.finished_at, coalesce(j.updated_at, j.finished_at, j.created_at)
    FROM added AS j WHERE j.state <> 'merged'
    ON CONFLICT (id) DO UPDATE
    SET record_id = excluded.record_id, patient_id = excluded.patient_id, sync_status = excluded.sync_status,
        retry_count = excluded.retry_count, error_message = excluded.error_message,
        ehrbase_composition_id = excluded.ehrbase_composition_id, ehr_id = excluded.ehr_id,
        processed_at = excluded.processed_at, updated_at = excluded.updated_at;
    RETURN NULL;
END $$;
-- What was finished long ago has been let go.
CREATE FUNCTION ehr_mirror_gone() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT SET enable_seqscan = off SET enable_hashjoin = off
SET enable_mergejoin = off AS $$
BEGIN
    DELETE FROM ehr_sync_status WHERE id IN (SELECT lane || '.' || seq FROM gone);
    RETURN NULL;
END $$;
-- A lane says otherwise whose its jobs are: who is erased there is erased here.
CREATE FUNCTION ehr_mirror_patients() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT SET enable_seqscan = off SET enable_hashjoin = off
SET enable_mergejoin = off AS $$
BEGIN
    UPDATE ehr_sync_status SET patient_id = new.patient
    WHERE id >= new.id || '.' AND id < new.id || '/' AND patient_id IS NOT DISTINCT FROM old.patient;
    RETURN NULL;
END $$;
-- Whoever could hang them onto a table of their own could say what became of anybody's jobs.
REVOKE EXECUTE ON FUNCTION ehr_mirror_parcels(), ehr_mirror_jobs(), ehr_mirror_tries(), ehr_mirror_done(),
    ehr_mirror_gone(), ehr_mirror_patients() FROM PUBLIC;

-- Have `ehr_sync_status` kept from now on, or no more; whether that is new. Nobody appends or records meanwhile.
CREATE FUNCTION ehr_mirror(is_kept boolean) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    -- Others have these in an order of their own: all of it is had at once, or waited for without having any.
    PERFORM set_config('lock_timeout', '200ms', true);
    FOR try IN 1 .. 100 LOOP
        BEGIN
            IF is_kept THEN
                LOCK TABLE ehr_lanes, ehr_parcels, ehr_jobs, ehr_jobs_done IN SHARE ROW EXCLUSIVE MODE;
            ELSE  -- who reads them is in the way of taking triggers from them, too
                LOCK TABLE ehr_lanes, ehr_parcels, ehr_jobs, ehr_jobs_done IN ACCESS EXCLUSIVE MODE;
            END IF;
            EXIT;
        EXCEPTION WHEN lock_not_available THEN
            IF try = 100 THEN
                RAISE;
            END IF;
            PERFORM pg_sleep(0.1 * random());
        END;
    END LOOP;
    PERFORM set_config('lock_timeout', '0', true);
    IF is_kept = EXISTS (
        SELECT FROM pg_trigger WHERE (tgrelid, tgname) = ('ehr_parcels'::regclass, 'ehr_mirror_parcels')) THEN
        RETURN false;
    END IF;
    DELETE FROM ehr_sync_status;
    IF NOT is_kept THEN
        DROP TRIGGER ehr_mirror_parcels ON ehr_parcels;
        DROP TRIGGER ehr_mirror_jobs ON ehr_jobs;
        DROP TRIGGER ehr_mirror_tries ON ehr_jobs;
        DROP TRIGGER ehr_mirror_done ON ehr_jobs_done;
        DROP TRIGGER ehr_mirror_altered ON ehr_jobs_done;
        DROP TRIGGER ehr_mirror_gone ON ehr_jobs_done;
        DROP TRIGGER ehr_mirror_patients ON ehr_lanes;
    ELSE
        CREATE TRIGGER ehr_mirror_parcels AFTER INSERT ON ehr_parcels
            REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION ehr_mirror_parcels();
        CREATE TRIGGER ehr_mirror_jobs AFTER INSERT ON ehr_jobs
            REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION ehr_mirror_jobs();
        CREATE TRIGGER ehr_mirror_tries AFTER UPDATE ON ehr_jobs
            REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION ehr_mirror_tries();
        CREATE TRIGGER ehr_mirror_done AFTER INSERT ON ehr_jobs_done
            REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION ehr_mirror_done();
        CREATE TRIGGER ehr_mirror_altered AFTER UPDATE ON ehr_jobs_done
            REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION ehr_mirror_done();
        CREATE TRIGGER ehr_mirror_patients AFTER UPDATE OF patient ON ehr_lanes FOR EACH ROW
            WHEN (old.patient IS DISTINCT FROM new.patient) EXECUTE FUNCTION ehr_mirror_patients();
        CREATE TRIGGER ehr_mirror_gone AFTER DELETE ON ehr_jobs_done
            REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION ehr_mirror_gone();
        INSERT INTO ehr_sync_status
        SELECT lane || '.' || seq, seq, split_part(source_table, '.', 2), record_key, patient, template_id,
               ehr_sync_type(operation), ehr_status_of(state), attempts,
               nullif(concat_ws(': ', error_class, error_message), ''), composition_uid, ehr_id, created_at,
               finished_at, coalesce(updated_at, finished_at, created_at)
        FROM ehr_sync_queue WHERE state <> 'merged';
    END IF;
    RETURN true;
END $$;
