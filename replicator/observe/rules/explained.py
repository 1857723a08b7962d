"""The words for what rules come to: who is reached, what is held, what is needed. No I/O.

Every part is text that a person reads; programs get the same as JSON.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Reached:
    """One way in which a request comes to buckets."""

    #: `one bucket per users.id`
    who: str
    #: What must hold, a phrase each.
    where: tuple[str, ...]
    priority: int


@dataclass(frozen=True, slots=True)
class Entrance:
    """One way in which a row of a table comes to be in a bucket."""

    #: What must hold, a phrase each.
    where: tuple[str, ...]
    #: And all of one of these, if there are any.
    one_of: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of one table in a kind of bucket."""

    table: str
    #: What clients know the table as; None: by its own name, whichever that is.
    output: str | None
    #: `*`, `id`, `title AS name`.
    columns: tuple[str, ...]
    entrances: tuple[Entrance, ...]

    @property
    def label(self) -> str:
        is_renamed = self.output is not None and self.output != self.table.rpartition(".")[2]
        return f"{self.table} as {self.output}" if is_renamed else self.table


@dataclass(frozen=True, slots=True)
class Bucket:
    """A kind of bucket: its name, who gets it, and what is in it."""

    #: `user_data[user_id]`
    name: str
    #: Parameters whose values are compared as text.
    as_text: tuple[str, ...]
    reached: tuple[Reached, ...]
    rows: tuple[Rows, ...]


@dataclass(frozen=True, slots=True)
class Defined:
    """One entry under `bucket_definitions` or `streams`."""

    name: str
    is_stream: bool
    auto_subscribe: bool
    buckets: tuple[Bucket, ...]


@dataclass(frozen=True, slots=True)
class Maintained:
    """A lookup: which table's changes cost an entry, and what it is for."""

    id: str
    table: str
    keys: tuple[str, ...]
    values: tuple[str, ...]
    where: tuple[str, ...]
    uses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Needed:
    """A table that must be published, and what is made of its columns."""

    table: str
    #: Columns that decide where rows belong.
    decided_by: tuple[str, ...]
    #: Columns that clients get; `*` for all; none where the table only decides.
    sent: tuple[str, ...]
    #: Whether its rows are kept in storage, to be placed again when other rows, or the time, move them.
    is_kept: bool


@dataclass(frozen=True, slots=True)
class Explanation:
    """All of it."""

    edition: int
    definitions: tuple[Defined, ...]
    lookups: tuple[Maintained, ...]
    tables: tuple[Needed, ...]
    publication: str
