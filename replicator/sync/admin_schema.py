"""The source's catalogue → its tables and columns, for tools that show them, and for validating rules."""

from __future__ import annotations

from typing import Any, NamedTuple

from replicator import queries
from replicator.database import Connection, rows
from replicator.rules.columns.forms import kind_of
from replicator.rules.columns.types import BUILT_IN
from replicator.rules.context import Tables
from replicator.wal.types import read_types

_q = queries.load("status")

#: The connection's only name: there is one source.
CONNECTION = "default"
#: More columns than this are a catalogue that nobody reads in a tool.
_MOST = 50_000
_INTERNAL = {"integer": "INTEGER", "real": "REAL", "text": "TEXT", "blob": "BLOB"}


class Column(NamedTuple):
    """A column, and what clients have of it."""

    namespace: str
    table: str
    name: str
    oid: int
    #: As one would declare it, and as the catalogue calls it.
    declared: str
    type_name: str
    kind: str


async def read_columns(source: Connection, own_schema: str) -> list[Column]:
    """Every column of the source that rules may name."""
    found = await rows(source, _q.columns, ours=own_schema, most=_MOST)
    types = BUILT_IN.with_types(await read_types(source, BUILT_IN.unknown({row[3] for row in found})))
    return [Column._make((*row, kind_of(row[3], types=types))) for row in found]


def tables_of(columns: list[Column]) -> Tables:
    """The same, as the reader of rules wants it."""
    tables: dict[tuple[str, str], dict[str, int]] = {}
    for column in columns:
        tables.setdefault((column.namespace, column.table), {})[column.name] = column.oid
    return tables


def schema_answer(columns: list[Column]) -> dict[str, object]:
    """What POST /api/admin/v1/schema is told."""
    schemas: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for column in columns:
        tables = schemas.setdefault(column.namespace, {})
        tables.setdefault(column.table, []).append(
            {
                "name": column.name,
                "type": column.kind,
                "sqlite_type": _INTERNAL.get(column.kind, column.kind),
                "internal_type": column.declared,
                "pg_type": column.type_name,
            }
        )
    listed = [
        {
            "name": namespace,
            "tables": [{"name": name, "columns": each} for name, each in tables.items()],
        }
        for namespace, tables in schemas.items()
    ]
    return {
        "connections": [{"id": CONNECTION, "tag": CONNECTION, "schemas": listed}],
        "defaultConnectionTag": CONNECTION,
        "defaultSchema": "public",
    }
