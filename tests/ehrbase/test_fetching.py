"""Where an EHRbase comes from, and what is said where none can be had."""

from __future__ import annotations

import os
from pathlib import Path

import psycopg
import pytest

from tests.ehrbase.records import Place
from tests.fixtures import ehrbase
from tests.fixtures.servers import new_server


def test_without_maven_and_without_its_modules_the_reason_is_said(tmp_path: Path) -> None:
    with pytest.raises(ehrbase.Absent, match="there is no mvn"):
        ehrbase.fetched({"XDG_CACHE_HOME": str(tmp_path), "PATH": ""})


def a_program(folder: Path, name: str, script: str) -> str:
    """One that is found by PATH; its folder."""
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)
    return str(folder)


def test_what_maven_fetched_is_fetched_once_and_whole(tmp_path: Path) -> None:
    maven = a_program(tmp_path, "mvn", "[ -f pom.xml ] && [ -f Started.java ] && /bin/mkdir lib")
    environ = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    place = ehrbase.fetched({**environ, "PATH": maven})
    assert (place / "lib").is_dir()
    assert ehrbase.fetched({**environ, "PATH": ""}) == place
    assert [path.name for path in place.parent.iterdir()] == [place.name]


def test_what_maven_could_not_fetch_is_not_left_by_halves(tmp_path: Path) -> None:
    maven = a_program(tmp_path, "mvn", "echo '[ERROR] Could not find artifact a:b:1'; exit 1")
    with pytest.raises(ehrbase.Absent, match="could not fetch its modules: Could not find artifact a:b:1"):
        ehrbase.fetched({"XDG_CACHE_HOME": str(tmp_path / "cache"), "PATH": maven})
    assert list((tmp_path / "cache" / "replicator-tests").iterdir()) == []


def test_a_java_that_is_too_old_is_passed_over(tmp_path: Path) -> None:
    bins = {}
    for version in ("17.0.15", "22", "21.0.8"):
        bins[version] = tmp_path / version / "bin"
        bins[version].mkdir(parents=True)
        a_program(bins[version], "java", f"echo 'openjdk version \"{version}\" 2026-01-01' >&2")
    old, other, new = (str(folder) for folder in bins.values())
    home = str(tmp_path / "17.0.15")
    assert ehrbase._java({"JAVA_HOME": home, "PATH": new}) == Path(new) / "java"
    assert ehrbase._java({"JAVA_HOME": home, "PATH": f"{other}:{old}"}) == Path(other) / "java"


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
