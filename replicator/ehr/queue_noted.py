"""Manners → what storage knows them by, before there is a job of them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import orjson

from replicator import queries
from replicator.database import Connection
from replicator.ehr.job import Operation
from replicator.ehr.model import RecordMapping
from replicator.ehr.queue_added import Manner

_q = queries.load("queue")


async def note_manners(
    connection: Connection, mapping: RecordMapping, columns: Mapping[str, Iterable[str]] | None = None
) -> Collection[int]:
    """All there can be, committed at once, before any job of them is appended; their numbers.

    Who notes a new one has everybody else who would wait until its transaction ends. For one that is noted
    nobody waits, so that whoever appends may do so in any order. `columns` are those that tables have; others
    may come, if a publication has fewer, or once a table is altered.
    """
    tables = mapping.tables.values()
    manners = [Manner.of(table, one.value) for table in tables for one in Operation]
    for table in tables:
        if names := tuple((columns or {}).get(table.table, ())):
            manners.append(Manner.of(table, Operation.CREATE.value, names))
    await note(connection, {manner.id: manner for manner in manners})
    return frozenset([manner.id for manner in manners])


async def note(connection: Connection, manners: dict[int, Manner], noted: Collection[int] = ()) -> None:
    """Those of them that are not noted yet."""
    manners = {number: manners[number] for number in sorted(manners) if number not in noted}
    if not manners:
        return
    *of_all, shapes = zip(*manners.values(), strict=True)
    tables, mappings, operations, templates, priorities, may_merge = of_all
    columns = {
        "ids": list(manners),
        "tables": list(tables),
        "mappings": list(mappings),
        "operations": list(operations),
        "templates": list(templates),
        "priorities": list(priorities),
        "may_merge": list(may_merge),
        # Arrays of one length only can be elements of another.
        "columns": [None if shape is None else orjson.dumps(shape).decode() for shape in shapes],
    }
    await connection.execute(_q.note_manners, columns)
