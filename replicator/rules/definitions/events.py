"""`event_definitions` → the rows that say how far the writes of clients have come. No I/O.

    event_definitions:
      write_checkpoints:
        payloads:
          - SELECT user_id, client_id, checkpoint FROM checkpoints

A backend that stores what a client has written later than it answers writes such a row after it, and the
client waits for its number. What such a row says is stored with the checkpoint that holds the row.
"""

from __future__ import annotations

import hashlib

from yaml import MappingNode, Node, ScalarNode, SequenceNode

from replicator.rules.context import Context
from replicator.rules.definitions.scopes import RowScope
from replicator.rules.expression import Expression, Literal
from replicator.rules.model import Lookup, Predicate
from replicator.rules.sql.reader import NotUnderstood, dependencies
from replicator.rules.sql.sqltext import SqlNode, location_of
from replicator.rules.sql.statement import (
    Statement,
    check_clauses,
    open_statement,
    read_source,
    targets_of,
)
from replicator.text.nodes import Entry, nearest, shown

#: What one event is called, now and in newer files.
KNOWN = ("write_checkpoints", "checkpoint_requests")
#: And what a number may be called there.
NUMBERS = ("checkpoint", "checkpoint_request_id")
COLUMNS = ("user_id", "client_id", *NUMBERS)


def read_events(context: Context, top: Entry) -> tuple[Lookup, ...]:
    """What is known of events; the others are read over, with a warning."""
    if not isinstance(top.value, MappingNode):
        context.refuse(top.value, top.name, "a mapping from names to events is expected")
        return ()
    found: list[Lookup] = []
    for entry in context.document.entries(top.value):
        key = f"{top.name}.{shown(entry.name)}"
        if entry.name not in KNOWN:
            what = f"of events, only {KNOWN[0]} is known here: this is read over"
            context.warn(entry.key, key, what)
            continue
        for at, node in enumerate(_payloads(context, key, entry.value)):
            written = _read(context, f"{key}.payloads[{at}]", node)
            found += [written] if written is not None else []
    return tuple(found)


def _payloads(context: Context, key: str, node: Node) -> list[Node]:
    entries = context.document.entries(node) if isinstance(node, MappingNode) else ()
    parts = {entry.name: entry for entry in entries}
    for name in parts.keys() - {"payloads"}:
        what = f"unknown key{nearest(name, ['payloads'])}"
        context.refuse(parts[name].key, f"{key}.{shown(name)}", what)
    payloads = parts["payloads"].value if "payloads" in parts else None
    if isinstance(payloads, ScalarNode) and payloads.value:
        return [payloads]
    if not isinstance(payloads, SequenceNode) or not payloads.value:
        context.refuse(payloads or node, f"{key}.payloads", "a list of SELECTs is expected")
        return []
    if len(payloads.value) > context.limits.queries:
        context.refuse(payloads, f"{key}.payloads", f"more than {context.limits.queries} SELECTs")
        return []
    return list(payloads.value)


def _read(context: Context, key: str, node: Node) -> Lookup | None:
    statement = open_statement(context, key, node)
    if statement is None:
        return None
    try:
        written = _understood(statement)
    except NotUnderstood as error:
        statement.refuse(error.what, error.location)
        return None
    return None if statement.is_broken else written


def _understood(statement: Statement) -> Lookup:
    select = statement.select
    check_clauses(select)
    tables = select.get("fromClause", [])
    if len(tables) != 1:
        raise NotUnderstood("one table is expected after FROM", location_of(tables))
    source = read_source(tables[0])
    statement.check_table(source)
    scope = RowScope(statement, source)
    values = _values(statement, scope)
    filters = _filters(statement, scope, select.get("whereClause"))
    meaning = repr((source.table, tuple(one.test for one in filters), values))
    identity = hashlib.sha256(meaning.encode()).hexdigest()[:12]
    return Lookup(identity, source.table, filters, (), values)


def _values(statement: Statement, scope: RowScope) -> tuple[Expression, ...]:
    """The user, the client and the number."""
    found: dict[str, Expression] = {}
    for target in targets_of(statement.select):
        if target.name not in COLUMNS:
            near = "" if target.name is None else nearest(target.name, COLUMNS)
            what = f"what is selected is called {', '.join(COLUMNS[:3])}{near}"
            raise NotUnderstood(what, target.location)
        name = "checkpoint" if target.name in NUMBERS else target.name
        if name in found:
            raise NotUnderstood(f"{target.name} is selected twice", target.location)
        found[name] = _of_row(statement, scope, target.node)
    if lacking := [name for name in ("user_id", "checkpoint") if name not in found]:
        at = location_of(statement.select.get("targetList", []))
        raise NotUnderstood(f"{' and '.join(lacking)} must be selected as well", at)
    return found["user_id"], found.get("client_id", Literal(None)), found["checkpoint"]


def _filters(statement: Statement, scope: RowScope, where: SqlNode | None) -> tuple[Predicate, ...]:
    if where is None:
        return ()
    return (Predicate(_of_row(statement, scope, where), statement.text_of(where)),)


def _of_row(statement: Statement, scope: RowScope, node: SqlNode) -> Expression:
    value = statement.read(node, scope)
    if dependencies(value).now:
        raise NotUnderstood("now() has no meaning here: what a row says is said once", location_of(node))
    return value
