"""A source database at one moment → its rows as the log would bring them, and what lookups lead to.

Everything is read in one REPEATABLE READ transaction, with values printed as the stream prints them. SQL
narrows where it can; which rows count is decided by the functions that replication compiles of the rules.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from contextlib import asynccontextmanager
from itertools import count

from psycopg import sql

from replicator import queries
from replicator.config import Config
from replicator.database import Connection, connected, rows
from replicator.observe.rules.narrow import NEVER, every, is_one_of
from replicator.observe.rules.tables import Seen, SourceTable, see
from replicator.rules import keys
from replicator.rules.columns.types import BUILT_IN, Types
from replicator.rules.compile import Compiled, Need, compile_rules
from replicator.rules.expression import Scalar
from replicator.rules.model import Each, Lookup, Rules
from replicator.wal.messages import Row
from replicator.wal.source import printing
from replicator.wal.types import read_types

_q = queries.load("rules")

#: Rows fetched at once.
PAGE = 500

Values = tuple[Scalar, ...]


@asynccontextmanager
async def reading(config: Config, rules: Rules) -> AsyncIterator[Reading]:
    """The source as it is now, for as long as this is open."""
    async with connected(printing(config.source_dsn), "rules test") as source, source.transaction():
        await source.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        # Whoever waits for a table's lock makes others wait behind them.
        await source.execute("SET LOCAL lock_timeout = '3s'")
        now: float = (await rows(source, _q.now))[0][0]
        seen = await see(source, rules, config.source.publication, config.storage.schema_name)
        oids = {column.type_oid for table in seen.tables for column in table.relation.columns}
        types = BUILT_IN.with_types(await read_types(source, BUILT_IN.unknown(oids)))
        yield Reading(source, rules, seen, types, now)


class Reading:
    """What can be asked of the source at that moment."""

    def __init__(self, source: Connection, rules: Rules, seen: Seen, types: Types, now: float) -> None:
        self._source, self.rules, self.seen, self.types, self.now = source, rules, seen, types, now
        self.lookups: Mapping[str, Lookup] = {lookup.id: lookup for lookup in rules.lookups}
        #: Everything that has been asked of lookups.
        self.known: dict[Need, set[Values]] = {}
        #: By what could not be evaluated, and why: of how many rows.
        self.failures: Counter[tuple[str, str]] = Counter()
        self._cursors = count()
        self._compiled: dict[tuple[str, str], Compiled | None] = {}

    def compiled(self, table: SourceTable) -> Compiled | None:
        """The functions of one table, or None if no rule is about it."""
        if table.where not in self._compiled:
            self._compiled[table.where] = compile_rules(
                self.rules, table.relation, self.types, table.key_at, self._fail
            )
        return self._compiled[table.where]

    def _fail(self, rule: str, table: Compiled, row: Row, why: str) -> None:
        self.failures[rule, why] += 1

    # -- rows --------------------------------------------------------------------------------------

    async def pages(self, table: SourceTable, where: sql.Composable | None) -> AsyncIterator[list[Row]]:
        """The rows that fulfil some SQL, or all; other things may be asked between two pages."""
        if where is NEVER:
            return
        cursor = sql.Identifier(f"replicator_{next(self._cursors)}")
        await self._source.execute(
            sql.SQL("DECLARE {} NO SCROLL CURSOR FOR {}").format(cursor, _select(table, where))
        )
        fetch = sql.SQL("FETCH {} FROM {}").format(sql.Literal(PAGE), cursor)
        while True:
            # What the server has printed, before anybody makes objects of it.
            result = (await self._source.execute(fetch)).pgresult
            assert result is not None, "FETCH answers rows"
            columns = range(result.nfields)
            page: list[Row] = [
                tuple([_text(result.get_value(at, column)) for column in columns])
                for at in range(result.ntuples)
            ]
            if page:
                yield page
            if len(page) < PAGE:
                break
        await self._source.execute(sql.SQL("CLOSE {}").format(cursor))

    async def keyed(
        self, lookup: Lookup, wanted: Collection[Values]
    ) -> AsyncIterator[tuple[SourceTable, Row]]:
        """Rows that a lookup may enter under one of these keys: all that it does, and perhaps others."""
        for table in self.seen.tables:
            if not lookup.table.matches(*table.where):
                continue
            where = every(
                is_one_of(key, {one[at] for one in wanted}, table.relation, self.types, self.rules.dialect)
                for at, key in enumerate(lookup.keys)
                if not isinstance(key, Each) and wanted
            )
            async for page in self.pages(table, where):
                for row in page:
                    yield table, row

    # -- lookups -----------------------------------------------------------------------------------

    async def answer(self, needs: Iterable[Need], *, forget: bool = False) -> dict[Need, set[Values]]:
        """To which values these keys lead. What is not forgotten is not asked again."""
        needs = set(needs)
        new = needs - self.known.keys()
        asked: dict[str, set[str]] = {}
        for lookup, key in new:
            asked.setdefault(lookup, set()).add(key)
            self.known[lookup, key] = set()
        for lookup, wanted in asked.items():
            await self._look_up(self.lookups[lookup], wanted)
        found = {need: self.known[need] for need in needs}
        for need in new if forget else ():
            del self.known[need]
        return found

    async def _look_up(self, lookup: Lookup, wanted: set[str]) -> None:
        # A key that stands for a long text cannot be read back.
        is_readable = not any(key.startswith("#") for key in wanted)
        values = [keys.unpack(key) for key in wanted] if is_readable else []
        async for table, row in self.keyed(lookup, values):
            compiled = self.compiled(table)
            for found, key, packed in compiled.entries(row, self.now) if compiled else ():
                if found == lookup.id and key in wanted:
                    self.known[lookup.id, key].add(keys.unpack(packed))

    async def leading_to(
        self, lookup: Lookup, at: int, wanted: Collection[Scalar], as_text: bool
    ) -> set[Scalar] | None:
        """The first of the keys that may lead to one of these values; None if only reading all would tell."""
        found: set[Scalar] = set()
        for table in self.seen.tables:
            if not lookup.table.matches(*table.where):
                continue
            where = is_one_of(
                lookup.values[at], wanted, table.relation, self.types, self.rules.dialect, as_text=as_text
            )
            compiled = self.compiled(table)
            if where is None or compiled is None:
                return None
            async for page in self.pages(table, where):
                entries = [entry for row in page for entry in compiled.entries(row, self.now)]
                made = [key for name, key, _ in entries if name == lookup.id]
                if any(key.startswith("#") for key in made):
                    return None
                found |= {keys.unpack(key)[0] for key in made}
        return found


def _select(table: SourceTable, where: sql.Composable | None) -> sql.Composed:
    conditions = [sql.SQL("true") if where is None else where]
    if table.row_filter is not None:
        # As the source's own catalogue printed it.
        conditions.append(sql.SQL(table.row_filter))
    return sql.SQL("SELECT {} FROM {} {} WHERE {}").format(
        sql.SQL(", ").join(sql.Identifier(column.name) for column in table.relation.columns),
        # The rows of partitions are in the log as the root's; those of heirs are not.
        sql.SQL("" if table.kind == "p" else "ONLY"),
        sql.Identifier(*table.where),
        sql.SQL(" AND ").join(sql.SQL("({})").format(condition) for condition in conditions),
    )


def _text(value: bytes | None) -> str | None:
    return None if value is None else str(value, "utf-8")
