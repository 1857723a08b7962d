"""`x IN (SELECT … UNION SELECT …)` → x, and each SELECT with its one table and column. No I/O."""

from __future__ import annotations

from typing import NamedTuple

from replicator.rules.sql.reader import NotUnderstood
from replicator.rules.sql.sqltext import SqlNode, location_of
from replicator.rules.sql.statement import Source, Statement, check_clauses, read_source, targets_of

FORM = "only `value IN (SELECT column FROM table WHERE …)` is understood of subqueries"
#: Of one UNION.
MOST_MEMBERS = 100


class Member(NamedTuple):
    """One SELECT inside the parentheses."""

    source: Source
    column: SqlNode
    where: SqlNode | None
    location: int


def tested(node: SqlNode) -> SqlNode:
    """What stands before IN, if the condition is such a subquery."""
    if "SubLink" not in node:
        raise NotUnderstood(FORM, location_of(node))
    link = node["SubLink"]
    operator = [part["String"]["sval"] for part in link.get("operName", [])]
    if link.get("subLinkType") != "ANY_SUBLINK" or operator not in ([], ["="]):
        raise NotUnderstood(FORM, link.get("location", 0))
    value: SqlNode = link["testexpr"]
    if "RowExpr" in value:
        raise NotUnderstood("one value is expected before IN; use one IN for each column", location_of(value))
    return value


def members_of(statement: Statement, node: SqlNode) -> list[Member]:
    """The SELECTs of a subquery that `tested` accepts."""
    members: list[Member] = []
    unseen = [node["SubLink"]["subselect"]["SelectStmt"]]
    while unseen:
        select = unseen.pop()
        if select.get("op") == "SETOP_UNION" and len(members) + len(unseen) < MOST_MEMBERS:
            _check_whole(select)
            unseen += [select["rarg"], select["larg"]]
        else:
            members.append(_member(statement, select, node))
    return members


def _check_whole(select: SqlNode) -> None:
    """UNION has no clauses of its own: ORDER BY, LIMIT …"""
    check_clauses({clause: part for clause, part in select.items() if clause != "larg"})


def _member(statement: Statement, select: SqlNode, node: SqlNode) -> Member:
    at = location_of(select) or node["SubLink"].get("location", 0)
    if select.get("op") in ("SETOP_INTERSECT", "SETOP_EXCEPT"):
        raise NotUnderstood("of SELECTs, only UNION makes one: use one IN for each", at)
    if select.get("op") == "SETOP_UNION":
        raise NotUnderstood(f"more than {MOST_MEMBERS} SELECTs in one UNION", at)
    check_clauses(select)
    targets, tables = list(targets_of(select)), select.get("fromClause", [])
    if len(targets) != 1 or targets[0].name is None:
        raise NotUnderstood("exactly one column is expected between SELECT and FROM here", at)
    if len(tables) != 1:
        raise NotUnderstood("exactly one table is expected after FROM here", at)
    source = read_source(tables[0])
    statement.check_table(source)
    return Member(source, targets[0].node, select.get("whereClause"), at)
