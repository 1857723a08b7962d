"""A source table → chunks of its rows, by key, each read between two marks in the log.

The rows are read with COPY in text format, so that a value looks exactly as the stream would print it. Each
chunk is one short transaction with a snapshot of its own: nothing is held from one chunk to the next.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from psycopg import sql
from psycopg.errors import InvalidSchemaName, UndefinedTable

from replicator import queries
from replicator.database import Connection, rows
from replicator.errors import SourceUnready
from replicator.wal.messages import Column, Relation, Row
from replicator.wal.names import like, qualify, quote
from replicator.wal.window import Chunk, Key, Visibility

_q = queries.load("copy")

#: The prefix of our logical messages.
PREFIX = "replicator"
#: A chunk ends with the row that passes this, whatever its number of rows; the next asks for fewer.
CHUNK_BYTES = 4 << 20
CHUNK_ROWS_MAX = 10_000

_IDENTITIES = {"d": "DEFAULT", "f": "FULL", "n": "NOTHING"}
_ESCAPE = re.compile(r"\\(.)")
_ESCAPED = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


class Table(NamedTuple):
    """A published table, as the source's catalogue describes it."""

    relation: Relation
    kind: str
    rows_estimated: int
    #: Which catalogue entry publishes it.
    membership: str
    #: The publication's row filter, as SQL.
    row_filter: str | None
    #: What its rows are told apart by, with their SQL types.
    key: tuple[tuple[str, str], ...]
    #: Columns that may hold something in rows that were there before the column was.
    filled: frozenset[str]
    #: What else the catalogue says that the log does not tell.
    form: dict[str, Any]

    @property
    def key_at(self) -> tuple[int, ...]:
        names = [column.name for column in self.relation.columns]
        return tuple(names.index(name) for name, _ in self.key)

    @property
    def label(self) -> str:
        return qualify(self.relation.namespace, self.relation.name)


async def read_tables(source: Connection, publication: str, wanted: Sequence[tuple[str, str]]) -> list[Table]:
    """Those of the wanted tables that exist and are published."""
    found = await rows(
        source,
        _q.tables,
        publication=publication,
        namespaces=[like(namespace) for namespace, _ in wanted],
        names=[like(name) for _, name in wanted],
    )
    return [_table(*row) for row in found]


def _table(
    oid: int,
    namespace: str,
    name: str,
    kind: str,
    identity: str,
    estimate: int,
    membership: str,
    row_filter: str | None,
    key: list[str],
    columns: list[tuple[str, int, int, str, bool]],
    form: dict[str, Any],
) -> Table:
    types = {column: sql_type for column, _, _, sql_type, _ in columns}
    sent = tuple(
        Column(column, type_oid, typmod, identity == "f" or (identity != "n" and column in key))
        for column, type_oid, typmod, _, _ in columns
    )
    relation = Relation(oid, namespace, name, identity, sent)  # type: ignore[arg-type]  # the catalogue knows only these letters
    key_types = tuple((column, types[column]) for column in key if column in types)
    filled = frozenset(column for column, _, _, _, is_filled in columns if is_filled)
    return Table(relation, kind, estimate, membership, row_filter, key_types, filled, form)


def require_key(table: Table) -> None:
    """Refuse a table whose rows cannot be told apart."""
    if not table.key:
        raise SourceUnready(
            f"table {table.label} has no primary key, or one that is DEFERRABLE: "
            f"its rows can be neither copied nor told apart",
            f"ALTER TABLE {table.label} ADD PRIMARY KEY (…);\n"
            f"or, where it is DEFERRABLE:\n"
            f"ALTER TABLE {table.label} DROP CONSTRAINT …, ADD PRIMARY KEY (…);\n"
            f"or, with a unique index on NOT NULL columns:\n"
            f"ALTER TABLE {table.label} REPLICA IDENTITY USING INDEX …;",
        )


def require_whole(table: Table, publication: str) -> None:
    """Refuse a publication that leaves changes out, and partitions that tell other things of old rows."""
    if not table.form["operations"]:
        raise SourceUnready(
            f"publication {publication} leaves out inserts, updates, deletes or truncates",
            f"What is left out would stay in the buckets as it was. The tables are copied again after:\n"
            f"ALTER PUBLICATION {quote(publication)} SET (publish = 'insert, update, delete, truncate');",
        )
    identity = table.relation.identity
    for _, leaf_identity, name in table.form["heaps"].values():
        if leaf_identity != identity:
            raise SourceUnready(
                f"{name}, a partition of {table.label}, has another replica identity than the table",
                f"What the log tells of its old rows cannot be used. The table is copied again after:\n"
                f"ALTER TABLE {name} REPLICA IDENTITY {_IDENTITIES.get(identity, 'USING INDEX …')};",
            )


