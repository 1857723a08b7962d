"""Clinics in worse weather: behind a proxy, with buckets kept elsewhere, and stopped at a chosen place."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from replicator import queries
from replicator.database import migrate
from tests.fixtures.children import At, Child, StartChild
from tests.fixtures.least import restrict
from tests.fixtures.postgres import Database
from tests.oracle import tight

_BUCKETS = """
SELECT split_part(bucket, '#', 2), object_type, object_id, data::jsonb FROM (
    SELECT DISTINCT ON (bucket, object_type, object_id, subkey) ops.*
    FROM replicator.history AS ops, replicator.checkpoints WHERE slot = %s AND ops.op_id <= shown_op_id
    ORDER BY bucket, object_type, object_id, subkey, ops.op_id DESC) AS newest
WHERE op = 'PUT' ORDER BY 1, 2, 3
"""
_COLUMNS = """
SELECT attname, atttypid::bigint FROM pg_attribute
WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum
"""
_BOOLEAN, _INTEGERS, _TIMESTAMPTZ = 16, (20, 21, 23), 1184
#: Bounds that other tests leave as they are.
_MORE = tuple(f"replicator.supervise.{name}" for name in ("_SLOT_TIMEOUT_S", "_OPENING_S", "_STUCK_S"))
#: The tables the tests write to, and whose each row is.
_TABLES = {"users": "id", "vital_signs": "patient_id"}


class Weather:
    """The demo's clinic, whose source, storage and bounds the test chooses."""

    def __init__(
        self,
        source: Database,
        folder: Path,
        children: StartChild,
        *,
        storage: Database | None = None,
        source_dsn: str = "",
        storage_dsn: str = "",
        bounds: Mapping[str, float] | None = None,
        replicate: Mapping[str, int] | None = None,
        **keys: str,
    ) -> None:
        self.source, self.storage = source, storage or source
        self.folder, self._start, self._bounds = folder, children, bounds
        self.slot = f"slot_{source.name}"
        self.path = folder / "weather.yaml"
        self.keys: dict[str, Any] = {
            "source": {"dsn": source_dsn or source.dsn, "slot": self.slot, **keys},
            "storage": {"dsn": storage_dsn or self.storage.dsn},
            "rules": str(queries.house("config") / "rules.yaml"),
            "replicate": dict(replicate or {}),
        }
        self._last: Child | None = None
        self.write()

    def write(self) -> None:
        """The configuration as `keys` are now."""
        self.path.write_text(json.dumps(self.keys), encoding="utf-8")

    async def build(self, patients: int = 3, tables: bool = True) -> None:
        if tables:
            make_tables(self.source)
        for number in range(patients):
            self.admit(f"p{number}")
        await migrate(self.storage.dsn, "replicator")
        restrict(self.source, self.path)

    def admit(self, uid: str) -> None:
        self.source.execute("INSERT INTO users (firebase_uid, full_name) VALUES (%s, 'somebody')", [uid])

    def measure(self, notes: str, times: int = 1) -> None:
        """So many measurements of each patient, each in a transaction of its own."""
        for _ in range(times):
            self.source.execute(
                "INSERT INTO vital_signs (patient_id, notes) SELECT id, %s FROM users", [notes]
            )

    def run(self, kill_at: At | None = None, block_at: At | None = None, is_fresh: bool = False) -> Child:
        arguments: dict[str, Any] = {"kill_at": kill_at, "block_at": block_at, "is_fresh": is_fresh}
        if self._bounds is not None:
            arguments["target"] = f"{tight.__name__}:main"
            arguments["env"] = {tight.VARIABLE: json.dumps(dict(self._bounds))}
        self._last = self._start("run", "--config", self.path, **arguments)
        return self._last

    def verb(self, *verb: str) -> Child:
        """Another verb, ended."""
        child = self._start(*verb, "--config", self.path)
        child.wait()
        return child

    def catch_up(self) -> None:
        """Wait until what has been committed so far is shown."""
        upto = self.source.execute("SELECT pg_logical_emit_message(true, 'test', '')")[0][0]
        query = "SELECT shown_lsn > %s::pg_lsn FROM replicator.checkpoints WHERE slot = %s"

        def has_come() -> bool:
            assert self._last is None or self._last.code is None, self._last.stderr
            return self.storage.execute(query, [upto, self.slot]) == [(True,)]

        wait_until(
            has_come,
            lambda: f"{self.checkpoint()}, slot {self.slot_stands()}, {self._last and self._last.stderr}",
        )

    def checkpoint(self) -> list[tuple[Any, ...]]:
        query = "SELECT op_id, lsn, shown_op_id, shown_lsn FROM replicator.checkpoints WHERE slot = %s"
        return self.storage.execute(query, [self.slot])

    def slot_stands(self) -> list[tuple[Any, ...]]:
        query = (
            "SELECT active_pid, confirmed_flush_lsn, wal_status FROM pg_replication_slots "
            "WHERE slot_name = %s"
        )
        return self.source.execute(query, [self.slot])

    def assert_equal(self) -> None:
        """What buckets reduce to is what the tables hold, in every column; and no promise was broken."""
        held = self.storage.execute(_BUCKETS, [self.slot])
        there = [row for table, owner in _TABLES.items() for row in self._rows(table, owner)]
        shown, expected = ({row[:3]: row[3] for row in rows} for rows in (held, there))
        lacking = [key for key in expected if shown.get(key) != expected[key]]
        assert not lacking, f"rows that buckets lack: {lacking}"
        beyond = [key for key in shown if key not in expected]
        assert not beyond, f"rows that buckets should not hold: {beyond}"
        assert len(held) == len(there), "a row is held twice"
        self.assert_not_ahead()

    def _rows(self, table: str, owner: str) -> list[tuple[Any, ...]]:
        columns = self.source.execute(_COLUMNS, [table])
        texts = sql.SQL(", ").join(sql.SQL("{}::text").format(sql.Identifier(name)) for name, _ in columns)
        query = sql.SQL("SELECT {owner}::text, id::text, {texts} FROM {table} WHERE {owner} IS NOT NULL")
        names = {"owner": sql.Identifier(owner), "table": sql.Identifier(table)}
        with psycopg.connect(self.source.owner_dsn, options="-c timezone=UTC") as connection:
            found = connection.execute(query.format(texts=texts, **names)).fetchall()
        return [
            (
                f'user_data["{who}"]',
                table,
                id,
                {n: shown(v, t) for v, (n, t) in zip(row, columns, strict=True)},
            )
            for who, id, *row in found
        ]

    def assert_not_ahead(self) -> None:
        """The slot has confirmed no more than is stored."""
        confirmed = [lsn for _, lsn, _ in self.slot_stands()]
        # Read after it, so that what is stored meanwhile cannot excuse it; nor can it accuse.
        query = "SELECT %s::pg_lsn <= lsn FROM replicator.checkpoints WHERE slot = %s"
        assert self.storage.execute(query, [confirmed[0], self.slot]) == [(True,)]

    def assert_stored_once(self) -> None:
        """Every measurement, which were only inserted, is one op."""
        query = (
            "SELECT count(*), count(DISTINCT object_id) FROM replicator.ops WHERE object_type = 'vital_signs'"
        )
        there = self.source.execute("SELECT count(*) FROM vital_signs")[0][0]
        assert self.storage.execute(query) == [(there, there)]


