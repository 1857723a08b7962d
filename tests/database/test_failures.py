"""What the driver says of a failure → what we say of it: the cause, and never a row."""

from __future__ import annotations

import psycopg
import pytest

from replicator.database import connected, failure
from replicator.errors import ConfigError, ReplicatorError, Unavailable
from tests.fixtures.postgres import Database
from tests.fixtures.proxy import MakeProxy

SECRET = "Zoë Secret, 1979-02-03"


async def test_a_copy_that_is_cancelled_tells_no_row(database: Database) -> None:
    database.execute("CREATE TABLE kept (said text)")
    database.execute(
        "CREATE FUNCTION end_it() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN PERFORM pg_cancel_backend(pg_backend_pid()); PERFORM pg_sleep(60); RETURN new; END $$"
    )
    database.execute("CREATE TRIGGER end_it BEFORE INSERT ON kept FOR EACH ROW EXECUTE FUNCTION end_it()")
    async with connected(database.owner_dsn, "test") as connection:
        with pytest.raises(psycopg.Error) as caught:
            async with connection.cursor().copy("COPY kept FROM STDIN") as copy:
                await copy.write(f"{SECRET}\n")
    assert SECRET in str(caught.value), "the server does repeat the row"
    told = failure(caught.value, "write")
    assert isinstance(told, Unavailable)
    assert SECRET not in f"{told.what} {told.hint}"


async def test_one_that_is_lost_while_it_is_made_does_not_answer(
    database: Database, proxies: MakeProxy
) -> None:
    """Wherever that is: also after the server has let it in."""
    proxy = proxies(database.server)
    dsn = proxy.to(database)
    async with connected(dsn, "test", schema="public"):
        whole = proxy.to_client
    for count in range(1, whole + 1, max(1, whole // 40)):
        proxy.cut_after("to_client", count)
        with pytest.raises(Unavailable):
            async with connected(dsn, "test", schema="public") as connection:
                await connection.execute("SELECT 1")


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT %s::integer",
        "SELECT %s::uuid",
        "INSERT INTO kept VALUES (%s), ('again'), ('again')",
        "INSERT INTO kept VALUES (%s), (NULL)",
    ],
)
async def test_a_value_that_does_not_fit_is_not_repeated(database: Database, statement: str) -> None:
    database.execute("CREATE TABLE kept (said text PRIMARY KEY)")
    async with connected(database.owner_dsn, "test") as connection:
        with pytest.raises(psycopg.Error) as caught:
            await connection.execute(statement.encode(), [SECRET])
    told = failure(caught.value, "write")
    assert type(told) is ReplicatorError and "SQLSTATE" in told.what
    assert SECRET not in f"{told.what} {told.hint}"


def test_who_is_not_known_by_the_socket_is_told_of_the_other_ways() -> None:
    said = 'connection to server on socket "/x" failed: FATAL:  Peer authentication failed for user "p"'
    told = failure(psycopg.OperationalError(said), "clinic")
    assert isinstance(told, ConfigError)
    assert "runuser" in told.hint
