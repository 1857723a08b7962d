"""The tables a mapping names → their columns as the source has them, and what is computed of those."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from replicator import queries
from replicator.database import Connection, rows
from replicator.ehr.expressions import condition, formula
from replicator.ehr.model import Filter, Formula, RecordMapping
from replicator.ehr.tables import Columns
from replicator.ehr.used import expressions, tables_named
from replicator.rules.columns.types import BUILT_IN, Types
from replicator.wal.types import read_types

_q = queries.load("feed")


class Catalogue(NamedTuple):
    """What the source has of the tables of a mapping."""

    columns: Columns
    #: Those of its own that columns have.
    types: Types


@dataclass(frozen=True, slots=True)
class Computed:
    """What the expressions of a mapping come to, by their ids."""

    filters: Mapping[str, Filter] = field(default_factory=dict)
    formulas: Mapping[str, Formula] = field(default_factory=dict)


async def read_catalogue(source: Connection, mapping: RecordMapping) -> Catalogue:
    """Tables that do not exist are left out."""
    names = [name.split(".", 1) for name in tables_named(mapping)]
    values = {"schemas": [name[0] for name in names], "tables": [name[1] for name in names]}
    columns: dict[str, dict[str, int]] = {}
    for schema, table, column, oid in await rows(source, _q.columns, **values):
        columns.setdefault(f"{schema}.{table}", {})[column] = oid
    unknown = BUILT_IN.unknown(oid for table in columns.values() for oid in table.values())
    types = BUILT_IN.with_types(await read_types(source, unknown)) if unknown else BUILT_IN
    return Catalogue(columns, types)


def computed(mapping: RecordMapping, catalogue: Catalogue) -> Computed:
    """The expressions of a mapping, compiled for the columns that the source has."""
    columns, types = catalogue
    filters: dict[str, Filter] = {}
    formulas: dict[str, Formula] = {}
    for table in mapping.tables.values():
        if table.filter is not None:
            filters[table.filter.id] = condition(table.filter, columns.get(table.table, {}), types)
        for of, expression in expressions(table):
            formulas[expression.id] = formula(expression, columns.get(of, {}), types)
    return Computed(filters, formulas)
