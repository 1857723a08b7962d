"""A mapped table × its columns → what writes an inserted row as a job's line, without a job. No I/O.

Most of what passes are rows that are new, of tables of which nothing more is asked than that each becomes a
composition. The job that each of them means is known but for its values. Whatever is less plain (a filter,
an odd character in a key, a patient who stands elsewhere) takes the long way, by way of a Job.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import orjson

from replicator.ehr.identity import SPACE, ehr_id, joined, versioned
from replicator.ehr.model import Children, RecordMapping, Style, TableMapping


class Line(NamedTuple):
    """The lane of a job, and what stands after its number in a line of COPY."""

    patient: str
    tail: str


#: (the row's values, its change as text) → its line; None for a row that has to take the long way.
Insertion: TypeAlias = Callable[[Sequence[object], str], Line | None]


def insertion(mapping: RecordMapping, name: str, columns: Sequence[str]) -> Insertion | None:
    """None for a table of which more is asked. `name` has its schema."""
    tables = mapping.of(name)
    if len(tables) != 1 or not _is_plain(mapping, tables[0]):
        return None
    table = tables[0]
    if table.key[0].name not in columns or table.patient.column.name not in columns:
        return None
    names = tuple(columns)
    key_at, patient_at = names.index(table.key[0].name), names.index(table.patient.column.name)
    template = table.template.id if table.template else ""
    texts = (table.table, table.name, template)
    if not all(text.isprintable() and "\\" not in text for text in texts):
        return None
    hashed = hashlib.sha1(
        SPACE + joined(("composition", mapping.system, table.name)).encode(), usedforsecurity=False
    )
    namespace, dumps = mapping.namespace, orjson.dumps
    head = f"{table.table}\t{table.name}\t"
    end = f"\t{table.priority}\t{'t' if table.coalesce else 'f'}\t\\N\n"

    def line(values: Sequence[object], change: str) -> Line | None:
        key, patient = values[key_at], values[patient_at]
        if type(key) is not str or type(patient) is not str:
            return None
        if not (key.replace("-", "").isalnum() and patient.replace("-", "").isalnum()):
            return None
        name = hashed.copy()
        name.update(f"/{patient}/{key}".encode())
        snapshot = dumps(dict(zip(names, values, strict=True))).decode()
        if "\\" in snapshot:
            snapshot = snapshot.replace("\\", "\\\\")
        ids = f"{ehr_id(namespace, patient)}\t{versioned(name.digest())}"
        return Line(
            patient, f"{head}{key}\tcreate\t{patient}\t{ids}\t{template}\t{change}\t0\t{snapshot}{end}"
        )

    return line


def _is_plain(mapping: RecordMapping, table: TableMapping) -> bool:
    is_part = any(
        isinstance(group.each, Children) and group.each.table == table.table
        for other in mapping.tables.values()
        for group in other.groups
    )
    return (
        not is_part
        and table.template is not None
        and table.style is Style.EVENT
        and table.filter is None
        and table.gone is None
        and table.status is None
        and table.patient.through is None
        and len(table.key) == 1
    )
