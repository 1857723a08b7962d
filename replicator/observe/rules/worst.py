"""A source and the rules for it → the most buckets that one user may come to. Reads only, and gives up early.

Of each lookup that leads from a user to buckets, the source counts the rows under one key. Conditions on
these rows are left aside, and what one lookup brings is multiplied by the next: it is the worst case. What
would take long is not known.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import prod
from typing import NamedTuple

import psycopg
from psycopg import sql

from replicator.database import Connection
from replicator.observe.rules.tables import Seen, SourceTable
from replicator.rules.expression import Call, Column
from replicator.rules.model import Definition, Each, Find, ForEach, Key, Lookup, ParameterQuery, Rules

#: For one lookup, and lookups that are looked at.
_PATIENCE = b"SET LOCAL statement_timeout = '2s'"
_LOOKUPS_MAX = 20


class Most(NamedTuple):
    """What one definition comes to for one user, at most."""

    definition: str
    buckets: int
    #: `members: 1,204 under one user_id`
    because: tuple[str, ...]


async def worst(source: Connection, rules: Rules, seen: Seen) -> tuple[Most, ...]:
    """The definitions of which it is known, those with the most buckets first."""
    lookups = {lookup.id: lookup for lookup in rules.lookups}
    wanted = {find.lookup for definition in rules.definitions for find in _finds(_queries(definition))}
    counts: dict[str, int] = {}
    for name in [one.id for one in rules.lookups if one.id in wanted][:_LOOKUPS_MAX]:
        if (count := await _count(source, lookups[name], seen)) is not None:
            counts[name] = count
    found: list[Most] = []
    for definition in rules.definitions:
        queries = [query for query in _queries(definition) if _is_known(query, counts)]
        buckets = sum(prod(counts[find.lookup] for find in _finds([query])) for query in queries)
        because = dict.fromkeys(_said(lookups[find.lookup], counts[find.lookup]) for find in _finds(queries))
        found.append(Most(definition.name, buckets, tuple(because)))
    return tuple(sorted(found, key=lambda most: -most.buckets))


def warning_of(found: Iterable[Most], limit: int) -> str | None:
    """What to say if it is more than one user may have."""
    told = [most for most in found if most.buckets > 1]
    total = sum(most.buckets for most in told)
    if total <= limit:
        return None
    parts = "; ".join(
        f"{most.definition} {most.buckets:,} ({', '.join(most.because)})" for most in told if most.because
    )
    return f"one user may come to {total:,} buckets, and sync.max_buckets is {limit:,}: {parts}"


def _queries(definition: Definition) -> list[ParameterQuery]:
    return [query for variant in definition.variants for query in variant.queries]


def _finds(queries: Iterable[ParameterQuery]) -> list[Find]:
    return [step for query in queries for step in query.steps if isinstance(step, Find)]


def _is_known(query: ParameterQuery, counts: dict[str, int]) -> bool:
    """Not where arrays multiply it, of the request or of rows, nor where a count was not to be had."""
    return not any(
        isinstance(step, ForEach)
        or (
            isinstance(step, Find)
            and (step.lookup not in counts or any(isinstance(k, Each) for k in step.keys))
        )
        for step in query.steps
    )


def _said(lookup: Lookup, count: int) -> str:
    names = [name for key in lookup.keys if (name := _column_of(key))]
    return f"{lookup.table}: {count:,} under one {' and '.join(names) or 'key'}"


async def _count(source: Connection, lookup: Lookup, seen: Seen) -> int | None:
    """The most values to which one key leads; None if it is not known."""
    tables = [table for table in seen.tables if lookup.table.matches(*table.where)]
    keys = [_column_of(key) for key in lookup.keys]
    if len(tables) != 1 or None in keys:
        return None
    if not lookup.values:
        return 1  # there is such a row, or not
    columns = {column.name for column in tables[0].relation.columns}
    if not columns.issuperset(name for name in keys if name):
        return None
    try:
        async with source.transaction():
            await source.execute(_PATIENCE)
            cursor = await source.execute(_counting(tables[0], [name for name in keys if name], lookup))
            row = await cursor.fetchone()
    except psycopg.Error:
        return None
    return None if row is None else int(row[0])


def _counting(table: SourceTable, keys: list[str], lookup: Lookup) -> sql.Composed:
    names = [_column_of(value) for value in lookup.values]
    known = {column.name for column in table.relation.columns}
    different: sql.Composable = sql.SQL("*")
    if all(name in known for name in names):
        texts = sql.SQL(", ").join(sql.SQL("{}::text").format(sql.Identifier(name or "")) for name in names)
        different = sql.SQL("DISTINCT ({})").format(texts)
    return sql.SQL(
        "SELECT coalesce(max(n), 0) FROM (SELECT count({}) AS n FROM {} {} WHERE {} {}) AS counted"
    ).format(
        different,
        sql.SQL("" if table.kind == "p" else "ONLY"),
        sql.Identifier(*table.where),
        sql.SQL(" AND ").join(
            [sql.SQL("true"), *(sql.SQL("{} IS NOT NULL").format(sql.Identifier(k)) for k in keys)]
        ),
        sql.SQL("GROUP BY {}").format(sql.SQL(", ").join(map(sql.Identifier, keys))) if keys else sql.SQL(""),
    )


def _column_of(key: Key) -> str | None:
    """The column that a key or value is, perhaps as text."""
    match key:
        case Column(name) | Call("cast text", (Column(name),)):
            return name
    return None
