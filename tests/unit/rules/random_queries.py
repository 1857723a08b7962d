"""A seed → a stream's query as the rules write it, and the same question as SQLite understands it.

Both are printed from one tree, so they say the same by construction. What differs is how one asks who asks
(`auth.user_id()` here, `:user_id` there) and what SQL lacks: membership in an array and `&&`. NULL makes
neither AND nor NOT unknown in the rules, so each comparison is printed for SQLite with NULL as false.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tests.unit.rules.plan_oracle import Asked

TABLES = ("t0", "t1", "t2", "t3")
SCALARS = ("a", "b", "c")
ARRAYS = ("xs", "ys")
VALUES = ("u1", "u2", 1)


class Both(NamedTuple):
    """A piece of SQL, twice."""

    rules: str
    sqlite: str


class Question(NamedTuple):
    #: By the name under which clients see the rows.
    queries: dict[str, Both]
    #: Queries under `with`, by name.
    ctes: dict[str, Both]

    def for_sqlite(self) -> dict[str, str]:
        ctes = ", ".join(f"{name} AS ({both.sqlite})" for name, both in self.ctes.items())
        lead = f"WITH {ctes} " if ctes else ""
        return {name: lead + both.sqlite for name, both in self.queries.items()}


REQUEST = (
    Both("auth.user_id()", ":user_id"),
    Both("auth.parameter('org')", ":org"),
    Both("connection.parameter('here')", ":here"),
    Both("subscription.parameter('of')", ":of"),
)
REQUEST_ARRAYS = (
    Both("auth.parameter('orgs')", ":orgs"),
    Both("subscription.parameter('these')", ":these"),
)


@dataclass
class Origin:
    """Something in FROM."""

    name: str
    scalars: tuple[str, ...]
    arrays: tuple[str, ...] = ()


@dataclass
class Writer:
    """Writes one query."""

    random: random.Random
    #: How much may still be nested.
    budget: int = 5
    names: int = 0
    ctes: dict[str, Both] = field(default_factory=dict)

    def question(self) -> Question:
        if self.random.random() < 0.3:
            self.ctes["mine"] = self.subquery([], may_use_ctes=False)
        queries = dict(self.query() for _ in range(1 + (self.random.random() < 0.2)))
        return Question(queries, dict(self.ctes))

    def query(self) -> tuple[str, Both]:
        first = self.origin_table()
        origins, froms, on = self.froms(first, [])
        condition = self.condition(origins, [], 0)
        columns = "*" if len(origins) == 1 else f"{first.name}.*"
        where = self.joined(" AND ", [*on, condition]) if on else condition
        return first.name, Both(
            f"SELECT {columns} FROM {froms.rules} WHERE {where.rules}",
            f"SELECT DISTINCT {first.name}.n FROM {froms.sqlite} WHERE {where.sqlite}",
        )

    def name(self, letter: str) -> str:
        self.names += 1
        return f"{letter}{self.names}"

    def origin_table(self) -> Origin:
        return Origin(self.name("q"), SCALARS, ARRAYS)

    def froms(self, first: Origin, outer: list[Origin]) -> tuple[list[Origin], Both, list[Both]]:
        """FROM, beginning with a table; what ties the others to it is among the conditions."""
        table = self.random.choice(TABLES)
        text = Both(f"{table} AS {first.name}", f"{table} AS {first.name}")
        origins, ties = [first], []
        while self.budget > 0 and self.random.random() < 0.35:
            self.budget -= 1
            origin, piece = self.another(origins)
            origins.append(origin)
            tie = self.tie(origin, origins[:-1], outer)
            if self.random.random() < 0.5 and tie is not None:
                text = self.pasted("{} JOIN {} ON {}", text, piece, tie)
                continue
            text = self.pasted("{}, {}", text, piece)
            ties += [tie] if tie else []
        return origins, text, ties

    def another(self, origins: list[Origin]) -> tuple[Origin, Both]:
        kind = self.random.random()
        if kind < 0.55:
            origin, table = self.origin_table(), self.random.choice(TABLES)
            return origin, Both(f"{table} AS {origin.name}", f"{table} AS {origin.name}")
        if kind < 0.8:
            origin = Origin(self.name("j"), ("value", "value", "value", "key"))
            array = self.array(origins) if self.random.random() < 0.7 else self.random.choice(REQUEST_ARRAYS)
            return origin, self.pasted(f"json_each({{}}) AS {origin.name}", array)
        if self.ctes and self.random.random() < 0.5:
            origin = Origin(self.name("w"), ("x",))
            return origin, Both(f"mine AS {origin.name}", f"mine AS {origin.name}")
        origin = Origin(self.name("s"), ("x",))
        return origin, self.pasted(f"({{}}) AS {origin.name}", self.subquery([]))

    def tie(self, origin: Origin, others: list[Origin], outer: list[Origin]) -> Both | None:
        if self.random.random() < 0.05:
            return None
        other = self.scalar(others + outer) if self.random.random() < 0.7 else self.random.choice(REQUEST)
        return self.compared("=", self.scalar([origin]), other)

    def subquery(self, outer: list[Origin], may_use_ctes: bool = True) -> Both:
        """One column called x."""
        ctes, self.ctes = self.ctes, self.ctes if may_use_ctes else {}
        try:
            if self.random.random() < 0.1:
                array = self.random.choice(REQUEST_ARRAYS)
                return self.pasted("SELECT value AS x FROM json_each({})", array)
            first = self.origin_table()
            origins, froms, ties = self.froms(first, outer)
            where = self.joined(" AND ", [*ties, self.condition(origins, outer, 1)])
            column = self.scalar(origins)
            return self.pasted("SELECT {} AS x FROM {} WHERE {}", column, froms, where)
        finally:
            self.ctes = ctes

    def condition(self, origins: list[Origin], outer: list[Origin], level: int) -> Both:
        kind = self.random.random()
        if level < 3 and kind < 0.45:
            word = " AND " if kind < 0.3 else " OR "
            parts = [self.condition(origins, outer, level + 1) for _ in range(self.random.randint(2, 3))]
            return self.pasted("({})", self.joined(word, parts))
        return self.leaf(origins, outer)

    def leaf(self, origins: list[Origin], outer: list[Origin]) -> Both:
        kinds: list[Callable[[list[Origin], list[Origin]], Both]] = [
            self.filter,
            self.of_request,
            self.by_request,
            self.by_request,
            self.by_request,
            self.by_column,
            self.member,
            self.overlap,
            self.listed,
        ]
        if self.budget > 0:
            kinds += [self.nested] * 4 + [self.nested_overlap]
        return self.random.choice(kinds)(origins, outer)

    def filter(self, origins: list[Origin], outer: list[Origin]) -> Both:
        origin = self.random.choice(origins)
        column, operator = self.scalar([origin]), self.random.choice(("=", "!=", "<", ">="))
        made = self.compared(operator, column, self.constant())
        other = self.compared("=", self.scalar([origin]), self.constant())
        match self.random.randrange(4):
            case 0:
                return self.pasted("({} OR {})", made, other)
            case 1:
                return self.pasted("NOT ({} AND {})", made, other)
            case _:
                return made

    def of_request(self, origins: list[Origin], outer: list[Origin]) -> Both:
        return self.compared("=", self.random.choice(REQUEST), self.constant())

    def by_request(self, origins: list[Origin], outer: list[Origin]) -> Both:
        return self.compared("=", self.scalar(origins), self.random.choice(REQUEST))

    def by_column(self, origins: list[Origin], outer: list[Origin]) -> Both:
        return self.compared("=", self.scalar(origins), self.scalar(origins + outer))

    def value(self, origins: list[Origin]) -> Both:
        kind = self.random.random()
        if kind < 0.1:
            return self.constant()
        return self.scalar(origins) if kind < 0.6 else self.random.choice(REQUEST)

    def array(self, origins: list[Origin]) -> Both:
        having = [origin for origin in origins if origin.arrays]
        if not having or self.random.random() < 0.3:
            return self.random.choice(REQUEST_ARRAYS)
        origin = self.random.choice(having)
        name = f"{origin.name}.{self.random.choice(origin.arrays)}"
        return Both(name, name)

    def member(self, origins: list[Origin], outer: list[Origin]) -> Both:
        value, array = self.value(origins), self.array(origins + outer)
        sqlite = f"coalesce({value.sqlite} IN (SELECT value FROM json_each({array.sqlite})), 0)"
        return Both(f"{value.rules} IN {array.rules}", sqlite)

    def overlap(self, origins: list[Origin], outer: list[Origin]) -> Both:
        one, other = self.array(origins), self.array(origins + outer)
        p, q = self.name("p"), self.name("p")
        each = f"json_each({one.sqlite}) AS {p}, json_each({other.sqlite}) AS {q}"
        sqlite = f"EXISTS (SELECT 1 FROM {each} WHERE {p}.value = {q}.value)"
        return Both(f"{one.rules} && {other.rules}", sqlite)

    def listed(self, origins: list[Origin], outer: list[Origin]) -> Both:
        one = self.value(origins)
        items = [self.constant() if self.random.random() < 0.5 else self.value(origins) for _ in range(2)]
        inside = self.joined(", ", items)
        return Both(f"{one.rules} IN ({inside.rules})", f"coalesce({one.sqlite} IN ({inside.sqlite}), 0)")

    def nested(self, origins: list[Origin], outer: list[Origin]) -> Both:
        self.budget -= 1
        value = self.value(origins)
        if self.ctes and self.random.random() < 0.3:
            return Both(f"{value.rules} IN mine", f"coalesce({value.sqlite} IN mine, 0)")
        query = self.subquery(origins + outer)
        return Both(f"{value.rules} IN ({query.rules})", f"coalesce({value.sqlite} IN ({query.sqlite}), 0)")

    def nested_overlap(self, origins: list[Origin], outer: list[Origin]) -> Both:
        self.budget -= 1
        array, query, p = self.array(origins), self.subquery(origins + outer), self.name("p")
        each = f"SELECT 1 FROM json_each({array.sqlite}) AS {p} WHERE {p}.value IN ({query.sqlite})"
        return Both(f"{array.rules} && ({query.rules})", f"EXISTS ({each})")

    def scalar(self, origins: list[Origin]) -> Both:
        origin = self.random.choice(origins)
        name = f"{origin.name}.{self.random.choice(origin.scalars)}"
        return Both(name, name)

    def constant(self) -> Both:
        value = self.random.choice(VALUES)
        text = f"'{value}'" if isinstance(value, str) else str(value)
        return Both(text, text)

    def compared(self, operator: str, one: Both, other: Both) -> Both:
        if operator == "!=":  # in edition 3 it is what NOT and = are together
            sqlite = f"(coalesce({one.sqlite} = {other.sqlite}, 0) = 0)"
        else:
            sqlite = f"coalesce({one.sqlite} {operator} {other.sqlite}, 0)"
        return Both(f"{one.rules} {operator} {other.rules}", sqlite)

    def pasted(self, form: str, *parts: Both) -> Both:
        return Both(form.format(*(p.rules for p in parts)), form.format(*(p.sqlite for p in parts)))

    def joined(self, word: str, parts: list[Both]) -> Both:
        return Both(word.join(p.rules for p in parts), word.join(p.sqlite for p in parts))


def question(seed: int) -> Question:
    return Writer(random.Random(seed)).question()


def world(seed: int) -> dict[str, list[dict[str, Any]]]:
    """Small tables in which things often match."""
    chance = random.Random(seed)

    def row(number: int) -> dict[str, Any]:
        scalars = {name: chance.choice((*VALUES, None)) for name in SCALARS}
        arrays = {name: _array(chance) for name in ARRAYS}
        return {"n": number, "id": f"r{number}", **scalars, **arrays}

    return {table: [row(number) for number in range(chance.randint(1, 8))] for table in TABLES}


def _array(chance: random.Random) -> str | None:
    if chance.random() < 0.15:
        return None
    return json.dumps([chance.choice((*VALUES, None)) for _ in range(chance.randint(0, 3))])


def request(seed: int) -> tuple[Asked, dict[str, Any]]:
    """A request, and the same as SQLite's parameters."""
    chance = random.Random(seed)
    bound: dict[str, Any] = {name: chance.choice((*VALUES, None)) for name in ("org", "here", "of")}
    bound |= {"user_id": chance.choice(("u1", "u2")), "orgs": _array(chance), "these": _array(chance)}

    def given(*names: str) -> dict[str, Any]:
        arrays = {
            name: json.loads(bound[name]) for name in names if name in ("orgs", "these") and bound[name]
        }
        return arrays | {name: bound[name] for name in names if name not in arrays}

    return Asked(bound["user_id"], given("org", "orgs"), given("here"), given("of", "these")), bound
