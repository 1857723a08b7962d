"""Histories are compacted and other rules come into force, beneath phones that are connected or away."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.fixtures.least import allow
from tests.real_client.clinic import ServedClinic

pytestmark = [pytest.mark.real_client, pytest.mark.migrated]


async def test_compaction_between_two_syncs(clinic: ServedClinic, transport: str) -> None:
    """One phone is up to date, one comes back into the middle of what was compacted, one is new."""
    await clinic.build(patients=1)
    (ann,) = clinic.people()
    clinic.measure("kept", times=5)
    clinic.measure("to go", times=300)
    clinic.start()
    here, away, new = (clinic.phone(ann, name) for name in ("here", "away", "new"))
    here.connect(transport)
    away.connect(transport)
    here.until_synced()
    last = away.until_synced()
    away.disconnect()
    for rate in (60, 70, 80):
        clinic.database.execute("UPDATE vital_signs SET heart_rate_bpm = %s", [rate])
    clinic.database.execute("DELETE FROM vital_signs WHERE notes = 'to go'")
    clinic.catch_up()
    ops = _ops(clinic)
    # What readers may be in the middle of is left alone for some minutes.
    clinic.database.execute("UPDATE replicator.changes SET recorded_at = recorded_at - interval '1 hour'")

    assert clinic.ask("compact", "--all") == 0
    assert _ops(clinic) < ops, "nothing was compacted, so this test tests nothing"
    clinic.measure("after")
    here.until("SELECT count(*) FROM vital_signs WHERE notes = 'after'", [[1]])
    away.connect(transport)
    away.until_synced(after=last)
    new.connect(transport)
    new.until_synced()
    for phone in (here, away, new):
        clinic.become_equal_on(phone, clinic.record(ann))


def _ops(clinic: ServedClinic) -> int:
    return int(clinic.database.execute("SELECT count(*) FROM replicator.history")[0][0])


def _rules(*tables: str) -> str:
    data = [f"SELECT * FROM {table} WHERE patient_id = bucket.user_id" for table in tables]
    own = "SELECT request.user_id() AS user_id"
    return json.dumps({"bucket_definitions": {"mine": {"parameters": own, "data": data}}})


async def test_rules_deployed_while_a_phone_is_connected(
    make_clinic: Callable[..., ServedClinic], transport: str
) -> None:
    clinic = make_clinic(rules=_rules("vital_signs", "prescriptions"))
    await clinic.build(patients=2)
    ann, ben = clinic.people()
    clinic.measure("measured", times=3)
    clinic.database.execute(
        "INSERT INTO lab_results (patient_id, test_name, result_value) VALUES (%s, 'K', '1'), (%s, 'K', '2')",
        [ann, ben],
    )
    clinic.start()
    phone = clinic.phone(ann)
    phone.connect(transport)
    phone.until_synced()
    assert phone.ask("SELECT count(*) FROM lab_results") == [[0]]

    others = clinic.folder / "others.yaml"
    others.write_text(_rules("prescriptions", "lab_results"))
    allow(clinic.database, clinic.path, others)
    assert clinic.ask("rules", "deploy", str(others)) == 0
    clinic.measure("after the change of rules")
    own = f"patient_id = '{ann}'"
    clinic.become_equal_on(phone, clinic.selected({"prescriptions": own, "lab_results": own}))
    clinic.database.execute("UPDATE lab_results SET result_value = '3'")
    clinic.become_equal_on(phone, clinic.selected({"prescriptions": own, "lab_results": own}))
