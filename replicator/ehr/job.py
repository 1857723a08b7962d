"""A Change × the mapping → the Jobs it means for the record. No I/O.

Each version of a row either stands in the record or does not: it does not if there is no row, if the row
counts as deleted, or if the filter does not let it through. What stands there has an owner (the patient) and
a name (the record). So a change has one of four meanings:

    nothing → a            create
    a → a                  update, if a column changed that is not ignored
    a → nothing            delete, mark, or nothing: as the table's policy says
    a → b                  delete in the one lane, create in the other: also if the policy is to keep,
                           for what is kept would be another patient's, or there twice

`Change.old` must be whole, and `Change.new` without UNCHANGED: whoever calls has completed them. Nothing is
dropped for want of a patient, or because a filter fails: such a job says what troubles it, and is to be
parked where somebody sees it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import Enum
from typing import NamedTuple, TypeAlias

import orjson

from replicator.ehr.expressions import condition
from replicator.ehr.identity import ChangeId, composition_id, compositions_begin, ehr_id, joined
from replicator.ehr.model import Children, Filter, Group, OnDelete, RecordMapping, Row, Style, TableMapping
from replicator.ehr.used import tables_followed
from replicator.errors import ReplicatorError
from replicator.rules.columns.types import BUILT_IN, Types
from replicator.wal.lsn import Lsn
from replicator.wal.messages import Relation
from replicator.wal.transactions import Change, Kind

#: (table, column to compare, its value, column wanted) → the value found there, or None.
Find: TypeAlias = Callable[[str, str, str, str], str | None]


class Operation(Enum):
    """What a job does to the record."""

    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"
    #: An update that says the row is gone.
    MARK = "mark"
    #: The EHR itself: who it is about.
    STATUS = "status"


class Incomplete(ReplicatorError):
    """A change that was not completed: a job made of it would lose values."""


class Job(NamedTuple):
    """One clinical change to deliver. A tuple, because one is made of every mapped row that passes."""

    operation: Operation
    #: The mapping it follows, by name.
    mapping: str
    table: str
    #: The row's key, as one text.
    key: str
    #: None: not known. Such a job cannot be delivered, and must not be lost.
    patient: str | None
    #: The EHR and the composition it is about; None without a patient, and no composition for a status.
    ehr: str | None
    composition: str | None
    template: str | None
    change: ChangeId
    #: Its place among the jobs of one change.
    part: int
    #: The row as JSON, column → text or null; None if only the key is known.
    snapshot: bytes | None
    priority: int
    coalesce: bool
    #: Why it cannot be delivered: park it.
    trouble: str | None = None
    #: What the name of the composition begins with, if nothing but the patient and the key follows.
    begun: str | None = None

    @property
    def lane(self) -> str:
        """Whose jobs are delivered in order: the patient's; else those of this row."""
        return joined(("patient", self.patient)) if self.patient else joined(("row", self.mapping, self.key))

    @property
    def idempotency_key(self) -> str:
        return f"{self.change}:{self.part}:{joined((self.mapping, self.key))}"


class _Version(NamedTuple):
    """A version of a row that stands in the record."""

    row: Row
    patient: str | None
    #: What the composition stands for: a key, an episode, or nothing but the patient.
    record: tuple[str, ...]
    trouble: str | None = None


