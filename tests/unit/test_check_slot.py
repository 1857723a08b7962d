"""What a slot holds back, loses or contradicts is said in time."""

from __future__ import annotations

from typing import Any

import pytest

from replicator.observe.check_slot import hours_to_full, judge_slot
from replicator.observe.survey import Pace
from replicator.wal.lsn import Lsn
from tests.unit.surveys import a_position, a_server, a_slot, a_survey

GB = 1 << 30
DAY = 86400


def codes(*, server: Any = None, slot: Any = None, position: Any = None, **survey: Any) -> dict[str, str]:
    slots = (slot,) if slot is not None else ()
    findings = judge_slot(a_survey(server, **{"slots": slots} | survey), "replicator", position)
    return {finding.code: finding.level for finding in findings}


def test_nothing_is_said_before_the_first_run_nor_of_a_slot_that_goes_well() -> None:
    assert codes() == {}
    assert codes(slot=a_slot(), position=a_position()) == {}
    assert codes(slot=a_slot(active_pid=1, active_application="replicator replicator")) == {}


@pytest.mark.parametrize(
    ("limit_mb", "gb_a_day", "expected"),
    [
        ("-1", 0.0, {"slot.keep": "warning"}),
        ("-1", 500.0, {"slot.keep": "warning"}),
        ("10240", 5.0, {}),
        ("10240", 50.0, {"slot.keep": "warning"}),
    ],
)
def test_the_room_for_log_is_measured_in_hours(
    limit_mb: str, gb_a_day: float, expected: dict[str, str]
) -> None:
    server = a_server({"max_slot_wal_keep_size": limit_mb})
    assert codes(server=server, pace=Pace(gb_a_day * GB / DAY, 7200.0)) == expected


def test_the_limit_proposed_lasts_a_day() -> None:
    server = a_server({"max_slot_wal_keep_size": "-1"})
    (finding,) = judge_slot(a_survey(server, pace=Pace(120 * GB / DAY, 7200.0)), "replicator", None)
    assert finding.sql.startswith("ALTER SYSTEM SET max_slot_wal_keep_size = '120GB';")
    assert "about 120 GB a day (seen over 2 hours)" in finding.why


def test_hours_to_full() -> None:
    server = a_server({"max_slot_wal_keep_size": "10240"})
    assert hours_to_full(server, Pace(10 * GB / DAY, 7200.0)) == pytest.approx(24)
    assert hours_to_full(server, None) is None
    assert hours_to_full(server, Pace(0.0, 7200.0)) is None
    assert hours_to_full(a_server({"max_slot_wal_keep_size": "-1"}), Pace(1.0, 7200.0)) is None


@pytest.mark.parametrize(
    ("seconds", "expected"), [("0", {}), ("3600", {"slot.idle": "warning"}), ("172800", {})]
)
def test_a_slot_that_ends_when_nobody_reads_it_overnight(seconds: str, expected: dict[str, str]) -> None:
    assert codes(server=a_server({"idle_replication_slot_timeout": seconds})) == expected


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"plugin": "test_decoding"}, {"slot.foreign": "error"}),
        ({"database": "other"}, {"slot.foreign": "error"}),
        ({"is_temporary": True}, {"slot.foreign": "error"}),
        ({"is_logical": False, "plugin": None, "database": None}, {"slot.foreign": "error"}),
        ({"wal_status": "lost"}, {"slot.lost": "error"}),
        ({"invalidation_reason": "idle_timeout"}, {"slot.lost": "error"}),
        ({"wal_status": "unreserved"}, {"slot.unreserved": "error"}),
        ({"kept_bytes": 6 * GB, "safe_bytes": 4 * GB}, {"slot.room": "warning"}),
        ({"kept_bytes": 6 * GB, "safe_bytes": None}, {}),
        ({"active_pid": 9, "active_application": "debezium"}, {"slot.reader": "warning"}),
        ({"active_pid": 9, "active_application": None}, {}),
    ],
)
def test_the_state_of_the_slot(changed: dict[str, Any], expected: dict[str, str]) -> None:
    assert codes(slot=a_slot(**changed)) == expected


@pytest.mark.parametrize(
    ("position", "slot", "expected"),
    [
        (a_position(), None, {"slot.gone": "error"}),
        (a_position(), a_slot(confirmed_lsn=Lsn(2001)), {"slot.ahead": "error"}),
        (a_position(), a_slot(confirmed_lsn=Lsn(1999)), {}),
        (a_position(system_id="2"), a_slot(), {"slot.other_source": "error"}),
        (a_position(timeline=2), a_slot(), {"slot.other_source": "error"}),
        (a_position(given_up="1 1 -"), None, {}),
        (a_position(given_up="1 1 beginning"), None, {}),
        (a_position(given_up="2 1 beginning"), None, {"slot.gone": "error"}),
        (a_position(given_up="1 1 0/7D1"), a_slot(confirmed_lsn=Lsn(2001)), {}),
        (a_position(given_up="1 1 0/7D1"), a_slot(confirmed_lsn=Lsn(2002)), {"slot.ahead": "error"}),
        (a_position(given_up="1 1 0/7D0"), None, {"slot.gone": "error"}),
        (a_position(given_up="2 1 -"), None, {"slot.gone": "error"}),
    ],
)
def test_the_slot_and_what_is_stored_are_two_ends_of_one_thing(
    position: Any, slot: Any, expected: dict[str, str]
) -> None:
    assert codes(slot=slot, position=position) == expected


def test_a_lost_slot_nothing_was_read_from_may_simply_be_dropped() -> None:
    (fresh,) = judge_slot(a_survey(slots=(a_slot(wal_status="lost"),)), "replicator", None)
    (read,) = judge_slot(a_survey(slots=(a_slot(wal_status="lost"),)), "replicator", a_position())
    assert fresh.sql == "SELECT pg_drop_replication_slot('replicator');"
    assert read.sql == "" and "replicator snapshot --all" in read.why


def test_where_there_are_standbys_the_slot_should_follow_a_promotion() -> None:
    standby = a_slot(name="standby", is_logical=False, plugin=None, database=None)

    def said(version: int, failover: bool | None, **settings: str) -> dict[str, str]:
        slots = (a_slot(failover=failover), standby)
        return codes(server=a_server(settings, version=version), slots=slots)

    assert said(160000, None) == {}
    assert said(170000, False) == {"slot.failover": "note"}
    assert said(170000, True) == {"slot.synchronized": "note"}
    assert said(170000, True, synchronized_standby_slots="standby") == {}
