"""One entry under `bucket_definitions` → a Definition, or what is wrong with it. No I/O."""

from __future__ import annotations

from typing import NamedTuple

from yaml import MappingNode, Node, ScalarNode, SequenceNode

from replicator.rules.context import ACCEPT, Context, accepts_danger
from replicator.rules.definitions.data_queries import check_types, read_data_query
from replicator.rules.definitions.parameter_queries import (
    DEFAULT_PRIORITY,
    PRIORITIES,
    Selected,
    check_bond,
    everybody,
    read_parameter_query,
)
from replicator.rules.definitions.placements import Placements
from replicator.rules.model import DataQuery, Definition, ParameterQuery, Variant
from replicator.rules.sql.statement import Statement
from replicator.text.nodes import Document, is_null, nearest
from replicator.text.words import boolean, whole

KEYS = ("parameters", "data", "priority", ACCEPT)


class Parameters(NamedTuple):
    """What the parameter queries of a definition come to together."""

    names: tuple[str, ...]
    queries: tuple[ParameterQuery, ...]
    #: Of each name: what its values may be.
    types: list[frozenset[str | None]]
    #: Of each name: whether its values are the text `null` where JSON has null.
    may_read_null: list[bool]
    #: Which queries must be seen to depend on the token, by where they stand.
    unaccepted: list[tuple[Statement, tuple[ParameterQuery, ...]]]


def read_definition(document: Document, name: str, node: Node, context: Context) -> Definition | None:
    """The definition of this name; None if it is refused."""
    before = len(document.problems)
    if not isinstance(node, MappingNode):
        document.refuse(node, name, "a definition is a mapping with `parameters` and `data`")
        return None
    parts = _parts(document, name, node)
    priority = _priority(document, name, parts.get("priority"))
    is_accepted = accepts_danger(node) or _accepts(document, name, parts.get(ACCEPT))
    parameters = _parameters(context, name, parts.get("parameters"), priority, is_accepted)
    data = _data(context, name, node, parts.get("data"), parameters)
    if parameters is None or data is None or len(document.problems) > before:
        return None
    for statement, queries in parameters.unaccepted:
        check_bond(statement, queries, data[0])
    if len(document.problems) > before:
        return None
    variant = Variant(name, parameters.names, parameters.queries, data[0], data[1])
    return Definition(name, (variant,), priority=DEFAULT_PRIORITY if priority is None else priority)


def _parts(document: Document, name: str, node: MappingNode) -> dict[str, Node]:
    parts: dict[str, Node] = {}
    for entry in document.entries(node):
        if entry.name not in KEYS:
            what = f"unknown key{nearest(entry.name, KEYS)}"
            document.refuse(entry.key, f"{name}.{entry.name}", what)
        parts[entry.name] = entry.value
    return parts


def _priority(document: Document, name: str, node: Node | None) -> int | None:
    if node is None:
        return None
    try:
        found = whole(node.value if isinstance(node, ScalarNode) else "")
    except ValueError:
        found = -1
    if found not in PRIORITIES:
        document.refuse(node, f"{name}.priority", "a priority is a number from 0 (first) to 3")
        return None
    return found


def _accepts(document: Document, name: str, node: Node | None) -> bool:
    if node is None:
        return False
    try:
        return boolean(node.value if isinstance(node, ScalarNode) else "")
    except ValueError:
        document.refuse(node, f"{name}.{ACCEPT}", "must be true or false")
        return True  # what it would have allowed is not refused on top


def _parameters(
    context: Context, name: str, node: Node | None, priority: int | None, is_accepted: bool
) -> Parameters | None:
    if node is None or is_null(node):
        return Parameters((), (everybody(DEFAULT_PRIORITY if priority is None else priority),), [], [], [])
    items = {f"{name}.parameters": node}
    if isinstance(node, SequenceNode):
        items = {f"{name}.parameters[{i}]": item for i, item in enumerate(node.value)}
    if not 0 < len(items) <= context.limits.queries:
        context.refuse(node, f"{name}.parameters", f"1 to {context.limits.queries} SELECTs are expected")
        return None
    read = {
        key: read_parameter_query(context, key, item, priority, is_accepted or accepts_danger(item))
        for key, item in items.items()
    }
    selected = {key: each for key, each in read.items() if each is not None}
    if len(selected) < len(items):
        return None
    return _together(context, selected, items)


def _together(context: Context, selected: dict[str, Selected], items: dict[str, Node]) -> Parameters:
    """Several queries as one; they select the same names, in any order: the first's is the buckets'."""
    first, *_ = selected.values()
    queries: list[ParameterQuery] = []
    types: list[set[str | None]] = [set() for _ in first.names]
    may_read_null = [False for _ in first.names]
    unaccepted: list[tuple[Statement, tuple[ParameterQuery, ...]]] = []
    for key, each in selected.items():
        if set(each.names) != set(first.names):
            what = f"every parameter query selects the same names; the first selects {_listed(first.names)}"
            context.refuse(items[key], key, what, 0)
            continue
        order = [each.names.index(name) for name in first.names]
        for place, at in enumerate(order):
            types[place].add(each.types[at])
            may_read_null[place] |= each.may_read_null[at]
        ordered = tuple(
            ParameterQuery(query.steps, tuple(query.values[at] for at in order), query.priority, query.text)
            for query in each.queries
        )
        queries += ordered
        if each.unaccepted is not None:
            unaccepted.append((each.unaccepted, ordered))
    kinds = [frozenset(known) for known in types]
    return Parameters(first.names, tuple(queries), kinds, may_read_null, unaccepted)


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names) or "none"


def _data(
    context: Context, name: str, definition: Node, node: Node | None, parameters: Parameters | None
) -> tuple[tuple[DataQuery, ...], tuple[bool, ...]] | None:
    key = f"{name}.data"
    if not isinstance(node, SequenceNode) or not node.value:
        context.refuse(node or definition, key, "a list of SELECTs is expected")
        return None
    if len(node.value) > context.limits.queries:
        context.refuse(node, key, f"more than {context.limits.queries} SELECTs")
        return None
    placements = Placements(parameters.names) if parameters else None
    queries = [
        query
        for i, item in enumerate(node.value)
        if (query := read_data_query(context, f"{key}[{i}]", item, placements))
    ]
    if parameters is None or placements is None:
        return None
    check_types(placements, parameters.types, parameters.may_read_null)
    return tuple(queries), tuple(placements.as_text)
