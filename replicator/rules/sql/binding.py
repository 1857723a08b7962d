"""The tree of a SELECT as Postgres binds it → as the rules' language binds `->` and `->>`. No I/O.

In Postgres they bind as `||` and `&&` do, from the left: `'a' || b ->> 'c'` is `('a' || b) ->> 'c'` there. In
the rules' language they belong to what stands right before them, as a member to its object, and existing
files rely on that. So such trees are turned, unless there are parentheses.
"""

from __future__ import annotations

from typing import Any

from replicator.rules.sql.tokens import tokens

_MEMBER = ("->", "->>")


def bind_members(select: dict[str, Any], text: str) -> None:
    """Turn every `->` and `->>` of the tree, in place, to what stands right before it."""
    found: list[dict[str, Any]] = []
    unseen: list[Any] = [select]
    while unseen:
        part = unseen.pop()
        if isinstance(part, list):
            unseen += part
        elif isinstance(part, dict):
            unseen += part.values()
            if _operator(part) in _MEMBER:
                found.append(part)
    if any(_operator(node["A_Expr"].get("lexpr")) for node in found):
        grouped = _grouped(text)
        for node in reversed(found):  # what is within comes first
            _turn(node, grouped)


def _operator(node: object) -> str | None:
    """The operator that a node applies, if that is what it does."""
    if not isinstance(node, dict) or node.get("A_Expr", {}).get("kind") != "AEXPR_OP":
        return None
    name: str = node["A_Expr"]["name"][-1]["String"]["sval"]
    return name


def _turn(node: dict[str, Any], grouped: dict[int, int]) -> None:
    while "lexpr" in node["A_Expr"]:
        member, other = node["A_Expr"], node["A_Expr"]["lexpr"]
        operator = _operator(other)
        if operator is None or operator in _MEMBER:
            return
        outer = other["A_Expr"]
        if grouped.get(member["location"], outer["location"] + 1) <= outer["location"]:
            return
        inner = {"A_Expr": {**member, "lexpr": outer["rexpr"]}}
        node["A_Expr"] = {**outer, "rexpr": inner}
        node = inner


def _grouped(text: str) -> dict[int, int]:
    """By the byte where an operator after a closing parenthesis begins: that of the opening one."""
    found: dict[int, int] = {}
    opened: list[int] = []
    closed = -1
    at = seen = 0
    for token in tokens(text):
        at, seen = at + len(text[seen : token.start].encode()), token.start
        if token.kind == "operator" and closed >= 0:
            found[at] = closed
        closed = -1
        if token.text == "(":
            opened.append(at)
        elif token.text == ")" and opened:
            closed = opened.pop()
    return found
