"""A position in the source's WAL: `16/B374D848` ↔ int. No I/O."""

from __future__ import annotations

import re

_FORM = re.compile(r"([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})")


class Lsn(int):
    """A byte position in the write-ahead log; an int that prints as Postgres prints it.

    >>> Lsn.parse("16/B374D848")
    Lsn('16/B374D848')
    >>> Lsn.parse("16/B374D848") - Lsn.parse("16/B374D800")
    72
    """

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Lsn:
        halves = _FORM.fullmatch(text)
        if halves is None:
            raise ValueError(f"not a WAL position: {text!r} (expected a form like 16/B374D848)")
        return cls(int(halves[1], 16) << 32 | int(halves[2], 16))

    def __str__(self) -> str:
        return f"{int(self) >> 32:X}/{int(self) & 0xFFFFFFFF:X}"

    def __repr__(self) -> str:
        return f"Lsn('{self}')"


#: Before everything: no change of any source has this position.
ZERO = Lsn(0)