async def write_mark(source: Connection, **content: str | int) -> None:
    """Write a mark into the log; it has committed when this returns."""
    await source.execute(_q.write_mark, {"content": json.dumps(content)})


class Moved(Exception):
    """The table is not what it was when the catalogue was looked at."""


async def read_chunk(
    source: Connection,
    publication: str,
    table: Table,
    *,
    after: Key | None,
    limit: int,
    only: Sequence[Key] | None = None,
) -> Chunk:
    """The next rows by key, or the rows of these keys."""
    query = _select(table, after, limit, only)
    lines: list[Row] = []
    size, is_full = 0, False
    async with source.transaction():
        await source.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        try:
            await source.execute(sql.SQL("LOCK TABLE {} IN ACCESS SHARE MODE").format(_name(table)))
        except (UndefinedTable, InvalidSchemaName):
            raise Moved from None
        visibility = Visibility.parse((await rows(source, _q.visibility))[0][0])
        # From here on it stays as it is; whether it has stayed so until here has to be asked.
        name = (table.relation.namespace, table.relation.name)
        if [one._replace(rows_estimated=0) for one in await read_tables(source, publication, [name])] != [
            table._replace(rows_estimated=0)
        ]:
            raise Moved
        async with source.cursor().copy(query) as copy:
            async for line in copy:
                # What is beyond the bound is read and forgotten: the server has to finish its sentence.
                is_full = size >= CHUNK_BYTES
                if not is_full:
                    size += len(line)
                    lines.append(_row(str(bytes(line), "utf-8")))
    is_last = not is_full and (only is not None or len(lines) < limit)
    return Chunk(table.relation, table.key_at, lines, visibility, is_last)


def next_limit(limit: int, chunk: Chunk) -> int:
    """How many rows to ask for next, so that a chunk's size stays near its bound."""
    size = sum(len(value) for row in chunk.rows for value in row if isinstance(value, str)) or 1
    fitting = len(chunk.rows) * CHUNK_BYTES // (2 * size)
    return max(10, min(CHUNK_ROWS_MAX, 2 * limit, fitting))


def _select(table: Table, after: Key | None, limit: int, only: Sequence[Key] | None) -> sql.Composed:
    key = sql.SQL(", ").join(sql.Identifier(name) for name, _ in table.key)
    conditions: list[sql.Composable] = []
    if table.row_filter:
        conditions.append(sql.SQL("({})").format(_verbatim(table.row_filter)))
    if after is not None:
        conditions.append(sql.SQL("({}) > {}").format(key, _literal(table, after)))
    if only is not None:
        keys = sql.SQL(", ").join(_literal(table, one) for one in only)
        conditions.append(sql.SQL("({}) IN ({})").format(key, keys))
    where = sql.SQL(" AND ").join([sql.SQL("true"), *conditions])
    columns = sql.SQL(", ").join(sql.Identifier(column.name) for column in table.relation.columns)
    return sql.SQL(
        "COPY (SELECT {columns} FROM {only} {name} WHERE {where} ORDER BY {key} LIMIT {limit}) TO STDOUT"
    ).format(
        columns=columns,
        only=sql.SQL("" if table.kind == "p" else "ONLY"),
        name=_name(table),
        where=where,
        key=key,
        limit=sql.Literal(limit),
    )


def _name(table: Table) -> sql.Identifier:
    return sql.Identifier(table.relation.namespace, table.relation.name)


def _literal(table: Table, key: Key) -> sql.Composed:
    values = [
        sql.SQL("{}::{}").format(sql.Literal(value), _verbatim(sql_type))
        for value, (_, sql_type) in zip(key, table.key, strict=True)
    ]
    return sql.SQL("({})").format(sql.SQL(", ").join(values))


def _verbatim(text: str) -> sql.SQL:
    """SQL that the source's own catalogue printed."""
    return sql.SQL(text)


def _row(line: str) -> Row:
    """One line of COPY's text format."""
    values = line.removesuffix("\n").split("\t")
    if "\\" not in line:
        return tuple(values)
    return tuple(None if value == "\\N" else _ESCAPE.sub(_unescape, value) for value in values)


def _unescape(match: re.Match[str]) -> str:
    return _ESCAPED.get(match[1], match[1])
