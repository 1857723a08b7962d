"""SQL text → its tokens, as Postgres' scanner would cut it. No I/O.

Only as much as is needed to find words outside strings, quoted names and comments, and to show a part of a
query as it was written. What the parser will refuse anyway may come out as anything.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final, NamedTuple

#: A string goes on after its quote in the next line, but that only matters to the parser.
_TOKEN: Final = re.compile(
    r"""
    (?P<blank>\s+|--[^\n\r]*)
    |(?P<comment>/\*)
    |(?P<text>[eE]'(?:[^'\\]|''|\\.)*'?|(?:[bBxXnN]|[uU]&)?'(?:[^']|'')*'?)
    |(?P<dollar>\$(?P<tag>(?:[A-Za-z_\x80-\U0010ffff][A-Za-z0-9_\x80-\U0010ffff]*)?)\$)
    |(?P<quoted>(?:[uU]&)?"(?:[^"]|"")*"?)
    |(?P<name>[A-Za-z_\x80-\U0010ffff][A-Za-z0-9_$\x80-\U0010ffff]*)
    |(?P<number>\.?[0-9](?:[eE][+-]?[0-9]|[A-Za-z0-9_.])*)
    |(?P<operator>::|[-+*/<>=~!@\#%^&|`?]+)
    |(?P<mark>.)
    """,
    re.VERBOSE | re.DOTALL,
)
_COMMENT: Final = re.compile(r"/\*|\*/")


class Token(NamedTuple):
    """A piece of SQL that is not blank and not a comment."""

    #: text, quoted, name, number, operator or mark.
    kind: str
    start: int
    end: int
    #: As written; names in lower case.
    text: str


@lru_cache(maxsize=32)
def tokens(sql: str) -> tuple[Token, ...]:
    """The tokens of a text, in their order."""
    found: list[Token] = []
    at = 0
    while at < len(sql):
        match = _TOKEN.match(sql, at)
        assert match is not None  # the last alternative is any character
        kind, end = match.lastgroup or "mark", match.end()
        if kind == "comment":
            end = _comment_end(sql, at)
        elif kind in ("dollar", "tag"):
            kind, end = "text", _after(sql, match.group("dollar"), end)
        elif kind == "operator":
            end = _operator_end(sql, at, end)
        if kind not in ("blank", "comment"):
            text = sql[at:end]
            found.append(Token(kind, at, end, text.lower() if kind == "name" else text))
        at = end
    return tuple(found)


def _comment_end(sql: str, at: int) -> int:
    """Comments nest."""
    level = 0
    for mark in _COMMENT.finditer(sql, at):
        level += 1 if mark.group() == "/*" else -1
        if level == 0:
            return mark.end()
    return len(sql)


def _after(sql: str, closing: str, at: int) -> int:
    found = sql.find(closing, at)
    return len(sql) if found < 0 else found + len(closing)


def _operator_end(sql: str, at: int, end: int) -> int:
    """A comment ends an operator; so does a sign, unless the operator holds one of the special characters."""
    comments = [sql.find(mark, at + 1, end) for mark in ("--", "/*")]
    end = min([end, *(found for found in comments if found > 0)])
    while end - at > 1 and sql[end - 1] in "+-" and not set(sql[at:end]) & set("~!@#%^&|`?"):
        end -= 1
    return end
