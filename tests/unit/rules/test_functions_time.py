"""Timestamps in every form that rows and rules have them, and the same moment each time."""

from __future__ import annotations

import datetime as calendar
import random

import pytest

from replicator.rules.compute.moments import interval_seconds
from replicator.rules.expression import Scalar
from tests.unit.rules.at_hand import NOW, value_of

MOMENT = 1678117620


@pytest.mark.parametrize(
    "text",
    [
        "2023-03-06T15:47:00Z",
        "2023-03-06T15:47:00.999999Z",
        "2023-03-06 15:47:00",
        "2023-03-06 15:47",
        "2023-03-06T17:47:00+02:00",
        "2023-03-06T17:47:00+02",
        "2023-03-06 10:17:00-0530",
        "2023-03-06T15:47:00.5z",
    ],
)
def test_the_same_moment_in_many_forms(text: str) -> None:
    assert value_of("unixepoch(x)", {"x": text}) == MOMENT
    assert value_of("datetime(x)", {"x": text}) == "2023-03-06 15:47:00"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "soon",
        "15:47:00",
        "2023-13-01",
        "2023-00-01",
        "2023-01-32",
        "2023-03-06T24:00:00",
        "2023-03-06T15:47:60",
        "2023-3-6",
    ],
)
def test_what_is_no_timestamp_is_null(text: str) -> None:
    assert value_of("unixepoch(x)", {"x": text}) is None
    assert value_of("datetime(x)", {"x": text}) is None


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("unixepoch('2023-03-06T15:47:00.123456Z', 'subsec')", 1678117620.123),
        ("unixepoch('1969-12-31T23:59:59.5Z')", -1),
        ("unixepoch('1969-12-31T23:59:59.5Z', 'subsecond')", -0.5),
        ("unixepoch(1678117620, 'unixepoch')", MOMENT),
        ("unixepoch(1678117620.75, 'unixepoch', 'subsec')", 1678117620.75),
        ("unixepoch(2440587.5)", 0),
        ("unixepoch('2440588')", 43200),
        ("datetime(1678117620, 'unixepoch')", "2023-03-06 15:47:00"),
        ("datetime(1678117620.0, 'unixepoch', 'subsec')", "2023-03-06 15:47:00.000"),
        ("datetime('2023-03-06T15:47:00.123999Z', 'subsec')", "2023-03-06 15:47:00.123"),
        ("datetime('2024-02-30')", "2024-03-01 00:00:00"),
        ("datetime('0000-01-01 00:00:00')", "0000-01-01 00:00:00"),
        ("datetime('9999-12-31T23:59:59Z')", "9999-12-31 23:59:59"),
        ("datetime('0000-01-01T00:00:00+01:00')", None),
        ("unixepoch(9e99, 'unixepoch')", None),
        ("unixepoch(NULL)", None),
    ],
)
def test_moments(sql: str, expected: object) -> None:
    found = value_of(sql)
    assert found == expected
    assert type(found) is type(expected)


def test_the_calendar_is_the_one_python_has(rng: random.Random) -> None:
    start = calendar.datetime(1, 1, 1, tzinfo=calendar.UTC)
    for _ in range(2000):
        moment = start + calendar.timedelta(seconds=rng.randrange(0, 315_000_000_000))
        text = moment.strftime("%m-%d %H:%M:%S")
        text = f"{moment.year:04}-{text}"
        assert value_of("unixepoch(x)", {"x": text}) == int(moment.timestamp())
        assert value_of("datetime(x)", {"x": text}) == text


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("now()", NOW),
        ("current_timestamp", NOW),
        ("now() - interval '90 days'", NOW - 90 * 86400),
        ("now() + '1 week 2 hours'::interval", NOW + 7 * 86400 + 7200),
        ("x > now() - interval '1 day'", 1),
        ("x < now() - interval '1 day'", 0),
        ("now() >= x", 1),
        ("x + interval '1 minute' > now()", 1),
        ("x BETWEEN now() - interval '1 hour' AND now()", 1),
        ("y > now()", 0),
        ("z > now()", None),
        ("unixepoch(x) > now() - interval '1 hour'", 1),
        ("unixepoch(x) < now()", 1),
    ],
)
def test_what_is_held_against_now_is_read_as_a_time(sql: str, expected: object) -> None:
    """Without that, text would be more than any number, and every row recent for ever."""
    row: dict[str, Scalar] = {"x": "2023-11-14 22:12:50Z", "y": NOW - 5, "z": "not a time"}
    assert value_of(sql, row) == expected


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90 days", 7776000),
        ("1 day", 86400),
        ("1.5 hours", 5400),
        ("2 weeks 1 min 5 secs", 1209665),
        ("-1 day", -86400),
        ("0.25 s", 0.25),
        ("1 month", None),
        ("2 years", None),
        ("", None),
        ("5", None),
        ("days", None),
        ("1 day ago", None),
    ],
)
def test_intervals_of_fixed_length(text: str, seconds: float | None) -> None:
    assert interval_seconds(text) == seconds
