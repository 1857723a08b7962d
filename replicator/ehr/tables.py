"""A table's mapping × the source's columns → what does not exist, or cannot be meant. No I/O."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeAlias

from replicator.ehr.expressions import mismatch
from replicator.ehr.leaves import Slot
from replicator.ehr.model import Children, Column, Place, RecordMapping, TableMapping
from replicator.ehr.used import columns_of_field, expressions, used_columns
from replicator.text.nodes import Problem, nearest

#: `schema.table` → column → the oid of its type.
Columns: TypeAlias = Mapping[str, Mapping[str, int]]

BOOLEAN, DATE, TIMESTAMPS = 16, 1082, frozenset({1114, 1184})
NUMBERS = frozenset({20, 21, 23, 700, 701, 1700})
TEXTS = frozenset({25, 1042, 1043})
#: Types of the record model → the types of columns that can be read as one. Enums and domains are not listed
#: anywhere, and are taken for text.
READABLE: Mapping[str, frozenset[int]] = {
    "DV_QUANTITY": NUMBERS | TEXTS,
    "DV_PROPORTION": NUMBERS | TEXTS,
    "DV_COUNT": NUMBERS | TEXTS,
    "DV_BOOLEAN": TEXTS | {BOOLEAN},
    "DV_DATE": TIMESTAMPS | TEXTS | {DATE},
    "DV_DATE_TIME": TIMESTAMPS | TEXTS | {DATE},
    "DV_TIME": TEXTS | {1083, 1266},
    "DV_DURATION": TEXTS | {1186},
}
KNOWN = NUMBERS | TEXTS | TIMESTAMPS | {BOOLEAN, DATE, 1083, 1266, 1186, 2950, 114, 3802, 17}


def check_columns(mapping: RecordMapping, table: TableMapping, columns: Columns) -> list[Problem]:
    """Every column and table that the source does not have."""
    key = f"tables.{table.name}"

    def problem(at: Place, what: str) -> Problem:
        return Problem(mapping.file, at.line, at.column, key, what)

    own = columns.get(table.table)
    if own is None:
        return [problem(table.at, f"the source has no such table{nearest(table.table, columns)}")]
    return [problem(at, what) for at, what in _unknown(table, own, columns)]


def _unknown(table: TableMapping, own: Mapping[str, int], columns: Columns) -> Iterator[tuple[Place, str]]:
    for column in (*used_columns(table), *table.ignore):
        if column.name not in own:
            yield column.at, f"no such column{nearest(column.name, own)}"
    patient = table.patient
    if patient.through is not None:
        yield from _of(patient.through, (patient.key, patient.patient), patient.column.at, columns)
    for group in table.groups:
        used = [column for field in group.fields for column in columns_of_field(field)]
        if isinstance(group.each, Children):
            children = group.each
            yield from _of(children.table, (*children.parent, *children.order), children.at, columns)
            theirs = columns.get(children.table, {})
            yield from _not_in(used, theirs if children.table in columns else None)


def _of(table: str, names: tuple[str, ...], at: Place, columns: Columns) -> Iterator[tuple[Place, str]]:
    known = columns.get(table)
    if known is None:
        yield at, f"the source has no table {table}{nearest(table, columns)}"
        return
    for name in names:
        if name not in known:
            yield at, f"{table} has no column {name}{nearest(name, known)}"


def _not_in(used: list[Column], known: Mapping[str, int] | None) -> Iterator[tuple[Place, str]]:
    for column in used:
        if known is not None and column.name not in known:
            yield column.at, f"no such column{nearest(column.name, known)}"


def unread(table: TableMapping, columns: Columns) -> list[str]:
    """Columns that are neither written nor ignored: worth telling, for they are not in the record."""
    named = {column.name for column in (*used_columns(table), *table.ignore)}
    return [name for name in columns.get(table.table, {}) if name not in named]


def check_types(slot: Slot, own: Mapping[str, int]) -> Iterator[tuple[Place, str]]:
    """A column whose type can never be read as the leaf's."""
    source, readable = slot.field.source, READABLE.get(slot.node.rm_type)
    if not isinstance(source, Column) or readable is None or slot.field.values is not None:
        return
    oid = own.get(source.name)
    if oid in KNOWN and oid not in readable and not slot.suffix:
        yield source.at, f"this column's type cannot be read as a {slot.node.rm_type}"


def check_expressions(mapping: RecordMapping, table: TableMapping, columns: Columns) -> list[Problem]:
    """Every expression that no row could mean, by the types of its columns."""
    key, own = f"tables.{table.name}", columns.get(table.table, {})
    computed = [(table.filter, own)] if table.filter else []
    computed += [(each, columns.get(of, {})) for of, each in expressions(table)]
    return [
        Problem(mapping.file, *expression.at, key, what)
        for expression, oids in computed
        if (what := mismatch(expression, oids)) is not None
    ]
