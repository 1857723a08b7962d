"""Comparisons that are the same for every row, because the rules see another type than Postgres does."""

from __future__ import annotations

import json

import pytest

from replicator.rules.columns.types import BUILT_IN
from replicator.rules.compile import compile_rules
from replicator.rules.parse import parse_rules
from replicator.wal.messages import Column, Relation
from tests.unit.rules.plans import problems, warned, written
from tests.unit.rules.told import read

COLUMNS = {
    "id": 25, "temperature": 1700, "price": 790, "bpm": 23, "at": 1184, "day": 1082, "since": 1083,
    "for_": 1186, "name": 25, "picture": 17, "weight": 701, "other": 1700,
}  # fmt: skip
TABLES = {("public", "v"): COLUMNS}

#: Conditions that hold for every row: they would show all of them.
ALWAYS = {
    "temperature > 37": "write CAST(temperature AS numeric)",
    "temperature >= 37.5": "write CAST(temperature AS numeric)",
    "37 < temperature": "write CAST(temperature AS numeric)",
    "temperature != 37": "write CAST(temperature AS numeric)",
    "temperature <> 37": "write CAST(temperature AS numeric)",
    "NOT (temperature = 37)": "write CAST(temperature AS numeric)",
    "NOT (temperature < 37)": "write CAST(temperature AS numeric)",
    "temperature NOT IN (36, 37)": "write CAST(temperature AS numeric)",
    "temperature NOT BETWEEN 36 AND 38": "write CAST(temperature AS numeric)",
    "temperature IS DISTINCT FROM 37": "write CAST(temperature AS numeric)",
    "temperature BETWEEN 36 AND '38'": "write CAST(temperature AS numeric)",
    "bpm = 1 OR temperature > 37": "write CAST(temperature AS numeric)",
    "NOT (bpm = 1 AND temperature < 37)": "write CAST(temperature AS numeric)",
    "bpm < temperature": "write CAST(temperature AS numeric)",
    "price > 5": "nothing makes a number of money",
    "for_ > 5": "nothing makes a number of interval",
    "at > 1700000000": "unixepoch(at)",
    "day >= 20240101": "unixepoch(day)",
    "since > 8": "compare with text such as '08:30:00'",
    "bpm < 'abc'": "compare with a number",
    "bpm != '60'": "compare with a number",
    "NOT bpm > 'abc'": "compare with a number",
    "name > 5": "compare with text",
    "upper(name) > 5": "compare with text",
    "picture > 'x'": "compare hex(",
}
#: Conditions that hold for no row, or by letters: nobody sees what they should not.
NEVER = {
    "temperature < 37": "holds for no row",
    "temperature BETWEEN 36 AND 38": "holds for no row",
    "temperature = 37": "never equal",
    "temperature IN (36, 37)": "never equal",
    "NOT (temperature > 37) AND temperature IS NOT NULL": "holds for no row",
    "bpm > 'abc'": "holds for no row",
    "bpm >= '60'": "holds for no row",
    "price < 5": "holds for no row",
    "at < 5": "holds for no row",
    "iif(temperature > 37, 1, 0) = 1": "the same for every row",
    "temperature > '37'": "letter by letter",
    "temperature > other": "letter by letter",
    "for_ > '1 day'": "letter by letter",
}
PLAIN = (
    "CAST(temperature AS numeric) > 37",
    "CAST(temperature AS numeric) BETWEEN 36 AND 38",
    "CAST(temperature AS real) != 37",
    "unixepoch(at) > 1700000000",
    "unixepoch(day) > 1700000000",
    "at > '2024-01-01'",
    "since > '08:30:00'",
    "bpm > 60",
    "bpm > weight",
    "bpm + 1 > 60",
    "weight > 60",
    "weight > 60.5",
    "name > 'm'",
    "length(name) > 5",
    "CAST(name AS numeric) > 5",
    "hex(picture) > 'FF'",
)


@pytest.mark.parametrize("where", ALWAYS)
def test_what_would_show_every_row_is_refused_once_the_types_are_known(where: str) -> None:
    text = written(None, f"SELECT * FROM v WHERE {where}")
    [problem] = problems(text, TABLES)
    assert "this holds for every row that has one" in problem
    assert ALWAYS[where] in problem
    assert problem.startswith(f"4:{9 + len('SELECT * FROM v WHERE ')}: d.data[0]: ")


