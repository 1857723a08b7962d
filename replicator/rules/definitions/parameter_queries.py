"""A definition's `parameters` → ParameterQueries: which buckets a request leads to. No I/O.

There are three forms: without FROM (of the request alone), FROM a table, and FROM json_each(…), which goes
through an array that the request brings.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from yaml import Node

from replicator.rules.context import ACCEPT, Context
from replicator.rules.definitions import known_types
from replicator.rules.definitions.danger import GATED, OPEN, Bond, bond_of
from replicator.rules.definitions.json_null import may_read_null
from replicator.rules.definitions.scopes import EachScope, ParameterScope, RequestScope, RowScope
from replicator.rules.definitions.steps import in_order, numbered
from replicator.rules.definitions.ways import ParameterScopes, Way, Ways, find
from replicator.rules.expression import Expression, Found
from replicator.rules.model import DataQuery, ForEach, ParameterQuery, Step
from replicator.rules.sql.reader import NotUnderstood, dependencies
from replicator.rules.sql.sqltext import SqlNode, location_of
from replicator.rules.sql.statement import (
    Statement,
    Target,
    check_clauses,
    instead_of,
    open_statement,
    read_source,
    targets_of,
)

DEFAULT_PRIORITY = 3
PRIORITIES = range(4)


class Selected(NamedTuple):
    """What one SELECT under `parameters` comes to."""

    names: tuple[str, ...]
    queries: tuple[ParameterQuery, ...]
    #: Of each name: what its values are (`text` …), where that is plain.
    types: tuple[str | None, ...]
    #: Of each name: whether its values are the text `null` where JSON has null.
    may_read_null: tuple[bool, ...] = ()
    #: Where it stands, if nobody said that it is meant to be so wide.
    unaccepted: Statement | None = None


class Chosen(NamedTuple):
    """One column of a parameter query."""

    name: str
    value: Expression
    type: str | None


def everybody(priority: int) -> ParameterQuery:
    """What a definition without `parameters` has: one bucket, for everybody."""
    return ParameterQuery((), (), priority, "SELECT")


def read_parameter_query(
    context: Context, key: str, node: Node, priority: int | None, is_accepted: bool
) -> Selected | None:
    """What one SELECT under `parameters` comes to; None if it is refused."""
    statement = open_statement(context, key, node)
    if statement is None:
        return None
    try:
        selected = _read(statement, priority)
    except NotUnderstood as error:
        statement.refuse(error.what, error.location)
        return None
    if statement.is_broken:
        return None
    if is_accepted:
        return selected
    check_bond(statement, selected.queries)
    return None if statement.is_broken else selected._replace(unaccepted=statement)


def check_bond(
    statement: Statement, queries: Iterable[ParameterQuery], data: Iterable[DataQuery] = ()
) -> None:
    """Refuse what a client can widen at will, and tell of what only some can; best once data is known."""
    data, lookups = tuple(data), statement.context.lookups
    bond = min((bond_of(query, data, lookups) for query in queries), default=Bond.BOUND)
    if bond in OPEN:
        what = f"{OPEN[bond]}; compare with the token, such as `column = request.user_id()`, or accept it"
        statement.refuse(f"{what} with `{ACCEPT}: true`", 0)
    if bond is Bond.GATED:
        statement.warn(GATED, 0)


def _read(statement: Statement, priority: int | None) -> Selected:
    select = statement.select
    check_clauses(select)
    ways = Ways(statement)
    request = RequestScope(statement.context.requests, statement.context.used)
    tables = select.get("fromClause", [])
    if len(tables) > 1:
        raise NotUnderstood("one table is expected after FROM; use one query for each", location_of(tables))
    scope: ParameterScopes = request
    each: tuple[int, Step] | None = None
    if tables and "RangeFunction" in tables[0]:
        scope, each = _each(statement, tables[0]["RangeFunction"], ways, request)
    elif tables:
        source = read_source(tables[0])
        statement.check_table(source)
        scope = ParameterScope(RowScope(statement, source), request)
    chosen, own = _columns(statement, scope)
    if own is not None and priority is not None:
        statement.refuse("the definition has a `priority` too: one of them must go", 0)
    effective = next((p for p in (own, priority) if p is not None), DEFAULT_PRIORITY)
    queries = [
        _query(statement, scope, way, each, ways.mark(), chosen, effective)
        for way in ways.of(select.get("whereClause"), scope)
    ]
    return Selected(
        tuple(column.name for column in chosen),
        tuple(queries),
        tuple(column.type for column in chosen),
        tuple(may_read_null(column.value, statement.context.dialect) for column in chosen),
    )


def _query(
    statement: Statement,
    scope: ParameterScopes,
    way: Way,
    each: tuple[int, Step] | None,
    mark: int,
    chosen: list[Chosen],
    priority: int,
) -> ParameterQuery:
    values = [column.value for column in chosen]
    bringing = [*([each] if each else []), *way.before]
    if isinstance(scope, ParameterScope):
        brought = tuple(dict.fromkeys(value for value in values if dependencies(value).tables))
        bringing.append((mark, find(statement, scope.row.source.table, way, brought)))
        values = [Found(mark, brought.index(value)) if value in brought else value for value in values]
    steps, places = in_order(way.whens, bringing)
    return ParameterQuery(steps, tuple(numbered(value, places) for value in values), priority, statement.text)


def _each(
    statement: Statement, function: SqlNode, ways: Ways, request: RequestScope
) -> tuple[EachScope, tuple[int, Step]]:
    """`json_each(expression)`: what its columns mean, and the step that brings them."""
    call = function["functions"][0]["List"]["items"][0].get("FuncCall", {})
    name = [part["String"]["sval"] for part in call.get("funcname", [])]
    args = call.get("args", [])
    if name != ["json_each"]:
        what = instead_of({"RangeFunction": function}) or "only json_each(array) can stand after FROM"
        raise NotUnderstood(what, location_of(function))
    if len(args) != 1 or len(function["functions"]) != 1:
        raise NotUnderstood("json_each has one argument, an array: json_each(array)", location_of(call))
    if function.keys() - {"functions", "alias"} or "colnames" in function.get("alias", {}):
        raise NotUnderstood("only `json_each(array)` and `json_each(array) AS name` can stand here", 0)
    of = statement.read(args[0], request)
    mark = ways.mark()
    return EachScope(request, mark, function.get("alias", {}).get("aliasname")), (mark, ForEach(of))


def _columns(statement: Statement, scope: ParameterScopes) -> tuple[list[Chosen], int | None]:
    """The parameters that a query selects, and its `_priority`."""
    targets = list(targets_of(statement.select))
    if len(targets) > statement.context.limits.parameters:
        what = f"more than {statement.context.limits.parameters} parameters"
        raise NotUnderstood(what, targets[-1].location)
    chosen: dict[str, Chosen] = {}
    priority: int | None = None
    for target in targets:
        try:
            if target.name == "_priority":
                priority = _priority(target)
                continue
            column = _column(statement, scope, target)
        except NotUnderstood as error:
            statement.refuse(error.what, error.location)
            continue
        if column.name in chosen:
            statement.refuse(f"{column.name} is selected twice", target.location)
        chosen[column.name] = column
    return list(chosen.values()), priority


def _column(statement: Statement, scope: ParameterScopes, target: Target) -> Chosen:
    if target.name is None:
        raise NotUnderstood("name each column: `*` cannot be a bucket's parameter", target.location)
    if not target.name:
        what = "a name is missing: `… AS name`"
        if "A_Const" in target.node:
            what += "; to ask only whether there is such a row, write `SELECT FROM table WHERE …`"
        raise NotUnderstood(what, target.location)
    value = statement.read(target.node, scope)
    about = dependencies(value)
    if about.tables and about.requests:
        what = "a parameter is of the row or of the request; select both, each with its name"
        raise NotUnderstood(what, target.location)
    if about.now:
        raise NotUnderstood("now() cannot be part of a bucket's name", target.location)
    return Chosen(target.name, value, known_types.type_of(value, scope))


def _priority(target: Target) -> int:
    constant = target.node.get("A_Const", {})
    value = constant["ival"].get("ival", 0) if "ival" in constant else -1
    if value not in PRIORITIES:
        raise NotUnderstood("a priority is a number from 0 (first) to 3", target.location)
    return int(value)
