"""A source database → what its catalogue says of the tables wanted, of a publication, and of a role.

Only system catalogues are read, by what every role may read, and nothing that locks a table.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from replicator import queries
from replicator.database import Connection, rows
from replicator.wal.names import is_wildcard, matches, qualify

_q = queries.load("publication")


class Need(NamedTuple):
    """A table somebody wants to follow, or only to read, and the columns that must be there."""

    namespace: str
    name: str
    columns: frozenset[str]
    #: False: its rows are looked up, and nobody hears of its changes.
    is_followed: bool = True

    @property
    def label(self) -> str:
        return qualify(self.namespace, self.name)

    @property
    def is_wildcard(self) -> bool:
        return is_wildcard(self.name) or is_wildcard(self.namespace)


class Column(NamedTuple):
    name: str
    #: '' for an ordinary one, 's' for stored, 'v' for virtual.
    generated: str


class Leaf(NamedTuple):
    """A partition that holds rows."""

    namespace: str
    name: str
    identity: str


class Membership(NamedTuple):
    """One publication a table is in."""

    publication: str
    #: By itself, by its schema, or with all tables.
    is_direct: bool
    #: As a partition of what is.
    by_ancestor: bool
    has_column_list: bool
    has_row_filter: bool
    sends_generated: bool
    sends_changes: bool


@dataclass(frozen=True, slots=True)
class Table:
    """A relation as it stands in pg_class, letters and all."""

    namespace: str
    name: str
    kind: str
    persistence: str
    #: REPLICA IDENTITY: 'd' default, 'n' nothing, 'i' an index, 'f' full.
    identity: str
    is_partition: bool
    columns: tuple[Column, ...]
    #: The columns of the primary key.
    key: tuple[str, ...]
    #: What a row takes, TOAST included, as of the last VACUUM or ANALYZE.
    row_bytes: int | None
    #: Whether row level security hides rows from the role.
    hides_rows: bool
    may_select: bool
    memberships: tuple[Membership, ...] = ()
    leaves: tuple[Leaf, ...] = ()
    #: The primary key's name, if it is DEFERRABLE: for a moment, two rows may have one key.
    late_key: str | None = None

    @property
    def sql(self) -> str:
        return qualify(self.namespace, self.name)

    @property
    def label(self) -> str:
        return qualify(self.namespace, self.name)

    def generates(self, kind: str) -> tuple[str, ...]:
        """Its generated columns of one kind, 's' stored or 'v' virtual."""
        return tuple(column.name for column in self.columns if column.generated == kind)

    def membership(self, publication: str) -> Membership | None:
        return next((one for one in self.memberships if one.publication == publication), None)


@dataclass(frozen=True, slots=True)
class Publication:
    """What is published, and how."""

    name: str
    all_tables: bool
    #: insert, update, delete, truncate: as far as it publishes them.
    operations: frozenset[str]
    via_root: bool
    #: Whether stored generated columns are sent; None before 18, which never sends them.
    sends_generated: bool | None
    tables: tuple[tuple[str, str], ...]
    schemas: tuple[str, ...]
    #: Those of its tables whose updates fail as soon as updates are published.
    without_identity: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Role:
    """Who replicates, and what they may do in this database."""

    name: str
    exists: bool
    is_superuser: bool
    may_replicate: bool
    may_connect: bool
    may_create: bool
    #: The provider's role that stands for REPLICATION, if this server has one.
    managed_by: str | None
    #: Schemas that exist → whether the role may look into each, and whether it may create in it.
    schemas: dict[str, tuple[bool, bool]]
    #: Functions we call that it may not execute.
    missing_functions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All of it, at one moment."""

    #: 160014 for 16.14.
    version: int
    database: str
    role: Role
    publication: Publication | None
    #: The wanted tables that exist.
    tables: dict[tuple[str, str], Table]
    #: The name of every relation, to find what was meant.
    relations: tuple[tuple[str, str], ...]


