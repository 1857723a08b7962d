"""The columns of a flat query → the table whose rows are sent, and how they look. No I/O."""

from __future__ import annotations

from replicator.rules.model import Output, Star
from replicator.rules.sql.reader import NotUnderstood, dependencies
from replicator.rules.streams.scoped import Flat, Selected, Table, of_one_row

_ONE_TABLE = "all columns must come from one table, because rows are sent as they are there"


def primary_of(flat: Flat) -> Table:
    """The table whose rows are sent."""
    if not flat.named:
        raise NotUnderstood("a stream sends rows of a table: FROM is missing", 0)
    tables = {origin.at: origin for origin in flat.named if isinstance(origin, Table)}
    if not flat.columns:
        raise NotUnderstood("which columns? write SELECT *", 0)
    chosen: Table | None = None
    for column in flat.columns:
        for at in _origins(flat, column):
            if at not in tables:
                what = f"{_ONE_TABLE}; a subquery, `with` or json_each can only be in conditions"
                raise NotUnderstood(what, column.location)
            if chosen is not None and chosen is not tables[at]:
                raise NotUnderstood(f"{_ONE_TABLE}; write one query for each", column.location)
            chosen = tables[at]
    if chosen is None and len(tables) == 1 and len(flat.named) == 1:
        chosen = next(iter(tables.values()))
    if chosen is None:
        raise NotUnderstood(f"{_ONE_TABLE}; select some of its columns", flat.columns[0].location)
    return chosen


def _origins(flat: Flat, column: Selected) -> frozenset[int]:
    if column.value is not None:
        known = dependencies(column.value)
        if known.requests:
            what = "a column cannot depend on who asks: others have the same bucket; put it into WHERE"
            raise NotUnderstood(what, column.location)
        if known.now:
            raise NotUnderstood("a column cannot depend on the time", column.location)
        return known.tables
    if column.star_of is not None:
        return frozenset((column.star_of,))
    if len(flat.named) > 1:
        which = next((str(origin) for origin in flat.named if isinstance(origin, Table)), "alias")
        raise NotUnderstood(f"{_ONE_TABLE}; write {which}.* instead of *", column.location)
    origin = flat.named[0]
    if origin is None:
        what = f"{_ONE_TABLE}; write SELECT * FROM table WHERE column IN (…)"
        raise NotUnderstood(what, column.location)
    return frozenset((origin.at,))


def outputs_of(flat: Flat, primary: Table) -> tuple[Star | Output, ...]:
    """What clients see of a row. Warns where that may not be what is meant."""
    edition = flat.statement.context.dialect.edition
    shown: list[Star | Output] = []
    for column in flat.columns:
        if column.value is None:
            _check_star(flat, column, shown, edition)
            shown.append(Star(skips_underscored=edition < 3))
            continue
        if not column.name:
            raise NotUnderstood("this column needs a name: … AS name", column.location)
        if any(isinstance(other, Output) and other.name == column.name for other in shown):
            raise NotUnderstood(f"two columns are called {column.name}", column.location)
        shown.append(Output(column.name, of_one_row(column.value)))
    _check_id(flat, primary, shown, edition)
    return tuple(shown)


def _check_star(flat: Flat, star: Selected, shown: list[Star | Output], edition: int) -> None:
    if edition >= 3 and any(isinstance(column, Output) for column in shown):
        what = "* brings every column, also in the place of those before it that are called the same"
        flat.statement.warn(f"{what}; write it first", star.location)


def _check_id(flat: Flat, primary: Table, shown: list[Star | Output], edition: int) -> None:
    names = {column.name for column in shown if isinstance(column, Output)}
    has_star = any(isinstance(column, Star) for column in shown)
    if "id" in names:
        return
    if not has_star:
        what = "clients need a column id: select it, or write … AS id"
        if edition < 3:
            raise NotUnderstood(what, 0)
        flat.statement.warn(f"{what}; without it all rows have the same empty id", 0)
        return
    columns = flat.statement.context.columns_of(primary.name)
    if columns is not None and "id" not in columns:
        flat.statement.warn(f"{primary.name} has no column id; write … AS id", 0)


def output_of(flat: Flat, primary: Table) -> str | None:
    """The name of the table that clients see; None: each table's own."""
    if primary.alias is None:
        return None if primary.name.is_wildcard else primary.name.name
    flat.statement.check_alias(primary.name, primary.alias, primary.place.location, len(flat.named) > 1)
    return primary.alias
