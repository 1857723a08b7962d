"""Postgres comes to the same values where its SQL and that of the rules are meant to agree."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from replicator.rules.expression import Scalar
from tests.unit.rules.at_hand import value_of
from tests.unit.rules.random_sql import ROWS, Random, named_row

if TYPE_CHECKING:
    from tests.fixtures.postgres import Database


@pytest.fixture
def samples(database: Database) -> Database:
    database.execute(
        'CREATE TABLE sample (at int, i bigint, j bigint, s text COLLATE "C", t text COLLATE "C", n bigint)'
    )
    for at, row in enumerate(ROWS):
        database.execute("INSERT INTO sample VALUES (%s, %s, %s, %s, %s)", (at, *row))
    return database


def theirs(samples: Database, expression: str) -> list[Scalar]:
    """The values of every row; what Postgres calls true is 1."""
    found = [value for (value,) in samples.execute(f"SELECT {expression} FROM sample ORDER BY at")]
    return [int(value) if isinstance(value, bool) else value for value in found]


def ours(expression: str) -> list[object]:
    return [value_of(expression, named_row(row)) for row in ROWS]


def test_random_expressions_come_to_the_same(samples: Database, rng: random.Random) -> None:
    made = Random(rng)
    for _ in range(400):
        expression = rng.choice([made.number, made.text, made.condition, made.match])(3)
        assert ours(expression) == theirs(samples, expression), expression


@pytest.mark.parametrize(
    "expression",
    [
        "concat(s, n, i)",
        "s || i",
        "trim(both 'a' from s)",
        "trim(leading from s)",
        "substring(s from 2 for 2)",
        "position(t in s)",
        "round(i / 4.0)::integer",
        "nullif(i, j)",
        "i IN (1, NULL, 5)",
        "n = 1",
        "n BETWEEN 1 AND 2",
        "i BETWEEN n AND 100",
        "n IS NOT DISTINCT FROM NULL",
        "n + 1",
        "s || n::text",
        "upper(n::text)",
        "(i > 0) IS TRUE",
        "(n = 1) IS NOT TRUE",
        "(n = 1) IS UNKNOWN",
        "coalesce(n, NULL, i)",
        "CASE WHEN n = 1 THEN 'a' END",
        "s LIKE n::text",
        r"s LIKE 'a\_b\%%'",
        r"s LIKE '%\%c'",
        "s LIKE ''",
        "s LIKE '____'",
        "s ILIKE 'ANN_'",
        "9223372036854775807 - i::bigint * 0",
        "'x' || $$it's$$ || E'\\t'",
    ],
)
def test_what_chance_would_seldom_find_comes_to_the_same(samples: Database, expression: str) -> None:
    assert ours(expression) == theirs(samples, expression)


def test_not_is_where_the_two_part(samples: Database) -> None:
    """The opposite of NULL is NULL in SQL, and true in the rules: existing rules rely on it."""
    assert theirs(samples, "NOT (n = 1)") == [None] * len(ROWS)
    assert ours("NOT (n = 1)") == [1] * len(ROWS)


def test_json_comes_to_the_same(database: Database) -> None:
    document = '{"a": {"b": [10, "x"]}, "t": "text", "k.l": "dotted", "n": null, "big": 9007199254740993}'
    for expression, cast in [
        ("x ->> 't'", ""),
        ("x -> 'a' -> 'b' ->> 1", ""),
        ("x ->> 'k.l'", ""),
        ("x ->> 'n'", ""),
        ("x ->> 'none'", ""),
        ("x -> 'a' -> 'none'", ""),
        ("x ->> 'big'", "::bigint"),
        ("x -> 'a' -> 'b' ->> 0", "::int"),
        ("x -> 'a' -> 'b' ->> 2", ""),
    ]:
        found = database.execute(f"SELECT ({expression}){cast} FROM (SELECT %s::json AS x) AS d", [document])
        assert value_of(expression, {"x": document}) == found[0][0], expression


def test_intervals_are_as_long(database: Database) -> None:
    for text in ("90 days", "1 week 2 hours 3 min", "-1.5 hours", "0.25 s", "2 hrs 5 secs"):
        ((seconds,),) = database.execute("SELECT extract(epoch FROM %s::interval)::float8", [text])
        assert value_of(f"interval '{text}' + 0.0") == seconds, text


def test_timestamps_are_the_same_moment(database: Database, rng: random.Random) -> None:
    texts = [f"{rng.randint(1, 9998):04}-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}" for _ in range(200)]
    texts = [f"{text} {rng.randint(0, 23):02}:59:01.25{rng.choice(['Z', '+05:30', '-08'])}" for text in texts]
    found = database.execute(
        "SELECT x, extract(epoch FROM x::timestamptz)::float8 FROM unnest(%s::text[]) AS x", [texts]
    )
    for text, seconds in found:
        assert value_of("unixepoch(x, 'subsec')", {"x": text}) == seconds, text
