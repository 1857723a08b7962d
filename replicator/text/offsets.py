"""An offset in a scalar's value → the place in the file it came from. No I/O.

YAML folds lines, takes indentation away and reads escapes, so the n-th character of a value is not the n-th
character of its source. The source is therefore read once more, the way the YAML library read it, noting
where each character of the value came from. If the two readings differ anywhere, the answer is the
scalar's start: a place is exact, or it is plainly the beginning.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from yaml import ScalarNode

#: What a quoted or plain scalar is made of. `fold` is line breaks with the blanks around them.
PIECE = re.compile(r"(?P<fold>[ \t]*\r?\n[ \t\r\n]*)|(?P<blanks>[ \t]+)|(?P<text>[^ \t\r\n\\']+)|(?P<char>.)")
#: The same in double quotes, where a backslash may hide a line break or begin an escape.
DOUBLE_QUOTED_PIECE = re.compile(
    r"(?P<continued>\\\r?\n[ \t\r\n]*)|(?P<escape>\\(?:x.{2}|u.{4}|U.{8}|.))|" + PIECE.pattern
)
LINE_BREAK = re.compile(r"\r?\n")


class Origin(NamedTuple):
    """One character of a value and where it stands in the file."""

    #: None if the source spells it otherwise (an escape).
    char: str | None
    at: int


def place(text: str, index: int) -> tuple[int, int]:
    """Line and column of a character of the file, both counted from 1, as editors do."""
    start_of_line = text.rfind("\n", 0, index) + 1
    return text.count("\n", 0, index) + 1, index - start_of_line + 1


def origin(text: str, node: ScalarNode, offset: int) -> int:
    """The index in the file's text of the character at `offset` of the scalar's value.

    An offset at the value's end is the place just after its last character.
    """
    value, start = str(node.value), int(node.start_mark.index)
    origins = list(_origins(text, node))
    if node.style in ("|", ">"):
        del origins[len(value) :]  # what chomping took away
    if len(origins) != len(value) or any(
        found.char not in (None, char) for found, char in zip(origins, value, strict=True)
    ):
        return start
    if 0 <= offset < len(value):
        return origins[offset].at
    if offset < 0:
        return start
    if node.style not in ("|", ">"):
        return _end(node)
    return origins[-1].at + 1 if origins else start


def _end(node: ScalarNode) -> int:
    """Where a plain or quoted scalar's content ends: at the closing quote, if there is one."""
    return int(node.end_mark.index) - (1 if node.style else 0)


def _origins(text: str, node: ScalarNode) -> Iterator[Origin]:
    start = int(node.start_mark.index)
    if node.style in ("|", ">"):
        return _block(text, start, str(node.value), folded=node.style == ">")
    return _flow(text, start + (1 if node.style else 0), _end(node), node.style or "")


def _flow(text: str, start: int, end: int, quote: str) -> Iterator[Origin]:
    """Plain and quoted scalars: one line break is a space, each further one a line break."""
    piece = DOUBLE_QUOTED_PIECE if quote == '"' else PIECE
    index = start
    while match := piece.match(text, index, end):
        breaks = [found.start() for found in LINE_BREAK.finditer(text, index, match.end())]
        match match.lastgroup:
            case "escape":
                yield Origin(None, index)
            case "fold" if len(breaks) == 1:
                yield Origin(" ", breaks[0])
            case "fold" | "continued":
                yield from (Origin("\n", at) for at in breaks[1:])
            case _:
                yield from map(Origin, match.group(), range(index, match.end()))
        index = match.end()
        if quote == "'" and match.group() == "'":
            index += 1  # '' is one quote


def _block(text: str, start: int, value: str, *, folded: bool) -> Iterator[Origin]:
    """Literal and folded scalars, with all line breaks at the end; chomping only cuts those off."""
    indent = _indent(text, start, value)
    breaks: list[int] = []
    before_is_blank = True  # nothing is folded into the first line
    for index, line in _lines(text, start):
        spaces = _spaces(line)
        if spaces == len(line) <= indent:
            breaks.append(index + len(line))
            continue
        if spaces < indent:
            break
        is_blank = line[indent] in " \t"
        if not folded or before_is_blank or is_blank:
            yield from (Origin("\n", at) for at in breaks)
        elif len(breaks) == 1:
            yield Origin(" ", breaks[0])
        else:
            yield from (Origin("\n", at) for at in breaks[1:])
        yield from map(Origin, line[indent:], range(index + indent, index + len(line)))
        before_is_blank, breaks = is_blank, [index + len(line)]
    yield from (Origin("\n", at) for at in breaks)


def _indent(text: str, start: int, value: str) -> int:
    """How many spaces were taken from each line: the first line with text has lost that many."""
    for _, line in _lines(text, start):
        if _spaces(line) < len(line):
            kept = next((_spaces(kept) for kept in value.split("\n") if kept.strip(" ")), 0)
            return max(0, _spaces(line) - kept)
    return len(text)


def _spaces(line: str) -> int:
    return len(line) - len(line.lstrip(" "))


def _lines(text: str, start: int) -> Iterator[tuple[int, str]]:
    """The lines after the one that holds `start`: where each begins, and its text without the break."""
    index = text.find("\n", start) + 1
    while 0 < index < len(text):
        end = text.find("\n", index)
        stop = len(text) if end < 0 else end
        yield index, text[index:stop].removesuffix("\r")
        index = stop + 1
