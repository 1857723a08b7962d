"""Random rules × random changes, one after another → every request has just the rows that SQL answers.

Here nothing is carried out slowly: rows are moved by what changes, a request asks the lookups as they have
come to stand, and what its buckets hold is held against the question itself, asked of SQLite.
"""

from __future__ import annotations

import json
import os
import random
import sqlite3
from contextlib import closing
from typing import NamedTuple

import pytest

from replicator.errors import ReplicatorError
from replicator.rules import keys
from replicator.rules.ask import ask
from replicator.rules.asked import Asked
from replicator.rules.compile import Need
from replicator.rules.expression import Scalar
from replicator.rules.model import Rules
from replicator.rules.parse import parse_rules
from replicator.wal.messages import Column, Relation, Row
from replicator.wal.transactions import Change, Kind
from tests.unit.rules import random_definitions
from tests.unit.rules.random_queries import TABLES, question, request
from tests.unit.rules.test_lookups import Store

SEEDS = int(os.environ.get("GRANTED_SEEDS", "60"))
BATCHES = 4
TEXT, INTEGER = 25, 20
COLUMNS = {"id": TEXT, "n": INTEGER, "a": TEXT, "b": TEXT, "c": INTEGER, "xs": TEXT, "ys": TEXT}
RELATIONS = tuple(
    Relation(
        oid,
        "public",
        name,
        "f",
        tuple(Column(column, kind, -1, column == "id") for column, kind in COLUMNS.items()),
    )
    for oid, name in enumerate(TABLES)
)
ARRAYS = (None, "[]", '["u1"]', '["u2",1,null]', '["u1","u2","u1"]', "[1]")


class Ruled(NamedTuple):
    """Rules, and the same questions as SQLite understands them, by the name that clients see."""

    rules: Rules
    questions: dict[str, str]


def definitions(seed: int) -> Ruled | None:
    asked = random_definitions.definition(seed)
    data = [both.rules for both in asked.data.values()]
    definition = {"parameters": asked.parameters, "data": data}
    org = {"org": "SELECT request.jwt() ->> 'org'"}
    return ruled(
        {"config": {"edition": 2}, "parameters": org, "bucket_definitions": {"d": definition}},
        {name: both.sqlite for name, both in asked.data.items()},
    )


def streams(seed: int) -> Ruled | None:
    asked = question(seed)
    stream: dict[str, object] = {"queries": [both.rules for both in asked.queries.values()]}
    if asked.ctes:
        stream["with"] = {name: both.rules for name, both in asked.ctes.items()}
    return ruled({"config": {"edition": 3}, "streams": {"s": stream}}, asked.for_sqlite())


def ruled(file: dict[str, object], questions: dict[str, str]) -> Ruled | None:
    """None if the rules are none, which they say themselves."""
    for key in file.keys() & {"bucket_definitions", "streams"}:
        for one in file[key].values():  # type: ignore[attr-defined]  # as they are made above
            one["accept_potentially_dangerous_queries"] = True
    try:
        return Ruled(parse_rules(json.dumps(file), "f"), questions)
    except ReplicatorError:
        return None


