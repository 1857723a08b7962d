"""Who a login's subject is, looked up in the source's own table of users."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, nullcontext
from typing import TYPE_CHECKING

import pytest

from replicator.database import Connection, connected
from replicator.errors import ReplicatorError, Unavailable
from replicator.settings.keys import SubjectKeys
from replicator.sync.upstream_subject import source_lookup

if TYPE_CHECKING:
    from tests.fixtures.postgres import Database

ANN = "550e8400-e29b-41d4-a716-446655440000"
USERS = """
CREATE TABLE users (
    id uuid PRIMARY KEY, firebase_uid text, number bigint, "odd ""%name" text, login_id uuid, nothing text
);
CREATE SCHEMA other;
CREATE TABLE other.users (id text, firebase_uid text);
"""


@pytest.fixture
def clinic(database: Database) -> Database:
    database.execute(USERS)
    database.execute(
        """INSERT INTO users (id, firebase_uid, number, "odd ""%%name", login_id) VALUES
           (%s, 'ann', 7, 'x', %s), (gen_random_uuid(), 'twin', 8, NULL, NULL),
           (gen_random_uuid(), 'twin', 9, NULL, NULL), (gen_random_uuid(), '', 10, NULL, NULL),
           (gen_random_uuid(), NULL, NULL, NULL, NULL)""",
        [ANN, ANN],
    )
    database.execute("INSERT INTO other.users VALUES ('o1', 'ann'), ('o1', 'ann'), ('', 'empty')")
    return database


async def look_up(
    database: Database, subject: str, *, table: str = "users", match: str = "firebase_uid", value: str = "id"
) -> str | None:
    def source() -> AbstractAsyncContextManager[Connection]:
        return connected(database.dsn, "test")

    lookup = source_lookup(SubjectKeys(table=table, match=match, value=value), source)
    assert lookup is not None
    return await lookup(subject)


async def test_a_subject_becomes_the_id_of_its_row(clinic: Database) -> None:
    assert await look_up(clinic, "ann") == ANN
    assert await look_up(clinic, "ann", table="public.users", value="number") == "7"
    assert await look_up(clinic, "ann", table="other.users") == "o1"


async def test_columns_of_any_type_and_name_are_matched(clinic: Database) -> None:
    assert await look_up(clinic, "7", match="number") == ANN
    assert await look_up(clinic, ANN, match="login_id", value="firebase_uid") == "ann"
    assert await look_up(clinic, "x", match='odd "%name') == ANN
    assert await look_up(clinic, "ann", value='odd "%name') == "x"


@pytest.mark.parametrize(
    "subject", ["bob", "Ann", "ann ", "twin", "", "ann' OR true --", "%s", "%(a)s", "{}", "NULL", "é" * 5000]
)
async def test_nobody_and_more_than_one_are_no_subject(clinic: Database, subject: str) -> None:
    expected = clinic.execute("SELECT id::text FROM users WHERE firebase_uid = %s", [subject])
    found = await look_up(clinic, subject)
    assert found == (expected[0][0] if len(expected) == 1 else None)
    assert found != ANN


async def test_a_value_that_is_missing_is_no_subject(clinic: Database) -> None:
    assert await look_up(clinic, "ann", value="nothing") is None
    assert await look_up(clinic, "empty", table="other.users") is None


@pytest.mark.parametrize("match", ["number", "login_id"])
@pytest.mark.parametrize("subject", ["no number", "9" * 40, "1.5", "{}", "550e8400"])
async def test_a_subject_the_column_cannot_hold_is_nobody(clinic: Database, match: str, subject: str) -> None:
    assert await look_up(clinic, subject, match=match) is None


async def test_it_takes_one_round_trip(clinic: Database) -> None:
    """One statement, said once, in a transaction of its own that is over when the answer is here."""
    async with connected(clinic.dsn, "test") as source:
        pid = source.info.backend_pid
        counted = "SELECT query FROM pg_stat_activity WHERE pid = %s AND state = 'idle'"
        lookup = source_lookup(
            SubjectKeys(table="users", match="firebase_uid", value="id"), lambda: nullcontext(source)
        )
        assert lookup is not None
        assert await lookup("ann") == ANN
        (said,) = clinic.execute(counted, [pid])[0]
        assert said == ('SELECT DISTINCT "id"::text FROM "public"."users" WHERE "firebase_uid" = $1 LIMIT 2')


@pytest.mark.parametrize(
    ("table", "match", "value", "code"),
    [
        ("absent", "firebase_uid", "id", "42P01"),
        ("users", "absent", "id", "42703"),
        ("users", "firebase_uid", "absent", "42703"),
        ('users"; DROP TABLE users; --', "firebase_uid", "id", "42P01"),
        ("users", 'firebase_uid" = $1 OR true --', "id", "42703"),
        ("users", "firebase_uid", 'id" FROM users --', "42703"),
    ],
)
async def test_a_table_or_column_that_is_not_there_is_our_error_and_no_injection(
    clinic: Database, table: str, match: str, value: str, code: str
) -> None:
    with pytest.raises(ReplicatorError, match=code) as raised:
        await look_up(clinic, "s3cret", table=table, match=match, value=value)
    assert "s3cret" not in raised.value.what + raised.value.hint
    assert clinic.execute("SELECT count(*) FROM users") == [(5,)]


async def test_a_source_that_ends_the_session_is_unavailable(clinic: Database) -> None:
    async with connected(clinic.dsn, "test") as source:
        clinic.execute("SELECT pg_terminate_backend(%s, 10000)", [source.info.backend_pid])
        lookup = source_lookup(
            SubjectKeys(table="users", match="firebase_uid", value="id"), lambda: nullcontext(source)
        )
        assert lookup is not None
        with pytest.raises(Unavailable):
            await lookup("ann")


def test_nothing_is_looked_up_where_nothing_is_configured(clinic: Database) -> None:
    assert source_lookup(SubjectKeys(), lambda: connected(clinic.dsn, "test")) is None
