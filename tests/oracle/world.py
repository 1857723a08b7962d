"""Chance → the tables of a clinic, the rules over them, and what each bucket must hold. No I/O.

The rules are kept here as plain tuples; their YAML is written from those, and `contents` reads them the
slow way: for every row and every query, is the row in, and in which bucket.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Literal, NamedTuple

from psycopg import sql
from psycopg.sql import Composed

from tests.oracle.values import Kind, Shown, make, odd_text, shown

#: A row as a plain SELECT gives it: every column cast to text.
Row = Mapping[str, str | None]
#: (bucket, id) → the row as a client holds it.
Contents = dict[tuple[str, str], dict[str, Shown | None]]
Identity = Literal["full", "default", "index"]


class Column(NamedTuple):
    name: str
    kind: Kind
    is_nullable: bool = True


@dataclass(frozen=True, eq=False)
class Table:
    """One source table. Every row has an `id`, unique, and a `ward`: the session that may touch it."""

    namespace: str
    name: str
    columns: tuple[Column, ...]
    #: What the log tells rows apart by, in the order of the index.
    key: tuple[str, ...]
    identity: Identity

    @property
    def sql(self) -> sql.Identifier:
        return sql.Identifier(self.namespace, self.name)

    @property
    def others(self) -> tuple[Column, ...]:
        """Columns that an update may change without changing which row it is."""
        return tuple(c for c in self.columns if c.name not in (*self.key, "id", "ward"))

    @property
    def owners(self) -> tuple[Column, ...]:
        return tuple(c for c in self.columns if c.name in OWNERS)

    def create(self) -> list[Composed]:
        columns = [
            sql.SQL("{} {}{}").format(
                sql.Identifier(c.name),
                sql.SQL(c.kind.value.strip()),
                sql.SQL("" if c.is_nullable else " NOT NULL"),
            )
            for c in self.columns
        ]
        key = sql.SQL(", ").join(sql.Identifier(name) for name in self.key)
        primary = sql.SQL("id") if self.identity == "index" else key
        made = [
            sql.SQL("CREATE TABLE {} ({}, PRIMARY KEY ({}))").format(
                self.sql, sql.SQL(", ").join(columns), primary
            )
        ]
        made += [
            sql.SQL("ALTER TABLE {} ALTER COLUMN {} SET STORAGE EXTERNAL").format(
                self.sql, sql.Identifier(c.name)
            )
            for c in self.columns
            if c.kind is Kind.WIDE or (c.name in UNIQUE and c.kind is Kind.TEXT)
        ]
        if self.identity == "full":
            made.append(sql.SQL("ALTER TABLE {} REPLICA IDENTITY FULL").format(self.sql))
        if self.identity == "index":
            index = sql.Identifier(self.name + " by code")
            made.append(sql.SQL("CREATE UNIQUE INDEX {} ON {} ({})").format(index, self.sql, key))
            made.append(sql.SQL("ALTER TABLE {} REPLICA IDENTITY USING INDEX {}").format(self.sql, index))
        return made


class Query(NamedTuple):
    """One line under `data`; the column that must equal the bucket's parameter, if it has one."""

    table: Table
    alias: str | None
    column: str | None

    @property
    def output(self) -> str:
        return self.alias or self.table.name


class Definition(NamedTuple):
    name: str
    parameter: str | None
    data: tuple[Query, ...]


OWNERS = ("owner", "Second Reader")
#: Columns whose values come from `Keys`.
UNIQUE = ("id", "code")


@dataclass(frozen=True)
class World:
    """Tables, rules, and the few people whom rows belong to."""

    tables: tuple[Table, ...]
    definitions: tuple[Definition, ...]
    people: tuple[str, ...]

    def rules(self) -> str:
        """The rules as an operator writes them (JSON is YAML)."""
        found: dict[str, dict[str, object]] = {}
        for name, parameter, data in self.definitions:
            found[name] = {"data": [_select(query, parameter) for query in data]}
            if parameter is not None:
                found[name]["parameters"] = f"SELECT request.user_id() AS {parameter}"
        return json.dumps({"bucket_definitions": found}, indent=1)

    def changed(self, rng: random.Random) -> World:
        """The same tables under other rules: some definitions stay, some go, some come or become others."""
        kept = tuple(one for one in self.definitions if rng.random() < 0.6)
        tables = rng.sample(self.tables, rng.randint(1, len(self.tables)))
        made = _definitions(rng, tables, first_alias=rng.randrange(10**9) * 100)
        names = {one.name for one in kept}
        return replace(self, definitions=(*kept, *[one for one in made if one.name not in names]))

    def outputs(self) -> dict[str, Table]:
        """The names clients see, and whose rows stand under them."""
        return {query.output: query.table for one in self.definitions for query in one.data}

    def contents(self, output: str, rows: Sequence[Row]) -> Contents:
        """What must be under one name, in every bucket, when its table holds these rows."""
        held: Contents = {}
        for definition in self.definitions:
            for query in definition.data:
                if query.output != output:
                    continue
                for row in rows:
                    bucket = _bucket(definition.name, query.column, row)
                    if bucket is not None:
                        held[bucket, str(row["id"])] = _shown(query.table, row)
        return held


