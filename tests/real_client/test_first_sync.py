"""What a new phone holds after its first sync is what a SELECT gives, over every way of asking for it."""

from __future__ import annotations

import pytest

from tests.real_client.clinic import ServedClinic

pytestmark = [pytest.mark.real_client, pytest.mark.migrated]

_TYPES = {
    "http": "application/vnd.powersync.bson-stream",
    "ndjson": "application/x-ndjson",
    "websocket": None,
}

#: One row in each table, with what is hard to carry.
_HARD = """
INSERT INTO electronic_health_records (patient_id, ehr_id) VALUES (%(user)s, gen_random_uuid());
INSERT INTO vital_signs (patient_id, temperature_celsius, heart_rate_bpm, notes)
VALUES (%(user)s, 36.0, -2147483648,
        E'a "quote", a back\\\\slash, \\t\\n\\u2028 \\U0001F469\\u200D\\u2695 and \\u00e9'),
       (%(user)s, NULL, NULL, ''), (%(user)s, NULL, NULL, repeat('long ', 100000));
INSERT INTO lab_results (patient_id, test_name, result_value, result_date)
VALUES (%(user)s, 'HbA1c', '5', '2024-02-29 23:59:59.000001+03'),
       (%(user)s, 'K', '4', '1969-12-31 00:00:00Z');
INSERT INTO prescriptions (patient_id, medication_name, dosage, frequency) VALUES (%(user)s, 'a', 'b', 'c');
INSERT INTO immunizations (patient_id, vaccine_name, administration_date)
VALUES (%(user)s, 'MMR', '2001-01-01');
INSERT INTO medical_records (patient_id, record_type, title, diagnosis_codes, metadata)
VALUES (%(user)s, 'note', 'x', ARRAY['E11.9', 'a "b"', NULL],
        '{"a": [1, 2.50, null], "b": {"c": "\\u00e9"}}'),
       (%(user)s, 'note', 'y', '{}', 'null');
"""


async def test_first_sync_brings_every_row_of_a_record_and_nobody_elses(
    clinic: ServedClinic, transport: str
) -> None:
    await clinic.build(patients=3)
    clinic.measure("before")
    ann, ben, _ = clinic.people()
    for statement in _HARD.split(";\n")[:-1]:
        clinic.database.execute(statement, {"user": ann})
    clinic.start()

    one, other, stranger = clinic.phone(ann), clinic.phone(ben), clinic.phone("nobody")
    for phone in (one, other, stranger):
        phone.connect(transport)
        phone.until_synced()

    clinic.assert_holds_record(one, ann)
    clinic.assert_holds_record(other, ben)
    assert len(one.held()["vital_signs"]) == 4
    assert len(other.held()["vital_signs"]) == 1
    assert not any(stranger.held().values())
    assert {said["type"] for said in one.answers if said["path"] == "/sync/stream"} == {_TYPES[transport]} - {
        None
    }


async def test_first_sync_of_fifty_thousand_rows(clinic: ServedClinic, transport: str) -> None:
    await clinic.build(patients=1)
    (ann,) = clinic.people()
    clinic.database.execute(
        "INSERT INTO vital_signs (patient_id, heart_rate_bpm, notes)"
        " SELECT %s, n, 'measured at rest, for the ' || n || 'th time' FROM generate_series(1, 50000) n",
        [ann],
    )
    clinic.start()
    phone = clinic.phone(ann)
    phone.connect(transport)
    phone.until_synced()
    clinic.assert_holds_record(phone, ann)


async def test_a_damaged_copy_is_noticed_and_replaced(clinic: ServedClinic) -> None:
    """Also proof that every other test would see a wrong checksum."""
    await clinic.build(patients=1)
    clinic.measure("before", times=3)
    clinic.start()
    (ann,) = clinic.people()
    phone = clinic.phone(ann)
    phone.connect("http")
    phone.until_synced()
    phone.disconnect()
    phone.execute("UPDATE ps_buckets SET op_checksum = op_checksum + 1")
    clinic.measure("after")
    phone.connect("http")
    phone.until("SELECT count(*) FROM vital_signs WHERE notes = 'after'", [[1]])
    clinic.become_equal_on(phone)
    phone.expected_checksum_failures = 1
