"""What serves or replicates is killed, and phones come to hold what they should all the same."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.real_client.clinic import ServedClinic
from tests.real_client.slow import SlowLine

pytestmark = [pytest.mark.real_client, pytest.mark.migrated]

_ROWS = 8_000


async def test_serving_killed_in_the_middle_of_a_download(
    clinic: ServedClinic, line: Callable[[ServedClinic], SlowLine], transport: str
) -> None:
    await clinic.build(patients=1)
    (ann,) = clinic.people()
    clinic.measure_much(_ROWS)
    _, serving = clinic.start()
    slow = line(clinic)
    phone = clinic.phone(ann)
    slow.stall_after(1_000_000)
    phone.connect(transport)
    slow.until_stalled()
    serving.kill()
    assert not phone.status()["hasSynced"]
    clinic.database.execute("UPDATE vital_signs SET notes = 'changed meanwhile' WHERE heart_rate_bpm % 3 = 0")
    clinic.database.execute("DELETE FROM vital_signs WHERE heart_rate_bpm % 3 = 1")
    clinic.serve()
    slow.resume()
    clinic.become_equal_on(phone)
    phone.until_status(hasSynced=True, connected=True)


async def test_everything_killed_while_phones_are_connected(clinic: ServedClinic) -> None:
    await clinic.build(patients=2)
    ann, ben = clinic.people()
    clinic.measure("before")
    replicating, serving = clinic.start()
    hers, his = clinic.phone(ann), clinic.phone(ben)
    for phone in (hers, his):
        phone.connect("http")
        phone.until_synced()
    hers.execute(
        "INSERT INTO vital_signs (id, patient_id, notes) VALUES (uuid(), ?, 'written on the phone')", ann
    )
    clinic.measure("while it runs", times=20)
    replicating.kill()
    serving.kill()
    clinic.measure("while nothing runs")
    clinic.database.execute("UPDATE vital_signs SET patient_id = %s WHERE notes = 'before'", [ben])
    clinic.replicate()
    clinic.serve()
    hers.until("SELECT count(*) FROM ps_crud", [[0]])
    clinic.become_equal_on(hers)
    clinic.become_equal_on(his)
    clinic.measure("and it goes on")
    clinic.become_equal_on(hers)


async def test_replicating_killed_while_a_phone_waits_for_its_own_write(clinic: ServedClinic) -> None:
    """Serving goes on; the write is seen to be in a checkpoint only after replicating does, too."""
    await clinic.build(patients=1)
    (ann,) = clinic.people()
    clinic.measure("before")
    replicating, _ = clinic.start()
    phone = clinic.phone(ann)
    phone.connect("http")
    phone.until_synced()
    replicating.kill()
    phone.execute("UPDATE vital_signs SET notes = 'written on the phone'")
    clinic.measure("meanwhile")
    phone.until("SELECT count(*) FROM ps_crud", [[0]])
    assert phone.ask("SELECT notes FROM vital_signs") == [["written on the phone"]]
    clinic.replicate()
    phone.until("SELECT notes FROM vital_signs ORDER BY notes", [["meanwhile"], ["written on the phone"]])
    clinic.become_equal_on(phone)
