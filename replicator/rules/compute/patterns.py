"""A text × a LIKE pattern → whether it matches, in work that grows with both together. No I/O.

Both may come from somebody who means harm. What stands between two `%` is looked for once, as early as it can
be, and a plain text is found in linear time. A part with `_` in it is found by its longest piece without one,
and the rest of it is then held against the text there: that has an end, so that it is not tried everywhere.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final, NamedTuple

from replicator.rules.compute.scalars import EvaluationError

#: Of trying a part with `_` at some place, counted in pieces of text held against each other.
MOST_TRIES: Final = 1_000_000
#: So much of a text is held against another in the time of one try.
_A_TRY: Final = 32
#: Longer patterns are hardly written in rules, and not worth the room.
_LONG: Final = 1000


class _Piece(NamedTuple):
    """A text without `_`, and where it begins in its part."""

    at: int
    text: str


class _Part(NamedTuple):
    """What stands between two `%`."""

    size: int
    longest: _Piece
    others: tuple[_Piece, ...]

    def stands_at(self, text: str, at: int) -> bool:
        pieces = (self.longest, *self.others)
        return all(text.startswith(piece.text, at + piece.at) for piece in pieces)

    def find(self, text: str, start: int, end: int) -> int:
        """The first place where it stands; -1 if it stands nowhere."""
        start, end = start + self.longest.at, end - (self.size - self.longest.at - len(self.longest.text))
        tries = 0
        while start <= end and (found := text.find(self.longest.text, start, end)) >= 0:
            if not self.others or self.stands_at(text, found - self.longest.at):
                return found - self.longest.at
            start, tries = found + 1, tries + 1 + len(self.others) + self.size // _A_TRY
            if tries > MOST_TRIES:
                raise EvaluationError("a LIKE pattern with _ is too much work")
        return -1


def matches(text: str, pattern: str) -> bool:
    """As in Postgres: `%` is anything, `_` one character, a backslash makes either itself."""
    if _is_plain(pattern):
        return _matches_plain(text, pattern.split("%"))
    first, *others = _parts(pattern) if len(pattern) < _LONG else _parts_of(pattern)
    if not others:
        return len(text) == first.size and first.stands_at(text, 0)
    *middle, last = others
    at, end = first.size, len(text) - last.size
    if at > end or not first.stands_at(text, 0) or not last.stands_at(text, end):
        return False
    for part in middle:
        found = part.find(text, at, end)
        if found < 0:
            return False
        at = found + part.size
    return True


def work(text: str, pattern: str) -> int:
    """How much more work it may be than to read both, in characters."""
    if _is_plain(pattern):
        return 0
    tries = len(text) * (1 + pattern.count("_") + len(pattern) // _A_TRY)
    return min(MOST_TRIES, tries) * _A_TRY + len(pattern) * _A_TRY


def _is_plain(pattern: str) -> bool:
    return "_" not in pattern and "\\" not in pattern


def _matches_plain(text: str, parts: list[str]) -> bool:
    """The same without `_` and backslashes."""
    if len(parts) == 1:
        return text == parts[0]
    first, *middle, last = parts
    at, end = len(first), len(text) - len(last)
    if at > end or not text.startswith(first) or not text.endswith(last):
        return False
    for part in middle:
        at = text.find(part, at, end)
        if at < 0:
            return False
        at += len(part)
    return True


def _parts_of(pattern: str) -> tuple[_Part, ...]:
    parts: list[_Part] = []
    pieces: list[list[str]] = [[]]
    is_escaped = False
    for character in pattern:
        if is_escaped or character not in "\\%_":
            pieces[-1].append(character)
            is_escaped = False
        elif character == "\\":
            is_escaped = True
        elif character == "_":
            pieces.append([])
        else:
            parts.append(_part(pieces))
            pieces = [[]]
    if is_escaped:
        raise EvaluationError("a LIKE pattern ends with its escape character")
    return (*parts, _part(pieces))


_parts = lru_cache(256)(_parts_of)


def _part(pieces: list[list[str]]) -> _Part:
    """A part of these pieces, with one `_` between each two."""
    placed: list[_Piece] = []
    at = 0
    for characters in pieces:
        placed.append(_Piece(at, "".join(characters)))
        at += len(characters) + 1
    longest = max(placed, key=lambda piece: len(piece.text))
    others = tuple(piece for piece in placed if piece is not longest and piece.text)
    return _Part(at - 1, longest, others)
