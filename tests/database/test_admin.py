"""The administration that existing tools know, against a running server."""

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

DIAGNOSTICS = "/api/admin/v1/diagnostics"
POSTS = [
    DIAGNOSTICS,
    "/api/admin/v1/schema",
    "/api/admin/v1/validate",
    "/api/admin/v1/reprocess",
    "/api/sync-rules/v1/deploy",
    "/api/sync-rules/v1/validate",
    "/api/sync-rules/v1/reprocess",
]
RULES = """bucket_definitions:
  mine:
    parameters: SELECT request.user_id() AS user_id
    data:
      - SELECT * FROM users WHERE id = bucket.user_id
"""


@pytest.fixture
async def clinic(database: Database, tmp_path: Path, children: StartChild) -> AsyncIterator[Served]:
    served = Served(database, tmp_path, children)
    await served.build()
    served.replicate()
    await asyncio.to_thread(served.catch_up)
    await asyncio.to_thread(served.serve)
    yield served


def test_only_who_has_an_admin_token_is_admitted(clinic: Served) -> None:
    users = token_of(clinic.people()[0])
    for path in POSTS:
        for token in (None, users, ADMIN[:-1], ADMIN + "x"):
            status, body = clinic.request(path, {}, token=token)
            assert (status, body["error"]["name"]) == (401, "AuthorizationError"), path
    assert clinic.request("/api/sync-rules/v1/current", token=users)[0] == 401
    assert clinic.request("/api/admin/v1/execute-sql", {"sql": {"query": "SELECT 1", "args": []}})[0] == 404


async def test_with_no_token_configured_nobody_is_admitted(
    database: Database, tmp_path: Path, children: StartChild
) -> None:
    served = Served(database, tmp_path, children, admin_tokens=[])
    await served.build()
    await asyncio.to_thread(served.serve)
    for token in (ADMIN, "", None):
        assert served.request(DIAGNOSTICS, {}, token=token)[0] == 401


def test_diagnostics_say_how_replication_stands(clinic: Served) -> None:
    status, body = clinic.request(DIAGNOSTICS, {"sync_rules_content": True})
    assert status == 200
    [connection] = body["data"]["connections"]
    assert (connection["id"], connection["connected"], connection["errors"]) == ("default", True, [])
    assert clinic.database.name in connection["uri"] and "@" not in connection["uri"]
    active = body["data"]["active_sync_rules"]
    assert active["content"] == clinic.rules_text
    [stream] = active["connections"]
    assert (stream["slot_name"], stream["initial_replication_done"]) == (clinic.slot, True)
    assert stream["replication_lag_bytes"] >= 0 and stream["wal_status"] == "reserved"
    users = next(table for table in stream["tables"] if table["name"] == "users")
    assert users["schema"] == "public" and users["errors"] == []
    assert users["data_queries"] and not users["parameter_queries"]
    assert "firebase_uid" in users["replication_id"]  # a whole old row tells it
    assert not [error for error in active["errors"] if error["level"] == "fatal"]
    assert "content" not in clinic.request(DIAGNOSTICS, b"")[1]["data"]["active_sync_rules"]


def test_diagnostics_name_a_table_that_is_not_published(clinic: Served) -> None:
    clinic.database.execute("ALTER PUBLICATION powersync DROP TABLE lab_results")
    [stream] = clinic.request(DIAGNOSTICS, {})[1]["data"]["active_sync_rules"]["connections"]
    errors = {table["name"]: table["errors"] for table in stream["tables"] if table["errors"]}
    assert errors.keys() == {"lab_results"}
    assert errors["lab_results"][0]["level"] == "fatal"


def test_the_schema_has_every_column_and_what_clients_have_of_it(clinic: Served) -> None:
    status, body = clinic.request("/api/admin/v1/schema", {})
    assert status == 200
    assert body["data"]["defaultSchema"] == "public"
    [schema] = body["data"]["connections"][0]["schemas"]
    assert schema["name"] == "public"
    columns = {table["name"]: table["columns"] for table in schema["tables"]}
    vital_signs = {column["name"]: column for column in columns["vital_signs"]}
    assert vital_signs["heart_rate_bpm"] == {
        "name": "heart_rate_bpm",
        "type": "integer",
        "sqlite_type": "INTEGER",
        "internal_type": "integer",
        "pg_type": "int4",
    }
    assert vital_signs["temperature_celsius"]["internal_type"] == "numeric(4,1)"


