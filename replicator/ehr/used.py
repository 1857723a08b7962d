"""A table's mapping → the columns it names. No I/O."""

from __future__ import annotations

from replicator.ehr.fields import ELEMENT
from replicator.ehr.model import Children, Column, Field, TableMapping


def used_columns(table: TableMapping) -> list[Column]:
    """Every column of the table itself that the mapping names, but for those it ignores."""
    found: list[object] = [*table.key, table.patient.column, table.episode]
    found += [table.gone.column] if table.gone else []
    found += [table.status.modifiable, table.status.queryable] if table.status else []
    found += [table.ctx.composer, table.ctx.facility, *table.ctx.time] if table.ctx else []
    for field in (*table.fields, *table.marked):
        found += columns_of_field(field)
    for group in table.groups:
        each = group.each
        if isinstance(each, Children):
            found += [Column(name, each.at) for name in each.parent.values()]
        else:
            read = [column for field in group.fields for column in columns_of_field(field)]
            found += [each, *(column for column in read if column.name != ELEMENT)]
    return [column for column in found if isinstance(column, Column)]


def columns_of_field(field: Field) -> list[Column]:
    """The columns that one field reads."""
    found = [
        field.source,
        field.unit.source if field.unit else None,
        field.code.column if field.code else None,
    ]
    return [column for column in found if isinstance(column, Column)]
