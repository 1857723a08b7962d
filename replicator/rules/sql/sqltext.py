"""SQL text → a tree of the real Postgres grammar, with positions. No I/O.

The one module that knows the parser. Some of its habits are dealt with here: it ends the text at a NUL
byte, it accepts several statements, it counts nodes in bytes but errors in characters, it repeats the rest of
the text in an error, and it follows any nesting down until the process has no stack left.

The rules know one thing that Postgres' grammar does not: `x IN y` without parentheses, x is a member of the
JSON array y; so is `x IN (y)`, where y can be an array. Before parsing, such an IN becomes `<>`, which is as
long and binds as IN should; afterwards the operator at that place is called IN, or NOT IN: `{"A_Expr":
{"kind": "AEXPR_OP", "name": [… "IN"], …}}`. The list `x IN (1, 2)` stays AEXPR_IN, and `x IN (SELECT …)` a
SubLink.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any

import pgparse

from replicator.rules.sql.binding import bind_members
from replicator.rules.sql.tokens import Token, tokens

SqlNode = dict[str, Any]

#: A query of a few times this length, if it is all nesting, ends the process rather than the parsing.
MOST_CHARACTERS = 10_000


class SqlError(Exception):
    """Something is wrong with this SQL, at this character of it (counted from 0)."""

    def __init__(self, what: str, offset: int) -> None:
        super().__init__(what)
        self.what = what
        self.offset = offset


def parse_select(text: str) -> SqlNode:
    """The SelectStmt of a text that is exactly one SELECT."""
    if "\0" in text:
        raise SqlError("a NUL byte has no place in SQL", text.index("\0"))
    if len(text) > MOST_CHARACTERS:
        raise SqlError(f"longer than {MOST_CHARACTERS} characters", 0)
    normal, memberships = _without_membership(text)
    try:
        statements = pgparse.parse(normal)
    except pgparse.PGQueryError as error:
        at = max(0, (error.position or 1) - 1)
        said = textwrap.shorten(str(error.message), 100, placeholder=" …")
        raise SqlError(said.replace('"<>"', '"IN"') if at in memberships else said, at) from None
    except RecursionError:
        raise SqlError("nested too deep", 0) from None
    except UnicodeEncodeError as error:
        raise SqlError("half a character has no place in SQL", error.start) from None
    if len(statements) != 1:
        at = offset_of(text, statements[1].get("stmt_location", 0)) if len(statements) > 1 else 0
        blanks = len(text[at:]) - len(text[at:].lstrip())
        raise SqlError("expected exactly one SELECT", at + blanks)
    statement: SqlNode = statements[0]["stmt"]
    if "SelectStmt" not in statement:
        raise SqlError("expected a SELECT", 0)
    select: SqlNode = statement["SelectStmt"]
    _name_memberships(select, {len(text[:at].encode()): word for at, word in memberships.items()})
    bind_members(select, text)
    return select


def _without_membership(text: str) -> tuple[str, dict[int, str]]:
    """The text with `<>` for each IN that tests membership; where that was, and the word it was."""
    found = tokens(text)
    normal = list(text)
    memberships: dict[int, str] = {}
    for i, token in enumerate(found):
        if token.kind != "name" or token.text != "in" or not _is_membership(found, i):
            continue
        normal[token.start : token.end] = "<>"
        memberships[token.start] = "IN"
        if found[i - 1].text == "not" and found[i - 1].kind == "name":
            normal[found[i - 1].start : found[i - 1].end] = "   "
            memberships[token.start] = "NOT IN"
    return "".join(normal), memberships


def _is_membership(found: Sequence[Token], i: int) -> bool:
    """Whether the IN at i is followed by an expression, rather than by a list or a subquery."""
    if i == 0 or i + 1 == len(found) or found[i - 1].text in (".", "as"):
        return False
    if found[i + 1].text != "(":
        return not _is_in_position(found, i)
    closing = matching(found, i + 1)
    after = found[closing + 1].text if closing + 1 < len(found) else ""
    if found[min(i + 2, closing)].text in ("select", "values", "with"):
        return False
    return after in ("->", "->>", "||", "::", "[") or _is_array(found[i + 2 : closing])


def _is_array(within: Sequence[Token]) -> bool:
    """Whether what stands alone in parentheses can be an array: a column, or a part of JSON.

    To the rules, parentheses around one thing are no list. Where it cannot be an array, it is one: of one.
    """
    levels = accumulate(_opening(token) for token in within)
    top = [token.text for token, level in zip(within, levels, strict=True) if level == 0 or token.text == "("]
    if "," in top:
        return False
    names = within[::2]
    is_path = len(within) in (1, 3) and all(token.kind in ("name", "quoted") for token in names)
    if is_path and all(token.text == "." for token in within[1::2]):
        return within[0].text not in ("bucket", "null", "true", "false")
    is_parameter = [token.text for token in within[1:4]] == [".", "parameter", "("]
    return "->" in top or "->>" in top or is_parameter


def _is_in_position(found: Sequence[Token], i: int) -> bool:
    """`position(a IN b)`, which is Postgres' own."""
    level = 0
    for k in range(i - 1, 0, -1):
        level += (found[k].text == ")") - (found[k].text == "(")
        if level < 0:
            return found[k - 1].text == "position"
    return False