def test_rules_are_validated_with_what_the_source_has(clinic: Served) -> None:
    def validated(rules: str) -> dict[str, list[dict[str, object]]]:
        status, body = clinic.request("/api/admin/v1/validate", {"sync_rules": rules})
        assert status == 200
        return dict(body["data"])

    assert validated(RULES)["errors"] == []
    refused = validated(RULES.replace("bucket.user_id", "bucket.nobody"))
    [error] = refused["errors"]
    assert error["level"] == "fatal" and "bucket.nobody" in str(error["message"])
    place = error["location"]
    assert isinstance(place, dict)
    assert RULES.replace("bucket.user_id", "bucket.nobody")[place["start_offset"] :].startswith(
        "bucket.nobody"
    )
    warned = validated(RULES.replace("WHERE id", "WHERE nothing"))
    assert any("no column nothing" in str(one["message"]) for one in warned["errors"])
    assert validated("{")["connections"] == []
    assert clinic.request("/api/admin/v1/validate", {})[0] == 400


def test_rules_are_validated_as_a_file(clinic: Served) -> None:
    path = "/api/sync-rules/v1/validate"
    status, body = clinic.request(path, RULES.encode(), kind="application/yaml")
    assert (status, body["valid"], body["data_tables"]) == (200, True, ["users"])
    assert body["bucket_definitions"][0]["bucket_parameters"] == ["user_id"]
    status, body = clinic.request(path, {"content": "nothing: 1"})
    assert (status, body["valid"]) == (200, False) and body["errors"]


def test_rules_are_deployed_beside_those_in_force(clinic: Served) -> None:
    path = "/api/sync-rules/v1/deploy"
    status, body = clinic.request(path, b"nothing: 1", kind="application/yaml")
    assert (status, body["error"]["code"]) == (422, "PSYNC_R0001")
    own = b"bucket_definitions: {global_ops: {data: [SELECT op_id AS id FROM replicator.ops]}}"
    status, body = clinic.request(path, own, kind="application/yaml")
    assert (status, body["error"]["details"]) == (
        422,
        "the rules name replicator.ops, a table of the storage",
    )
    status, body = clinic.request(path, RULES.encode(), kind="application/yaml")
    assert (status, body) == (200, {"data": {"slot_name": clinic.slot}})
    newest = "SELECT content, origin FROM replicator.rule_sets ORDER BY id DESC LIMIT 1"
    stored = clinic.database.execute(newest)
    assert stored == [(RULES, "command")]
    status, body = clinic.request(path, b"nothing: 1", kind="application/yaml")
    assert (status, body["error"]["code"]) == (422, "PSYNC_R0001")


def test_the_rules_in_force_are_told(clinic: Served) -> None:
    status, body = clinic.request("/api/sync-rules/v1/current")
    assert (status, body["data"]["next"]) == (200, None)
    current = body["data"]["current"]
    assert (current["slot_name"], current["content"]) == (clinic.slot, clinic.rules_text)
    assert current["valid"]


def test_reprocessing_copies_every_table_again(clinic: Served) -> None:
    assert clinic._last is not None
    clinic._last.kill()
    status, body = clinic.request("/api/admin/v1/reprocess", {})
    assert status == 200
    assert body["data"]["connections"] == [{"id": "default", "tag": "default", "slot_name": clinic.slot}]
    states = clinic.database.execute("SELECT DISTINCT state FROM replicator.tables")
    assert states == [("wanted",)]
    status, body = clinic.request("/api/sync-rules/v1/reprocess", {})
    assert (status, body["error"]["code"]) == (409, "PSYNC_S4106")
    clinic.replicate()
    clinic.catch_up()
    clinic.assert_equal()
    assert clinic.request("/api/sync-rules/v1/reprocess", {})[1]["data"] == {"slot_name": clinic.slot}


async def test_nothing_is_reprocessed_before_anything_was_replicated(
    database: Database, tmp_path: Path, children: StartChild
) -> None:
    served = Served(database, tmp_path, children)
    await served.build()
    await asyncio.to_thread(served.serve)
    status, body = served.request("/api/admin/v1/reprocess", {})
    assert (status, body["error"]["code"]) == (422, "PSYNC_S4104")
