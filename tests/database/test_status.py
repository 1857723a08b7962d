"""GET /api/sync/status and /api/sync/patient/{id}: who hears what, from a running server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.database.served import ADMIN, Served
from tests.fixtures.children import StartChild
from tests.fixtures.postgres import Database
from tests.fixtures.tokens import token as token_of

pytestmark = pytest.mark.migrated

STATUS = "/api/sync/status"


@pytest.fixture
async def clinic(database: Database, tmp_path: Path, children: StartChild) -> AsyncIterator[Served]:
    """Three patients, of whom each has two measurements; replicated, and served."""
    served = Served(database, tmp_path, children)
    await served.build()
    served.measure("stable angina", times=2)
    served.replicate()
    await asyncio.to_thread(served.catch_up)
    await asyncio.to_thread(served.serve)
    await asyncio.to_thread(served.until_ready)
    yield served


def test_nobody_hears_anything_without_a_token(clinic: Served) -> None:
    status, body = clinic.request(STATUS, token=None)
    assert (status, body["error"]["code"]) == (401, "PSYNC_S2106")
    status, body = clinic.request(STATUS, token=ADMIN + "x")
    assert (status, body["error"]["name"]) == (401, "AuthorizationError")


def test_an_admin_hears_of_every_table(clinic: Served) -> None:
    body = clinic.until(STATUS, ADMIN, lambda body: body["in_sync"])
    assert body["tables"]["users"] == {"source": 3, "synced": 3, "in_sync": True, "estimated": False}
    assert body["tables"]["vital_signs"] == {"source": 6, "synced": 6, "in_sync": True, "estimated": False}
    assert body["vital_signs_comparison"]["supabase"] == body["vital_signs_comparison"]["local"] == 6
    assert len(body["tables"]) == 7
    assert (body["status"], body["overall_status"], body["success"]) == ("healthy", "success", True)
    assert body["powersync"]["connected"] and not body["powersync"]["downloading"]
    assert body["checks"]["postgres_users"] == 3 and body["checks"]["failed_syncs"] == 0
    assert body["data"]["totalRecords"] == 9 and body["data"]["unsyncedCount"] == 0
    assert body["data"]["lastSyncTime"] > 0
    assert int(body["last_checkpoint"]["op_id"]) >= 9
    assert body["lag"]["bytes"] >= 0
    assert body["pending_uploads"] == 0


def test_a_user_hears_of_their_own_rows_only(clinic: Served) -> None:
    mine, other, _ = clinic.people()
    token = token_of(mine)
    for path in (STATUS, f"/api/sync/patient/{mine}"):
        body = clinic.until(path, token, lambda body: body["in_sync"])
        assert body["tables"]["users"] == {"source": 1, "synced": 1, "in_sync": True, "estimated": False}
        assert body["tables"]["vital_signs"]["source"] == body["tables"]["vital_signs"]["synced"] == 2
        assert body["tables"]["lab_results"] == {
            "source": 0,
            "synced": 0,
            "in_sync": True,
            "estimated": False,
        }
        assert body["postgres_user"] == {"id": mine}
        assert body["supabase_documents"] == 3
    status, body = clinic.request(f"/api/sync/patient/{other}", token=token)
    assert (status, body["error"]["status"]) == (403, 403)
    assert clinic.request(f"/api/sync/patient/{other}")[1]["tables"]["vital_signs"]["synced"] == 2


def test_nothing_that_rows_say_is_told(clinic: Served) -> None:
    mine = clinic.people()[0]
    for path, token in ((STATUS, ADMIN), (f"/api/sync/patient/{mine}", token_of(mine))):
        said = repr(clinic.request(path, token=token))
        assert "angina" not in said and "somebody" not in said


def test_rows_that_have_not_arrived_are_counted_as_lacking(clinic: Served) -> None:
    mine = clinic.people()[0]
    clinic.until(f"/api/sync/patient/{mine}", token_of(mine), lambda body: body["in_sync"])
    assert clinic._last is not None
    clinic._last.kill()
    clinic.measure("new")
    body = clinic.until(
        f"/api/sync/patient/{mine}",
        token_of(mine),
        lambda body: body["tables"]["vital_signs"]["source"] == 3,
    )
    assert body["tables"]["vital_signs"] == {
        "source": 3,
        "synced": 2,
        "in_sync": False,
        "estimated": False,
    }
    assert not body["in_sync"] and body["data"]["unsyncedCount"] == 1
    body = clinic.until(STATUS, ADMIN, lambda body: not body["powersync"]["connected"])
    assert (body["status"], body["overall_status"]) == ("degraded", "warning")


def test_a_write_that_is_not_reached_is_pending(clinic: Served) -> None:
    mine = clinic.people()[0]
    assert clinic._last is not None
    clinic._last.kill()
    token = token_of(mine)
    assert clinic.request("/write-checkpoint2.json?client_id=c1", token=token)[0] == 200
    body = clinic.until(f"/api/sync/patient/{mine}", token, lambda body: body["pending_uploads"] == 1)
    assert [(one["client_id"], one["status"]) for one in body["sync_logs"]] == [("c1", "pending")]
    clinic.replicate()
    body = clinic.until(f"/api/sync/patient/{mine}", token, lambda body: body["pending_uploads"] == 0)
    assert [one["status"] for one in body["sync_logs"]] == ["synced"]


def test_large_tables_are_estimated(clinic: Served, database: Database) -> None:
    notes = "x" * 1000
    database.execute(
        "INSERT INTO vital_signs (patient_id, notes) SELECT id, %s FROM users, generate_series(1, 2000)",
        [notes],
    )
    database.execute("ANALYZE vital_signs")
    clinic.catch_up()
    body = clinic.until(STATUS, ADMIN, lambda body: body["tables"]["vital_signs"]["estimated"])
    assert body["tables"]["vital_signs"]["source"] > 5000
