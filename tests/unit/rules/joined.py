"""Chance → rules with joins, and changes of the few tables they read, as batches; a world to keep. No I/O."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import NamedTuple

from replicator.rules.model import Rules
from replicator.rules.parse import parse_rules
from replicator.wal.messages import Column, Relation, Row
from replicator.wal.transactions import Change, Kind
from tests.unit.rules.from_scratch import Known, Shown

TEXT, TIMESTAMPTZ = 25, 1184
COLUMNS = ("id", "a", "b", "xs", "at")
TABLES = tuple(
    Relation(
        oid,
        "public",
        f"t{oid}",
        "d",
        tuple(Column(name, TIMESTAMPTZ if name == "at" else TEXT, -1, name == "id") for name in COLUMNS),
    )
    for oid in range(3)
)
#: Longer than any key may be that is part of an index.
LONG = "é" * 3000
VALUES = (None, "1", "2", "3", "u", LONG)
ARRAYS = (None, "[]", '["1","2"]', '["2","2",null]', '["3","u"]', "no array")

_ONE = "SELECT request.jwt() ->> 'x' AS x"
_TWO = "SELECT request.jwt() ->> 'x' AS x, request.jwt() ->> 'y' AS y"
_IN = "IN (SELECT id FROM t1 WHERE b = bucket.x)"
#: (parameters, data): which ways into a bucket there are.
DEFINITIONS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (_ONE, (f"SELECT * FROM t0 WHERE a {_IN}",)),
    (_ONE, ("SELECT * FROM t0 WHERE a IN (SELECT id FROM t0 WHERE b = bucket.x)",)),
    (_ONE, (f"SELECT * FROM t0 WHERE a {_IN}", "SELECT * FROM t1 WHERE b = bucket.x")),
    (
        _ONE,
        (
            "SELECT * FROM t0 WHERE b != '3' AND a IN (SELECT id FROM t1 WHERE b = bucket.x UNION "
            "SELECT a FROM t2 WHERE b = bucket.x AND a != 'u' UNION SELECT b FROM t0 WHERE id = bucket.x)",
        ),
    ),
    (_ONE, (f"SELECT id, a FROM t0 WHERE b = bucket.x OR a {_IN}", f"SELECT * FROM t2 AS t0 WHERE b {_IN}")),
    (_ONE, (f"SELECT id, a FROM t0 WHERE b = bucket.x OR a {_IN}", f"SELECT id FROM t0 WHERE b {_IN}")),
    (_TWO, ("SELECT * FROM t0 WHERE a IN (SELECT id FROM t1 WHERE a = bucket.x AND b = bucket.y)",)),
    (_TWO, (f"SELECT * FROM t0 WHERE a {_IN} AND b IN (SELECT a FROM t1 WHERE id = bucket.y)",)),
    (_TWO, (f"SELECT * FROM t0 WHERE a {_IN} AND bucket.y IN xs",)),
    (_ONE, (f"SELECT * FROM t0 WHERE a {_IN} AND b IN (SELECT a FROM t1 WHERE b = bucket.x)",)),
    (_ONE, (f"SELECT * FROM t0 WHERE a {_IN} AND b = bucket.x OR bucket.x IN xs AND b {_IN}",)),
    (
        "SELECT b AS x FROM t1 WHERE a = request.user_id() AND at > now() - interval '3 seconds'",
        (f"SELECT * FROM t0 WHERE a {_IN}", "SELECT * FROM t1 WHERE a = bucket.x"),
    ),
    (_ONE, ("SELECT * FROM t0 WHERE b = bucket.x AND at > now() - interval '4 seconds' AND at < now()",)),
    (_ONE, (f"SELECT * FROM t0 WHERE a {_IN} AND at > now() - interval '4 seconds'",)),
    (
        _ONE,
        (
            "SELECT * FROM t0 WHERE (at < now() - interval '2 seconds' AND b = bucket.x) OR (a IN (SELECT id "
            "FROM t1 WHERE b = bucket.x AND at > now() - interval '3 seconds' AND at <= now()))",
        ),
    ),
    (
        _ONE,
        (
            "SELECT * FROM t0 WHERE at > now() AND a IN (SELECT id FROM t0 WHERE b = bucket.x AND "
            "at > now() - interval '3 seconds') OR at <= now() AND b IN (SELECT id FROM t1 "
            "WHERE b = bucket.x AND at < now() - interval '1 seconds')",
        ),
    ),
)
STREAMS = (
    "SELECT * FROM t0 WHERE a IN (SELECT id FROM t1 WHERE b = auth.user_id())",
    "SELECT t0.* FROM t0, json_each(t0.xs) AS j WHERE j.value IN (SELECT id FROM t1 "
    "WHERE b = auth.user_id())",
    "SELECT t0.* FROM t0, json_each(t0.xs) AS j, t1 WHERE j.value = t1.id AND t1.b = auth.user_id() "
    "AND t0.a = t1.a",
    "SELECT t0.* FROM t0, t1, t2 WHERE t0.a = t1.id AND t1.b = t2.a AND t2.b = auth.user_id()",
    "SELECT t0.* FROM t0, t1, json_each(t1.xs) AS j WHERE t0.a = j.value AND t1.b = auth.user_id()",
)


class Step(NamedTuple):
    """What happens at once: changes in one transaction, or none."""

    now: float
    changes: list[Change]


class World:
    """The tables, and what may happen to them."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.rows: dict[int, dict[str, Row]] = {table.oid: {} for table in TABLES}
        self.now = 0.0
        #: Few values, so that much meets.
        self._values = rng.choice((VALUES, VALUES[:3], VALUES[1:3], VALUES[1:3]))
        self._ids: tuple[str, ...] = rng.choice((("1", "2"), ("1", "2", "3"), ("1", "2", "3", "u", LONG)))

    def known(self) -> list[Known]:
        return [Known(table, ("id",), list(self.rows[table.oid].values())) for table in TABLES]

    def step(self, most: int = 6) -> Step:
        """Time moves on, often not at all, and a few rows change."""
        self.now += self._rng.choice((0, 0, 0.5, 1, 1.000001, 2.5))
        changes: list[Change] = []
        for _ in range(self._rng.choice((0, 1, 1, 2, 3, most))):
            table = self._rng.choice(TABLES)
            luck = self._rng.random()
            if luck < 0.04:
                self.rows[table.oid].clear()
                changes.append(Change(Kind.TRUNCATE, table, None, None, 0))
            else:
                changes += self._change(table, is_delete=luck < 0.2)
        return Step(self.now, changes)

    def _change(self, table: Relation, is_delete: bool) -> list[Change]:
        rows = self.rows[table.oid]
        old = rows.pop(self._rng.choice((*self._ids, "5", "6")), None)
        if is_delete:
            return [Change(Kind.DELETE, table, old, None, 0, True)] if old else []
        new = self._row(old)
        while new[0] in rows:
            new = (self._id(), *new[1:])
        rows[str(new[0])] = new
        return [Change(Kind.UPDATE if old else Kind.INSERT, table, old, new, 0, True)]

    def _row(self, old: Row | None) -> Row:
        at = f"1970-01-01 00:00:{max(0, self.now + self._rng.choice((-4, -3, -1, 0, 0.5, 1, 2))):09.6f}+00"
        made = (
            self._id(),
            self._rng.choice(self._values),
            self._rng.choice(self._values),
            self._rng.choice(ARRAYS),
            self._rng.choice((at, at, None)),
        )
        if old is None:
            return made
        is_other = self._rng.random() < 0.3
        return tuple(
            new if is_other else self._rng.choice((was, was, new)) for was, new in zip(old, made, strict=True)
        )

    def _id(self) -> str:
        return self._rng.choice((*self._ids, *self._ids, "5", "6", "7", "8"))


def make_rules(rng: random.Random) -> Rules:
    """One or two definitions, or a stream."""
    if rng.random() < 0.25:
        streams = {"s": {"query": rng.choice(STREAMS), "auto_subscribe": True}}
        return parse_rules(json.dumps({"config": {"edition": 3}, "streams": streams}), "f")
    found: dict[str, object] = {}
    chosen: Sequence[tuple[str, tuple[str, ...]]] = rng.sample(DEFINITIONS, rng.choice((1, 1, 2)))
    for name, (parameters, data) in zip("de", chosen, strict=False):
        found[name] = {"parameters": parameters, "data": list(data)}
    return parse_rules(json.dumps({"bucket_definitions": found}), "f")


def without_at(shown: Shown) -> Shown:
    """How a time is shown is not what is tested here."""
    return {name: value for name, value in shown.items() if name != "at"}
