"""What is wrong with a server is said also of those we cannot try: other versions, other people's servers."""

from __future__ import annotations

from typing import Any

import pytest

from replicator.errors import Unavailable
from replicator.observe.check_server import judge_server, judge_way
from replicator.wal.finding import Finding
from replicator.wal.slots import Blocker
from tests.unit.surveys import a_catalogue, a_role, a_server, a_slot, a_survey


def codes(findings: list[Finding]) -> list[str]:
    return [finding.code for finding in findings]


def test_nothing_is_said_of_a_server_as_it_should_be() -> None:
    assert judge_server(a_survey(), "replicator") == [] and judge_way(a_survey()) == []


@pytest.mark.parametrize(
    ("version", "level"),
    [(130020, "error"), (140000, None), (180004, None), (190001, "warning")],
)
def test_versions_too_old_are_refused_and_newer_ones_warned_of(version: int, level: str | None) -> None:
    findings = judge_server(a_survey(a_server(version=version)), "replicator")
    assert [(finding.code, finding.level) for finding in findings] == (
        [("server.version", level)] if level else []
    )


@pytest.mark.parametrize("version", [150000, 160000, 180000])
def test_a_standby_is_refused(version: int) -> None:
    findings = judge_server(a_survey(a_server(version=version, is_standby=True)), "replicator")
    assert codes(findings) == ["server.standby"]
    assert ("needs Postgres 16" in findings[0].why) == (version < 160000)


@pytest.mark.parametrize(
    ("settings", "code", "sql"),
    [
        ({"wal_level": "replica"}, "server.wal_level", "ALTER SYSTEM SET wal_level = 'logical';"),
        ({"max_replication_slots": "0"}, "server.slots", "ALTER SYSTEM SET max_replication_slots = '10';"),
        ({"max_wal_senders": "0"}, "server.senders", "ALTER SYSTEM SET max_wal_senders = '10';"),
    ],
)
def test_settings_that_take_a_restart_say_so(settings: dict[str, str], code: str, sql: str) -> None:
    (finding,) = judge_server(a_survey(a_server(settings)), "replicator")
    assert (finding.level, finding.code) == ("error", code)
    assert finding.sql == f"{sql} -- then: restart Postgres"


def test_a_setting_that_waits_for_a_restart_is_not_to_be_set_again() -> None:
    server = a_server({"wal_level": "replica"}, pending=frozenset({"wal_level"}))
    (finding,) = judge_server(a_survey(server), "replicator")
    assert "waits for a restart" in finding.what and not finding.sql


@pytest.mark.parametrize(
    ("provider", "setting"),
    [
        ("rds", "rds.logical_replication = 1"),
        ("cloudsql", "cloudsql.logical_decoding = on"),
        ("alloydb", "alloydb.logical_decoding = on"),
        ("azure", "wal_level = logical"),
    ],
)
def test_where_alter_system_is_not_allowed_the_providers_way_is_told(provider: str, setting: str) -> None:
    server = a_server({"wal_level": "replica"}, provider=provider)
    (finding,) = judge_server(a_survey(server), "replicator")
    assert setting in finding.why and not finding.sql


def test_full_slots_and_senders_matter_only_while_ours_is_not_among_them() -> None:
    server = a_server({"max_replication_slots": "1", "max_wal_senders": "1"}, senders_used=1)
    taken = a_survey(server, slots=(a_slot(name="other"),))
    assert codes(judge_server(taken, "replicator")) == ["server.slots", "server.senders"]
    ours = a_survey(server, slots=(a_slot(active_pid=1),))
    assert judge_server(ours, "replicator") == []


@pytest.mark.parametrize(
    ("timeout_ms", "is_said"), [("0", True), ("1000", True), ("60000", False), ("86400000", True)]
)
def test_a_sender_timeout_that_helps_nobody_is_told(timeout_ms: str, is_said: bool) -> None:
    findings = judge_server(a_survey(a_server({"wal_sender_timeout": timeout_ms})), "replicator")
    assert bool(findings) == is_said


def test_only_long_transactions_in_the_way_of_a_new_slot_are_told() -> None:
    writers = (Blocker(1, "short", "active", 3.0), Blocker(2, "forgotten", "idle in transaction", 4000.0))
    (finding,) = judge_server(a_survey(writers=writers), "replicator")
    assert finding.code == "server.open_transactions"
    assert "pid 2 (forgotten), idle in transaction, open for 4000 s" in finding.what
    assert "short" not in finding.what
    assert judge_server(a_survey(writers=writers, slots=(a_slot(),)), "replicator") == []


def test_who_holds_vacuum_back_is_told() -> None:
    holders = (Blocker(3, "report", "active", 9000.0),)
    assert codes(judge_server(a_survey(holders=holders), "replicator")) == ["server.old_snapshots"]


@pytest.mark.parametrize(
    ("said", "changed", "code"),
    [
        ('FATAL: no pg_hba.conf entry for host "10.0.0.9"', {}, ["connection.pg_hba"]),
        ("FATAL: unsupported startup parameter: replication", {}, ["connection.pooler"]),
        ("FATAL: something new", {}, ["connection.replication"]),
        (
            "FATAL: permission denied to start WAL sender",
            {"catalogue": a_catalogue(role=a_role(may_replicate=False))},
            [],
        ),
        ("FATAL: exceeds max_wal_senders", {"server": a_server({"max_wal_senders": "0"})}, []),
    ],
)
def test_a_refused_replication_connection_is_explained_once(
    said: str, changed: dict[str, Any], code: list[str]
) -> None:
    findings = judge_way(a_survey(**{"identity": Unavailable(said)} | changed))
    assert codes(findings) == code
    assert all(said in finding.why for finding in findings)
