"""A seed → a bucket definition as the rules write it, and the same question as SQLite understands it.

To SQL, a definition is a join: its parameter queries are one table called `bucket`, and each data query is a
condition over a row and that table. So both sides are printed from one tree, and say the same.
"""

from __future__ import annotations

import random
from typing import NamedTuple

from tests.unit.rules.random_queries import ARRAYS, SCALARS, TABLES, VALUES, Both

REQUEST = (
    Both("request.user_id()", ":user_id"),
    Both("token_parameters.user_id()", ":user_id"),
    Both("request.jwt() ->> 'org'", ":org"),
    Both("request.parameter('here')", ":here"),
    Both("user_parameters.here", ":here"),
    Both("parameters.org", ":org"),
)
REQUEST_ARRAY = Both("request.jwt() -> 'orgs'", ":orgs")


class Asked(NamedTuple):
    parameters: list[str]
    #: By the name under which clients see the rows.
    data: dict[str, Both]


class Writer:
    """Writes one definition."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.names = ["x", "y"][: self.random.randint(1, 2)]
        #: The parameters that are compared as text.
        self.text = {name for name in self.names if self.random.random() < 0.2}
        self.count = 0

    def asked(self) -> Asked:
        queries = [self.parameter_query() for _ in range(self.random.randint(1, 2))]
        bucket = " UNION ALL ".join(both.sqlite for both in queries)
        data = dict(self.data_query(bucket) for _ in range(self.random.randint(1, 2)))
        return Asked([both.rules for both in queries], data)

    def alias(self) -> str:
        self.count += 1
        return f"q{self.count}"

    # Parameters.

    def parameter_query(self) -> Both:
        kind = self.random.random()
        if kind < 0.25:
            return self.selected([self.request() for _ in self.names], None, self.request_conditions())
        if kind < 0.4:
            each = [Both("value", "j.value"), self.request()]
            return self.selected(
                each[: len(self.names)],
                Both(f"json_each({REQUEST_ARRAY.rules})", f"json_each({REQUEST_ARRAY.sqlite}) AS j"),
                [
                    *self.request_conditions(),
                    *self.some(0.3, lambda: self.compared(each[0], self.constant())),
                ],
            )
        table, alias = self.random.choice(TABLES), self.alias()
        columns = [self.column(alias) if self.random.random() < 0.8 else self.request() for _ in self.names]
        return self.selected(columns, Both(table, f"{table} AS {alias}"), self.table_conditions(alias))

    def selected(self, columns: list[Both], table: Both | None, conditions: list[Both]) -> Both:
        def text(which: int) -> str:
            named = ", ".join(
                f"{both[which]} AS {name}" for both, name in zip(columns, self.names, strict=True)
            )
            source = f" FROM {table[which]}" if table else ""
            where = " AND ".join(both[which] for both in conditions)
            return f"SELECT {named}{source}" + (f" WHERE {where}" if where else "")

        return Both(text(0), text(1))

    def request_conditions(self) -> list[Both]:
        return self.some(0.3, lambda: self.compared(self.request(), self.constant()))

    def table_conditions(self, alias: str) -> list[Both]:
        found = [*self.request_conditions(), *self.some(0.4, lambda: self.filter(alias))]
        for _ in range(self.random.randint(0, 2)):
            found.append(self.match(alias))
        found += self.some(0.3, lambda: self.through_array(alias))
        found += self.some(0.3, lambda: self.looked_up(alias, 1))
        found += self.some(0.2, lambda: self.either(alias))
        return found

    def match(self, alias: str) -> Both:
        if self.random.random() < 0.25:
            array, one = self.array(alias), self.request()
            sqlite = f"coalesce({one.sqlite} IN (SELECT value FROM json_each({array.sqlite})), 0)"
            return Both(f"{one.rules} IN {array.rules}", sqlite)
        return self.equal(self.column(alias), self.request())

    def through_array(self, alias: str) -> Both:
        if self.random.random() < 0.5:
            column = self.column(alias)
            sqlite = f"coalesce({column.sqlite} IN (SELECT value FROM json_each({REQUEST_ARRAY.sqlite})), 0)"
            return Both(f"{column.rules} IN {REQUEST_ARRAY.rules}", sqlite)
        array, one, other = self.array(alias), self.alias(), self.alias()
        each = f"json_each({array.sqlite}) AS {one}, json_each({REQUEST_ARRAY.sqlite}) AS {other}"
        sqlite = f"EXISTS (SELECT 1 FROM {each} WHERE {one}.value = {other}.value)"
        return Both(f"{array.rules} && ({REQUEST_ARRAY.rules})", sqlite)

    def looked_up(self, alias: str, level: int) -> Both:
        value = self.column(alias) if self.random.random() < 0.8 else self.request()
        members = []
        for _ in range(1 + (self.random.random() < 0.2)):
            table, inner = self.random.choice(TABLES), self.alias()
            conditions = [self.match(inner), *self.some(0.4, lambda inner=inner: self.filter(inner))]
            if level < 2 and self.random.random() < 0.3:
                conditions.append(self.looked_up(inner, level + 1))
            members.append(self.subselect(self.column(inner), table, inner, conditions))
        return self.within(value, members)

    def either(self, alias: str) -> Both:
        asked = self.request()
        return self.any_of([self.equal(self.column(alias), asked), self.equal(self.column(alias), asked)])

    # Data.

    def data_query(self, bucket: str) -> tuple[str, Both]:
        table, alias = self.random.choice(TABLES), self.alias()
        ways = [self.way(alias) for _ in range(1 + (self.random.random() < 0.3))]
        where = ways[0] if len(ways) == 1 else self.any_of(ways)
        return alias, Both(
            f"SELECT * FROM {table} AS {alias} WHERE {where.rules}",
            f"SELECT DISTINCT {alias}.n FROM {table} AS {alias}, ({bucket}) AS bucket WHERE {where.sqlite}",
        )

    def way(self, alias: str) -> Both:
        """Conditions that give each parameter a place."""
        missing, found = list(self.names), self.some(0.4, lambda: self.filter(alias))
        has_array = False
        while missing:
            kind = self.random.random()
            if kind < 0.35:
                names = missing if self.random.random() < 0.5 else missing[:1]
                found.append(self.joined(alias, names))
                missing = missing[len(names) :]
                continue
            name = missing.pop(0)
            if kind < 0.45 and not has_array and name not in self.text:
                has_array = True
                found.append(self.member(alias, name))
            elif kind < 0.55:
                found.append(self.any_of([self.place(alias, name), self.place(alias, name)]))
            else:
                found.append(self.place(alias, name))
        # A second place of a parameter must agree with the first.
        again = [name for name in self.names if name not in self.text]
        if again and self.random.random() < 0.2:
            found.append(self.place(alias, self.random.choice(again)))
        elif again and self.random.random() < 0.2:
            found.append(self.joined(alias, [self.random.choice(again)]))
        self.random.shuffle(found)
        return Both(
            "(" + " AND ".join(b.rules for b in found) + ")",
            "(" + " AND ".join(b.sqlite for b in found) + ")",
        )

    def place(self, alias: str, name: str) -> Both:
        column = self.column(alias)
        if name in self.text:
            sqlite = f"coalesce(CAST({column.sqlite} AS TEXT) = CAST(bucket.{name} AS TEXT), 0)"
            return Both(f"{column.rules} = bucket.{name}::text", sqlite)
        one, other = column, Both(f"bucket.{name}", f"bucket.{name}")
        return self.equal(one, other) if self.random.random() < 0.5 else self.equal(other, one)

    def member(self, alias: str, name: str) -> Both:
        array = self.array(alias)
        sqlite = f"coalesce(bucket.{name} IN (SELECT value FROM json_each({array.sqlite})), 0)"
        return Both(f"bucket.{name} IN {array.rules}", sqlite)

    def joined(self, alias: str, names: list[str]) -> Both:
        members = []
        for _ in range(1 + (self.random.random() < 0.3)):
            table, inner = self.random.choice(TABLES), self.alias()
            conditions = [self.place(inner, name) for name in names]
            conditions += self.some(0.3, lambda inner=inner: self.filter(inner))
            members.append(self.subselect(self.column(inner), table, inner, conditions))
        return self.within(self.column(alias), members)

    # Pieces.

    def some(self, chance: float, make) -> list[Both]:  # type: ignore[no-untyped-def]  # a thunk
        return [make()] if self.random.random() < chance else []

    def request(self) -> Both:
        return self.random.choice(REQUEST)

    def column(self, alias: str) -> Both:
        name = self.random.choice(SCALARS)
        return Both(name, f"{alias}.{name}")

    def array(self, alias: str) -> Both:
        name = self.random.choice(ARRAYS)
        return Both(name, f"{alias}.{name}")

    def constant(self) -> Both:
        value = self.random.choice(VALUES)
        text = f"'{value}'" if isinstance(value, str) else str(value)
        return Both(text, text)

    def compared(self, one: Both, other: Both) -> Both:
        operator = self.random.choice(("=", "!=", "<", ">="))
        return Both(
            f"{one.rules} {operator} {other.rules}", f"coalesce({one.sqlite} {operator} {other.sqlite}, 0)"
        )

    def equal(self, one: Both, other: Both) -> Both:
        return Both(f"{one.rules} = {other.rules}", f"coalesce({one.sqlite} = {other.sqlite}, 0)")

    def filter(self, alias: str) -> Both:
        one, other = (self.compared(self.column(alias), self.constant()) for _ in range(2))
        match self.random.randrange(4):
            case 0:
                return self.any_of([one, other])
            case 1:
                return Both(f"NOT ({one.rules} AND {other.rules})", f"NOT ({one.sqlite} AND {other.sqlite})")
            case 2:
                name = self.random.choice(SCALARS)
                return Both(f"{name} IS NOT NULL", f"{alias}.{name} IS NOT NULL")
        return one

    def any_of(self, sides: list[Both]) -> Both:
        return Both(
            "(" + " OR ".join(b.rules for b in sides) + ")", "(" + " OR ".join(b.sqlite for b in sides) + ")"
        )

    def subselect(self, column: Both, table: str, alias: str, conditions: list[Both]) -> Both:
        return Both(
            f"SELECT {column.rules} FROM {table} WHERE " + " AND ".join(b.rules for b in conditions),
            f"SELECT {column.sqlite} FROM {table} AS {alias} WHERE "
            + " AND ".join(b.sqlite for b in conditions),
        )

    def within(self, value: Both, members: list[Both]) -> Both:
        rules = " UNION ".join(b.rules for b in members)
        sqlite = " UNION ".join(b.sqlite for b in members)
        return Both(f"{value.rules} IN ({rules})", f"coalesce({value.sqlite} IN ({sqlite}), 0)")


def definition(seed: int) -> Asked:
    return Writer(seed).asked()
