"""What is written on a phone goes up and comes back, and the phone knows when it has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from tests.real_client.clinic import ServedClinic
from tests.real_client.phones import Phone

pytestmark = [pytest.mark.real_client, pytest.mark.migrated]

#: Changes that wait to go up; and whether a checkpoint is awaited that holds what did.
_ON_ITS_WAY = """
SELECT (SELECT count(*) FROM ps_crud), count(*) FROM ps_kv AS wanted
LEFT JOIN ps_kv AS applied ON applied.key = 'last_applied_checkpoint_request_id'
WHERE wanted.key = 'target_checkpoint_request_id'
  AND CAST(wanted.value AS INTEGER) > ifnull(CAST(applied.value AS INTEGER), 0)
"""


async def test_writes_made_offline_go_up_and_remote_changes_come_down_after_them(
    clinic: ServedClinic, transport: str
) -> None:
    await clinic.build(patients=1)
    (ann,) = clinic.people()
    clinic.measure("to change")
    clinic.measure("to delete")
    clinic.start()
    phone, other = clinic.phone(ann, "one"), clinic.phone(ann, "other")
    for each in (phone, other):
        each.connect(transport)
        each.until_synced()
    phone.disconnect()

    phone.execute("UPDATE vital_signs SET heart_rate_bpm = 61 WHERE notes = 'to change'")
    phone.execute("DELETE FROM vital_signs WHERE notes = 'to delete'")
    phone.execute(
        "INSERT INTO vital_signs (id, patient_id, heart_rate_bpm, notes) VALUES (uuid(), ?, 62, 'new')", ann
    )
    clinic.measure("meanwhile")
    assert len(phone.ask("SELECT * FROM ps_crud")) == 3
    phone.connect(transport)

    _until_round_trip(phone)
    shown: list[list[Any]] = [["meanwhile", None], ["new", 62], ["to change", 61]]
    for each in (phone, other):
        each.until("SELECT notes, heart_rate_bpm FROM vital_signs ORDER BY notes", shown)
        clinic.become_equal_on(each, clinic.record(ann))
    # Values that the database fills in have come back as well.
    assert phone.ask("SELECT count(*) FROM vital_signs WHERE created_at IS NULL") == [[0]]


@pytest.mark.parametrize("mode", ["legacy", "requests"])
async def test_a_write_that_the_backend_drops_is_undone_though_nothing_else_happens(
    clinic: ServedClinic, transport: str, mode: str
) -> None:
    """The source's log says nothing that a checkpoint could wait for, and the phone must not wait forever."""
    await clinic.build(patients=1)
    (ann,) = clinic.people()
    clinic.measure("as it is")
    clinic.start()
    phone = clinic.phone(ann)
    dropped: list[Mapping[str, Any]] = []
    phone.upload = dropped.extend
    phone.connect(transport, checkpointMode=mode)
    phone.until_synced()
    phone.execute("UPDATE vital_signs SET notes = 'as it shall not be'")
    _until_round_trip(phone)
    phone.until("SELECT notes FROM vital_signs", [["as it is"]])
    assert [entry["data"] for entry in dropped] == [{"notes": "as it shall not be"}]


async def test_remote_changes_wait_until_a_phones_own_writes_are_up(
    clinic: ServedClinic, transport: str
) -> None:
    """A phone that saw a checkpoint without its own writes would show them undone for a while."""
    await clinic.build(patients=1)
    (ann,) = clinic.people()
    clinic.measure("mine")
    clinic.start()
    phone, other = clinic.phone(ann, "one"), clinic.phone(ann, "other")
    is_open = False

    def upload(crud: Sequence[Mapping[str, Any]]) -> None:
        if not is_open:
            raise RuntimeError("the backend does not answer")
        clinic.take(crud)

    phone.upload = upload
    for each in (phone, other):
        each.connect(transport)
        each.until_synced()
    phone.execute("UPDATE vital_signs SET notes = 'changed here' WHERE notes = 'mine'")
    clinic.database.execute("UPDATE vital_signs SET heart_rate_bpm = 99 WHERE notes = 'mine'")
    other.until("SELECT notes, heart_rate_bpm FROM vital_signs", [["mine", 99]])
    assert phone.ask("SELECT notes, heart_rate_bpm FROM vital_signs") == [["changed here", None]]
    is_open = True
    for each in (phone, other):
        each.until("SELECT notes, heart_rate_bpm FROM vital_signs", [["changed here", 99]])
    _until_round_trip(phone)


def _until_round_trip(phone: Phone) -> None:
    """Wait until nothing waits to go up, and a checkpoint has shown that what went up is in it."""
    phone.until(_ON_ITS_WAY, [[0, 0]])