async def meant(source: Connection, needs: Sequence[Need], storage_schema: str) -> list[Need]:
    """The same; for a name with `%` at its end, each table that it stands for, if there is one."""
    if not any(need.is_wildcard for need in needs):
        return list(needs)
    there = await rows(source, _q.followable, storage_schema=storage_schema)
    merged: dict[tuple[str, str], Need] = {}
    for need in needs:
        wanted = [one for one in there if matches(need.namespace, one[0]) and matches(need.name, one[1])]
        for namespace, name in wanted if need.is_wildcard and wanted else [(need.namespace, need.name)]:
            other = merged.get((namespace, name), Need(namespace, name, frozenset(), is_followed=False))
            is_followed = other.is_followed or need.is_followed
            merged[namespace, name] = Need(namespace, name, other.columns | need.columns, is_followed)
    return [merged[where] for where in sorted(merged)]


async def read_catalogue(
    source: Connection, publication: str, needs: Sequence[Need], role: str, storage_schema: str
) -> Catalogue:
    """Everything the planning asks."""
    version, database = (await rows(source, _q.database))[0]
    schemas = {need.namespace for need in needs} | {storage_schema}
    return Catalogue(
        version,
        database,
        await read_role(source, role, schemas),
        await _publication(source, publication),
        await _tables(source, needs, role),
        tuple((namespace, name) for namespace, name in await rows(source, _q.relations)),
    )


async def read_role(source: Connection, name: str, schemas: Iterable[str]) -> Role:
    """What a role may do in this database, and in these schemas of it."""
    exists, superuser, replicate, connect, create, managed_by = (await rows(source, _q.role, role=name))[0]
    found = await rows(source, _q.schemas, role=name, schemas=list(schemas))
    rights = {schema: (may_use, may_create) for schema, may_use, may_create in found}
    functions = await rows(source, _q.silent_functions, role=name)
    missing = tuple(row[0] for row in functions)
    return Role(name, exists, superuser, replicate, connect, create, managed_by, rights, missing)


async def _publication(source: Connection, name: str) -> Publication | None:
    found = await rows(source, _q.publication, publication=name)
    if not found:
        return None
    all_tables, insert, update, delete, truncate, via_root, generated = found[0]
    flags = {"insert": insert, "update": update, "delete": delete, "truncate": truncate}
    members = await rows(source, _q.members, publication=name)
    return Publication(
        name,
        all_tables,
        frozenset(operation for operation, is_sent in flags.items() if is_sent),
        via_root,
        generated,
        tuple((namespace, table) for namespace, table in members if table is not None),
        tuple(namespace for namespace, table in members if table is None),
        tuple((row[0], row[1]) for row in await rows(source, _q.without_identity, publication=name)),
    )


async def _tables(source: Connection, needs: Sequence[Need], role: str) -> dict[tuple[str, str], Table]:
    found = await rows(
        source,
        _q.tables,
        namespaces=[need.namespace for need in needs],
        names=[need.name for need in needs],
        role=role,
    )
    oids = [row[0] for row in found]
    leaves: defaultdict[int, list[Leaf]] = defaultdict(list)
    for root, *leaf in await rows(source, _q.leaves, oids=oids):
        leaves[root].append(Leaf(*leaf))
    memberships: defaultdict[int, list[Membership]] = defaultdict(list)
    for oid, *membership in await rows(source, _q.memberships, oids=oids):
        memberships[oid].append(Membership(*membership))
    tables = [_table(row, tuple(memberships[row[0]]), tuple(leaves[row[0]])) for row in found]
    return {(table.namespace, table.name): table for table in tables}


def _table(row: Sequence[Any], memberships: tuple[Membership, ...], leaves: tuple[Leaf, ...]) -> Table:
    _, namespace, name, kind, persistence, identity, is_partition, columns, key, size, hides, select, late = (
        row
    )
    head = (namespace, name, kind, persistence, identity, is_partition)
    sent = tuple(Column(*column) for column in columns)
    return Table(*head, sent, tuple(key), size, hides, select, memberships, leaves, late)