class World:
    """The tables as they come to be, a few changes at a time."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._count = 0
        self.rows: dict[int, dict[str, Row]] = {table.oid: {} for table in RELATIONS}

    def changes(self) -> list[Change]:
        return [self._change(self._rng.choice(RELATIONS)) for _ in range(self._rng.choice((1, 1, 2, 4)))]

    def _change(self, table: Relation) -> Change:
        rows, luck = self.rows[table.oid], self._rng.random()
        old = rows.pop(self._rng.choice(sorted(rows))) if rows and (luck < 0.6 or len(rows) > 7) else None
        if old is not None and luck < 0.15:
            return Change(Kind.DELETE, table, old, None, 0, True)
        new = self._row(old)
        while new[0] in rows:
            new = self._row(old)
        rows[str(new[0])] = new
        return Change(Kind.INSERT if old is None else Kind.UPDATE, table, old, new, 0, True)

    def _row(self, old: Row | None) -> Row:
        self._count += 1
        texts = ("u1", "u2", "1", None)
        made: Row = (
            f"r{self._rng.randrange(12)}",
            str(self._count),
            *(self._rng.choice(texts), self._rng.choice(texts), self._rng.choice(("1", "2", None))),
            *(self._rng.choice(ARRAYS), self._rng.choice(ARRAYS)),
        )
        return made if old is None else tuple(self._rng.choice(both) for both in zip(old, made, strict=True))

    def fill(self, sql: sqlite3.Connection) -> None:
        for table in RELATIONS:
            # Columns without a type, so that SQLite compares values as they are.
            sql.execute(f"DROP TABLE IF EXISTS {table.name}")
            sql.execute(f"CREATE TABLE {table.name} ({', '.join(COLUMNS)})")
            sql.executemany(
                f"INSERT INTO {table.name} VALUES ({', '.join('?' * len(COLUMNS))})",
                [tuple(map(_typed, row, COLUMNS.values())) for row in self.rows[table.oid].values()],
            )


def _typed(value: object, kind: int) -> Scalar:
    return None if value is None else int(str(value)) if kind == INTEGER else str(value)


def got(store: Store, rules: Rules, asked: Asked) -> set[tuple[str, Scalar]]:
    """The rows in the buckets to which this request leads."""
    led: dict[Need, set[tuple[Scalar, ...]]] = {}
    for lookup, key, value, _ in store.entries:
        led.setdefault((lookup, key), set()).add(keys.unpack(value))
    asking = ask(rules.definitions, asked, rules.dialect)
    try:
        needs = next(asking)
        while True:
            needs = asking.send({need: led.get(need, set()) for need in needs})
    except StopIteration as end:
        granted = {one.bucket for one in end.value.granted}
    return {(place[1], shown["n"]) for place, shown in store.held.items() if place[0] in granted}


@pytest.mark.parametrize("batch", range(BATCHES))
@pytest.mark.parametrize("kind", [definitions, streams], ids=["definitions", "streams"])
def test_after_each_change_a_request_has_what_sql_answers(kind: object, batch: int) -> None:
    assert callable(kind)
    found = 0
    for seed in range(batch, SEEDS, BATCHES):
        rng = random.Random(seed)
        made: Ruled | None = kind(rng.randrange(10**9))
        if made is not None and is_read(made):
            found += compare(seed, rng, made)
    print(f"{found} rows were found")
    assert found > SEEDS // 8


def is_read(made: Ruled) -> bool:
    """SQLite reads no deeper than a hundred levels."""
    with closing(sqlite3.connect(":memory:")) as sql:
        World(random.Random(0)).fill(sql)
        try:
            for text in made.questions.values():
                sql.execute(f"EXPLAIN {text}", request(0)[1])
        except sqlite3.OperationalError as error:
            assert "parser stack overflow" in str(error), text
            return False
    return True


def compare(seed: int, rng: random.Random, made: Ruled) -> int:
    """How many rows several requests had, after each of some changes."""
    store, world, found = Store(made.rules, rng.choice((0, 1, 1000)), RELATIONS), World(rng), 0
    store.change_at_once([change for _ in range(10) for change in world.changes()], 0.0)
    with closing(sqlite3.connect(":memory:")) as sql:
        for step in range(10):
            (store.change_at_once if rng.random() < 0.5 else store.change)(world.changes(), 0.0)
            world.fill(sql)
            for number in range(3):
                who, bound = request(seed * 97 + step * 7 + number)
                asked = Asked(who.user_id or "", who.jwt, who.parameters, who.subscription)
                expected = {
                    (name, n) for name, text in made.questions.items() for (n,) in sql.execute(text, bound)
                }
                assert got(store, made.rules, asked) == expected, (
                    f"seed {seed}, step {step}: {made.rules.text}"
                )
                found += len(expected)
    return found
