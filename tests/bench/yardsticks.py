"""A slot and the end of a workload → how long Postgres' own programs take to read or apply it."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from tests.bench import workload
from tests.bench.place import Source

RECVLOGICAL = "pg_recvlogical"
SUBSCRIPTION = "subscription"
#: How often the subscriber is asked for the last row: often enough to be exact, and still cheap.
_ASK_S = 0.005


def drain_s(source: Source, slot: str, end: str) -> float:
    """How long pg_recvlogical takes to read a slot up to a position, into nothing."""
    server = source.server
    argv = [
        *(
            str(server.binaries.bin / RECVLOGICAL),
            "--start",
            "--no-loop",
            "--file=/dev/null",
            "--fsync-interval=0",
        ),
        *(f"--dbname={server.dsn(source.name, password='')}", f"--slot={slot}", f"--endpos={end}"),
        *("--option=proto_version=1", f"--option=publication_names={workload.PUBLICATION}"),
    ]
    source.settle()
    begun = time.perf_counter()
    subprocess.run(argv, env={**os.environ, "PGPASSWORD": server.password}, check=True)
    return time.perf_counter() - begun


@contextmanager
def subscriber(source: Source) -> Iterator[psycopg.Connection]:
    """A database with the same table, empty and keyed, for changes to be applied in."""
    name = f"{source.name}_subscriber"
    source.session.execute(f'CREATE DATABASE "{name}"'.encode())
    try:
        with psycopg.connect(source.server.dsn(name), autocommit=True) as session:
            session.execute(workload.CREATE_TABLE.encode())
            yield session
    finally:
        source.session.execute(f'DROP DATABASE "{name}" WITH (FORCE)'.encode())


def apply_s(source: Source, session: psycopg.Connection, slot: str, rows: int) -> float:
    """How long Postgres' own subscription takes to apply so many rows from a slot, once it reads from it."""
    session.execute(f"TRUNCATE {workload.TABLE}".encode())
    # Made by hand: made by the subscription, a slot on the server it is itself in would wait for it.
    session.execute(
        f"CREATE SUBSCRIPTION bench CONNECTION '{source.dsn}' PUBLICATION {workload.PUBLICATION} "
        f"WITH (create_slot = false, slot_name = '{slot}', copy_data = false, enabled = false)".encode()
    )
    source.settle()
    try:
        session.execute("ALTER SUBSCRIPTION bench ENABLE")
        while not source.is_read(slot):
            time.sleep(_ASK_S)
        begun = time.perf_counter()
        while not workload.has_row(session, rows):
            time.sleep(_ASK_S)
        return time.perf_counter() - begun
    finally:
        session.execute("ALTER SUBSCRIPTION bench DISABLE")
        session.execute("ALTER SUBSCRIPTION bench SET (slot_name = NONE)")
        session.execute("DROP SUBSCRIPTION bench")
