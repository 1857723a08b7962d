"""A definition's `data` → DataQueries: which rows its buckets hold, and as what. No I/O."""

from __future__ import annotations

from yaml import Node

from replicator.rules.context import Context
from replicator.rules.definitions import known_types
from replicator.rules.definitions.json_null import WARNING as NULL_IN_JSON
from replicator.rules.definitions.placements import Placements
from replicator.rules.definitions.scopes import DataScope, RowScope
from replicator.rules.model import DataQuery, Output, Star
from replicator.rules.sql.reader import NotUnderstood, dependencies
from replicator.rules.sql.sqltext import location_of
from replicator.rules.sql.statement import (
    Source,
    Statement,
    Target,
    check_clauses,
    open_statement,
    read_source,
    targets_of,
)


def read_data_query(
    context: Context, key: str, node: Node, placements: Placements | None
) -> DataQuery | None:
    """What one SELECT under `data` means; None if it is refused.

    Without placements the bucket's parameters are not known, because they were refused: WHERE is not read.
    """
    statement = open_statement(context, key, node)
    if statement is None:
        return None
    try:
        query = _read(statement, placements)
    except NotUnderstood as error:
        statement.refuse(error.what, error.location)
        return None
    return None if statement.is_broken else query


def _read(statement: Statement, placements: Placements | None) -> DataQuery:
    select = statement.select
    check_clauses(select)
    tables = select.get("fromClause", [])
    if len(tables) != 1:
        what = "one table is expected after FROM; write one query for each table"
        raise NotUnderstood(what, location_of(tables))
    source = read_source(tables[0])
    statement.check_table(source)
    scope = DataScope(RowScope(statement, source), placements.parameters if placements else ())
    columns = _columns(statement, scope)
    _check_id(statement, source, columns)
    if source.alias is not None:
        statement.check_alias(source.table, source.alias, source.location)
    where = select.get("whereClause")
    terms = placements.terms(statement, where, scope) if placements else ()
    output = source.alias or (None if source.table.is_wildcard else source.table.name)
    return DataQuery(source.table, output, columns, terms, text=statement.text)


def _columns(statement: Statement, scope: DataScope) -> tuple[Star | Output, ...]:
    targets = list(targets_of(statement.select))
    most = statement.context.limits.columns
    if len(targets) > most:
        raise NotUnderstood(f"more than {most} columns", targets[-1].location)
    columns: list[Star | Output] = []
    names: set[str] = set()
    for target in targets:
        try:
            column = _column(statement, scope, target)
        except NotUnderstood as error:
            statement.refuse(error.what, error.location)
            continue
        name = "*" if isinstance(column, Star) else column.name
        if name in names:
            statement.refuse(f"{name} is selected twice", target.location)
        names.add(name)
        columns.append(column)
    return tuple(columns)


def _column(statement: Statement, scope: DataScope, target: Target) -> Star | Output:
    if target.name is None:
        path = [field["String"]["sval"] for field in target.node["ColumnRef"]["fields"][:-1]]
        if path and not scope.row.source.is_called(path[-1]):
            raise NotUnderstood(f"there is no table {'.'.join(path)} here", target.location)
        return Star(skips_underscored=True)
    if not target.name:
        raise NotUnderstood("a name is missing: `… AS name`", target.location)
    value = statement.read(target.node, scope)
    about = dependencies(value)
    if about.bucket:
        what = "a bucket parameter cannot be selected: rows are the same in each bucket that holds them"
        raise NotUnderstood(what, target.location)
    if about.now:
        raise NotUnderstood("now() cannot be selected: a row is sent when it changes", target.location)
    return Output(target.name, value)


def _check_id(statement: Statement, source: Source, columns: tuple[Star | Output, ...]) -> None:
    """Clients know rows by their `id`."""
    if any(isinstance(column, Output) and column.name == "id" for column in columns):
        return
    if not any(isinstance(column, Star) for column in columns):
        if not statement.is_broken:
            at = location_of(statement.select.get("targetList", []))
            statement.refuse("clients know rows by their id: select a column named id, or `… AS id`", at)
        return
    known = statement.context.columns_of(source.table)
    if known is not None and "id" not in known:
        what = f"{source.table} has no column id, by which clients know rows: add `… AS id`"
        statement.warn(what, source.location)


def check_types(
    placements: Placements, types: list[frozenset[str | None]], may_read_null: list[bool]
) -> None:
    """Warn where a parameter is compared with what its values are never equal to, or equal to by accident."""
    for statement, at, shown, kind, location, is_null, is_each in placements.compared:
        if is_null and at < len(may_read_null) and may_read_null[at]:
            statement.warn(NULL_IN_JSON, location)
        if placements.as_text[at] or not types[at]:
            continue
        if all(known_types.differ(kind, other) for other in types[at]):
            others = " or ".join(sorted(other or "" for other in types[at]))
            name = placements.parameters[at]
            whose = f"a member of {shown}" if is_each else shown
            what = f"{whose} is {kind} and bucket.{name} is {others}: these are never equal"
            remedy = f"write bucket.{name}::text" if is_each else f"compare {shown}::text"
            statement.warn(f"{what}; {remedy}", location)
