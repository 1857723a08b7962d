"""A table's mapping → the columns it names. No I/O."""

from __future__ import annotations

from collections.abc import Iterator

from replicator.ehr.fields import ELEMENT
from replicator.ehr.model import Children, Column, Expression, Field, RecordMapping, TableMapping


def used_columns(table: TableMapping) -> list[Column]:
    """Every column of the table itself that the mapping names, but for those it ignores."""
    found: list[object] = [*table.key, table.patient.column, table.episode]
    found += [table.gone.column] if table.gone else []
    found += table.filter.columns if table.filter else []
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


def tables_followed(mapping: RecordMapping) -> list[str]:
    """Every table whose changes can make jobs: those that are mapped, and those of their parts."""
    parts = [
        group.each.table
        for table in mapping.tables.values()
        for group in table.groups
        if isinstance(group.each, Children)
    ]
    return list(dict.fromkeys([*(table.table for table in mapping.tables.values()), *parts]))


def columns_followed(mapping: RecordMapping) -> Iterator[tuple[str, str]]:
    """Each of their columns that the log has to bring, with the name of its table."""
    for table in mapping.tables.values():
        for column in used_columns(table):
            yield table.table, column.name
        for group in table.groups:
            if isinstance(group.each, Children):
                read = [column.name for field in group.fields for column in columns_of_field(field)]
                yield from (
                    (group.each.table, name) for name in (*group.each.parent, *group.each.order, *read)
                )


def tables_named(mapping: RecordMapping) -> list[str]:
    """Those, and the ones by way of which patients are found."""
    ways = [table.patient.through for table in mapping.tables.values() if table.patient.through is not None]
    return list(dict.fromkeys([*tables_followed(mapping), *ways]))


def expressions(table: TableMapping) -> list[tuple[str, Expression]]:
    """What is computed for a table, but for its filter, and of which table's rows: groups have others'."""
    found = [(table.table, field.source) for field in (*table.fields, *table.marked)]
    for group in table.groups:
        of = group.each.table if isinstance(group.each, Children) else table.table
        found += [(of, field.source) for field in group.fields]
    return [(of, source) for of, source in found if isinstance(source, Expression)]


def columns_of_field(field: Field) -> list[Column]:
    """The columns that one field reads."""
    computed = field.source.columns if isinstance(field.source, Expression) else ()
    found = [
        field.source,
        *computed,
        field.unit.source if field.unit else None,
        field.code.column if field.code else None,
    ]
    return [column for column in found if isinstance(column, Column)]
