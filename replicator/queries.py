"""sql/<file>.sql → query text by name.

A file under `sql/` holds blocks, each opened by a line `-- name: take_job` and one sentence of comment.
`load("jobs").take_job` is the text of that block. A misspelt name is an AttributeError where the module
binds it, at import, rather than a surprise at three in the morning.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Final

_HERE: Final = Path(__file__).parent
_NAME: Final = re.compile(r"^-- name: *(?P<name>\w+) *\n", re.MULTILINE)


def house(room: str) -> Path:
    """The folder `sql/` or `config/`: inside the package in a wheel, beside it in a checkout."""
    inside = _HERE / room
    return inside if inside.is_dir() else _HERE.parent / room


class Queries:
    """The named blocks of one file, as attributes holding their text."""

    def __init__(self, file: str, text: str) -> None:
        self.file = file
        self.blocks: dict[str, bytes] = {}
        parts = _NAME.split(text)
        for name, body in zip(parts[1::2], parts[2::2], strict=True):
            if name in self.blocks:
                raise ValueError(f"sql/{file}.sql names {name} twice")
            self.blocks[name] = body.strip().encode()

    def __getattr__(self, name: str) -> bytes:
        try:
            return self.blocks[name]
        except KeyError:
            raise AttributeError(f"sql/{self.file}.sql has no block named {name}") from None


@cache
def load(file: str) -> Queries:
    """The blocks of `sql/<file>.sql`."""
    return Queries(file, (house("sql") / f"{file}.sql").read_text(encoding="utf-8"))
