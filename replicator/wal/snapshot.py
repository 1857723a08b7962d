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
from replicator.wal.beside import beside
from replicator.wal.copy_out import copy_out
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


async def require_readable(source: Connection, relation: Relation) -> None:
    """Refuse a table that we may not read: the log tells what changes in it, not what was there before."""
    label = qualify(relation.namespace, relation.name)
    for may_use, may_select in await rows(source, _q.may_read, oid=relation.oid):
        role = quote(source.info.user)
        grants = [] if may_use else [f"GRANT USAGE ON SCHEMA {quote(relation.namespace)} TO {role};"]
        grants += [] if may_select else [f"GRANT SELECT ON {label} TO {role};"]
        if grants:
            raise SourceUnready(f"role {role} may not read {label}", "\n".join(grants))


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
    where = (table.relation.namespace, table.relation.name)
    taken, is_there = _Taken(), False
    try:
        async with beside(source, [where]):
            is_there = True
            visibility = Visibility.parse((await rows(source, _q.visibility))[0][0])
            # From here on it stays as it is; whether it has stayed so until here has to be asked.
            if [
                one._replace(rows_estimated=0) for one in await read_tables(source, publication, [where])
            ] != [table._replace(rows_estimated=0)]:
                raise Moved
            await copy_out(source, query, taken.take)
    except (UndefinedTable, InvalidSchemaName):
        if is_there:
            raise  # what its filter calls is gone
        raise Moved from None
    read = _rows(taken.lines)
    is_last = not taken.is_full and (only is not None or len(read) < limit)
    return Chunk(table.relation, table.key_at, read, visibility, is_last, taken.size)


class _Taken:
    """The lines of a chunk, until it is full. The server has to finish its sentence; we forget the rest."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.is_full = False
        self.size = 0

    def take(self, line: bytes) -> None:
        if self.size >= CHUNK_BYTES:
            self.is_full = True
            return
        self.size += len(line)
        self.lines.append(line)


def next_limit(limit: int, chunk: Chunk) -> int:
    """How many rows to ask for next, so that a chunk's size stays near its bound."""
    fitting = len(chunk.rows) * CHUNK_BYTES // (2 * max(1, chunk.size))
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


def _rows(lines: Sequence[bytes]) -> list[Row]:
    """Lines of COPY's text format, each with its end; tabs and ends of lines in values are escaped."""
    text = b"".join(lines).decode()
    if "\\" not in text:
        return [tuple(line.split("\t")) for line in text.split("\n")[:-1]]
    return [_row(line) for line in text.split("\n")[:-1]]


def _row(line: str) -> Row:
    values = line.split("\t")
    if "\\" not in line:
        return tuple(values)
    return tuple(None if value == "\\N" else _ESCAPE.sub(_unescape, value) for value in values)


def _unescape(match: re.Match[str]) -> str:
    return _ESCAPED.get(match[1], match[1])
