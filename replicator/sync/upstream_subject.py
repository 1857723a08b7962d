"""The subject of a login's token → the id that the source's own table of users has for it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import psycopg
from psycopg import sql

from replicator.database import Connection, failure
from replicator.settings.keys import SubjectKeys
from replicator.sync.upstream import Lookup


def source_lookup(
    subject: SubjectKeys, connection: Callable[[], AbstractAsyncContextManager[Connection]]
) -> Lookup | None:
    """A look into the source, on a connection of a pool or of its own; None if none is configured."""
    if subject.table is None:
        return None
    query = _query(subject)

    async def look_up(login_subject: str) -> str | None:
        async with connection() as source:
            return await find_subject(source, query, login_subject)

    return look_up


async def find_subject(source: Connection, query: sql.Composed, login_subject: str) -> str | None:
    """The one id there is for it, in one round trip; None if there is none, or more than one."""
    try:
        # Not prepared: a pooler may stand between.
        cursor = await source.execute(query, [login_subject], prepare=False)
        rows = await cursor.fetchall()
    except psycopg.DataError:
        return None  # such as a name where the column holds a uuid: nobody is called so
    except psycopg.Error as error:
        raise failure(error, "cannot look up the subject of a token (sync.token.subject)") from error
    return rows[0][0] if len(rows) == 1 and rows[0][0] else None


def _query(subject: SubjectKeys) -> sql.Composed:
    assert subject.table and subject.match and subject.value, "given together"
    schema, _, table = subject.table.rpartition(".")
    return sql.SQL("SELECT DISTINCT {}::text FROM {} WHERE {} = %s LIMIT 2").format(
        _quoted(subject.value), _quoted(schema or "public", table), _quoted(subject.match)
    )


def _quoted(*names: str) -> sql.Identifier:
    """A name; the driver would take a % in it for a parameter."""
    return sql.Identifier(*(name.replace("%", "%%") for name in names))
