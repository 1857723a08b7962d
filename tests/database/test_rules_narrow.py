"""SQL that narrows lets every row through that the rules' own comparison finds equal, by an index."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg import sql

from replicator.observe.rules.narrow import NEVER, either, every, is_one_of
from replicator.observe.rules.row_values import RowValues
from replicator.observe.rules.tables import see
from replicator.rules import keys
from replicator.rules.columns.types import BUILT_IN
from replicator.rules.expression import EDITION_1, EDITION_3, Call, Column, Dialect, Expression, Scalar
from replicator.rules.model import TableName
from replicator.rules.parse import parse_rules
from replicator.wal.source import printing
from replicator.wal.types import read_types

if TYPE_CHECKING:
    from tests.fixtures.postgres import Database

RULES = parse_rules('bucket_definitions: {all: {data: [SELECT * FROM "values"]}}', "rules.yaml")
NAME = TableName(None, "values")
UUID = "0a0b0c0d-0000-4000-8000-00000000000a"
#: SQL type → values of it, as SQL writes them.
VALUES = {
    "text": ["''", "'a'", "'A'", "'1'", "'a''b\\c'", "'é'", "' 1 '", f"'{UUID}'", "repeat('x', 400)"],
    "varchar(9)": ["'a'", "'1'", "'1.0'"],
    "name": ["'a'", "'1'"],
    "char(4)": ["'a'", "'1'"],
    "uuid": [f"'{UUID}'", f"'{UUID.upper()}'"],
    "smallint": ["0", "1", "-7"],
    "integer": ["0", "1", "2147483647"],
    "bigint": ["0", "1", "-9223372036854775808", "9223372036854775807"],
    "numeric": ["0", "1", "1.50", "1.5", "'NaN'"],
    "boolean": ["true", "false"],
    "real": ["1", "0.1", "'Infinity'"],
    "double precision": ["1", "0.1", "'NaN'"],
    "date": ["'2024-01-01'"],
    "timestamptz": ["'2024-01-01 00:00'", "'2024-01-01 00:00:00.5'"],
    "bytea": ["'\\x01'"],
    "jsonb": ["'1'", "'[\"a\"]'"],
    "text[]": ["'{a,b}'"],
    "oid": ["1"],
    "inet": ["'10.0.0.1'"],
    "mood": ["'a'", "'1'"],
    "word": ["'a'", "'1'"],
}
#: Values that somebody else's row or token may be compared by.
STRANGERS: list[Scalar] = [
    "",
    "a",
    "1",
    "01",
    "1.0",
    "1.50",
    "t",
    "nonsense",
    "\0",
    0,
    1,
    5,
    -7,
    1.0,
    0.1,
    2**63,
]
STRANGERS += [float("inf"), float("nan"), b"\1", UUID, UUID.upper(), "a   ", "10.0.0.1"]


@pytest.mark.parametrize("dialect", [EDITION_1, EDITION_3], ids=["edition 1", "edition 3"])
async def test_no_row_that_is_equal_is_left_out(database: Database, dialect: Dialect) -> None:
    database.execute("CREATE TYPE mood AS ENUM ('a', '1')")
    database.execute("CREATE DOMAIN word AS text")
    columns = ", ".join(f"c{at} {name}" for at, name in enumerate(VALUES))
    database.execute(f'CREATE TABLE "values" (id serial PRIMARY KEY, {columns})')
    for at, several in enumerate(VALUES.values()):
        for value in [*several, "NULL"]:
            database.execute(f'INSERT INTO "values" (c{at}) VALUES ({value})')
    tried = narrowed = 0
    async with await psycopg.AsyncConnection.connect(printing(database.dsn), autocommit=True) as source:
        [table] = (await see(source, RULES, "powersync", "replicator")).tables
        oids = {column.type_oid for column in table.relation.columns}
        types = BUILT_IN.with_types(await read_types(source, BUILT_IN.unknown(oids)))
        read = await source.execute('SELECT * FROM "values"')
        assert read.pgresult is not None
        rows = [
            tuple(
                None if (raw := read.pgresult.get_value(at, column)) is None else raw.decode()
                for column in range(read.pgresult.nfields)
            )
            for at in range(read.pgresult.ntuples)
        ]
        seen = [RowValues(table.relation, row, NAME, 0, dialect, types) for row in rows]
        for at in range(len(VALUES)):
            column = Column(f"c{at}")
            own: list[Scalar] = [value for row in seen for value in row.members(column)]
            for as_text, expr in ((False, column), (True, column), (False, Call("cast text", (column,)))):
                for wanted in (*own, *STRANGERS):
                    tried += 1
                    if as_text:
                        wanted = keys.as_text(wanted)
                    where = is_one_of(expr, [wanted], table.relation, types, dialect, as_text=as_text)
                    if where is None:
                        continue
                    narrowed += 1
                    query = sql.SQL('SELECT id::text FROM "values" WHERE {}').format(where)
                    found = {row[0] for row in await (await source.execute(query)).fetchall()}
                    equal = {
                        row[0]
                        for row, values in zip(rows, seen, strict=True)
                        if _same(values, expr, wanted, as_text)
                    }
                    assert equal <= found, (list(VALUES)[at], as_text, expr, wanted)
    assert tried > narrowed > 500


def _same(row: RowValues, expr: Expression, wanted: Scalar, as_text: bool) -> bool:
    """As buckets' names and lookups' keys compare."""
    value = row.value(expr)
    if value is None or wanted is None:
        return False
    return keys.word(keys.as_text(value) if as_text else value) == keys.word(wanted)


@pytest.mark.parametrize(
    ("name", "value"), [("uuid", UUID), ("text", "a"), ("integer", 1), ("bigint", 1), ("varchar(9)", "a")]
)
async def test_an_index_is_used(database: Database, name: str, value: Scalar) -> None:
    database.execute(f'CREATE TABLE "values" (id serial PRIMARY KEY, c {name})')
    database.execute('CREATE INDEX its_index ON "values" (c)')
    async with await psycopg.AsyncConnection.connect(database.owner_dsn, autocommit=True) as source:
        [table] = (await see(source, RULES, "powersync", "replicator")).tables
        where = is_one_of(Column("c"), [value], table.relation, BUILT_IN, EDITION_1)
        assert where is not None
        await source.execute("SET enable_seqscan = off")
        plan = await source.execute(sql.SQL('EXPLAIN SELECT * FROM "values" WHERE {}').format(where))
        assert any("its_index" in line for (line,) in await plan.fetchall())


def test_what_cannot_be_told_in_sql_narrows_nothing() -> None:
    some = sql.SQL("a = 1")
    assert every([None, None]) is None
    assert every([None, some]) == sql.Composed([some])
    assert either([some, None]) is None
    assert either([]) is NEVER
