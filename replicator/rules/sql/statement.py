"""One SELECT of a rules file → its parts, and a place to say what is wrong with each. No I/O.

A statement is read to its end even when a part of it is refused, so that all its problems are told at once;
what was made of it is then not used (`is_broken`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any, NamedTuple

from yaml import Node, ScalarNode

from replicator.rules.context import Context
from replicator.rules.expression import Expression
from replicator.rules.model import TableName
from replicator.rules.sql.quoting import kept_word, of_value, texts_in_double_quotes
from replicator.rules.sql.reader import NotUnderstood, Scope, read, text_of
from replicator.rules.sql.sqltext import SqlError, SqlNode, location_of, offset_of, parse_select
from replicator.rules.sql.tokens import tokens

_AS_THEY_ARE = "rows are sent as they are"
_SAY_WHICH = "a condition must say which rows belong"
#: Clauses that other SELECTs may have and those of the rules do not, and what to write instead.
FOREIGN = {
    "distinctClause": ("DISTINCT", "leave it out: nothing is sent twice"),
    "groupClause": ("GROUP BY", _AS_THEY_ARE),
    "havingClause": ("HAVING", _AS_THEY_ARE),
    "windowClause": ("WINDOW", _AS_THEY_ARE),
    "sortClause": ("ORDER BY", "order rows on the client"),
    "limitCount": ("LIMIT", _SAY_WHICH),
    "limitOffset": ("OFFSET", _SAY_WHICH),
    "withClause": ("WITH", "write the query where it is used: column IN (SELECT …)"),
    "valuesLists": ("VALUES", "write a list: x IN (1, 2)"),
    "larg": ("UNION", "write one query for each"),
    "lockingClause": ("FOR", "nothing is locked"),
    "intoClause": ("INTO", "`SELECT * FROM table AS name` names what clients see"),
}
ONE_TABLE = "one table is expected after FROM"
_JOINED = f"{ONE_TABLE}; for a join, write column IN (SELECT column FROM other WHERE …)"


#: Of the parser's tree, which has several for each level of the text.
MOST_LEVELS = 300


class Source(NamedTuple):
    """The one table after FROM."""

    table: TableName
    alias: str | None
    location: int

    def is_called(self, name: str) -> bool:
        return name in (self.alias, self.table.name)


class Target(NamedTuple):
    """One thing between SELECT and FROM."""

    #: None for `*`.
    name: str | None
    node: SqlNode
    location: int


class Statement:
    """One SELECT, and where it stands in the file."""

    def __init__(self, context: Context, node: ScalarNode, key: str, select: SqlNode) -> None:
        self.context = context
        self.node = node
        self.key = key
        self.text = str(node.value)
        self.select = select
        self.is_broken = False
        #: What its conditions demand to be there, and so is not NULL where the others are looked at.
        self.present: set[Expression] = set()

    def refuse(self, what: str, location: int) -> None:
        """Note a problem at the byte `location` of the SQL."""
        self.is_broken = True
        self.context.refuse(self.node, self.key, what, offset_of(self.text, location))

    def warn(self, what: str, location: int) -> None:
        """Note what may not be meant at the byte `location` of the SQL."""
        self.context.warn(self.node, self.key, what, offset_of(self.text, location))

    def read(self, node: SqlNode, scope: Scope) -> Expression:
        """What a part of it means; NotUnderstood where it means nothing."""
        for location in texts_in_double_quotes(self.text, node):
            self.warn("in double quotes this is the name of a column; text stands in single quotes", location)
        return read(node, scope, self.context.dialect)

    def text_of(self, node: SqlNode) -> str:
        """A part of it as it is written."""
        return text_of(self.text, node)

    def check_table(self, source: Source) -> None:
        """Warn if the source has no such table."""
        at = offset_of(self.text, source.location)
        self.context.check_table(self.node, self.key, source.table, at)

    def check_alias(self, table: TableName, alias: str, location: int, is_short: bool = False) -> None:
        """Warn where an alias may be meant for short, and becomes the name that clients see."""
        start = offset_of(self.text, location)
        words = [(token.text, token.start) for token in tokens(self.text)]
        quoted = '"' + alias.replace('"', '""') + '"'
        after = [text for text, at in words if at >= start][3 if table.namespace else 1 :]
        is_short = is_short or any((one[0], other[0]) == (alias, ".") for one, other in pairwise(words))
        if is_short and quoted not in after[:2]:
            what = (
                f"clients will see these rows in a table called {alias}; write {table.name} "
                f'without AS if that is not meant, or AS "{alias}" if it is'
            )
            self.warn(what, location)

    def check_column(self, table: TableName, column: str, location: int) -> None:
        """Warn if the table has no such column."""
        at = offset_of(self.text, location)
        self.context.check_column(self.node, self.key, table, column, at)


def open_statement(context: Context, key: str, node: Node) -> Statement | None:
    """The SELECT that a YAML node holds; None if it is refused."""
    if not isinstance(node, ScalarNode):
        context.refuse(node, key, "a SELECT is expected")
        return None
    try:
        select = parse_select(str(node.value))
    except SqlError as error:
        context.refuse(node, key, error.what + kept_word(error.what), error.offset)
        return None
    if _is_deep(select):
        context.refuse(node, key, "nested too deep", 0)
        return None
    return Statement(context, node, key, select)


def _is_deep(select: SqlNode) -> bool:
    """Whether following the tree would use up the stack."""
    level, parts = 0, [select]
    while parts and level <= MOST_LEVELS:
        level += 1
        parts = [inner for part in parts for inner in _inner(part)]
    return level > MOST_LEVELS


def _inner(part: object) -> Iterable[Any]:
    match part:
        case dict():
            return part.values()
        case list():
            return part
    return ()


def check_clauses(select: SqlNode) -> None:
    """Refuse what other SELECTs may have and those of the rules do not."""
    for clause, (name, instead) in FOREIGN.items():
        if clause in select:
            what = f"{name} is not part of the rules language; {instead}"
            raise NotUnderstood(what, location_of(select[clause]))


def read_source(node: SqlNode) -> Source:
    """What FROM names, if it is a table."""
    if "RangeVar" not in node:
        raise NotUnderstood(instead_of(node) or ONE_TABLE, location_of(node))
    table = node["RangeVar"]
    location = table["location"]
    if "catalogname" in table or "." in table.get("schemaname", ""):
        raise NotUnderstood("there is one source: `table` and `schema.table` can stand here", location)
    if "inh" not in table or "colnames" in table.get("alias", {}):
        raise NotUnderstood("only `table`, `schema.table` and `table AS name` can stand here", location)
    name = TableName(table.get("schemaname"), table["relname"])
    for part in (name.namespace or "", name.name):
        if "%" in part[:-1]:
            raise NotUnderstood('% stands for anything at the end of a name only: "name_%"', location)
    return Source(name, table.get("alias", {}).get("aliasname"), location)


def instead_of(node: SqlNode) -> str | None:
    """What to write instead of a join, a function, or a word taken for one, where a table is expected."""
    match node:
        case {"JoinExpr": _}:
            return _JOINED
        case {"RangeFunction": {"functions": [{"List": {"items": [function, *_]}}, *_]}}:
            if "SQLValueFunction" in function:
                return of_value(function)
            path = [part["String"]["sval"] for part in function.get("FuncCall", {}).get("funcname", [])]
            name = ".".join(path)
            return (
                f"{name} cannot stand after FROM: of functions, only json_each(array) can" if name else None
            )
    return None


def targets_of(select: SqlNode) -> Iterator[Target]:
    """What stands between SELECT and FROM; a column without AS has its own name, all else must have one."""
    for item in select.get("targetList", []):
        target = item["ResTarget"]
        node, location = target["val"], target["location"]
        fields = node.get("ColumnRef", {}).get("fields", [{}])
        if "A_Star" in fields[-1]:
            yield Target(None, node, location)
            continue
        if "name" not in target and (instead := of_value(node)):
            raise NotUnderstood(instead, location)
        yield Target(target.get("name") or fields[-1].get("String", {}).get("sval", ""), node, location)


def kinds(node: SqlNode) -> frozenset[str]:
    """What a condition mentions: `row`, `request`, `bucket`, `now` and `subquery`."""
    return frozenset(_kinds(node))


REQUESTS = ("request", "token_parameters", "user_parameters", "parameters", "auth", "connection")


def _kinds(node: SqlNode) -> Iterator[str]:
    unseen: list[object] = [node]
    while unseen:
        match unseen.pop():
            case {"SubLink": link}:
                yield "subquery"
                unseen.append(link.get("testexpr"))
            case {"ColumnRef": {"fields": [first, *rest]}}:
                name = first.get("String", {}).get("sval")
                word = "bucket" if name == "bucket" else "request" if name in REQUESTS else "row"
                yield word if rest else "row"
            case {"FuncCall": {"funcname": [first, *rest]} as call}:
                name = first["String"]["sval"]
                if rest and name in REQUESTS:
                    yield "request"
                if not rest and name == "now":
                    yield "now"
                unseen.append(call.get("args"))
            case {"SQLValueFunction": value}:
                if of_value({"SQLValueFunction": value}) is None:
                    yield "now"
            case dict() as part:
                unseen += part.values()
            case list() as parts:
                unseen += parts
