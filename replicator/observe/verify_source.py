"""A source table, piece by piece → what buckets and lookups must hold of its rows.

Each piece is one short transaction with a snapshot of its own, so that nothing of the source is held up by a
large table. With a piece comes what its reading could not see yet, and a position in the log by which
everything that it did see was written.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

import orjson
import psycopg
from psycopg import sql

from replicator import queries
from replicator.buckets.kept import Form
from replicator.buckets.kept import Place as Kept
from replicator.buckets.rows import pack_row, unpack_row
from replicator.config import Config
from replicator.database import Connection, connected, rows
from replicator.observe.rules.held import narrow_to
from replicator.observe.rules.narrow import NEVER
from replicator.observe.rules.reading import Reading
from replicator.observe.rules.tables import SourceTable, see
from replicator.rules import keys
from replicator.rules.columns.types import BUILT_IN
from replicator.rules.compile import Compiled
from replicator.rules.expression import Scalar
from replicator.rules.lookups import DUE, OUTER, entries_of
from replicator.rules.model import Put, Rules, Variant
from replicator.rules.route import Intent, move
from replicator.wal.beside import beside
from replicator.wal.lsn import Lsn
from replicator.wal.messages import Row
from replicator.wal.snapshot import read_tables
from replicator.wal.source import printing
from replicator.wal.types import read_types
from replicator.wal.window import Visibility

_q = queries.load("verify")

#: Rows of one piece, and how long one may take: whatever it holds up, it does not for longer.
PIECE_ROWS = 2_000
_PIECE_MS = 60_000
#: How long it is tried to read while somebody has locked a table.
_LOCKED_S = 3.0
#: After each, a rest as long as it took.
_REST = 1.0

#: What tells one version of a row from the next: no column of a table can have its name.
_VERSION = ("xmin",)

Entry = tuple[str, str, str, str]


class Named(NamedTuple):
    """What the name of a bucket says."""

    name: str
    variant: Variant
    values: tuple[Scalar, ...]

    @classmethod
    def read(cls, name: str, rules: Rules) -> Named | None:
        """None if no rule makes buckets of this name."""
        for variant in rules.variants():
            if name.startswith(variant.name + "["):
                try:
                    values = keys.unpack(name[len(variant.name) :])
                except ValueError:
                    return None
                return cls(name, variant, values) if len(values) == len(variant.parameters) else None
        return None


class Seen(NamedTuple):
    """When a reading took place."""

    visibility: Visibility
    #: Whatever was seen stands in the log before here.
    lsn: Lsn


class Version(NamedTuple):
    """One version of a row, as it is kept."""

    row: bytes
    #: Another version of the same row never has the same.
    number: str


@dataclass(slots=True)
class Piece:
    """Rows of the source, as buckets and lookups must hold them."""

    puts: list[Put] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    #: What is to be kept of the rows, if anything is.
    kept: list[tuple[Kept, bytes]] = field(default_factory=list)
    seen: Seen | None = None
    rows: int = 0


@asynccontextmanager
async def expecting(config: Config, rules: Rules) -> AsyncIterator[Source]:
    """The source, for as long as this is open."""
    async with connected(printing(config.source_dsn), "verify") as source:
        async with source.transaction():
            seen = await see(source, rules, config.source.publication, config.storage.schema_name)
        oids = {column.type_oid for table in seen.tables for column in table.relation.columns}
        types = BUILT_IN.with_types(await read_types(source, BUILT_IN.unknown(oids)))
        yield Source(
            source,
            Reading(source, rules, seen, types, 0.0),
            config.source.publication,
            config.replicate.row_bytes,
        )


class Source:
    """What must be where, as far as the source says."""

    def __init__(self, connection: Connection, reading: Reading, publication: str, row_most: int) -> None:
        self.connection, self.reading, self._publication = connection, reading, publication
        #: A row that is longer than this when printed is in no bucket.
        self._row_most = row_most
        self.tables = [t for t in reading.seen.tables if t.is_published and t.key_at]

    async def read_too(self, names: Sequence[tuple[str, str]]) -> None:
        """Read these tables as well, which no rule need name: rows of theirs may be kept."""
        known = {table.where for table in self.tables}
        wanted = [name for name in names if name not in known]
        for one in await read_tables(self.connection, self._publication, wanted) if wanted else ():
            if one.key_at:
                self.tables.append(SourceTable(one.relation, one.kind, one.key_at, True, one.row_filter))

    def as_today(self, lookup: str, subkey: str, value: str) -> str:
        """What is entered; if it is a row, in the columns of today: some may have been added since."""
        if not lookup.startswith((OUTER, DUE)):
            return value
        oid, _, _ = subkey.partition("/")
        for table in self.tables:
            if oid == str(table.relation.oid) and (row := unpack_row(value.encode(), table.relation)):
                return pack_row(row, table.relation).decode()
        return value

    async def pieces(
        self, table: SourceTable, where: sql.Composable | None, clock: float, *, with_entries: bool
    ) -> AsyncIterator[Piece]:
        """All rows of a table that fulfil some SQL, by key."""
        compiled, form = self.reading.compiled(table), Form(table.relation)
        is_wanted = compiled is not None or (with_entries and form.keeps)
        after: Sequence[str | None] | None = None
        while is_wanted and where is not NEVER:
            begun = time.monotonic()
            piece = Piece()
            async with self.at(clock) as visibility:
                found = await self._select(table, _page(table, where, after))
                if compiled is not None:
                    await self._place(compiled, found, clock, piece, with_entries)
            if with_entries and form.keeps:
                piece.kept = [(form.place(row), form.pack(row)) for row in found]
            piece.seen, piece.rows = await self._seen(visibility), len(found)
            yield piece
            if len(found) < PIECE_ROWS:
                return
            after = [found[-1][at] for at in table.key_at]  # type: ignore[misc]  # a key is text, or nothing
            await asyncio.sleep(_REST * (time.monotonic() - begun))

    async def narrowed(self, table: SourceTable, buckets: Sequence[Named]) -> sql.Composable | None:
        """SQL that every row in one of these buckets fulfils; None if there is none such."""
        values: dict[str, list[tuple[Scalar, ...]]] = {}
        for one in buckets:
            values.setdefault(one.variant.name, []).append(one.values)
        queries = [
            (variant, query)
            for variant in self.reading.rules.variants()
            for query in variant.data
            if variant.name in values and query.table.matches(*table.where)
        ]
        if not queries:
            return NEVER
        async with self.at(self.reading.now):
            return await narrow_to(self.reading, table, queries, values)

    async def of_rows(self, subkeys: Mapping[str, str], clock: float) -> Piece:
        """What must be held of these rows, by subkey; beside each, the id that it goes by for clients."""
        piece = Piece()
        async with self.at(clock) as visibility:
            for table in self.tables:
                compiled = self.reading.compiled(table)
                mine = {s: i for s, i in subkeys.items() if compiled and s.startswith(compiled.prefix)}
                if not mine or compiled is None:
                    continue
                found = await self._by_subkey(table, compiled.prefix, mine)
                kept = [row for row in found if compiled.subkey(row) in mine]
                await self._place(compiled, kept, clock, piece, True)
        piece.seen = await self._seen(visibility)
        return piece

    async def of_places(self, places: Sequence[Kept], clock: float) -> tuple[dict[Kept, Version], Seen]:
        """What is to be kept in these places, and which version of each row that is."""
        found: dict[Kept, Version] = {}
        async with self.at(clock) as visibility:
            for table in self.tables:
                form, head = Form(table.relation), b"%d\t" % table.relation.oid
                keys = [orjson.loads(one[len(head) :]) for one in places if one.startswith(head)]
                if keys and form.keeps:
                    names = [table.relation.columns[at].name for at in form.key_at]
                    for *row, version in await self._with_keys(table, names, keys, more=_VERSION):
                        found[form.place(tuple(row))] = Version(form.pack(tuple(row)), str(version))
        return found, await self._seen(visibility)

    @asynccontextmanager
    async def at(self, clock: float) -> AsyncIterator[Visibility]:
        """One moment of the source, in which rows are where they are at a time."""
        connection = self.connection
        async with beside(connection, [table.where for table in self.tables], _LOCKED_S):
            await connection.execute(f"SET LOCAL statement_timeout = {_PIECE_MS}".encode())
            self.reading.now = clock
            yield Visibility.parse((await rows(connection, _q.visibility))[0][0])

    async def _seen(self, visibility: Visibility) -> Seen:
        return Seen(visibility, Lsn.parse((await rows(self.connection, _q.log_position))[0][0]))

    async def _place(
        self, table: Compiled, found: Sequence[Row], clock: float, piece: Piece, with_entries: bool
    ) -> None:
        needs = {need for row in found for need in table.needs(row)}
        known = await self.reading.answer(needs, forget=True)
        for row in found:
            placed = [*table.place(row, clock), *table.place_joined(row, clock, lambda need: known[need])]
            puts: list[Intent] = []
            move(table, None, row, (), placed, puts.append)
            piece.puts += [put for put in puts if isinstance(put, Put) and len(put.data) <= self._row_most]
            if with_entries and (table.has_entries or table.is_kept):
                packed = pack_row(row, table.relation).decode() if table.is_kept else ""
                piece.entries += sorted(entries_of(table, row, clock, packed))

    async def _by_subkey(self, table: SourceTable, prefix: str, subkeys: Mapping[str, str]) -> list[Row]:
        names = [table.relation.columns[at].name for at in table.key_at]
        keys, ids = [], []
        for subkey, row_id in subkeys.items():
            text = subkey.removeprefix(prefix)
            key = [text] if len(names) == 1 else _parts(text, len(names))
            if key is None or text.startswith("#"):
                ids.append(row_id)  # a long key goes by its digest; the row has an id all the same
            else:
                keys.append(key)
        found = await self._with_keys(table, names, keys) if keys else []
        if ids and "id" in {column.name for column in table.relation.columns}:
            found += await self._select(table, sql.SQL("WHERE id::text = ANY ({})").format(sql.Literal(ids)))
        return found

    async def _with_keys(
        self,
        table: SourceTable,
        names: Sequence[str],
        keys: Sequence[Sequence[str]],
        more: Sequence[str] = (),
    ) -> list[Row]:
        columns = sql.SQL(", ").join(map(sql.Identifier, names))
        values = sql.SQL(", ").join(
            sql.SQL("({})").format(sql.SQL(", ").join(map(sql.Literal, k))) for k in keys
        )
        try:
            async with self.connection.transaction():
                return await self._select(table, sql.SQL("WHERE ({}) IN ({})").format(columns, values), more)
        except psycopg.DataError:  # what a bucket holds need not be a key that any row can have
            as_text = sql.SQL(", ").join(sql.SQL("{}::text").format(sql.Identifier(name)) for name in names)
            return await self._select(table, sql.SQL("WHERE ({}) IN ({})").format(as_text, values), more)

    async def _select(self, table: SourceTable, rest: sql.Composable, more: Sequence[str] = ()) -> list[Row]:
        """Rows, perhaps with columns that Postgres has of itself."""
        condition = sql.SQL("") if table.row_filter is None else sql.SQL(" AND ({})").format(
            sql.SQL(table.row_filter)
        )  # fmt: skip
        names = [*(column.name for column in table.relation.columns), *more]
        query = sql.SQL("SELECT {} FROM (SELECT {} FROM {} {} WHERE true{}) AS found {}").format(
            sql.SQL(", ").join(map(sql.Identifier, names)),
            sql.SQL(", ").join([sql.SQL("*"), *map(sql.Identifier, more)]),
            sql.SQL("" if table.kind == "p" else "ONLY"),
            sql.Identifier(*table.where),
            condition,
            rest,
        )
        # What the server has printed, before anybody makes objects of it.
        result = (await self.connection.execute(query)).pgresult
        assert result is not None, "SELECT answers rows"
        columns = range(result.nfields)
        return [
            tuple([_text(result.get_value(at, column)) for column in columns]) for at in range(result.ntuples)
        ]


def _page(
    table: SourceTable, where: sql.Composable | None, after: Sequence[str | None] | None
) -> sql.Composable:
    key = sql.SQL(", ").join(sql.Identifier(table.relation.columns[at].name) for at in table.key_at)
    conditions: list[sql.Composable] = [sql.SQL("true") if where is None else sql.SQL("({})").format(where)]
    if after is not None:
        values = sql.SQL(", ").join(map(sql.Literal, after))
        conditions.append(sql.SQL("({}) > ({})").format(key, values))
    return sql.SQL("WHERE {} ORDER BY {} LIMIT {}").format(
        sql.SQL(" AND ").join(conditions), key, sql.Literal(PIECE_ROWS)
    )


def _parts(text: str, count: int) -> list[str] | None:
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    is_key = isinstance(found, list) and len(found) == count and all(isinstance(one, str) for one in found)
    return found if is_key else None


def _text(value: bytes | None) -> str | None:
    return None if value is None else str(value, "utf-8")
