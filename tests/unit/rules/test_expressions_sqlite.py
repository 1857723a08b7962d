"""SQLite, whose values the rules have, comes to the same where the two are meant to agree."""

from __future__ import annotations

import random
import sqlite3

import pytest

from replicator.rules.expression import Scalar
from tests.unit.rules.at_hand import value_of
from tests.unit.rules.random_sql import ROWS, Random, named_row

pytestmark = pytest.mark.skipif(
    sqlite3.sqlite_version_info < (3, 39),
    reason="an SQLite that does not know ->>, unixepoch and IS DISTINCT",
)


@pytest.fixture
def sqlite() -> sqlite3.Cursor:
    return sqlite3.connect(":memory:").cursor()


def test_random_expressions_come_to_the_same(sqlite: sqlite3.Cursor, rng: random.Random) -> None:
    made = Random(rng)
    for _ in range(300):
        sql = rng.choice([made.number, made.text, made.condition])(3)
        for row in ROWS:
            named = named_row(row)
            theirs = sqlite.execute(
                f"SELECT {sql} FROM (SELECT :i AS i, :j AS j, :s AS s, :t AS t, :n AS n)", named
            ).fetchone()[0]
            ours = value_of(sql, named)
            assert (type(ours), ours) == (type(theirs), theirs), (sql, row)


VALUES: list[Scalar] = [
    None,
    -1,
    0,
    1,
    1.0,
    2.5,
    -0.5,
    1 << 62,
    "",
    "1",
    "1.0",
    "a",
    "B",
    " 7x",
    "-3",
    b"",
    b"a",
]


@pytest.mark.parametrize(
    "sql",
    [
        "x = y",
        "x <> y",
        "x < y",
        "x <= y",
        "x > y",
        "x >= y",
        "x IS DISTINCT FROM y",
        "x IS NOT DISTINCT FROM y",
        "x BETWEEN y AND 'a'",
        "x IN (y, 1, 'a')",
        "coalesce(x, y)",
        "nullif(x, y)",
        "typeof(x)",
        "x IS NULL",
        "CASE x WHEN y THEN 1 ELSE 2 END",
        "hex(CAST(x AS blob))",
        "x + y",
        "x - y",
        "x * y",
        "x / y",
        "abs(x)",
        "CAST(x AS integer)",
        "CAST(x AS real)",
        "-x",
        "length(x)",
        "instr(x, y)",
        "replace(x, y, 'z')",
        "trim(x, y)",
    ],
)  # fmt: skip
def test_values_of_every_type_come_to_the_same(sqlite: sqlite3.Cursor, sql: str) -> None:
    for x in VALUES:
        for y in VALUES:
            if _is_ours_alone(sql, x, y):
                continue
            (theirs,) = sqlite.execute(f"SELECT {sql} FROM (SELECT ? AS x, ? AS y)", (x, y)).fetchone()
            ours = value_of(sql, {"x": x, "y": y})
            assert (type(ours), ours) == (type(theirs), theirs), (sql, x, y)


def _is_ours_alone(sql: str, x: Scalar, y: Scalar) -> bool:
    """Where the rules mean something else than SQLite, because existing rules rely on it."""
    operator = sql.split()[1] if " " in sql else sql
    if any(isinstance(value, float) and value.is_integer() for value in (x, y)):
        # A whole real is printed without a fraction.
        return not (operator in "= <> < <= > >= + - * /" or "typeof" in sql or "coalesce" in sql)
    if "BETWEEN" in sql:
        return x is None or y is None  # NULL there decides nothing, unless the other bound does
    if "replace" in sql:
        return y in ("", b"")  # what is left as it is need not be text there
    if any(value == "1.0" for value in (x, y)):
        return operator in ("+", "-", "*", "/") or sql in ("abs(x)", "-x")  # a real here, 1 there
    if sql == "abs(x)":
        return isinstance(x, str | bytes)  # always a real there
    return False


@pytest.mark.parametrize(
    "sql",
    [
        "json_extract(x, '$.a')",
        "json_extract(x, '$.a.b')",
        "json_extract(x, '$.list[1]')",
        "json_extract(x, '$')",
        "x ->> 'a'",
        "x ->> '$.list'",
        "x -> 'a'",
        "x -> '$.list[0]'",
        "x ->> 'real'",
        "x ->> 'big'",
        "x ->> 'yes'",
        "x ->> 'null'",
        "x -> 'null'",
        "json_array_length(x, '$.list')",
        "json_array_length(x)",
        "json_valid(x)",
    ],
)
def test_json_comes_to_the_same(sqlite: sqlite3.Cursor, sql: str) -> None:
    for x in (
        '{"a":{"b":1},"list":[1,"zwei",null],"real":1.5,"big":9007199254740993,"yes":true,"null":null}',
        '{"a":"text","list":[]}',
        "[1,2,3]",
        "5",
        None,
    ):
        (theirs,) = sqlite.execute(f"SELECT {sql} FROM (SELECT ? AS x)", (x,)).fetchone()
        ours = value_of(sql, {"x": x})
        if sql == "json_valid(x)":
            theirs = theirs or 0  # NULL in newer versions
        assert (type(ours), ours) == (type(theirs), theirs), (sql, x)


@pytest.mark.parametrize("sql", ["unixepoch(x)", "datetime(x)"])
def test_timestamps_come_to_the_same(sqlite: sqlite3.Cursor, sql: str, rng: random.Random) -> None:
    for _ in range(300):
        date = f"{rng.randint(0, 9999):04}-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}"
        time = f"{rng.randint(0, 23):02}:{rng.randint(0, 59):02}:{rng.randint(0, 59):02}"
        zone = rng.choice(["", "Z", "+02:00", "-11:30"])
        x = date + rng.choice([" ", "T"]) + time + rng.choice(["", ".5", ".123"]) + zone
        if date.startswith(("0000", "9999")):
            continue  # a zone may lead out of the years there are
        (theirs,) = sqlite.execute(f"SELECT {sql} FROM (SELECT ? AS x)", (x,)).fetchone()
        assert value_of(sql, {"x": x}) == theirs, x


def test_rounding_comes_to_the_same(sqlite: sqlite3.Cursor, rng: random.Random) -> None:
    for _ in range(500):
        x, digits = rng.randint(-10000, 10000) / 8, rng.randint(0, 3)  # eighths are exact
        (theirs,) = sqlite.execute("SELECT round(?, ?)", (x, digits)).fetchone()
        assert value_of(f"round(x, {digits})", {"x": x}) == theirs, x
