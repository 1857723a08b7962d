"""Every named statement fits the schema it is written for, on every Postgres."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

import psycopg
import pytest

from replicator import queries
from replicator.database import migrate

if TYPE_CHECKING:
    from tests.fixtures.postgres import Connection, Database

#: A file of `sql/` and the name of a block in it.
Name = tuple[str, str]
NAMED: dict[Name, str] = {
    (path.stem, name): text.decode()
    for path in sorted(queries.house("sql").glob("*.sql"))
    for name, text in queries.load(path.stem).blocks.items()
}
#: What makes the tables that the other statements need.
MAKES: tuple[Name, ...] = (("clinic", "schema"), ("clinic", "publish"))
#: Statements that cannot be prepared; they are carried out, and leave nothing behind.
DONE = ("COPY", "LISTEN", "LOCK", "NOTIFY", "SET", "TRUNCATE")


def _explained(text: str) -> tuple[str, int]:
    """A statement as PREPARE takes it, and how many parameters it has."""
    names = list(dict.fromkeys(re.findall(r"%\((\w+)\)[sb]", text)))
    numbered = re.sub(r"%\((\w+)\)[sb]", lambda match: f"${names.index(match[1]) + 1}", text)
    return numbered.replace("%%", "%") if names else text, len(names)


def _try(connection: Connection, text: str) -> None:
    statement, count = _explained(text)
    kind = re.sub(r"--.*\n", "", statement).split()[0]
    if kind == "COPY":
        with connection.cursor().copy(statement.encode()):
            pass  # no row, in whichever format
    elif kind in DONE:
        connection.execute(statement.encode())
    else:
        connection.execute(f"PREPARE tried AS {statement}".encode())
        nothing = f"({', '.join(['NULL'] * count)})" if count else ""
        connection.execute(f"EXPLAIN EXECUTE tried{nothing}".encode())
        connection.execute(b"DEALLOCATE tried")


def unfit(connection: Connection) -> dict[Name, str]:
    """The statements that Postgres does not take, and what it says of them."""
    said: dict[Name, str] = {}
    for name, text in NAMED.items():
        if name in MAKES:
            continue
        try:
            with connection.transaction(force_rollback=True):
                _try(connection, text)
        except psycopg.Error as error:
            said[name] = str(error)
    return said


@pytest.fixture
def clinic(database: Database) -> Connection:
    """A clinic and a storage in one database, and a connection that sees both."""
    asyncio.run(migrate(database.dsn, "replicator"))
    for name in MAKES:
        database.execute(NAMED[name])
    return database.connect(options="-c search_path=replicator,public")


def test_every_named_statement_fits_the_schema(clinic: Connection) -> None:
    assert len(NAMED) > 50
    assert not unfit(clinic)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            "ALTER TABLE ops RENAME COLUMN subkey TO sub_key",
            {
                *(
                    ("buckets", name)
                    for name in ("append_ops", "sweep_table", "read_plain", "read_bucket", "overtaken")
                ),
                *(("status", name) for name in ("rows_held", "held")),
                *{("verify", "newest_ops"), ("audit", "ops_of")},
                *(("compact", name) for name in ("note_overtaking", "read_large", "read_small", "place_ops")),
            },
        ),
        (
            "ALTER TABLE row_states DROP COLUMN row",
            {
                ("rows", "read_states"),
                ("rows", "bring_states"),
                ("rows", "write_states"),
                ("verify", "next_kept"),
                ("verify", "kept_rows"),
            },
        ),
        (
            "ALTER TABLE prescriptions ALTER COLUMN dosage TYPE integer USING 0",
            {("clinic", "prescribe")},
        ),
    ],
)
def test_one_that_fits_no_longer_is_named(clinic: Connection, change: str, expected: set[Name]) -> None:
    clinic.execute(change.encode())
    assert unfit(clinic).keys() == expected
