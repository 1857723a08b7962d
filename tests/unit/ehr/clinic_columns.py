"""The tables of the clinic that the shipped mapping is for → their columns and the oids of their types."""

from __future__ import annotations

TEXT, UUID, NUMERIC, INTEGER, BOOLEAN, DATE, MOMENT = 25, 2950, 1700, 23, 16, 1082, 1184
TEXTS, JSON = 1009, 3802
STATE = {
    "composition_id": TEXT,
    "ehrbase_synced": BOOLEAN,
    "ehrbase_synced_at": MOMENT,
    "ehrbase_sync_error": TEXT,
    "ehrbase_retry_count": INTEGER,
}


def _columns(texts: str, **others: int) -> dict[str, int]:
    return {**dict.fromkeys(texts.split(), TEXT), **others}


def _ids(names: str) -> dict[str, int]:
    return dict.fromkeys(names.split(), UUID)


def _moments(names: str) -> dict[str, int]:
    return dict.fromkeys(names.split(), MOMENT)


COLUMNS: dict[str, dict[str, int]] = {
    "public.users": _columns(
        "firebase_uid email phone_number first_name last_name full_name gender country unique_patient_id",
        date_of_birth=DATE,
        is_active=BOOLEAN,
        **_ids("id"),
        **_moments("deleted_at created_at updated_at"),
    ),
    "public.vital_signs": {
        **_ids("id patient_id recorded_by_id"),
        **dict.fromkeys("temperature_celsius weight_kg height_cm bmi blood_glucose_mg_dl".split(), NUMERIC),
        **dict.fromkeys("blood_pressure_systolic blood_pressure_diastolic heart_rate_bpm".split(), INTEGER),
        **dict.fromkeys("respiratory_rate oxygen_saturation".split(), INTEGER),
        **_columns("notes"),
        **_moments("recorded_at created_at"),
        **STATE,
    },
    "public.lab_results": {
        **_ids("id lab_order_id patient_id performed_by_id verified_by_id lab_test_type_id"),
        **_columns("test_name test_code result_value unit reference_range abnormal_flag notes"),
        **_moments("result_date created_at updated_at"),
        **STATE,
    },
    "public.prescriptions": {
        **_ids("id patient_id doctor_id pharmacy_id"),
        **_columns("prescription_number medication_name dosage frequency duration instructions status"),
        **dict.fromkeys("quantity refills_allowed refills_remaining".split(), INTEGER),
        **_moments("issued_date start_date end_date filled_date created_at updated_at"),
        **STATE,
    },
    "public.immunizations": {
        **_ids("id patient_id administered_by_id"),
        **_columns("vaccine_name vaccine_code series_name lot_number manufacturer site route notes"),
        "dose_number": INTEGER,
        "administration_date": DATE,
        "expiry_date": DATE,
        **_moments("created_at updated_at"),
        **STATE,
    },
    "public.medical_records": {
        **_ids("id patient_id provider_id"),
        **_columns("record_type title description notes"),
        **dict.fromkeys("diagnosis_codes procedure_codes attachments".split(), TEXTS),
        "metadata": JSON,
        **_moments("encounter_date created_at updated_at deleted_at"),
        **STATE,
    },
}