def _name_memberships(tree: object, words: dict[int, str]) -> None:
    unseen = [tree] if words else []
    while unseen:
        part = unseen.pop()
        if isinstance(part, list):
            unseen += part
        elif isinstance(part, dict):
            unseen += part.values()
            if "A_Expr" in part and part["A_Expr"].get("location") in words:
                part["A_Expr"]["name"] = [{"String": {"sval": words[part["A_Expr"]["location"]]}}]


def offset_of(text: str, location: int) -> int:
    """A node's `location`, which counts UTF-8 bytes, as a character of the text."""
    return len(text.encode()[: max(0, location)].decode(errors="ignore"))


def location_of(tree: object) -> int:
    """Where what a part of the tree stands for begins, as far as the parser says; else 0."""
    return min((at for at in _locations(tree) if at > 0), default=0)


def _locations(tree: object) -> Iterator[int]:
    unseen = [tree]
    while unseen:
        part = unseen.pop()
        if isinstance(part, dict):
            unseen += part.values()
            yield part.get("location", 0)
        elif isinstance(part, list):
            unseen += part


def text_of(text: str, node: SqlNode) -> str:
    """The part of the text that a node stands for, as it was written, to be shown to a person.

    The parser says only where things begin. So this is the tokens from the first to the last beginning
    within the node, and what it takes to close every bracket: good enough to be recognised.
    """
    found = tokens(text)
    places = {offset_of(text, at) for at in _locations(node) if at > 0}
    within = [i for i, token in enumerate(found) if token.start in places]
    if not within:
        return " ".join(text.split()) or "SELECT"
    first, last = within[0], _end(found, within[0], within[-1])
    missing = -min(accumulate(_opening(token) for token in found[first : last + 1]), default=0)
    while missing > 0 and first > 0:
        first -= 1
        missing -= _opening(found[first])
    return " ".join(text[found[first].start : found[last].end].split())


_OPENING = {"(": 1, "[": 1, "case": 1, ")": -1, "]": -1, "end": -1}
_AFTER_IS = frozenset(("not", "null", "true", "false", "unknown", "distinct"))


def _opening(token: Token) -> int:
    return _OPENING.get(token.text, 0) if token.kind in ("name", "mark") else 0


def _end(found: Sequence[Token], first: int, last: int) -> int:
    """The token with which what began at `first`, and whose last part begins at `last`, ends."""
    level = sum(_opening(token) for token in found[first : last + 1])
    while last + 1 < len(found):
        this, following = found[last], found[last + 1]
        goes_on = (
            level > 0
            or "." in (this.text, following.text)
            or (following.text in ("(", "[") and this.kind in ("name", "quoted"))
            or (following.kind == "name" and following.text in _AFTER_IS and this.text in ("is", "not"))
        )
        if not goes_on:
            break
        last += 1
        level += _opening(following)
    return last


def matching(found: Sequence[Token], opening: int) -> int:
    """The place of the bracket that closes the one at `opening`; that of the last token if none does."""
    level = 0
    for i in range(opening, len(found)):
        level += _opening(found[i]) if found[i].kind == "mark" else 0
        if level == 0:
            return i
    return len(found) - 1


def column_path(node: SqlNode) -> list[str] | None:
    """`a.b.c` as its names, if that is what the node is."""
    if "ColumnRef" not in node:
        return None
    fields = node["ColumnRef"]["fields"]
    if not all("String" in field for field in fields):
        return None
    return [field["String"]["sval"] for field in fields]


def function_path(node: SqlNode) -> list[str] | None:
    """The dotted name of a function call without arguments, if that is what the node is."""
    call = node.get("FuncCall")
    if call is None or call.keys() - {"funcname", "funcformat", "location"}:
        return None
    return [part["String"]["sval"] for part in call["funcname"]]
