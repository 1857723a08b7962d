"""SQL text → a tree of the real Postgres grammar, with positions. No I/O.

The one module that knows the parser. Some of its habits are dealt with here: it ends the text at a NUL
byte, it accepts several statements, it counts nodes in bytes but errors in characters, it repeats the rest of
the text in an error, and it follows any nesting down until the process has no stack left.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Any

import pgparse

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
    try:
        statements = pgparse.parse(text)
    except pgparse.PGQueryError as error:
        said = textwrap.shorten(str(error.message), 100, placeholder=" …")
        raise SqlError(said, max(0, (error.position or 1) - 1)) from None
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
    return select


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
