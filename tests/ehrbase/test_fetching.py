"""Where an EHRbase comes from, and what is said where none can be had."""

from __future__ import annotations

import os
from pathlib import Path

import psycopg
import pytest

from tests.ehrbase.records import Place
from tests.fixtures import ehrbase
from tests.fixtures.servers import new_server


def test_a_jar_that_is_in_the_cache_is_not_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    _, artifact, version = ehrbase.COORDINATES.split(":")
    jar = tmp_path / f"{artifact}-{version}.jar"
    jar.touch()
    assert ehrbase.fetch(tmp_path) == jar


def test_without_maven_and_without_a_jar_the_reason_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ehrbase.Absent, match="there is no mvn"):
        ehrbase.fetch(tmp_path)


def test_mavens_reason_is_told_without_whom_it_asked() -> None:
    said = (
        "[INFO] so\n[ERROR] Failed: Could not find artifact a:b:1 in central (https://there.example/2) -> no"
    )
    assert ehrbase._first_error(said) == "Could not find artifact a:b:1 in central … -> no"
    assert ehrbase._first_error("") == "no reason given"


def test_a_server_that_is_given_is_used_with_its_credentials() -> None:
    given = ehrbase._given("https://worker:pw@record.example:8443/ehrbase/rest/openehr/v1")
    assert given == Place("ehrbase", "https://record.example:8443/ehrbase/rest/openehr/v1", "worker", "pw")


def test_its_database_lets_the_restricted_role_use_what_the_other_makes() -> None:
    try:
        binaries = ehrbase._binaries(os.environ)
    except ehrbase.Absent as reason:
        pytest.skip(str(reason))
    with new_server(binaries, {}) as server:
        ehrbase.prepare(server)
        with psycopg.connect(server.dsn("ehrbase", user="ehrbase", password="ehrbase")) as owner:
            owner.execute("CREATE TABLE ehr.things (id uuid DEFAULT uuid_generate_v4(), n serial)")
        restricted = {"user": "ehrbase_restricted", "password": "ehrbase_restricted"}
        with psycopg.connect(server.dsn("ehrbase", **restricted)) as worker:
            worker.execute("INSERT INTO ehr.things DEFAULT VALUES")
            assert worker.execute("SHOW intervalstyle").fetchone() == ("iso_8601",)
