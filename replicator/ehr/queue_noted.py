"""Manners → what storage knows them by, before there is a job of them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import orjson

from replicator import queries
from replicator.database import Connection
from replicator.ehr.model import RecordMapping
from replicator.ehr.queue_manners import Manner, manners

_q = queries.load("queue")


async def note_manners(
    connection: Connection, mapping: RecordMapping, columns: Mapping[str, Iterable[str]] | None = None
) -> Collection[int]:
    """All there can be, committed at once, before any job of them is appended; their numbers.

    Who notes a new one has everybody else who would wait until its transaction ends. For one that is noted
    nobody waits, so that whoever appends may do so in any order. `columns` are those that tables have; others
    may come, if a publication has fewer, or once a table is altered.
    """
    found = {manner.id: manner for manner in manners(mapping, columns or {})}
    await note(connection, found)
    return found.keys()


async def note(connection: Connection, made: Mapping[int, Manner], noted: Collection[int] = ()) -> None:
    """Those of them that are not noted yet."""
    new = [made[number] for number in sorted(made) if number not in noted]
    if not new:
        return
    values = {
        "ids": [each.id for each in new],
        "tables": [each.table for each in new],
        "mappings": [each.mapping for each in new],
        "operations": [each.operation for each in new],
        "templates": [each.template for each in new],
        "priorities": [each.priority for each in new],
        "may_merge": [each.may_merge for each in new],
        # Arrays of one length only can be elements of another.
        "columns": [None if each.columns is None else orjson.dumps(each.columns).decode() for each in new],
        "key_at": [each.key_at for each in new],
        "begun": [each.begun for each in new],
    }
    await connection.execute(_q.note_manners, values)
