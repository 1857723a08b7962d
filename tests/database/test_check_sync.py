"""`check` says early what would be wrong when somebody asks to be let in, or is let in and gets nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from replicator import queries
from replicator.config import load
from replicator.observe.check_ids import compared
from replicator.observe.check_sync import check_sync
from replicator.rules.model import Rules
from replicator.rules.parse import load_rules, parse_rules
from replicator.sync.tokens_keygen import keygen
from replicator.wal.finding import Finding
from tests.database.clinics import build_tables
from tests.fixtures.children import StartChild
from tests.fixtures.postgres import Database
from tests.fixtures.tokens import KEY

RULES = load_rules(queries.house("config") / "rules.yaml")
BY_LOOKUP = parse_rules(
    """
bucket_definitions:
  mine:
    parameters: SELECT id AS user_id FROM users WHERE firebase_uid = request.user_id()
    data: [SELECT * FROM vital_signs WHERE patient_id = bucket.user_id]
""",
    "f",
)
FIREBASE = {"upstream": {"firebase": "clinic"}, "url": "https://sync.clinic.example"}
SUBJECT = {"table": "users", "match": "firebase_uid", "value": "id"}


@pytest.fixture
def clinic(database: Database) -> Database:
    build_tables(database)
    database.execute("INSERT INTO users (firebase_uid) VALUES ('ann-of-firebase')")
    return database


async def findings(
    database: Database, folder: Path, rules: Rules, user: str | None = None, **sync: Any
) -> list[Finding]:
    file = folder / "replicator.yaml"
    file.write_text(json.dumps({"source": {"dsn": database.dsn}, "sync": sync}))
    group = await check_sync(load(file, {}), rules, {}, user)
    return list(group.findings)


def codes(found: list[Finding]) -> list[tuple[str, str]]:
    return [(finding.level, finding.code) for finding in found]


def test_the_columns_that_a_subject_is_compared_with() -> None:
    found = [(str(one.table), one.column) for one in compared(RULES)]
    assert found[:2] == [("users", "id"), ("electronic_health_records", "patient_id")] and len(found) == 7
    assert [(str(one.table), one.column) for one in compared(BY_LOOKUP)] == [("users", "firebase_uid")]
    text = "SELECT * FROM v WHERE a::text = bucket.u AND b = 1"
    for parameters in ("token_parameters.user_id", "request.jwt() ->> 'sub'"):
        definition = {"parameters": f"SELECT {parameters} AS u", "data": [text]}
        rules = parse_rules(json.dumps({"bucket_definitions": {"d": definition}}), "f")
        assert [one.column for one in compared(rules)] == ["a"]
    other = {"parameters": "SELECT request.jwt() ->> 'ward' AS u", "data": [text]}
    assert compared(parse_rules(json.dumps({"bucket_definitions": {"d": other}}), "f")) == []


async def test_a_firebase_uid_is_no_uuid(clinic: Database, tmp_path: Path) -> None:
    key = str(tmp_path / "token.pem")
    keygen("ES256", Path(key))
    found = await findings(clinic, tmp_path, RULES, token={**FIREBASE, "key_file": key})
    assert codes(found) == [("warning", "sync.subject")]
    assert "users.id" in found[0].what and "vital_signs.patient_id" in found[0].what
    assert "{table: users, match: firebase_uid, value: id}" in found[0].why
    assert "SELECT id AS user_id FROM users WHERE firebase_uid = request.user_id()" in found[0].why
    # Either of the remedies is one.
    assert await findings(clinic, tmp_path, BY_LOOKUP, token={**FIREBASE, "key_file": key}) == []
    token = {**FIREBASE, "key_file": key, "subject": SUBJECT}
    assert await findings(clinic, tmp_path, RULES, token=token) == []


async def test_tokens_straight_from_firebase_are_looked_at_as_well(clinic: Database, tmp_path: Path) -> None:
    uri = "https://www.googleapis.com/service_accounts/v1/jwk/securetoken@system.gserviceaccount.com"
    found = await findings(clinic, tmp_path, RULES, jwks_uri=uri, audience=["clinic"])
    assert codes(found) == [("warning", "sync.subject")]
    assert await findings(clinic, tmp_path, BY_LOOKUP, jwks_uri=uri, audience=["clinic"]) == []


async def test_a_user_that_no_row_knows_is_told_with_the_remedy(clinic: Database, tmp_path: Path) -> None:
    given: dict[str, Any] = {"keys": [KEY], "audience": ["app"]}
    found = await findings(clinic, tmp_path, RULES, user="ann-of-firebase", **given)
    assert codes(found) == [("warning", "sync.user")]
    assert "match: firebase_uid" in found[0].why
    nobody = "00000000-0000-4000-8000-000000000000"
    assert codes(await findings(clinic, tmp_path, RULES, user=nobody, **given)) == [("warning", "sync.user")]
    known = str(clinic.execute("SELECT id FROM users")[0][0])
    assert await findings(clinic, tmp_path, RULES, user=known, **given) == []
    assert await findings(clinic, tmp_path, BY_LOOKUP, user="ann-of-firebase", **given) == []


async def test_a_user_is_looked_up_as_the_exchange_does(clinic: Database, tmp_path: Path) -> None:
    given: dict[str, Any] = {"keys": [KEY], "audience": ["app"], "token": {"subject": SUBJECT}}
    assert await findings(clinic, tmp_path, RULES, user="ann-of-firebase", **given) == []
    found = await findings(clinic, tmp_path, RULES, user="bob-of-firebase", **given)
    assert codes(found) == [("warning", "sync.user")] and "finds nobody" in found[0].what


async def test_keys_that_cannot_be_used_are_errors(clinic: Database, tmp_path: Path) -> None:
    short: dict[str, Any] = {"keys": [{"kty": "oct", "k": "c2hvcnQ"}], "audience": ["app"]}
    found = await findings(clinic, tmp_path, RULES, **short)
    assert ("error", "sync.keys") in codes(found) and "c2hvcnQ" not in repr(found)
    found = await findings(clinic, tmp_path, RULES, token={"key_file": "not-there.pem"})
    assert codes(found) == [("error", "sync.token")] and "not-there.pem" in found[0].what
    upstream = {"upstream": {"keys": [KEY]}}
    found = await findings(clinic, tmp_path, RULES, keys=[KEY], audience=["app"], token=upstream)
    assert ("error", "sync.keys") in codes(found)


async def test_what_nobody_could_use_is_a_warning(clinic: Database, tmp_path: Path) -> None:
    found = await findings(clinic, tmp_path, RULES, keys=[KEY])
    assert codes(found) == [("warning", "sync.audience")]
    found = await findings(clinic, tmp_path, BY_LOOKUP, token={"upstream": {"firebase": "clinic"}})
    assert codes(found) == [("warning", "sync.token")] and "sync.token.url" in found[0].what
    assert await findings(clinic, tmp_path, RULES) == []


def test_the_verb_ends_with_2_where_a_key_is_of_no_use(
    clinic: Database, tmp_path: Path, children: StartChild
) -> None:
    file = tmp_path / "replicator.yaml"
    (tmp_path / "rules.yaml").write_text((queries.house("config") / "rules.yaml").read_text())
    sync: dict[str, Any] = {"keys": [KEY], "audience": ["app"]}
    file.write_text(json.dumps({"source": {"dsn": clinic.dsn}, "sync": sync}))
    child = children("check", "--config", file, "--user", "ann-of-firebase", "--json")
    child.wait()
    said = json.loads(child.stdout)["findings"]
    assert [one["code"] for one in said if one["code"].startswith("sync.")] == ["sync.user"]
    file.write_text(json.dumps({"source": {"dsn": clinic.dsn}, "sync": {"token": {"key": "x"}}}))
    child = children("check", "--config", file, "--source-only")
    assert child.wait() == 2 and "PRIVATE KEY" in child.stdout
