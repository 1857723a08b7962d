"""What changes at the source changes on the phones that it concerns, and on no others."""

from __future__ import annotations

import pytest

from tests.fixtures.tokens import token as token_of
from tests.real_client.clinic import ServedClinic

pytestmark = [pytest.mark.real_client, pytest.mark.migrated]


async def test_inserts_updates_and_deletes_arrive(clinic: ServedClinic, transport: str) -> None:
    await clinic.build(patients=1)
    (ann,) = clinic.people()
    clinic.measure("at first", times=2)
    clinic.start()
    phone = clinic.phone(ann)
    phone.connect(transport)
    phone.until_synced()

    clinic.measure("later")
    phone.until("SELECT count(*) FROM vital_signs WHERE notes = 'later'", [[1]])
    clinic.database.execute("UPDATE vital_signs SET notes = 'again' WHERE notes = 'at first'")
    phone.until("SELECT count(*) FROM vital_signs WHERE notes = 'again'", [[2]])
    clinic.database.execute("DELETE FROM vital_signs WHERE notes = 'again'")
    phone.until("SELECT notes FROM vital_signs", [["later"]])
    clinic.assert_holds_record(phone, ann)


async def test_a_transaction_over_many_tables_arrives_whole(clinic: ServedClinic, transport: str) -> None:
    await clinic.build(patients=1)
    (ann,) = clinic.people()
    clinic.start()
    phone = clinic.phone(ann)
    phone.connect(transport)
    phone.until_synced()
    clinic.database.execute(
        """
        WITH lab AS (INSERT INTO lab_results (patient_id, test_name, result_value)
                     SELECT %(user)s, 'K', n::text FROM generate_series(1, 2000) n),
             dose AS (INSERT INTO immunizations (patient_id, vaccine_name, administration_date)
                      SELECT %(user)s, 'MMR', '2020-01-01'::date + n FROM generate_series(1, 500) n),
             gone AS (UPDATE users SET is_active = false)
        INSERT INTO vital_signs (patient_id) VALUES (%(user)s)
        """,
        {"user": ann},
    )
    phone.until("SELECT is_active FROM users", [[0]])
    clinic.assert_holds_record(phone, ann)


async def test_a_row_that_changes_hands_leaves_one_phone_and_comes_to_the_other(
    clinic: ServedClinic, transport: str
) -> None:
    await clinic.build(patients=2)
    ann, ben = clinic.people()
    clinic.measure("hers")
    clinic.database.execute("UPDATE vital_signs SET notes = 'his' WHERE patient_id = %s", [ben])
    clinic.start()
    hers, his = clinic.phone(ann), clinic.phone(ben)
    for phone in (hers, his):
        phone.connect(transport)
        phone.until_synced()

    clinic.database.execute("UPDATE vital_signs SET patient_id = %s WHERE notes = 'hers'", [ben])
    his.until("SELECT notes FROM vital_signs ORDER BY notes", [["hers"], ["his"]])
    hers.until("SELECT count(*) FROM vital_signs", [[0]])
    clinic.database.execute("UPDATE vital_signs SET patient_id = NULL WHERE notes = 'his'")
    his.until("SELECT notes FROM vital_signs", [["hers"]])
    clinic.database.execute("DELETE FROM users WHERE id = %s", [ann])
    hers.until("SELECT count(*) FROM users", [[0]])
    clinic.assert_holds_record(hers, ann)
    clinic.assert_holds_record(his, ben)


async def test_what_happened_while_a_phone_was_away_is_there_when_it_is_back(
    clinic: ServedClinic, transport: str
) -> None:
    await clinic.build(patients=1)
    (ann,) = clinic.people()
    clinic.measure("kept", times=3)
    clinic.measure("to go", times=3)
    clinic.start()
    phone = clinic.phone(ann)
    phone.connect(transport)
    last = phone.until_synced()
    phone.close()

    clinic.database.execute("DELETE FROM vital_signs WHERE notes = 'to go'")
    clinic.database.execute("UPDATE vital_signs SET heart_rate_bpm = 77")
    clinic.measure("new")
    clinic.catch_up()
    phone = clinic.phone(ann)
    phone.connect(transport)
    phone.until_synced(after=last)
    clinic.assert_holds_record(phone, ann)


async def test_who_signs_in_after_another_on_the_same_phone_sees_only_their_own(clinic: ServedClinic) -> None:
    await clinic.build(patients=2)
    ann, ben = clinic.people()
    clinic.measure("measured", times=2)
    clinic.start()
    phone = clinic.phone(ann, "shared")
    phone.connect("http")
    phone.until_synced()
    clinic.assert_holds_record(phone, ann)
    phone.clear()
    assert not any(phone.held().values())
    phone.credentials = lambda: {"endpoint": clinic.endpoint, "token": token_of(ben)}
    phone.connect("http")
    phone.until_synced()
    clinic.assert_holds_record(phone, ben)
