"""The words of the rules: Rules, Definition, Variant, and what they are made of; Put and Remove. No I/O.

One form for every way of writing them. A definition has variants; a variant is a kind of bucket, with as
many parameters as its name has values. Its data queries say, of a row, which of these buckets hold it. Its
parameter queries say, of a request, which of them the user gets. What both sides need to know of other
rows are Lookups: maintained entries "these values lead to those values".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from replicator.rules.expression import EDITION_1, Dialect, Expression
from replicator.wal.names import is_wildcard, matches


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
class TableName:
    """The tables that a query reads: one, or all that begin so."""

    #: None where the rule does not name a schema: then `public`.
    namespace: str | None
    #: A trailing `%` stands for anything.
    name: str

    @property
    def is_wildcard(self) -> bool:
        return is_wildcard(self.name) or is_wildcard(self.namespace or "")

    def matches(self, namespace: str, name: str) -> bool:
        return matches(self.namespace or "public", namespace) and matches(self.name, name)

    def __str__(self) -> str:
        return f"{self.namespace}.{self.name}" if self.namespace else self.name


@dataclass(frozen=True, slots=True)
class Predicate:
    """A condition of which only the row, or only the request, decides."""

    test: Expression
    #: As it is written in the rules, to be shown to a person.
    text: str


@dataclass(frozen=True, slots=True)
class Each:
    """Every member of the JSON array that an expression comes to, rather than its value."""

    of: Expression


Key = Expression | Each


@dataclass(frozen=True, slots=True)
class Brought:
    """The value at this place among those that a term's join brings."""

    join: int
    at: int


@dataclass(frozen=True, slots=True)
class Join:
    """`key IN (SELECT …)` in a data query: the lookup leads from the key to values of bucket parameters."""

    lookup: str
    key: Key
    text: str


@dataclass(frozen=True, slots=True)
class Window:
    """A row belongs while `moment + seconds` is later than now (`until`), or once it is not (`since`)."""

    #: A timestamp of the row, in seconds since 1970.
    moment: Expression
    seconds: float
    is_until: bool
    text: str


@dataclass(frozen=True, slots=True)
class Term:
    """One way into a bucket: what the row must fulfil, and which values the bucket then has.

    The terms of a query are its alternatives (OR); everything within one must hold (AND).
    """

    filters: tuple[Predicate, ...]
    #: One for each parameter of the variant.
    values: tuple[Key | Brought, ...]
    joins: tuple[Join, ...] = ()
    windows: tuple[Window, ...] = ()
    #: What must be the value of a parameter as well, with the place of that parameter.
    same: tuple[tuple[int, Key | Brought], ...] = ()

    @property
    def is_many(self) -> bool:
        """Whether it can lead one row into several buckets."""
        return any(isinstance(part, Each) for part in (*self.values, *(other for _, other in self.same)))


@dataclass(frozen=True, slots=True)
class Star:
    """`*`: every column not already selected; perhaps without those whose names begin with an underscore."""

    skips_underscored: bool


@dataclass(frozen=True, slots=True)
class Output:
    """One column that clients see."""

    name: str
    value: Expression


@dataclass(frozen=True, slots=True)
class DataQuery:
    """The rows of a table that a variant's buckets hold."""

    table: TableName
    #: The name clients see; None: each table's own name (wildcards).
    output: str | None
    columns: tuple[Star | Output, ...]
    terms: tuple[Term, ...]
    #: The table's place in the Columns above: a query with joins may read several.
    at: int = 0
    text: str = ""


@dataclass(frozen=True, slots=True)
class Lookup:
    """Maintained entries: of each row that fulfils the filters, its keys lead to its values."""

    #: Made of what it means, so that an unchanged lookup is the same one in another version of the rules.
    id: str
    table: TableName
    filters: tuple[Predicate, ...]
    keys: tuple[Key, ...]
    values: tuple[Expression, ...]
    #: `now()` may stand in these too.
    windows: tuple[Window, ...] = ()


@dataclass(frozen=True, slots=True)
class When:
    """A step that goes on only if the request, and what has been found so far, fulfil it."""

    condition: Predicate


@dataclass(frozen=True, slots=True)
class ForEach:
    """A step that brings (key, value) of each member of a JSON array or object."""

    of: Expression


@dataclass(frozen=True, slots=True)
class Find:
    """A step that brings the values to which a lookup leads from these keys."""

    lookup: str
    keys: tuple[Key, ...]


Step = When | ForEach | Find


@dataclass(frozen=True, slots=True)
class ParameterQuery:
    """Which buckets of a variant a request leads to: step by step, then the values of each bucket.

    Expressions in it are about the request and, as Found(step, at), about what earlier steps brought.
    """

    steps: tuple[Step, ...]
    values: tuple[Expression, ...]
    priority: int
    text: str = ""


@dataclass(frozen=True, slots=True)
class Variant:
    """One kind of bucket."""

    #: What its buckets' names begin with: `user_data`, or `stream|0`.
    name: str
    #: The names of its parameters, as far as they have some.
    parameters: tuple[str, ...]
    queries: tuple[ParameterQuery, ...]
    data: tuple[DataQuery, ...]
    #: By parameter: whether its values are compared as text, whatever they are (`bucket.x::text`).
    as_text: tuple[bool, ...] = ()


@dataclass(frozen=True, slots=True)
class Definition:
    """One entry under `bucket_definitions` or `streams`."""

    name: str
    variants: tuple[Variant, ...]
    is_stream: bool = False
    #: Of a stream: whether clients get it without asking.
    auto_subscribe: bool = True
    priority: int = 3


@dataclass(frozen=True, slots=True)
class Warned:
    """Something that may not mean what its writer thinks; it does not keep rules from being used."""

    file: str
    line: int
    column: int
    key: str
    what: str
    #: Whether the source has not what is named here, so that nothing comes of it.
    is_missing: bool = False

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.key}: {self.what}"


@dataclass(frozen=True, slots=True)
class Rules:
    """The parsed set."""

    definitions: tuple[Definition, ...]
    lookups: tuple[Lookup, ...] = ()
    dialect: Dialect = EDITION_1
    warnings: tuple[Warned, ...] = ()
    #: What everybody gets, where nothing says that it is meant so.
    for_everybody: tuple[Warned, ...] = ()
    #: Rows that say how far a client's writes have come: (user, client, number), under no key.
    writes: tuple[Lookup, ...] = ()
    #: As they are written; two that mean the same are the same.
    text: str = field(default="", compare=False, repr=False)

    def variants(self) -> tuple[Variant, ...]:
        return tuple(variant for definition in self.definitions for variant in definition.variants)

    def table_names(self) -> tuple[TableName, ...]:
        """Every table name the rules read, once each."""
        names = {query.table for variant in self.variants() for query in variant.data}
        names |= {lookup.table for lookup in (*self.lookups, *self.writes)}
        return tuple(sorted(names, key=str))

    def tables(self) -> tuple[tuple[str, str], ...]:
        """The same as (namespace, name) pairs."""
        return tuple(sorted({(name.namespace or "public", name.name) for name in self.table_names()}))
