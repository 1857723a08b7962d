"""Buckets of a smaller number come first, and are shown before the others are complete."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.real_client.clinic import ServedClinic
from tests.real_client.phones import Phone
from tests.real_client.slow import SlowLine

pytestmark = [pytest.mark.real_client, pytest.mark.migrated]

_ROWS = 5_000
_PRESCRIBE = """
INSERT INTO prescriptions (patient_id, medication_name, dosage, frequency) VALUES (%s, 'a', 'b', 'c')
"""


def _rules(urgent: int) -> str:
    own = "SELECT request.user_id() AS user_id"
    first = ["SELECT * FROM prescriptions WHERE patient_id = bucket.user_id"]
    rest = ["SELECT * FROM vital_signs WHERE patient_id = bucket.user_id"]
    return json.dumps(
        {
            "bucket_definitions": {
                "a_rest": {"parameters": own, "priority": 3, "data": rest},
                "urgent": {"parameters": own, "priority": urgent, "data": first},
            }
        }
    )


async def _half_loaded(
    clinic: ServedClinic, line: Callable[[ServedClinic], SlowLine], transport: str
) -> tuple[Phone, SlowLine]:
    """A phone that has come as far as a part of the rest."""
    await clinic.build(patients=1)
    (ann,) = clinic.people()
    clinic.measure_much(_ROWS)
    clinic.database.execute(_PRESCRIBE, [ann])
    clinic.start()
    slow = line(clinic)
    phone = clinic.phone(ann)
    slow.stall_after(400_000)
    phone.connect(transport)
    slow.until_stalled()
    return phone, slow


@pytest.mark.parametrize("urgent", [0, 1])
async def test_an_urgent_bucket_is_shown_while_the_rest_still_comes(
    make_clinic: Callable[..., ServedClinic],
    line: Callable[[ServedClinic], SlowLine],
    transport: str,
    urgent: int,
) -> None:
    clinic = make_clinic(rules=_rules(urgent))
    phone, slow = await _half_loaded(clinic, line, transport)
    phone.until("SELECT medication_name FROM prescriptions", [["a"]])
    assert phone.ask("SELECT count(*) FROM vital_signs") == [[0]]
    status = phone.status()
    assert (status["hasSynced"], status["priorities"]) == (False, [urgent])
    slow.resume()
    phone.until_synced()
    assert phone.ask("SELECT count(*) FROM vital_signs") == [[_ROWS]]


async def test_only_priority_zero_is_shown_over_writes_that_wait(
    make_clinic: Callable[..., ServedClinic], line: Callable[[ServedClinic], SlowLine]
) -> None:
    clinic = make_clinic(rules=_rules(0))
    await clinic.build(patients=1)
    (ann,) = clinic.people()
    clinic.measure("mine")
    clinic.start()
    phone = clinic.phone(ann)
    phone.upload = _refuse
    phone.connect("http")
    phone.until_synced()
    phone.execute("UPDATE vital_signs SET notes = 'changed here'")
    both = f"WITH other AS ({_PRESCRIBE}) UPDATE vital_signs SET notes = 'changed there'"
    clinic.database.execute(both, [ann])
    phone.until("SELECT medication_name FROM prescriptions", [["a"]])
    assert phone.ask("SELECT notes FROM vital_signs") == [["changed here"]]


def _refuse(_: object) -> None:
    raise RuntimeError("the backend does not answer")