class Jobs:
    """A mapping with what it needs of others: what makes jobs of changes.

    `filters` are those of the tables, compiled, by their ids. Those of a table whose changes pass are
    compiled for the columns that the log describes; `types` are those of the source's own.
    """

    def __init__(
        self, mapping: RecordMapping, find: Find, filters: Mapping[str, Filter], types: Types = BUILT_IN
    ) -> None:
        self.mapping, self.find = mapping, find
        self._filters, self._types = dict(filters), types
        #: Asked of every change of the source, most of which are of tables that are not mapped.
        self._concerned = {tuple(name.split(".", 1)) for name in tables_followed(mapping)}
        #: By a table's name: what its rows become, and the groups of others' rows that they belong to.
        self._meant: dict[str, _Meant] = {}

    def concern(self, namespace: str, name: str) -> bool:
        """Whether changes of a table can make jobs."""
        return (namespace, name) in self._concerned

    def of(self, change: Change, commit_lsn: Lsn) -> Iterator[Job]:
        """The jobs of a change, in order. Those of a TRUNCATE are known to storage alone: see `emptied`."""
        if not self.concern(change.relation.namespace, change.relation.name):
            return iter(())
        name = f"{change.relation.namespace}.{change.relation.name}"
        at = ChangeId(commit_lsn, change.ordinal)
        meant = self._meaning(name, change.relation)
        if change.kind is Kind.TRUNCATE:
            return iter(())
        if change.kind is not Kind.INSERT and not change.old_is_whole:
            raise _incomplete(name, "its old row")
        old, new = _row(change, change.old), _row(change, change.new)
        return _numbered(self._each(meant, old, new, at))

    def emptied(self, change: Change) -> list[tuple[TableMapping, Operation]]:
        """What a TRUNCATE means for everything that was fed of a mapping."""
        name = f"{change.relation.namespace}.{change.relation.name}"
        meant = self._meaning(name, change.relation)
        ends = {OnDelete.DELETE: Operation.DELETE, OnDelete.MARK: Operation.MARK}
        found = [(table, ends[table.on_delete]) for table in meant.tables if table.on_delete in ends]
        parents = {table.name: table for table, _ in meant.groups}
        return [each for each in found if each[0].status is None] + [
            (table, Operation.UPDATE) for table in parents.values()
        ]

    def stands(self, table: TableMapping, row: Row) -> bool:
        """Whether a row, as it is, is to be in the record."""
        return self._version(table, row) is not None

    def _meaning(self, name: str, relation: Relation) -> _Meant:
        meant = self._meant.get(name)
        if meant is None or meant.relation is not relation:
            meant = self._meant[name] = _meant(self.mapping, name, relation)
            oids = {column.name: column.type_oid for column in relation.columns}
            for table in meant.tables:
                if table.filter is not None:
                    self._filters[table.filter.id] = condition(table.filter, oids, self._types)
        return meant

    def _each(self, meant: _Meant, old: Row | None, new: Row | None, at: ChangeId) -> list[Job]:
        found: list[Job] = []
        for table in meant.tables:
            found += self._both(table, old, new, at)
        if meant.groups:
            found += self._parents(meant.groups, old, new, at)
        return found

    def _both(self, table: TableMapping, old: Row | None, new: Row | None, at: ChangeId) -> list[Job]:
        if table.status is not None:
            return self._status(table, old, new, at)
        before, after = self._version(table, old), self._version(table, new)
        if before is not None and after is not None and before[1:3] == after[1:3]:
            return [self._job(table, Operation.UPDATE, after, at)] if _differs(table, old, new) else []
        gone = self._gone(table, before, at, is_moved=after is not None)
        return gone + ([self._job(table, Operation.CREATE, after, at)] if after is not None else [])

    def _version(self, table: TableMapping, row: Row | None) -> _Version | None:
        if row is None or _is_gone(table, row):
            return None
        trouble = None
        try:
            if table.filter is not None and not self._filters[table.filter.id](row):
                return None
        except Exception:
            # One row must not stop the others; and what a filter could not judge must not be sent.
            trouble = "the filter cannot be computed for this row"
        patient = self._patient(table, row)
        return _Version(row, patient, _record(table, row), trouble or (None if patient else "no patient"))

    def _patient(self, table: TableMapping, row: Row) -> str | None:
        patient = table.patient
        found = row.get(patient.column.name)
        if found is None or patient.through is None:
            return found or None
        return self.find(patient.through, patient.key, found, patient.patient) or None

    def _gone(self, table: TableMapping, before: _Version | None, at: ChangeId, is_moved: bool) -> list[Job]:
        if before is None or before.trouble is not None:
            return []  # nothing of it was ever sent
        is_kept = table.on_delete is OnDelete.KEEP
        if is_kept and not (is_moved and table.style is Style.EVENT):
            return []
        is_marked = table.on_delete is OnDelete.MARK
        return [self._job(table, Operation.MARK if is_marked else Operation.DELETE, before, at)]

    def _status(self, table: TableMapping, old: Row | None, new: Row | None, at: ChangeId) -> list[Job]:
        status = table.status
        after = self._version(table, new)
        if after is None or status is None:
            return []  # an EHR outlives the row of its patient
        used = [table.patient.column, status.modifiable, status.queryable]
        names = [column.name for column in used if column is not None]
        if old is not None and all(old.get(name) == after.row.get(name) for name in names):
            return []
        return [self._job(table, Operation.STATUS, after, at)]

    def _job(self, table: TableMapping, operation: Operation, version: _Version, at: ChangeId) -> Job:
        patient, mapping = version.patient, self.mapping
        has_composition = patient and operation is not Operation.STATUS
        return Job(
            operation,
            table.name,
            table.table,
            key_of(table, version.row),
            patient,
            ehr_id(mapping.namespace, patient) if patient else None,
            composition_id(mapping.system, table.name, patient, version.record)
            if patient and has_composition
            else None,
            table.template.id if table.template else None,
            at,
            0,
            None if operation is Operation.DELETE else orjson.dumps(version.row),
            table.priority,
            table.coalesce,
            version.trouble,
            compositions_begin(mapping.system, table.name)
            if has_composition and table.style is Style.EVENT
            else None,
        )

    # Rows that are part of another row's composition.

    def _parents(
        self, groups: Iterable[tuple[TableMapping, Group]], old: Row | None, new: Row | None, at: ChangeId
    ) -> list[Job]:
        """Updates of the rows whose groups a row belongs to: to be read again when delivered."""
        found: dict[tuple[str, str], Job] = {}
        for table, group in groups:
            for row in (old, new):
                job = self._parent(table, group, row, at) if row is not None else None
                if job is not None and old != new:
                    found.setdefault((job.mapping, job.key), job)
        return list(found.values())

    def _parent(self, table: TableMapping, group: Group, row: Row, at: ChangeId) -> Job | None:
        assert isinstance(group.each, Children)
        known = {above: row.get(column) for column, above in group.each.parent.items()}
        key = [known.get(column.name) for column in table.key]
        if any(value is None for value in key):
            return None  # it belongs to no row
        values = [value for value in key if value is not None]
        first, column = values[0], table.patient.column.name
        found = self.find(table.table, table.key[0].name, first, column)
        patient = self._patient(table, {column: found})
        is_row = table.style is Style.EVENT
        name = (
            composition_id(self.mapping.system, table.name, patient, values) if patient and is_row else None
        )
        ehr = ehr_id(self.mapping.namespace, patient) if patient else None
        template = table.template.id if table.template else None
        return Job(
            Operation.UPDATE,
            table.name,
            table.table,
            joined(values),
            patient,
            ehr,
            name,
            template,
            at,
            0,
            None,
            table.priority,
            table.coalesce,
            None if patient else "no patient",
            compositions_begin(self.mapping.system, table.name) if name else None,
        )


