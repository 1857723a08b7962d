"""What users get by a definition's plan equals what SQLite answers, on random definitions and rows."""

from __future__ import annotations

import os
import sqlite3
from collections import Counter
from contextlib import closing

import pytest

from replicator.rules.model import Rules
from replicator.rules.parse import parse_rules
from tests.unit.rules.plan_oracle import Plan, rows_for
from tests.unit.rules.plans import problems, written
from tests.unit.rules.random_definitions import Asked, definition
from tests.unit.rules.random_queries import ARRAYS, SCALARS, request, world

DEFINITIONS = int(os.environ.get("DEFINITION_QUERIES", "300"))
BATCHES = 6
TOP = "config: {edition: 2}\nparameters: {org: \"SELECT request.jwt() ->> 'org'\"}"


def text_of(asked: Asked) -> str:
    return written(
        [_quoted(sql) for sql in asked.parameters],
        *(_quoted(both.rules) for both in asked.data.values()),
        extra="    accept_potentially_dangerous_queries: true",
        top=TOP,
    )


def _quoted(sql: str) -> str:
    return "'" + sql.replace("'", "''") + "'"


@pytest.mark.parametrize("batch", range(BATCHES))
def test_a_definition_brings_the_rows_its_queries_select(batch: int) -> None:
    counted: Counter[str] = Counter()
    for seed in range(batch, DEFINITIONS, BATCHES):
        asked = definition(seed)
        text = text_of(asked)
        assert problems(text) == [], f"seed {seed}: {text}"
        found = sum(compare(seed, number, asked, parse_rules(text, "f")) for number in range(3))
        counted["compared" if found else "empty"] += 1
    print(counted)
    assert counted["compared"] > counted["empty"], "rows should be found"


def compare(seed: int, number: int, asked: Asked, rules: Rules) -> int:
    """How many rows several requests get of the same tables."""
    plan = Plan(rules.definitions, {lookup.id: lookup for lookup in rules.lookups}, rules.dialect)
    tables, found = world(seed * 31 + number), 0
    columns = ("n", "id", *SCALARS, *ARRAYS)
    with closing(sqlite3.connect(":memory:")) as with_sqlite:
        for table, rows in tables.items():
            # Columns without a type, so that SQLite compares values as they are.
            with_sqlite.execute(f"CREATE TABLE {table} ({', '.join(columns)})")
            marks = ", ".join("?" * len(columns))
            values = [tuple(row[column] for column in columns) for row in rows]
            with_sqlite.executemany(f"INSERT INTO {table} VALUES ({marks})", values)
        for other in range(3):
            who, bound = request(seed * 97 + number * 7 + other)
            expected = {
                (name, at)
                for name, both in asked.data.items()
                for (at,) in with_sqlite.execute(both.sqlite, bound)
            }
            assert rows_for(plan, tables, who) == expected, f"seed {seed}: {text_of(asked)} for {who}"
            found += len(expected)
    return found