@pytest.mark.parametrize("where", ALWAYS)
@pytest.mark.parametrize(
    "query",
    [
        "SELECT * FROM v WHERE owner = auth.user_id() AND ({})",
        "SELECT * FROM w WHERE x IN (SELECT id FROM v WHERE owner = auth.user_id() AND ({}))",
    ],
)
def test_a_stream_that_would_show_every_row_is_refused(where: str, query: str) -> None:
    tables = {("public", "v"): {**COLUMNS, "owner": 25}, ("public", "w"): {"id": 25, "x": 25}}
    assert read(f"s:\n  query: {query.format(where)}").problems() == []
    found = read(f"s:\n  query: {query.format(where)}", tables=tables).problems()
    assert any("this holds for every row that has one" in problem for problem in found)


def test_the_row_that_decides_for_a_user_is_looked_at_too() -> None:
    parameters = "SELECT id AS x FROM v WHERE name = request.user_id() AND bpm < 'abc'"
    [problem] = problems(written(parameters, "SELECT * FROM v WHERE id = bucket.x"), TABLES)
    assert problem.startswith("4:66: d.parameters[0]: bpm is integer and the text is text: this holds for")


@pytest.mark.parametrize("where", NEVER)
def test_what_holds_for_no_row_is_told(where: str) -> None:
    [told] = warned(None, f"SELECT * FROM v WHERE {where}", tables=TABLES)
    assert NEVER[where] in told


@pytest.mark.parametrize("where", PLAIN)
def test_what_means_what_it_says_is_quiet(where: str) -> None:
    assert warned(None, f"SELECT * FROM v WHERE {where}", tables=TABLES) == []


@pytest.mark.parametrize("where", [*ALWAYS, *NEVER])
def test_without_the_source_nothing_is_refused(where: str) -> None:
    assert problems(written(None, f"SELECT * FROM v WHERE {where}")) == []


def test_types_that_are_not_postgres_own_say_nothing() -> None:
    assert warned(None, "SELECT * FROM v WHERE t > 5", tables={("public", "v"): {"id": 25, "t": 90000}}) == []


ROWS = {"temperature": "9.5", "at": "2024-03-06 13:47:00+00", "bpm": "60", "price": "$5.00", "name": "Ada"}


@pytest.mark.parametrize(
    ("where", "holds"),
    [
        # What the messages say of them …
        ("temperature > 37", True),
        ("temperature < 37", False),
        ("temperature > '37'", True),
        ("bpm < 'abc'", True),
        ("price > 500", True),
        # … and what they advise.
        ("CAST(temperature AS numeric) > 37", False),
        ("CAST(temperature AS numeric) < 37", True),
        ("CAST(temperature AS numeric) BETWEEN 9 AND 10", True),
        ("CAST(temperature AS numeric) != 9.5", False),
        ("unixepoch(at) > 1700000000", True),
        ("unixepoch(at) > 1800000000", False),
        ("at > '2024-03-05'", True),
        ("at > '2024-03-07'", False),
    ],
)
def test_the_advice_is_right(where: str, holds: bool) -> None:
    rules = parse_rules(
        json.dumps({"bucket_definitions": {"d": {"data": [f"SELECT id FROM v WHERE {where}"]}}}), "f"
    )
    columns = [Column(name, COLUMNS[name], -1, name == "id") for name in ("id", *ROWS)]
    relation = Relation(1, "public", "v", "d", tuple(columns))
    compiled = compile_rules(rules, relation, BUILT_IN, (0,), lambda *_: None)
    assert compiled is not None
    assert bool(compiled.place(("1", *ROWS.values()), 0.0)) is holds


def test_a_condition_of_several_branches_is_told_once() -> None:
    query = (
        "SELECT * FROM v WHERE temperature > 37 AND (owner = auth.user_id() OR owner = auth.parameter('a'))"
    )
    tables = {("public", "v"): {**COLUMNS, "owner": 25}}
    assert len(read(f"s:\n  query: {query}", tables=tables).problems()) == 1