class _Meant(NamedTuple):
    """What a change of a table can be about."""

    relation: Relation
    tables: list[TableMapping]
    #: The groups that its rows belong to, each with the mapping it is part of.
    groups: list[tuple[TableMapping, Group]]


def _meant(mapping: RecordMapping, name: str, relation: Relation) -> _Meant:
    groups = [
        (table, group)
        for table in mapping.tables.values()
        for group in table.groups
        if isinstance(group.each, Children) and group.each.table == name
    ]
    return _Meant(relation, mapping.of(name), groups)


def key_of(table: TableMapping, row: Row) -> str:
    """A row's key as one text."""
    return joined([row.get(column.name) or "" for column in table.key])


def _record(table: TableMapping, row: Row) -> tuple[str, ...]:
    match table.style:
        case Style.EVENT:
            return tuple([row.get(column.name) or "" for column in table.key])
        case Style.EPISODIC:
            assert table.episode is not None, "the mapping was checked"
            # A row without an episode is one of its own.
            episode = row.get(table.episode.name)
            return ("episode", episode) if episode else ("row", key_of(table, row))
        case Style.LONGITUDINAL:
            return ("patient",)


def _is_gone(table: TableMapping, row: Row) -> bool:
    if table.gone is None:
        return False
    value = row.get(table.gone.column.name)
    if table.gone.values is not None:
        return value in table.gone.values
    return value is not None and value not in ("f", "")


def _differs(table: TableMapping, old: Row | None, new: Row | None) -> bool:
    """Whether anything changed that is not ignored. What we write back ourselves is."""
    if old is None or new is None:
        return True
    ignored = {column.name for column in table.ignore}
    return any(old.get(name) != value for name, value in new.items() if name not in ignored)


def _numbered(jobs: list[Job]) -> Iterator[Job]:
    """Each with its place among them; the first has it already."""
    return iter([job._replace(part=part) if part else job for part, job in enumerate(jobs)])


def _incomplete(table: str, what: str) -> Incomplete:
    return Incomplete(
        f"a change of {table} came without {what}", f"ALTER TABLE {table} REPLICA IDENTITY FULL;"
    )


def _row(change: Change, values: tuple[object, ...] | None) -> Row | None:
    if values is None:
        return None
    row = dict(zip([column.name for column in change.relation.columns], values, strict=True))
    for name, value in row.items():
        if value is not None and type(value) is not str:
            table = f"{change.relation.namespace}.{change.relation.name}"
            raise _incomplete(table, f"the value of {name}")
    return row  # type: ignore[return-value]  # nothing else is in it
