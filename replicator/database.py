"""A DSN → connections that see one schema, transactions, and a migrated storage.

Everything here speaks to the storage or, with no schema given, to the source. Connections are autocommit;
what must hold together says `async with connection.transaction()`. Errors of the driver become errors of
ours at this border, so that nobody further in needs to know SQLSTATEs.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, LiteralString, TypeAlias, TypeVar

import psycopg
from psycopg import sql
from psycopg.abc import PQGen
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from replicator import queries
from replicator.dsn import describe_dsn
from replicator.errors import ConfigError, ReplicatorError, StorageUnready, Unavailable

Connection = psycopg.AsyncConnection[TupleRow]
#: Lends a connection, its own or one of several, for as long as one stays inside.
Connect: TypeAlias = Callable[[], AbstractAsyncContextManager[Connection]]
_T = TypeVar("_T")

_q = queries.load("migrate")

#: What libpq says when trying again cannot help: a setting is wrong. (It gives no SQLSTATE while connecting.)
_REFUSED = re.compile(
    r"(password|Peer) authentication failed|no password supplied|no pg_hba\.conf entry|"
    r"(role|database) .* does not exist|not permitted to log in|certificate|"
    r"server does not support SSL|permission denied for database|root certificate file",
)
#: What libpq asks where nobody answers: our hint asks it, too.
_ASKED = re.compile(r"\s+Is the server running (locally|on that host) and accepting [^?]*\?")
_CHECK = "Check the DSN's user, password, database and sslmode."
_PEER = "On the socket, be that user (runuser -u NAME -- …); or name a host in the DSN, and a password."
#: Where Postgres itself has no advice.
_LACKS = "`replicator check` says what the role lacks, and prints the statements that give it."
#: The second: what stands in a schema one may not use is not to be seen.
_HINTS = {"42501": _LACKS, "42P01": _LACKS}
#: Classes of SQLSTATE after which the same words may succeed: connection, resources, operator, system.
_PASSING = ("08", "53", "57", "58", "40")
#: A peer that is gone without a word is asked after 10 s of silence, and given up 15 s later; where something
#: is unanswered, after this. Left to themselves, both ends would believe in each other for hours.
_KEEPALIVE = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3}
_UNANSWERED_MS = 60_000
#: Whoever wants a connection of several waits no longer for one that is free.
_LENT_S = 30.0
#: Left to itself, the driver looks around ten times a second while it waits, for Ctrl-C in programs
#: without a loop. Whoever waits here, for an answer or to be told something, sleeps until the socket has it.
_LOOK_AROUND_S = 60.0
#: What a session says of itself; not every system, or pooler, takes every one.
_MANNERS = (
    # A backend that waits for a lock would not notice that we are gone, and would keep ours.
    b"SET client_connection_check_interval = 2000",
    # Nor would an idle one, with the writer's lock.
    b"SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3",
    b"SET tcp_user_timeout = %d" % _UNANSWERED_MS,
    # What a database or a role sets against forgotten sessions would end one that waits for the rest of a
    # large transaction, or removes a large table's rows; and would end it again at each attempt.
    b"SET statement_timeout = 0; SET lock_timeout = 0; SET idle_in_transaction_session_timeout = 0",
    b"SET idle_session_timeout = 0; "
    # What asks the catalogue of a source with many tables looks large, and is small: to compile it takes
    # longer than to execute it.
    b"SET jit = off",
    b"SET transaction_timeout = 0",  # from 17 on
)


class _Told(psycopg.AsyncConnection[TupleRow]):
    """A connection that signs its errors: several are open at once, and any of them may be the one."""

    what = ""

    async def wait(
        self, gen: PQGen[_T], interval: float = _LOOK_AROUND_S, timeout: float | None = None
    ) -> _T:
        # Everything the driver says and hears goes through here.
        try:
            return await super().wait(gen, interval, timeout)
        except psycopg.Error as error:
            error.__dict__.setdefault("what", self.what)
            raise


def failure(error: psycopg.Error, what: str) -> ReplicatorError:
    """The error of ours that this error of the driver is; `what` names the thing that was tried."""
    what = error.__dict__.get("what") or what
    # What a server says beside its first line can be a row that was being written.
    first_line = error.diag.message_primary if error.sqlstate else None
    said = " ".join(_ASKED.sub("", first_line or str(error)).split())
    if error.sqlstate is None and _REFUSED.search(said):
        return ConfigError(f"{what}: {said}", _PEER if "Peer auth" in said else _CHECK)
    if error.sqlstate is None or error.sqlstate.startswith(_PASSING):
        is_full = (error.sqlstate or "").startswith("53")
        hint = "It lacks room or memory." if is_full else "Is the server running and reachable from here?"
        return Unavailable(f"{what}: {said}", hint)
    diagnosed = error.diag.message_primary or type(error).__name__
    if error.sqlstate.startswith("22"):  # a data exception, which may repeat the value that it is about
        about, _, _ = diagnosed.partition(":")
        diagnosed = type(error).__name__ if '"' in about else about
    hint = error.diag.message_hint or _HINTS.get(error.sqlstate, "")
    return ReplicatorError(f"{what}: {diagnosed} (SQLSTATE {error.sqlstate})", hint)


async def connect(dsn: str, what: str, *, schema: str | None = None) -> Connection:
    """An autocommit connection; with a schema, that schema and nothing else is its search path."""
    try:
        connection = await dial(_conninfo(dsn, what))
    except psycopg.Error as error:
        raise failure(error, f"cannot connect to {describe_dsn(dsn)} ({what})") from error
    connection.what = f"{what} on {describe_dsn(dsn)}"
    try:
        await _settle(connection, schema)
    except BaseException as error:  # a cancelled start, too, leaves nothing open behind it
        await connection.close()
        if isinstance(error, psycopg.Error):
            raise failure(error, connection.what) from error
        raise
    return connection


def _conninfo(dsn: str, what: str) -> str:
    settings: dict[str, str | int] = {
        "application_name": f"replicator {what}",
        "connect_timeout": 10,
        # Longer than the server's: one that waits for a lock takes nothing in for a while, and lives.
        "tcp_user_timeout": 2 * _UNANSWERED_MS,
        **_KEEPALIVE,
    }
    known = conninfo_to_dict(dsn)
    wanted = {key: value for key, value in settings.items() if key not in known}
    # Where a database, a role or the environment says SQL_ASCII, the driver gives out bytes instead of text.
    return make_conninfo(dsn, client_encoding="UTF8", **wanted)


async def dial(conninfo: str) -> _Told:
    """A connection that is either handed over or closed, also if its maker is cancelled meanwhile."""
    connecting = asyncio.ensure_future(_Told.connect(conninfo, autocommit=True))
    try:
        # One half made when its maker is cancelled would stay open until somebody collects it.
        return await asyncio.shield(connecting)
    except asyncio.CancelledError:
        await asyncio.wait({connecting})
        if connecting.exception() is None:
            await connecting.result().close()
        raise


async def _settle(connection: Connection, schema: str | None) -> None:
    for manner in _MANNERS:
        with suppress(psycopg.Error):
            await connection.execute(manner)
    if schema is not None:
        await connection.execute(sql.SQL("SET search_path TO {}, pg_temp").format(sql.Identifier(schema)))


@asynccontextmanager
async def connected(dsn: str, what: str, *, schema: str | None = None) -> AsyncIterator[Connection]:
    """A connection for one piece of work; what the driver raises meanwhile leaves as an error of ours."""
    connection = await connect(dsn, what, schema=schema)
    try:
        yield connection
    except psycopg.Error as error:
        # It may be another connection's, used within this one's time; that one has signed it.
        raise failure(error, f"{what} on {describe_dsn(dsn)}") from error
    finally:
        await connection.close()


@asynccontextmanager
async def pooled(dsn: str, what: str, *, schema: str | None = None, most: int = 8) -> AsyncIterator[Connect]:
    """Up to so many connections, each lent to one piece of work after another."""
    where = f"{what} on {describe_dsn(dsn)}"

    async def configure(connection: Connection) -> None:
        assert isinstance(connection, _Told)
        connection.what = where
        await _settle(connection, schema)

    pool = AsyncConnectionPool[_Told](
        _conninfo(dsn, what),
        connection_class=_Told,
        kwargs={"autocommit": True},
        min_size=1,
        max_size=most,
        open=False,
        name=what,
        configure=configure,
        timeout=_LENT_S,
    )

    @asynccontextmanager
    async def connect() -> AsyncIterator[Connection]:
        try:
            async with pool.connection() as connection:
                yield connection
        except PoolTimeout:
            raise Unavailable(
                f"{where}: no connection within {_LENT_S:g} s", "Is it running and reachable?"
            ) from None
        except psycopg.Error as error:
            raise failure(error, where) from error

    await pool.open()
    try:
        yield connect
    finally:
        await pool.close()


@dataclass(frozen=True, slots=True)
class Migration:
    """One numbered step towards the schema."""

    number: int
    name: str
    text: str


def migrations(folder: Path | None = None) -> list[Migration]:
    """Every migration this release knows, in order."""
    found = []
    for path in sorted((folder or queries.house("sql") / "migrations").glob("*.sql")):
        number, _, name = path.stem.partition("_")
        found.append(Migration(int(number), name, path.read_text(encoding="utf-8")))
    assert [m.number for m in found] == list(range(1, len(found) + 1)), "migrations count 1, 2, 3 …"
    return found


@dataclass(frozen=True, slots=True)
class MigrationPlan:
    """What stands between a storage database and this release."""

    schema: str
    creates_schema: bool
    pending: tuple[Migration, ...]
    #: What all of them together arrive at: for a storage in which there is nothing yet.
    at_once: str | None = None

    def statements(self) -> list[str]:
        """The SQL of the plan, to read or to run; nothing when there is nothing to do."""
        if not self.pending:
            return []
        name = sql.Identifier(self.schema).as_string(None)
        create = [f"CREATE SCHEMA {name};"] if self.creates_schema else []
        return [
            *create,
            f"SET LOCAL search_path TO {name}, pg_temp;",
            *([m.text for m in self.pending] if self.at_once is None else [self.at_once]),
        ]


async def migrate(
    dsn: str, schema: str, *, dry_run: bool = False, known: list[Migration] | None = None
) -> MigrationPlan:
    """Bring the storage to the schema this release knows, in one transaction; return what it took.

    A new one is made as it is to be, in half the time of all the steps; those given are taken one by one.
    """
    async with connected(dsn, "migrate") as connection, connection.transaction():
        await connection.execute(_q.lock, {"schema": schema})
        plan = await _plan(connection, schema, migrations() if known is None else known)
        if known is None and plan.pending and plan.pending[0].number == 1:
            plan = replace(plan, at_once=(queries.house("sql") / "schema.sql").read_text(encoding="utf-8"))
        if dry_run:
            return plan
        for statement in plan.statements():
            await connection.execute(statement.encode())
        for migration in plan.pending:
            await connection.execute(_q.record, {"number": migration.number, "name": migration.name})
    return plan


async def check_migrated(connection: Connection, schema: str) -> None:
    """Refuse a storage that is not exactly at the schema this release knows."""
    plan = await _plan(connection, schema, migrations())
    if plan.pending:
        raise StorageUnready(
            f"the storage schema {schema} lacks {len(plan.pending)} migration(s), "
            f"the first being {plan.pending[0].number} {plan.pending[0].name}",
            "Run: replicator migrate",
        )


async def _plan(connection: Connection, schema: str, known: list[Migration]) -> MigrationPlan:
    exists = await _one(connection, _q.schema_exists, schema=schema)
    migrated = exists and await _one(connection, _q.is_migrated, schema=schema)
    if exists and not migrated:
        stranger = await _one(connection, _q.occupied, schema=schema)
        if stranger is not None:
            raise StorageUnready(
                f"the schema {schema} exists and holds {stranger}, but replicator never migrated it",
                "Choose another name under storage.schema, or drop that schema if it is left over.",
            )
    applied: list[tuple[int, str]] = []
    if migrated:
        for role, grants in await rows(connection, _q.who_may_not_read, schema=schema):
            raise StorageUnready(
                f"role {role} may not read the storage schema {schema}",
                "`replicator check` and `replicator publication plan --role NAME` print what a role that "
                f"replicates needs. One that only looks needs: {grants}",
            )
        name = sql.Identifier(schema)
        await connection.execute(sql.SQL("SET search_path TO {}, pg_temp").format(name))
        applied = [(int(row[0]), str(row[1])) for row in await rows(connection, _q.applied)]
    _check_history(schema, applied, known)
    return MigrationPlan(schema, not exists, tuple(known[len(applied) :]))


def _check_history(schema: str, applied: list[tuple[int, str]], known: list[Migration]) -> None:
    ours = [(m.number, m.name) for m in known]
    if applied[: len(ours)] == ours and len(applied) > len(ours):
        raise StorageUnready(
            f"the storage schema {schema} is at migration {applied[-1][0]}, "
            f"newer than this release, which knows {len(ours)}",
            "Run the release that migrated it, or a later one. Nothing was changed.",
        )
    if applied != ours[: len(applied)]:
        raise StorageUnready(
            f"the storage schema {schema} was migrated by something else: its history is not ours",
            "Choose another name under storage.schema.",
        )


async def rows(connection: Connection, query: bytes | LiteralString, **values: Any) -> list[TupleRow]:
    """Every row of a query."""
    cursor = await connection.execute(query, values or None)
    return await cursor.fetchall()


async def _one(connection: Connection, query: bytes, **values: Any) -> Any:
    found = await rows(connection, query, **values)
    return found[0][0] if found else None
