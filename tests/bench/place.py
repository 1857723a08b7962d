"""Binaries of Postgres → a server that waits for its disk, and a database per measurement in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg

from replicator.demo.postgres import Server
from tests.bench import workload

#: Sized as a server is that has something to do.
_SHARED_GB = 1
SETTINGS = {"min_wal_size": "2GB", "max_wal_size": "4GB", "shared_buffers": f"{_SHARED_GB}GB"}
_USED_MB = 1800
#: What the shared memory holds.
_PAGES = (_SHARED_GB << 30) // 8192


def wear_in(server: Server) -> None:
    """Give a new server what one has that has run for a while: used log files, to be written into again.

    It makes the next one when the last is full; whoever writes just then waits until 16 MB of zeros are on
    the disk: that is what would be measured. And whoever needs a page of its memory that nobody has used yet
    waits until the kernel has found and cleared one.
    """
    fill = "SELECT count(pg_catalog.pg_logical_emit_message(false, 'bench', repeat(' ', 1 << 20)))"
    with psycopg.connect(server.dsn(), autocommit=True) as admin:
        admin.execute(f"{fill} FROM pg_catalog.generate_series(1, {_USED_MB})".encode())
        # A checkpoint keeps what the one before it may still have needed.
        for _ in range(2):
            admin.execute("CHECKPOINT")
            admin.execute("SELECT pg_catalog.pg_switch_wal()")
        admin.execute("CREATE UNLOGGED TABLE worn (page text STORAGE plain)")
        admin.execute(
            f"INSERT INTO worn SELECT repeat(' ', 8000) FROM pg_catalog.generate_series(1, {_PAGES})"
        )
        admin.execute("DROP TABLE worn")


@dataclass(frozen=True, slots=True)
class Source:
    """A database with the workload's table, and the session that writes to it."""

    server: Server
    name: str
    session: psycopg.Connection

    @property
    def dsn(self) -> str:
        return self.server.dsn(self.name)

    def create_slot(self, slot: str) -> None:
        """Everything written from now on can be read from this slot."""
        self.session.execute(
            "SELECT pg_catalog.pg_create_logical_replication_slot(%s::name, 'pgoutput')", [slot]
        )

    def is_read(self, slot: str) -> bool:
        """Whether somebody reads from this slot just now."""
        found = self._one("SELECT active FROM pg_catalog.pg_replication_slots WHERE slot_name = %s", slot)
        return bool(found)

    def write(self, rows: int, *, per_transaction: int, users: int = workload.USERS) -> str:
        """Write the workload; where its log ends."""
        workload.write(self.session, rows, per_transaction=per_transaction, users=users)
        return str(self._one("SELECT pg_catalog.pg_current_wal_lsn()"))

    def settle(self) -> None:
        """Let the server do now what it would otherwise do in the middle of the next measurement."""
        self.session.execute("CHECKPOINT")

    def count_ops(self, schema: str) -> int:
        """How much was stored, for a measurement that must not count what never arrived."""
        return int(str(self._one(f'SELECT count(*) FROM "{schema}".ops')))

    def drop_schema(self, schema: str) -> None:
        self.session.execute(f'DROP SCHEMA "{schema}" CASCADE'.encode())

    def _one(self, query: str, *values: str) -> object:
        found = self.session.execute(query.encode(), values or None).fetchone()
        return None if found is None else found[0]


@contextmanager
def source(server: Server, name: str, identity: workload.Identity = "full") -> Iterator[Source]:
    """A database for one measurement; with its slots, and what they keep of the log, it goes afterwards."""
    with psycopg.connect(server.dsn(), autocommit=True) as admin:
        admin.execute(f'CREATE DATABASE "{name}"'.encode())
        try:
            with psycopg.connect(server.dsn(name), autocommit=True) as session:
                workload.prepare(session, identity)
                yield Source(server, name, session)
        finally:
            _drop(admin, name)


def _drop(admin: psycopg.Connection, name: str) -> None:
    ended = "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = %s"
    admin.execute(ended.encode(), [name])
    slots = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = %s"
    admin.execute(slots.encode(), [name])
    admin.execute(f'DROP DATABASE "{name}" WITH (FORCE)'.encode())


@contextmanager
def database(server: Server, name: str) -> Iterator[str]:
    """An empty database for one measurement, by its DSN."""
    with psycopg.connect(server.dsn(), autocommit=True) as admin:
        admin.execute(f'CREATE DATABASE "{name}"'.encode())
        try:
            yield server.dsn(name)
        finally:
            _drop(admin, name)