def shown(value: str | None, type_oid: int) -> str | int | None:
    """A column's text as a client has it."""
    if value is None or (type_oid not in _INTEGERS and type_oid not in (_BOOLEAN, _TIMESTAMPTZ)):
        return value
    if type_oid == _BOOLEAN:
        return int(value == "true")
    return re.sub("[+]00$", "Z", value) if type_oid == _TIMESTAMPTZ else int(value)


def make_tables(database: Database) -> None:
    """The demo's tables, published."""
    clinic = queries.load("clinic")
    with psycopg.connect(database.owner_dsn, autocommit=True) as connection:
        connection.execute(clinic.schema)
        connection.execute(clinic.publish)


def backends(database: Database, name: str = "replicator %") -> dict[str, int]:
    """The replicator's connections to a database: name → pid."""
    query = (
        "SELECT application_name, pid FROM pg_stat_activity WHERE application_name LIKE %s AND datname = %s"
    )
    return dict(database.execute(query, [name, database.name]))


def bounds(**constants: float) -> dict[str, float]:
    """Constants by their last names, which is what stays when a module moves → as `tight` wants them."""
    named = {name.rpartition(".")[2]: name for name in (*tight.TIGHT, *_MORE)}
    return {named[constant]: value for constant, value in constants.items()}


def wait_until(
    question: Callable[[], bool], stands: Callable[[], object] = lambda: "", within_s: float = 120
) -> None:
    """Ask a server again and again."""
    deadline = time.monotonic() + within_s
    while not question():
        assert time.monotonic() < deadline, f"not within {within_s:g} s: {stands()}"
        time.sleep(0.01)  # between two questions; what is waited for is the answer
