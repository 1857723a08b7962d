"""What users get by the plan equals what SQLite answers to the query itself, on random queries and rows."""

from __future__ import annotations

import os
import sqlite3
from collections import Counter
from contextlib import closing
from typing import Any

import pytest

from replicator.rules.context import Context
from replicator.rules.expression import EDITION_3
from replicator.rules.streams.streams import read_stream
from replicator.text.nodes import parse
from tests.unit.rules.plan_oracle import Plan, rows_for
from tests.unit.rules.random_queries import ARRAYS, SCALARS, Question, question, request, world

QUERIES = int(os.environ.get("STREAM_QUERIES", "600"))
BATCHES = 10
#: What a random query may well be, and no stream can be.
UNDERSTANDABLE = (
    "more than 100 alternatives",
    "only = can stand between",
    "nothing ties",
    "nothing is demanded",
    "only value can be used",
)


def compiled(asked: Question) -> tuple[Plan | None, list[str]]:
    def quoted(sql: str) -> str:
        return "'" + sql.replace("'", "''") + "'"

    lines = ["s:", "  accept_potentially_dangerous_queries: true", "  queries:"]
    lines += [f"    - {quoted(both.rules)}" for both in asked.queries.values()]
    lines += ["  with:"] if asked.ctes else []
    lines += [f"    {name}: {quoted(both.rules)}" for name, both in asked.ctes.items()]
    document = parse("\n".join(lines), "rules.yaml")
    context = Context(document, EDITION_3)
    [entry] = document.entries(document.root)
    definition = read_stream(document, entry.name, entry.value, context)
    problems = [problem.what for problem in document.problems]
    if definition is None:
        return None, problems
    return Plan((definition,), context.lookups, EDITION_3), problems


def database(tables: dict[str, list[dict[str, Any]]]) -> sqlite3.Connection:
    made = sqlite3.connect(":memory:")
    columns = ("n", "id", *SCALARS, *ARRAYS)
    for table, rows in tables.items():
        # Columns without a type, so that SQLite compares values as they are.
        made.execute(f"CREATE TABLE {table} ({', '.join(columns)})")
        made.executemany(
            f"INSERT INTO {table} VALUES ({', '.join('?' * len(columns))})",
            [tuple(row[column] for column in columns) for row in rows],
        )
    return made


@pytest.mark.parametrize("batch", range(BATCHES))
def test_a_stream_brings_the_rows_its_query_selects(batch: int) -> None:
    counted: Counter[str] = Counter()
    for seed in range(batch, QUERIES, BATCHES):
        counted[compare(seed)] += 1
    print(counted)
    assert counted["compared"] > counted["refused"], "most random queries should be streams"
    assert counted["compared"] and counted["empty"] < 2 * counted["compared"], "rows should be found"


def compare(seed: int) -> str:
    """Hold one query against SQLite, on several tables and requests."""
    asked = question(seed)
    plan, problems = compiled(asked)
    if plan is None:
        assert problems, f"seed {seed}: neither a plan nor a problem: {asked}"
        for what in problems:
            assert any(part in what for part in UNDERSTANDABLE), f"seed {seed}: {what}: {asked}"
        return "refused"
    try:
        found = sum(bring(seed, number, asked, plan) for number in range(4))
    except sqlite3.OperationalError as error:
        assert "parser stack overflow" in str(error)  # SQLite reads no deeper than a hundred levels
        return "too deep"
    return "compared" if found else "empty"


def bring(seed: int, number: int, asked: Question, plan: Plan) -> int:
    """How many rows several requests get of the same tables."""
    tables, found = world(seed * 31 + number), 0
    with closing(database(tables)) as with_sqlite:
        for other in range(3):
            who, bound = request(seed * 97 + number * 7 + other)
            expected = {
                (name, at)
                for name, sql in asked.for_sqlite().items()
                for (at,) in with_sqlite.execute(sql, bound)
            }
            assert rows_for(plan, tables, who) == expected, f"seed {seed}: {asked} for {who} of {tables}"
            found += len(expected)
    return found
