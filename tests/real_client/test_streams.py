"""Streams that a phone subscribes to and leaves again."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.real_client.clinic import ServedClinic, Tables

pytestmark = [pytest.mark.real_client, pytest.mark.migrated]

_RULES = json.dumps(
    {
        "config": {"edition": 3},
        "streams": {
            "me": {"auto_subscribe": True, "query": "SELECT * FROM users WHERE id = auth.user_id()"},
            "labs": {
                "query": "SELECT * FROM lab_results WHERE patient_id = auth.user_id()"
                " AND test_name = subscription.parameter('test')"
            },
        },
    }
)
_TABLES: Tables = {
    "users": {"full_name": "text"},
    "lab_results": {"test_name": "text", "result_value": "text"},
}
_LABS = "SELECT test_name, result_value FROM lab_results ORDER BY 1, 2"


@pytest.fixture
async def clinic(make_clinic: Callable[..., ServedClinic]) -> ServedClinic:
    clinic = make_clinic(rules=_RULES)
    await clinic.build(patients=2)
    clinic.database.execute(
        "INSERT INTO lab_results (patient_id, test_name, result_value)"
        " SELECT id, test, firebase_uid FROM users, unnest(ARRAY['HbA1c', 'K', 'Na']) test"
    )
    clinic.start()
    return clinic


async def test_a_subscription_brings_what_its_parameters_say(clinic: ServedClinic, transport: str) -> None:
    ann, _ = clinic.people()
    phone = clinic.phone(ann, tables=_TABLES)
    phone.connect(transport)
    phone.until_synced()
    assert phone.ask("SELECT full_name FROM users") == [["somebody"]]
    assert phone.ask(_LABS) == []

    phone.subscribe("labs", {"test": "K"})
    phone.until_subscription_synced("labs", {"test": "K"})
    assert phone.ask(_LABS) == [["K", "p0"]]
    phone.subscribe("labs", {"test": "Na"}, priority=1)
    phone.until(_LABS, [["K", "p0"], ["Na", "p0"]])
    clinic.database.execute("UPDATE lab_results SET result_value = 'anew'")
    phone.until(_LABS, [["K", "anew"], ["Na", "anew"]])
    clinic.database.execute("UPDATE lab_results SET test_name = 'Na' WHERE test_name = 'HbA1c'")
    phone.until(_LABS, [["K", "anew"], ["Na", "anew"], ["Na", "anew"]])


async def test_what_is_left_goes_and_what_may_linger_stays(clinic: ServedClinic, transport: str) -> None:
    ann, _ = clinic.people()
    phone = clinic.phone(ann, tables=_TABLES)
    phone.connect(transport)
    phone.subscribe("labs", {"test": "K"})
    phone.subscribe("labs", {"test": "Na"})
    phone.until(_LABS, [["K", "p0"], ["Na", "p0"]])
    phone.unsubscribe("labs", {"test": "K"})
    phone.unsubscribe("labs", {"test": "Na"})
    last = phone.status()["lastSyncedAt"]
    phone.disconnect()
    # It would linger for a day.
    phone.execute("UPDATE ps_stream_subscriptions SET expires_at = 1 WHERE local_params LIKE '%K%'")
    phone.connect(transport)
    phone.until_synced(after=last)
    phone.until(_LABS, [["Na", "p0"]])


async def test_subscriptions_made_offline_hold_after_connecting(clinic: ServedClinic) -> None:
    _, ben = clinic.people()
    phone = clinic.phone(ben, tables=_TABLES)
    phone.subscribe("labs", {"test": "K"})
    phone.subscribe("labs")
    phone.subscribe("no such stream")
    phone.connect("http")
    phone.until_synced()
    phone.until(_LABS, [["K", "p1"]])
    active = {one["name"]: one["active"] for one in phone.status()["streams"]}
    assert active == {"me": True, "labs": True, "no such stream": False}
