"""A row's key → the row as the source has it now, in the text it prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from psycopg import sql

from replicator.database import Connect
from replicator.ehr.deliver import Read
from replicator.ehr.model import Row


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
        names = [(found.fname(column) or b"").decode() for column in range(found.nfields)]
        rows: list[Row] = []
        for number in range(found.ntuples):
            values = (found.get_value(number, column) for column in range(found.nfields))
            texts = [None if value is None else value.decode() for value in values]
            rows.append(dict(zip(names, texts, strict=True)))
        return rows

    return read
