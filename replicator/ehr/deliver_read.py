"""A row's key → the row as the source has it now, in the text it prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from psycopg import sql
from psycopg.pq.abc import PGresult

from replicator.database import Connect
from replicator.ehr.model import Row

if TYPE_CHECKING:
    # Who feeds the queue reads rows as well, and starts without what speaks HTTP.
    from replicator.ehr.deliver_rows import Read


def reading(connect: Connect) -> Read:
    """`connect` lends connections to the source that print as its log does."""

    async def read(table: str, having: Mapping[str, str], order: Sequence[str]) -> list[Row]:
        # Values go beside the query, as text whose type the source finds out by their columns.
        where = [sql.SQL("{} = {}").format(sql.Identifier(name), sql.Placeholder()) for name in having]
        query = sql.SQL("SELECT * FROM {}").format(sql.Identifier(*table.split(".", 1)))
        if where:
            query += sql.SQL(" WHERE ") + sql.SQL(" AND ").join(where)
        if order:
            query += sql.SQL(" ORDER BY ") + sql.SQL(", ").join(map(sql.Identifier, order))
        async with connect() as connection:
            found = (await connection.execute(query, list(having.values()))).pgresult
        assert found is not None, "a query has an answer"
        names, values = texts_of(found)
        return [dict(zip(names, row, strict=True)) for row in values]

    return read


def texts_of(result: PGresult) -> tuple[list[str], list[list[str | None]]]:
    """The names of a result's columns, and its rows in the text that was sent."""
    columns = range(result.nfields)
    names = [(result.fname(column) or b"").decode() for column in columns]
    return names, [
        [
            None if (value := result.get_value(number, column)) is None else value.decode()
            for column in columns
        ]
        for number in range(result.ntuples)
    ]
