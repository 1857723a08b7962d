"""README.md → its blocks of code, and the commands in them. No I/O but reading it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_HEADING = re.compile(r"^##+ (.+)$", re.MULTILINE)
_HEREDOC = re.compile(r"<<'(\w+)'")
_SUBSTITUTION = re.compile(r"\$\(([^()]*)\)")
_SPAN = re.compile(r"`([^`\n]+(?:\n[^`\n]+)?)`")


class Block(NamedTuple):
    """Code as it stands there."""

    heading: str
    language: str
    text: str


def blocks(language: str, heading: str | None = None) -> list[Block]:
    """Those of a language, of one section or of all."""
    found = [Block(_heading_before(one.start()), one[1], one[2]) for one in _FENCE.finditer(README)]
    return [one for one in found if one.language == language and heading in (None, one.heading)]


def _heading_before(at: int) -> str:
    # A comment in a block of sh has one #.
    above = list(_HEADING.finditer(README, 0, at))
    return above[-1][1] if above else ""


def statements(text: str) -> Iterator[str]:
    """What is typed before each Return that means one: continued lines and here-documents are whole."""
    lines = iter(text.splitlines())
    for line in lines:
        whole = [line]
        while whole[-1].endswith("\\"):
            whole.append(next(lines))
        if ends := _HEREDOC.search(line):
            while whole[-1] != ends[1]:
                whole.append(next(lines))
        if line.strip() and not line.startswith("#"):
            yield "\n".join(whole)


def commands(statement: str) -> Iterator[list[str]]:
    """The words of each command in it; what is substituted into one comes first."""
    line = re.split(r"<<'\w+'", statement.replace("\\\n", " "))[0]
    for inner in _SUBSTITUTION.findall(line):
        yield from commands(inner)
    lexer = shlex.shlex(_SUBSTITUTION.sub("substituted", line), posix=True, punctuation_chars=";&|<>")
    lexer.commenters, lexer.whitespace_split = "#", True
    words: list[str] = []
    for word in lexer:
        if set(word) <= set(";&|"):
            yield words
            words = []
        else:
            words.append(word)
    if words:
        yield words


def spans() -> list[list[str]]:
    """The words of everything between backticks in the text."""
    text = _FENCE.sub("", README)
    return [one.split() for one in _SPAN.findall(text)]


def rows(heading: str) -> list[list[str]]:
    """The cells of the tables of a section, without their heads."""
    section = README.split(f" {heading}\n", 1)[1]
    section = section[: following.start()] if (following := _HEADING.search(section)) else section
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[2:]]
