"""What storage knows of the source's tables: `tables` rows ↔ TableState."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from replicator import queries
from replicator.database import Connection, rows
from replicator.wal.messages import Relation
from replicator.wal.snapshot import Table
from replicator.wal.window import Key

_q = queries.load("copy")
_kept = queries.load("rows")


@dataclass(slots=True)
class TableState:
    """How far the copy of one table has come."""

    oid: int
    namespace: str
    name: str
    membership: str
    columns: str
    form: str
    #: The set of rules that is being prepared, while only that one reads it.
    for_rules: int | None
    state: str
    copied_to: Key | None
    rows_copied: int
    rows_expected: int
    has_holes: bool

    @property
    def is_copied(self) -> bool:
        return self.state == "copied"


def fingerprint(relation: Relation) -> str:
    """A relation's columns, and how it is identified, as text that changes when they do."""
    kept = "full" if relation.identity == "f" else [column.name for column in relation.columns if column.key]
    return json.dumps([kept, *([column.name, column.type_oid, column.typmod] for column in relation.columns)])


def is_only_wider(before: str, after: str, filled: frozenset[str]) -> bool:
    """Whether the columns are those before and some more at the end that are NULL in every older row."""
    old, new = json.loads(before), json.loads(after)
    added = new[len(old) :]
    return bool(new[: len(old)] == old and not any(name in filled for name, *_ in added))


def is_rewritten(before: str, after: dict[str, Any], membership: str) -> bool:
    """Whether rows may have become others, or come or gone, by something that the log does not tell.

    What must not count, because it happens every day and is dear to answer with a copy: VACUUM FULL, CLUSTER
    and the like write the same rows to another file, TRUNCATE is told by the log, and a column is given other
    statistics. Where a statement writes rows anew it changes both the file and a column.

    That is so of a table published by its name, which Postgres does not let become unlogged. Of any other,
    a new file may be all there is to see of a time in which nothing that happened to it was in the log.
    """
    if not before:
        return False
    was: dict[str, Any] = json.loads(before)
    if any(was[name] != after[name] for name in ("altered", "kind", "key")):
        return True
    if was["columns"] != after["columns"][: len(was["columns"])]:
        return True
    labels = was.get("labels", {})
    if any(after["labels"].get(oid, label) != label for oid, label in labels.items()):
        return True  # the same value is printed otherwise, in rows that nothing has changed
    files, files_now = ({oid: heap[:2] for oid, heap in form["heaps"].items()} for form in (was, after))
    if after["kind"] == "p" or not membership.startswith("table "):
        # Partitions come and go with all their rows, and one that is emptied by itself is not told, either.
        return bool(files != files_now)
    return bool(files != files_now and was["written"] != after["written"])


async def load(storage: Connection, slot: str) -> dict[int, TableState]:
    """Every table of a slot's stream, by oid."""
    found = await rows(storage, _q.known, slot=slot)
    states = [TableState(*row) for row in found]
    for state in states:
        state.copied_to = None if state.copied_to is None else tuple(state.copied_to)
    return {state.oid: state for state in states}


async def want(storage: Connection, slot: str, table: Table, for_rules: int | None) -> None:
    """A table to be copied from its first row."""
    relation = table.relation
    values = {
        "slot": slot,
        "oid": relation.oid,
        "namespace": relation.namespace,
        "name": relation.name,
        "membership": table.membership,
        "columns": fingerprint(relation),
        "form": json.dumps(table.form),
        "for_rules": for_rules,
        "rows": table.rows_estimated,
    }
    await storage.execute(_q.want, values)


async def forget(storage: Connection, slot: str, oid: int) -> None:
    """A table, and its rows as they were last seen."""
    async with storage.transaction():
        await storage.execute(_kept.forget_rows, {"slot": slot, "oid": oid})
        await storage.execute(_q.forget_table, {"slot": slot, "oid": oid})


async def want_again(storage: Connection, slot: str, oid: int, columns: str | None = None) -> None:
    """A known table to be copied again from its first row."""
    await storage.execute(_q.want_again, {"slot": slot, "oid": oid, "columns": columns})