def _select(query: Query, parameter: str | None) -> str:
    namespace, name = query.table.namespace, query.table.name
    table = _quoted(name) if namespace == "public" else f"{_quoted(namespace)}.{_quoted(name)}"
    alias = f" AS {_quoted(query.alias)}" if query.alias else ""
    where = f" WHERE {_quoted(query.column)} = bucket.{parameter}" if query.column else ""
    return f"SELECT * FROM {table}{alias}{where}"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _bucket(name: str, column: str | None, row: Row) -> str | None:
    if column is None:
        return name + "[]"
    value = row[column]
    return None if value is None else f"{name}[{json.dumps(value, ensure_ascii=False)}]"


def _shown(table: Table, row: Row) -> dict[str, Shown | None]:
    return {c.name: shown(c.kind, row[c.name]) for c in table.columns if c.kind is not Kind.BYTES}


# ── Chance ───────────────────────────────────────────────────────────────────────────────────────

_NAMES = ("visits", "Odd Näme", "lab.results", 'say "ah"', "select", "vitals_2")
_OTHERS = (
    *(Column("n", Kind.INTEGER), Column("Amount", Kind.NUMERIC), Column("real", Kind.REAL)),
    *(Column("ok", Kind.BOOLEAN), Column("doc", Kind.JSON), Column("tags", Kind.LIST)),
    *(Column("seen at", Kind.TIME), Column("born", Kind.DAY), Column("raw", Kind.BYTES)),
    *(Column("note", Kind.TEXT), Column("says", Kind.TEXT, False), Column("größe", Kind.TEXT)),
    *(Column("scan", Kind.WIDE), Column("letter", Kind.WIDE)),
)


def make_world(rng: random.Random) -> World:
    """Three to five tables, every kind of replica identity among them more often than not."""
    identities: list[Identity] = ["full", "default", "index", "default", rng.choice(("full", "default"))]
    rng.shuffle(identities)
    names = rng.sample(_NAMES, rng.randint(3, 5))
    tables = tuple(_table(rng, name, identity) for name, identity in zip(names, identities, strict=False))
    people = tuple({odd_text(rng) for _ in range(4)} | {"u1"})
    return World(tables, _definitions(rng, tables), tuple(sorted(people)))


def _table(rng: random.Random, name: str, identity: Identity) -> Table:
    kind = rng.choice((Kind.UUID, Kind.INTEGER, Kind.TEXT))
    columns = [Column("id", kind, False), Column("ward", Kind.SMALL, False)]
    columns += [Column(name, Kind.TEXT) for name in OWNERS]
    key: tuple[str, ...] = ("id",)
    if identity == "index":
        columns.append(Column("code", rng.choice((Kind.UUID, Kind.TEXT)), False))
        key = ("code",)
    elif rng.random() < 0.4:
        columns.append(Column("clinic", rng.choice((Kind.SMALL, Kind.TEXT)), False))
        key = ("clinic", "id") if rng.random() < 0.5 else ("id", "clinic")
    if identity == "index" and rng.random() < 0.5:
        key = (*key, "ward") if rng.random() < 0.5 else ("ward", *key)
    columns += rng.sample(_OTHERS[:-2], rng.randint(3, 8)) + rng.sample(_OTHERS[-2:], rng.randint(1, 2))
    rng.shuffle(columns)
    return Table(rng.choice(("public", "public", "Clinic 2")), name, tuple(columns), key, identity)


def _definitions(rng: random.Random, tables: Sequence[Table], first_alias: int = 0) -> tuple[Definition, ...]:
    """Every table under at least one name; no name stands for two tables."""
    aliases = count(first_alias)

    def query(table: Table, column: str | None) -> Query:
        return Query(table, rng.choice((None, f"nice {next(aliases)}")), column)

    mine = [query(table, "owner") for table in tables]
    seen = [query(t, "Second Reader") for t in tables if rng.random() < 0.6]
    # The same row in the same bucket for two reasons.
    both = [one._replace(column="Second Reader") for one in mine if rng.random() < 0.3]
    found = [
        Definition("mine", "user_id", (*mine, *both)),
        Definition("all_of_it", None, (query(tables[0], None),)),
    ]
    if seen:
        found.append(Definition("read by me", "me", tuple(seen)))
    return tuple(found)


class Keys:
    """Values for key columns; those of UNIQUE columns are unique."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._count = count(1)

    def make(self, column: Column) -> str:
        number = next(self._count)
        match column.kind:
            case Kind.INTEGER:
                # Their order says nothing about when they were made.
                return str(self._rng.randrange(-(10**6), 10**6) * 10**6 + number)
            case Kind.TEXT if column.name in UNIQUE:
                return self._text(number)
            case kind:
                return make(kind, self._rng)

    def _text(self, number: int) -> str:
        text = f"{odd_text(self._rng)}{self._rng.randrange(100):02}{odd_text(self._rng)}#{number}"
        # Sometimes so long that it is stored out of line; 2,700 bytes are the most an index takes.
        return text.ljust(2_100, "x") if self._rng.random() < 0.03 else text
