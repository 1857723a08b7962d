"""What the driver says of a failure → what we say of it: the cause, and never a row."""

from __future__ import annotations

import psycopg
import pytest

from replicator.database import connected, failure
from replicator.errors import ReplicatorError, Unavailable
from tests.fixtures.postgres import Database

SECRET = "Zoë Secret, 1979-02-03"


async def test_a_copy_that_is_cancelled_tells_no_row(database: Database) -> None:
    database.execute("CREATE TABLE kept (said text)")
    database.execute(
        "CREATE FUNCTION end_it() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN PERFORM pg_cancel_backend(pg_backend_pid()); PERFORM pg_sleep(60); RETURN new; END $$"
    )
    database.execute("CREATE TRIGGER end_it BEFORE INSERT ON kept FOR EACH ROW EXECUTE FUNCTION end_it()")
    async with connected(database.dsn, "test") as connection:
        with pytest.raises(psycopg.Error) as caught:
            async with connection.cursor().copy("COPY kept FROM STDIN") as copy:
                await copy.write(f"{SECRET}\n")
    assert SECRET in str(caught.value), "the server does repeat the row"
    told = failure(caught.value, "write")
    assert isinstance(told, Unavailable)
    assert SECRET not in f"{told.what} {told.hint}"


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
    async with connected(database.dsn, "test") as connection:
        with pytest.raises(psycopg.Error) as caught:
            await connection.execute(statement.encode(), [SECRET])
    told = failure(caught.value, "write")
    assert type(told) is ReplicatorError and "SQLSTATE" in told.what
    assert SECRET not in f"{told.what} {told.hint}"
