"""YAML text → Rules, or every problem in it with its place. No I/O but reading the file.

What is understood today is one form: a bucket per signed-in user (`SELECT request.user_id() AS x`), or one
bucket for everybody (no `parameters`), filled by whole rows whose column equals the bucket's parameter.
Anything else is refused where it stands.
"""

from __future__ import annotations

from pathlib import Path

from yaml import MappingNode, Node, ScalarNode, SequenceNode

from replicator.rules.model import DataQuery, Rule, Rules
from replicator.rules.sqltext import (
    SqlError,
    SqlNode,
    column_path,
    function_path,
    location_of,
    offset_of,
    parse_select,
)
from replicator.text.file import read
from replicator.text.nodes import Document, nearest, parse

_TOP = ("bucket_definitions",)
_DEFINITION = ("parameters", "data")
#: Clauses of a SELECT that the language does not have.
_FOREIGN = {
    "distinctClause": "DISTINCT",
    "groupClause": "GROUP BY",
    "havingClause": "HAVING",
    "sortClause": "ORDER BY",
    "limitCount": "LIMIT",
    "limitOffset": "OFFSET",
    "withClause": "WITH",
    "valuesLists": "VALUES",
    "larg": "UNION",
    "lockingClause": "FOR",
    "intoClause": "INTO",
    "windowClause": "WINDOW",
}


def load_rules(path: Path) -> Rules:
    """The rules of a file."""
    return parse_rules(read(path, "Set `rules` to the path of your rules."), str(path))


def parse_rules(text: str, file: str) -> Rules:
    """The rules that a text means; `file` is for messages."""
    document = parse(text, file)
    rules: list[Rule] = []
    found = False
    for entry in document.entries(document.root):
        if entry.name not in _TOP:
            document.refuse(entry.key, entry.name, f"not understood yet{nearest(entry.name, _TOP)}")
        elif not isinstance(entry.value, MappingNode):
            document.refuse(entry.value, entry.name, "a mapping from bucket names to definitions is expected")
        else:
            found = True
            for definition in document.entries(entry.value):
                rule = _rule(document, definition.name, definition.value)
                rules += [rule] if rule else []
    if not found and not document.problems:
        document.refuse(None, "bucket_definitions", "this key is missing")
    document.settle()
    return Rules(tuple(rules))


def _rule(document: Document, name: str, node: Node) -> Rule | None:
    if not isinstance(node, MappingNode):
        document.refuse(node, name, "a definition is a mapping with `parameters` and `data`")
        return None
    parts: dict[str, Node] = {}
    for entry in document.entries(node):
        if entry.name not in _DEFINITION:
            document.refuse(
                entry.key, f"{name}.{entry.name}", f"unknown key{nearest(entry.name, _DEFINITION)}"
            )
        parts[entry.name] = entry.value
    parameter = _parameter(document, name, parts["parameters"]) if "parameters" in parts else None
    is_known = parameter is not None or "parameters" not in parts
    data = parts.get("data")
    if not isinstance(data, SequenceNode) or not data.value:
        document.refuse(data or node, f"{name}.data", "a list of SELECTs is expected")
        return None
    queries = [
        _query(document, f"{name}.data[{i}]", item, parameter, is_known) for i, item in enumerate(data.value)
    ]
    return Rule(name, parameter, tuple(query for query in queries if query))


def _parameter(document: Document, name: str, node: Node) -> str | None:
    key = f"{name}.parameters"
    select = _select(document, key, node)
    if select is None:
        return None
    targets = select.get("targetList", [])
    shape = len(targets) == 1 and select.keys().isdisjoint({"fromClause", "whereClause", *_FOREIGN})
    target: SqlNode = targets[0]["ResTarget"] if shape else {}
    if function_path(target.get("val", {})) != ["request", "user_id"] or "name" not in target:
        document.refuse(node, key, "only `SELECT request.user_id() AS name` is understood yet", 0)
        return None
    return str(target["name"])


def _query(
    document: Document, key: str, node: Node, parameter: str | None, is_known: bool
) -> DataQuery | None:
    """One line under `data`. Where the parameter is not known, because it was refused, WHERE is not read."""
    select = _select(document, key, node)
    if select is None:
        return None
    try:
        table = _table(select)
        column = _where(select, parameter) if is_known else None
    except _NotUnderstood as error:
        document.refuse(node, key, error.what, offset_of(_value(node), error.location))
        return None
    output = table.get("alias", {}).get("aliasname", table["relname"])
    return DataQuery(table.get("schemaname"), table["relname"], output, column)


class _NotUnderstood(Exception):
    def __init__(self, what: str, location: int) -> None:
        super().__init__(what)
        self.what, self.location = what, location


def _table(select: SqlNode) -> SqlNode:
    for clause, name in _FOREIGN.items():
        if clause in select:
            raise _NotUnderstood(f"{name} is not part of the rules language", location_of(select[clause]))
    targets, sources = select.get("targetList", []), select.get("fromClause", [])
    if len(sources) != 1 or "RangeVar" not in sources[0]:
        raise _NotUnderstood("exactly one table is expected after FROM", location_of(sources))
    fields = [t["ResTarget"]["val"].get("ColumnRef", {}).get("fields") for t in targets]
    if fields != [[{"A_Star": {}}]]:
        at = targets[0]["ResTarget"]["location"] if targets else 0
        raise _NotUnderstood("only `SELECT *` is understood yet", at)
    table: SqlNode = sources[0]["RangeVar"]
    if "catalogname" in table or "inh" not in table or "colnames" in table.get("alias", {}):
        raise _NotUnderstood(
            "only `table`, `schema.table` and `table AS name` are understood yet", table["location"]
        )
    return table


def _where(select: SqlNode, parameter: str | None) -> str | None:
    """The column that must equal the bucket's parameter."""
    where: SqlNode | None = select.get("whereClause")
    expected = f"`WHERE column = bucket.{parameter}`" if parameter else "no WHERE"
    if where is None:
        if parameter is None:
            return None
        raise _NotUnderstood(f"every query must use the bucket's parameter: {expected} is expected", 0)
    equality = where.get("A_Expr", {})
    is_equality = equality.get("kind") == "AEXPR_OP" and equality["name"] == [{"String": {"sval": "="}}]
    sides = [column_path(equality[side]) for side in ("lexpr", "rexpr")] if is_equality else []
    for one, other in (sides, sides[::-1]) if len(sides) == 2 else ():
        if parameter is not None and other == ["bucket", parameter] and one is not None and len(one) == 1:
            return one[0]
    raise _NotUnderstood(f"only {expected} is understood yet", location_of(where))


def _select(document: Document, key: str, node: Node) -> SqlNode | None:
    if not isinstance(node, ScalarNode):
        document.refuse(node, key, "a SELECT is expected")
        return None
    try:
        return parse_select(_value(node))
    except SqlError as error:
        document.refuse(node, key, error.what, error.offset)
        return None


def _value(node: Node) -> str:
    return str(node.value)
