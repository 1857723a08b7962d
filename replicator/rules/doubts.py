"""Rules × the tables of the source's catalogue → what may not be meant of them there, told.

A file is read without its source, so that it means the same wherever it is read. What can be seen of it only
with the types of columns at hand, such as a number compared with text, `rules validate --source` says; who
never ran that hears of it here. Nothing of it keeps rules from being used.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from itertools import chain

from replicator.database import Connection
from replicator.marks import mark
from replicator.rules.model import Rules, Warned
from replicator.rules.parse import parse_rules
from replicator.wal.messages import Column, Relation
from replicator.wal.snapshot import read_tables

_TEXT, _CHAR_1 = 25, (1042, 5)


class Doubts:
    """Tells what may not be meant of a file's rules, once as long as it says the same."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._told: str | None = None

    async def tell(self, rules: Rules, source: Connection, publication: str) -> None:
        if rules.text == self._told:
            return
        self._told = rules.text
        tables = await read_tables(source, publication, rules.tables())
        for one in doubts_of(rules, self._file, [table.relation for table in tables]):
            place = f"{one.file}:{one.line}:{one.column}"
            mark("rules doubted", level=logging.WARNING, at=place, rule=one.key, why=one.what)


def doubts_of(rules: Rules, file: str, relations: Iterable[Relation]) -> Iterator[Warned]:
    """What is to be said of the rules only because these tables are known."""
    known = {(of.namespace, of.name): types_of(of.columns) for of in relations}
    before = {(one.line, one.column, one.what) for one in chain(rules.warnings, rules.for_everybody)}
    for one in parse_rules(rules.text, file, known, is_strict=False).warnings:
        # Tables and columns that are not there are another matter, and told where they are needed.
        if not one.is_missing and (one.line, one.column, one.what) not in before:
            yield one


def types_of(columns: Iterable[Column]) -> dict[str, int]:
    """The types by which conditions on these columns are judged."""
    return {column.name: _type_of(column) for column in columns}


def _type_of(column: Column) -> int:
    """A char(1) is filled up as any char(n) is, but for its one character there is nothing to fill."""
    return _TEXT if (column.type_oid, column.typmod) == _CHAR_1 else column.type_oid
