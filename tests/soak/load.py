"""A source → steady writes to it, for as long as they are wanted, also while it is not there."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable

import psycopg

from tests.fixtures.postgres import Connection

PATIENTS = 20
#: What is between two transactions.
_PAUSE_S = 0.02

TABLES = """
CREATE TABLE users (id text PRIMARY KEY, active boolean NOT NULL DEFAULT true);
CREATE TABLE readings (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, patient_id text NOT NULL, ward text NOT NULL,
    rate integer NOT NULL, at timestamptz NOT NULL DEFAULT now());
ALTER TABLE readings REPLICA IDENTITY FULL;
CREATE SEQUENCE rates MAXVALUE 900 CYCLE;  -- what the template takes
CREATE PUBLICATION powersync FOR TABLE users, readings;
"""
_ADMIT = "INSERT INTO users (id) SELECT 'p' || n FROM generate_series(1, %s) AS n"
_INSERT = "INSERT INTO readings (patient_id, ward, rate) VALUES (%s, %s, nextval('rates'))"
_ONE = "(SELECT id FROM readings ORDER BY id DESC OFFSET %s LIMIT 1)"
#: A rate comes again only after all the others, so one that is lost is seen to be.
_UPDATE = f"UPDATE readings SET rate = nextval('rates') WHERE id = {_ONE}"
_MOVE = f"UPDATE readings SET ward = %s WHERE id = {_ONE}"
_DELETE = f"DELETE FROM readings WHERE id = {_ONE}"


def admit(connection: Connection) -> None:
    connection.execute(_ADMIT, [PATIENTS])


class Load:
    """Writes in a thread of its own; with `with`."""

    def __init__(self, connect: Callable[[], Connection], chance: random.Random) -> None:
        self._connect, self._chance = connect, chance
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load")
        self.written = 0
        self.error: BaseException | None = None

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            while not self._over.is_set():
                try:
                    with self._connect() as connection:
                        self._write(connection)
                except psycopg.OperationalError:
                    self._over.wait(_PAUSE_S)  # it is being restarted
        except BaseException as error:
            self.error = error

    def _write(self, connection: Connection) -> None:
        while not self._over.wait(_PAUSE_S):
            with connection.transaction():
                for _ in range(self._chance.choice((1, 1, 1, 5))):
                    self._change(connection)
            self.written += 1

    def _change(self, connection: Connection) -> None:
        chance = self._chance
        ward, back = f"w{chance.randrange(4)}", chance.randrange(50)
        kind = chance.random()
        if kind < 0.6:
            connection.execute(_INSERT, [f"p{chance.randrange(PATIENTS) + 1}", ward])
        elif kind < 0.8:
            connection.execute(_UPDATE, [back])
        elif kind < 0.9:
            connection.execute(_MOVE, [ward, back])
        else:
            connection.execute(_DELETE, [back])
