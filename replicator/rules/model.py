"""The words of the rules: Rules, Rule, Put, Remove. No I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Put(NamedTuple):
    """A bucket should hold this row, as this text."""

    bucket: str
    object_type: str
    object_id: str
    #: Which source row this is, where two show themselves under one type and id.
    subkey: str
    data: str


class Remove(NamedTuple):
    """A bucket should no longer hold this row."""

    bucket: str
    object_type: str
    object_id: str
    subkey: str


@dataclass(frozen=True, slots=True)
class DataQuery:
    """One line under `data`: the rows of a table whose column equals the bucket's parameter."""

    #: None where the rule does not name a schema: then `public`.
    namespace: str | None
    table: str
    #: The name clients see.
    output: str
    #: The column that must equal the bucket parameter; None where the bucket has none and takes all rows.
    column: str | None


@dataclass(frozen=True, slots=True)
class Rule:
    """One bucket definition: a bucket per value of its parameter, and the rows each holds."""

    name: str
    #: The name of the parameter, or None for one bucket shared by everybody.
    parameter: str | None
    data: tuple[DataQuery, ...]


@dataclass(frozen=True, slots=True)
class Rules:
    """The parsed set."""

    rules: tuple[Rule, ...]

    def tables(self) -> tuple[tuple[str, str], ...]:
        """Every (namespace, table) the rules read, once each."""
        return tuple(sorted({(q.namespace or "public", q.table) for r in self.rules for q in r.data}))
