"""Findings and lookups of one rules file → what all who read its parts share. No I/O.

A Context lives while a file is read. Problems go to its document, where they end the reading; warnings and
lookups stand here until `parse.py` makes Rules of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from yaml import MappingNode, Node, ScalarNode, SequenceNode

from replicator.rules.expression import EDITION_1, Dialect, Expression
from replicator.rules.model import Definition, Key, Lookup, Predicate, TableName, Warned, Window
from replicator.text.nodes import Document, nearest

#: (namespace, name) → column → oid of its type. What the source has, where somebody looked.
Tables = Mapping[tuple[str, str], Mapping[str, int]]

#: What makes a query that anybody can widen acceptable, as a key of a definition or as a YAML tag.
ACCEPT = "accept_potentially_dangerous_queries"


class Limits(NamedTuple):
    """How much a rules file may ask for; each is far above what a person writes."""

    definitions: int = 500
    #: SELECTs of one definition, parameter and data queries each.
    queries: int = 500
    #: Columns of one SELECT, as in Postgres.
    columns: int = 1600
    #: Values in one bucket's name.
    parameters: int = 64
    #: Alternatives of one WHERE, after everything is multiplied out.
    terms: int = 100
    #: Kinds of bucket that one stream may come to.
    variants: int = 100
    #: Tables that all streams of a file read, counted once more for each alternative.
    reads: int = 50_000


LIMITS = Limits()


@dataclass(slots=True)
class Context:
    """What the readers of one file's parts share."""

    document: Document
    dialect: Dialect = EDITION_1
    #: None: nobody looked, so nothing is said about unknown tables and columns.
    tables: Tables | None = None
    #: Whether conditions that hold for every row of these tables are refused.
    is_strict: bool = True
    limits: Limits = LIMITS
    lookups: dict[str, Lookup] = field(default_factory=dict)
    warnings: list[Warned] = field(default_factory=list)
    for_everybody: list[Warned] = field(default_factory=list)
    #: The file's own `with`: name → the SELECT as it is written.
    ctes: dict[str, ScalarNode] = field(default_factory=dict)
    #: The file's own `parameters`: name → what it is of a request.
    requests: dict[str, Expression] = field(default_factory=dict)
    #: Which of `ctes` and `requests` something refers to, as (kind, name): `("with", "mine")`.
    used: set[tuple[str, str]] = field(default_factory=set)
    #: What counts for `limits.reads` so far.
    reads: int = 0
    _columns: dict[TableName, Mapping[str, int] | None] = field(default_factory=dict)

    def refuse(self, node: Node | None, key: str, what: str, offset: int | None = None) -> None:
        """Note a problem at a node, or at the character at `offset` of a scalar's value, once."""
        problems = self.document.problems
        self.document.refuse(node, key, what, offset)
        if problems[-1] in problems[:-1]:
            problems.pop()

    def warn(
        self, node: Node | None, key: str, what: str, offset: int | None = None, is_missing: bool = False
    ) -> None:
        """Note something that may not mean what its writer thinks, once for each place."""
        line, column = self.document.place_of(node, offset)
        warned = Warned(self.document.file, line, column, key, what, is_missing)
        if warned not in self.warnings:
            self.warnings.append(warned)

    def lookup(
        self,
        table: TableName,
        filters: Iterable[Predicate],
        keys: Iterable[Key],
        values: Iterable[Expression],
        windows: Iterable[Window] = (),
    ) -> str:
        """The id of the lookup that these parts mean: the same parts are the same one everywhere."""
        filters, keys, values, windows = tuple(filters), tuple(keys), tuple(values), tuple(windows)
        tests = tuple(predicate.test for predicate in filters)
        moments = tuple((window.moment, window.seconds, window.is_until) for window in windows)
        meaning = repr((table, tests, keys, values, moments))
        identity = hashlib.sha256(meaning.encode()).hexdigest()[:12]
        self.lookups.setdefault(identity, Lookup(identity, table, filters, keys, values, windows))
        return identity

    def columns_of(self, table: TableName) -> Mapping[str, int] | None:
        """The columns of all tables that this name means; None if that is not known."""
        if self.tables is None:
            return None
        if table not in self._columns:
            fitting = [columns for name, columns in self.tables.items() if table.matches(*name)]
            together = {name: oid for columns in reversed(fitting) for name, oid in columns.items()}
            self._columns[table] = together if fitting else None
        return self._columns[table]

    def type_of(self, table: TableName, column: str) -> int | None:
        """The oid of a column's type, as far as it is known."""
        return (self.columns_of(table) or {}).get(column)

    def check_table(self, node: Node, key: str, table: TableName, offset: int | None = None) -> None:
        """Warn of a table that the source does not have."""
        if self.tables is None or self.columns_of(table) is not None:
            return
        namespace = table.namespace or "public"
        names = [
            name if there == "public" else f"{there}.{name}"
            for there, name in self.tables
            if there == namespace or table.namespace is None
        ]
        near = nearest(str(table), names)
        # All the tables of a database are no suggestion.
        near = near if near.startswith(", did you mean") else ""
        # Tables that a wildcard stands for may come later.
        self.warn(node, key, f"the source has no table {table}{near}", offset, not table.is_wildcard)

    def check_column(
        self, node: Node, key: str, table: TableName, column: str, offset: int | None = None
    ) -> None:
        """Warn of a column that no table of this name has."""
        columns = self.columns_of(table)
        if columns is not None and column not in columns:
            what = f"{table} has no column {column}{nearest(column, columns)}"
            self.warn(node, key, what, offset, is_missing=True)


def is_for_everybody(definition: Definition) -> bool:
    """Whether a request comes to some of its rows whoever asks."""
    return any(
        not variant.parameters and any(not query.steps for query in variant.queries)
        for variant in definition.variants
    )


def is_accepted_anywhere(node: Node) -> bool:
    """Whether a definition, or something in it, accepts by name what anybody can have."""
    if isinstance(node, MappingNode):
        flags = [value for key, value in node.value if getattr(key, "value", "") == ACCEPT]
        is_flagged = any(getattr(flag, "value", "") == "true" for flag in flags)
        return is_flagged or accepts_danger(node) or any(is_accepted_anywhere(v) for _, v in node.value)
    if isinstance(node, SequenceNode):
        return any(is_accepted_anywhere(item) for item in node.value)
    return accepts_danger(node)


def accepts_danger(node: Node) -> bool:
    """Whether a definition or query carries the tag that accepts what anybody can widen."""
    return bool(node.tag == f"!{ACCEPT}")
