"""Words that SQL keeps for itself, and text in the wrong quotes → what to write instead. No I/O."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from replicator.rules.sql.sqltext import SqlNode, location_of, offset_of

#: What people call tables and columns, and Postgres keeps for itself.
_KEPT: Final = frozenset(
    {"all", "array", "asc", "both", "case", "check", "collate", "column", "constraint", "default", "desc"}
    | {"end", "foreign", "grant", "group", "leading", "limit", "offset", "only", "order", "primary"}
    | {"references", "table", "trailing", "unique", "user", "using", "window"}
)
#: Words that mean something by themselves, and are no names therefore.
_VALUES: Final = {
    "SVFOP_USER": "user",
    "SVFOP_CURRENT_USER": "current_user",
    "SVFOP_SESSION_USER": "session_user",
    "SVFOP_CURRENT_ROLE": "current_role",
    "SVFOP_CURRENT_CATALOG": "current_catalog",
    "SVFOP_CURRENT_SCHEMA": "current_schema",
}


def kept_word(said: str) -> str:
    """What to add to a syntax error, if it is at a word that may be meant as a name."""
    _, _, near = said.partition('at or near "')
    word = near.rstrip('"').lower()
    return f"; {_as_name(word)}" if word in _KEPT else ""


def of_value(node: SqlNode) -> str | None:
    """Of a word that stands for a value: what to write if a name is meant."""
    word = _VALUES.get(node.get("SQLValueFunction", {}).get("op", ""))
    return f"{word} is a word of SQL; {_as_name(word)}" if word else None


def _as_name(word: str) -> str:
    return f'as a name it stands in double quotes: "{word}"'


def texts_in_double_quotes(text: str, node: SqlNode) -> Iterator[int]:
    """Where a column in double quotes is compared with one without: it is rather text in the wrong quotes."""
    for part in _comparisons(node):
        left, right = part.get("lexpr", {}), part.get("rexpr", {})
        others = right["List"]["items"] if "List" in right else [right]
        if "ColumnRef" in left and not _is_quoted(text, left):
            yield from (location_of(other) for other in others if _is_quoted(text, other))


def _comparisons(node: SqlNode) -> Iterator[SqlNode]:
    unseen: list[Any] = [node]
    while unseen:
        match unseen.pop():
            case {"A_Expr": parts}:
                yield parts
                unseen += [parts.get("lexpr"), parts.get("rexpr")]
            case dict() as part:
                unseen += part.values()
            case list() as several:
                unseen += several


def _is_quoted(text: str, node: SqlNode) -> bool:
    column = node.get("ColumnRef", {})
    is_name = len(column.get("fields", ())) == 1
    return is_name and text[offset_of(text, column.get("location", 0)) :].startswith('"')
