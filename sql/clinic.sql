-- A small clinic, for the demo and the tests: seven tables of a patient's record.

-- name: schema
CREATE TABLE users (
    id             uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    firebase_uid   text NOT NULL UNIQUE,
    full_name      text,
    date_of_birth  date,
    is_active      boolean NOT NULL DEFAULT true,
    created_at     timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE electronic_health_records (
    id             uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    patient_id     uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    ehr_id         uuid NOT NULL,
    ehr_status     text NOT NULL DEFAULT 'active'
);
CREATE TABLE vital_signs (
    id                        uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    patient_id                uuid REFERENCES users ON DELETE CASCADE,
    temperature_celsius       numeric(4, 1),
    blood_pressure_systolic   integer,
    blood_pressure_diastolic  integer,
    heart_rate_bpm            integer,
    notes                     text,
    recorded_at               timestamptz NOT NULL DEFAULT now(),
    created_at                timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE lab_results (
    id             uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    patient_id     uuid REFERENCES users ON DELETE CASCADE,
    test_name      text NOT NULL,
    result_value   text NOT NULL,
    unit           text,
    result_date    timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE prescriptions (
    id               uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    patient_id       uuid REFERENCES users ON DELETE CASCADE,
    medication_name  text NOT NULL,
    dosage           text NOT NULL,
    frequency        text NOT NULL,
    status           text NOT NULL DEFAULT 'active'
);
CREATE TABLE immunizations (
    id                   uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    patient_id           uuid REFERENCES users ON DELETE CASCADE,
    vaccine_name         text NOT NULL,
    administration_date  date NOT NULL,
    dose_number          integer
);
CREATE TABLE medical_records (
    id               uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    patient_id       uuid REFERENCES users ON DELETE CASCADE,
    record_type      text NOT NULL,
    title            text NOT NULL,
    description      text,
    diagnosis_codes  text[],
    metadata         jsonb
);
CREATE INDEX ON electronic_health_records (patient_id);
CREATE INDEX ON vital_signs (patient_id);
CREATE INDEX ON lab_results (patient_id);
CREATE INDEX ON prescriptions (patient_id);
CREATE INDEX ON immunizations (patient_id);
CREATE INDEX ON medical_records (patient_id);

-- name: publish
-- What a DBA does once: say which tables leave, and that changes carry the row as it was.
CREATE PUBLICATION powersync FOR TABLE
    users, electronic_health_records, vital_signs, lab_results, prescriptions, immunizations, medical_records;
ALTER TABLE users REPLICA IDENTITY FULL;
ALTER TABLE electronic_health_records REPLICA IDENTITY FULL;
ALTER TABLE vital_signs REPLICA IDENTITY FULL;
ALTER TABLE lab_results REPLICA IDENTITY FULL;
ALTER TABLE prescriptions REPLICA IDENTITY FULL;
ALTER TABLE immunizations REPLICA IDENTITY FULL;
ALTER TABLE medical_records REPLICA IDENTITY FULL;

-- name: admit
-- A patient and the record that belongs to them, in one transaction.
WITH patient AS (
    INSERT INTO users (firebase_uid, full_name, date_of_birth)
    VALUES ('demo-' || %(number)s::integer, 'Patient ' || %(number)s::integer,
            date '1930-01-01' + %(number)s::integer * 97 %% 30000)
    RETURNING id), record AS (
    INSERT INTO electronic_health_records (patient_id, ehr_id)
    SELECT id, gen_random_uuid() FROM patient)
SELECT id FROM patient

-- name: history
-- What was written of a patient before anybody looked.
WITH measured AS (
    INSERT INTO vital_signs (patient_id, temperature_celsius, blood_pressure_systolic, blood_pressure_diastolic,
                             heart_rate_bpm, notes, recorded_at)
    SELECT %(patient)s::uuid, 36 + (%(luck)s::integer + n) %% 30 / 10.0, 100 + (%(luck)s::integer + n) %% 50,
           60 + (%(luck)s::integer + n) %% 30, 55 + (%(luck)s::integer + n) %% 60, 'measured at a visit',
           now() - n * interval '30 days'
    FROM generate_series(1, 2) AS n), vaccinated AS (
    INSERT INTO immunizations (patient_id, vaccine_name, administration_date, dose_number)
    VALUES (%(patient)s::uuid, (ARRAY['Measles', 'Tetanus', 'Yellow fever'])[1 + %(luck)s::integer %% 3],
            current_date - %(luck)s::integer %% 700, 1))
INSERT INTO medical_records (patient_id, record_type, title, diagnosis_codes, metadata)
VALUES (%(patient)s::uuid, 'visit', 'First visit', ARRAY['Z00.0'], '{"room": 3}')

-- name: is_built
SELECT to_regclass('users') IS NOT NULL

-- name: patients
SELECT id FROM users ORDER BY created_at, id

-- name: measure
INSERT INTO vital_signs (patient_id, temperature_celsius, blood_pressure_systolic, blood_pressure_diastolic,
                         heart_rate_bpm, notes)
VALUES (%(patient)s::uuid, 36 + %(luck)s::integer %% 30 / 10.0, 100 + %(luck)s::integer %% 50,
        60 + %(luck)s::integer %% 30, 55 + %(luck)s::integer %% 60, 'measured at rest')

-- name: correct
-- The newest measurement of a patient, taken again.
UPDATE vital_signs SET heart_rate_bpm = 55 + %(luck)s::integer %% 60, notes = 'measured again'
WHERE id = (SELECT id FROM vital_signs WHERE patient_id = %(patient)s::uuid
            ORDER BY recorded_at DESC LIMIT 1)

-- name: retract
-- The oldest measurement of a patient, entered by mistake.
DELETE FROM vital_signs
WHERE id = (SELECT id FROM vital_signs WHERE patient_id = %(patient)s::uuid ORDER BY recorded_at LIMIT 1)

-- name: report
INSERT INTO lab_results (patient_id, test_name, result_value, unit)
VALUES (%(patient)s::uuid, (ARRAY['HbA1c', 'Haemoglobin', 'Creatinine', 'Potassium'])[1 + %(luck)s::integer %% 4],
        (10 + %(luck)s::integer %% 90)::text, 'mmol/L')

-- name: prescribe
INSERT INTO prescriptions (patient_id, medication_name, dosage, frequency)
VALUES (%(patient)s::uuid, (ARRAY['Amoxicillin', 'Metformin', 'Ibuprofen'])[1 + %(luck)s::integer %% 3],
        '500 mg', 'three times a day')

-- name: vaccinate
INSERT INTO immunizations (patient_id, vaccine_name, administration_date, dose_number)
VALUES (%(patient)s::uuid, (ARRAY['Measles', 'Tetanus', 'Yellow fever'])[1 + %(luck)s::integer %% 3],
        current_date, 2)

-- name: write_down
INSERT INTO medical_records (patient_id, record_type, title, description)
VALUES (%(patient)s::uuid, 'visit', 'Follow-up visit', 'as agreed')
