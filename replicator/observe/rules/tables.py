"""A source database → the tables that rules name, as the log would describe them, and which are published."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from replicator import queries
from replicator.database import Connection, rows
from replicator.rules.context import Tables
from replicator.rules.doubts import types_of
from replicator.rules.model import Rules, TableName
from replicator.wal.messages import Column, Relation
from replicator.wal.names import qualify, quote
from replicator.wal.own import KIND, is_meant, is_own
from replicator.wal.snapshot import read_tables

_q = queries.load("rules")

#: Names to look for what was meant among.
_NAMES_MAX = 20_000
_KINDS = {"v": "a view", "m": "a materialized view", "f": "a foreign table"}


class SourceTable(NamedTuple):
    """One table of the source, as its rows would arrive."""

    relation: Relation
    #: `r`, or `p` where the rows are in partitions.
    kind: str
    key_at: tuple[int, ...]
    is_published: bool
    #: The publication's row filter, as SQL.
    row_filter: str | None

    @property
    def where(self) -> tuple[str, str]:
        return self.relation.namespace, self.relation.name

    @property
    def label(self) -> str:
        """As the rules call it: without the schema that they mean when they name none."""
        namespace, name = self.where
        return quote(name) if namespace == "public" else qualify(namespace, name)


class Seen(NamedTuple):
    """What the source has of the tables that rules name."""

    tables: tuple[SourceTable, ...]
    #: Names that stand for no table.
    missing: tuple[str, ...]
    #: What is there and cannot be replicated, and why: `"a view"`.
    others: tuple[tuple[str, str], ...]
    #: Everything there is, for the reader of the rules to check names against.
    known: Tables

    @property
    def unpublished(self) -> tuple[str, ...]:
        return tuple(table.label for table in self.tables if not table.is_published)


async def see(source: Connection, rules: Rules, publication: str, storage_schema: str) -> Seen:
    """Look up every table that the rules name."""
    names = rules.table_names()
    meant = [(name.namespace or "public", name.name) for name in names]
    there = await _read(source, names)
    found = [table for table in there if is_meant(meant, *table.where, storage_schema)]
    others = [(table.label, why) for table in found if (why := _why_not(table, storage_schema))]
    ordinary = [table for table in found if _why_not(table, storage_schema) is None]
    published = {
        (one.relation.namespace, one.relation.name): one
        for one in await read_tables(source, publication, [table.where for table in ordinary])
    }
    tables = []
    for table in ordinary:
        one = published.get(table.where)
        if one is not None:
            table = SourceTable(one.relation, one.kind, one.key_at, True, one.row_filter)
        tables.append(table)
    missing = [str(name) for name in names if not any(name.matches(*table.where) for table in found)]
    return Seen(tuple(tables), tuple(missing), tuple(others), await _known(source, found))


def _why_not(table: SourceTable, storage_schema: str) -> str | None:
    """Why it cannot be replicated; None if it can."""
    return KIND if is_own(*table.where, storage_schema) else _KINDS.get(table.kind)


async def _known(source: Connection, found: Iterable[SourceTable]) -> Tables:
    known: dict[tuple[str, str], dict[str, int]] = {
        (namespace, name): {} for namespace, name in await rows(source, _q.names, most=_NAMES_MAX)
    }
    for table in found:
        known[table.where] = types_of(table.relation.columns)
    return known


async def _read(source: Connection, names: Sequence[TableName]) -> list[SourceTable]:
    spaces = [name.namespace or "public" for name in names]
    found = await rows(
        source,
        _q.tables,
        namespaces=[space.removesuffix("%") for space in spaces],
        any_namespace=[space.endswith("%") for space in spaces],
        names=[name.name.removesuffix("%") for name in names],
        any_name=[name.name.endswith("%") for name in names],
    )
    return [_table(*row) for row in found]


def _table(
    oid: int,
    namespace: str,
    name: str,
    kind: str,
    identity: str,
    columns: list[tuple[str, int, int, str]],
    key: list[str],
) -> SourceTable:
    sent = tuple(
        Column(column, type_oid, typmod, identity == "f" or column in key)
        for column, type_oid, typmod, generated in columns
        # What is generated is not in the log, but where a publication says so.
        if not generated or kind in _KINDS
    )
    names = [column.name for column in sent]
    relation = Relation(oid, namespace, name, identity, sent)  # type: ignore[arg-type]  # the catalogue knows only these letters
    key_at = tuple(names.index(column) for column in key if column in names)
    return SourceTable(relation, kind, key_at, False, None)
