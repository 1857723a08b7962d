"""The word for what stands between a source and its replication: Finding. No I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["error", "warning", "note"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be, or is worth knowing, with the SQL that mends it."""

    level: Level
    #: Where it belongs and what it is: `table.identity`. Stable, for programs.
    code: str
    #: The table, setting, role or slot it is about.
    about: str
    #: What was found, in one line.
    what: str
    #: What that means, and what to do where SQL cannot.
    why: str = ""
    #: Statements ready to paste; may be empty.
    sql: str = ""

    @property
    def group(self) -> str:
        return self.code.partition(".")[0]
