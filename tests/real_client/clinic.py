"""A Clinic → the same, served, with phones whose contents can be compared with what a SELECT gives.

Replicating and serving are two processes, so that each can be killed by itself. The address stays the same
for as long as the clinic does.
"""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from tests.faults.clinic import Clinic
from tests.fixtures.children import Child, StartChild
from tests.fixtures.postgres import Connection, Database
from tests.fixtures.tokens import AUDIENCE, KEY, token
from tests.real_client.phones import PATIENCE_S, Phone, Phones

_COLUMNS = """
SELECT relname, attname, format_type(atttypid, -1) FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
WHERE c.relnamespace = 'public'::regnamespace AND relkind = 'r' AND attnum > 0 AND NOT attisdropped
ORDER BY relname, attnum
"""
#: Where a client does not hold a value as Postgres casts it to text: how it does.
_SHOWN = {
    "timestamp with time zone": "regexp_replace({0}::text, '[+]00$', 'Z')",
    "boolean": "{0}::integer",
    "smallint": "{0}",
    "integer": "{0}",
    "bigint": "{0}",
    "real": "{0}",
    "double precision": "{0}",
    "text[]": "array_to_json({0})::text",
}
_TYPES = {
    "boolean": "integer",
    "smallint": "integer",
    "integer": "integer",
    "bigint": "integer",
    "real": "real",
    "double precision": "real",
}

#: By table, its columns but `id`, and the type that a client declares for each.
Tables = dict[str, dict[str, str]]
Held = dict[str, dict[str, tuple[Any, ...]]]


class ServedClinic(Clinic):
    """What replicates it, what serves it, and the phones of its users."""

    def __init__(
        self,
        database: Database,
        folder: Path,
        children: StartChild,
        phones: Phones,
        *,
        rules: str | None = None,
        **sync: Any,
    ) -> None:
        super().__init__(database, folder, children, rules=rules)
        self.folder = folder
        self._phones = phones
        self._keys = json.loads(self.path.read_text())
        self._sync = {"listen": "127.0.0.1:0", "audience": [AUDIENCE], "keys": [KEY], **sync}
        self._write()
        #: Where phones connect.
        self.endpoint = ""

    def _write(self) -> None:
        self.path.write_text(json.dumps({**self._keys, "sync": self._sync}))

    @property
    def config(self) -> Path:
        return self.path

    @property
    def port(self) -> int:
        """Where it is served; 0 before that."""
        return int(self._sync["listen"].rpartition(":")[2])

    # -- processes ---------------------------------------------------------------------------------

    def start(self) -> tuple[Child, Child]:
        """What replicates and what serves, once what is there now can be had."""
        replicating, serving = self.replicate(), self._begin_to_serve()
        self.catch_up()
        self._until_served(serving)
        return replicating, serving

    def replicate(self) -> Child:
        self._last = self._children("run", "--only", "replicate", "--config", self.path)
        return self._last

    def serve(self) -> Child:
        """Start to serve, at the address where it was served before."""
        serving = self._begin_to_serve()
        self._until_served(serving)
        return serving

    def _begin_to_serve(self) -> Child:
        return self._children("run", "--only", "serve", "--config", self.path)

    def _until_served(self, serving: Child) -> None:
        address = str(serving.wait_for("serving")["address"])
        if not self.port:
            self._sync["listen"], self.endpoint = address, f"http://{address}"
            self._write()
        deadline = time.monotonic() + PATIENCE_S
        while not self._is_ready():
            assert time.monotonic() < deadline and serving.code is None, serving.stderr
            time.sleep(0.02)

    def _is_ready(self) -> bool:
        try:
            ready = f"http://{self._sync['listen']}/probes/readiness"
            with urllib.request.urlopen(ready, timeout=PATIENCE_S) as answer:
                return bool(answer.status == 200)
        except urllib.error.HTTPError as error:
            error.close()
            return False

    # -- people ------------------------------------------------------------------------------------

    def people(self) -> list[str]:
        """The ids of the patients, in the order in which they came."""
        return [
            str(row[0])
            for row in self.database.execute("SELECT id FROM users ORDER BY created_at, firebase_uid")
        ]

    def measure_much(self, rows: int) -> None:
        """So many measurements of each patient, numbered; each half a kilobyte that stays large."""
        self.database.execute(
            "INSERT INTO vital_signs (patient_id, heart_rate_bpm, notes)"
            " SELECT id, n, (SELECT string_agg(md5(n || '-' || part), '') FROM generate_series(1, 15) part)"
            " FROM users, generate_series(1, %s) n",
            [rows],
        )

    def phone(self, user: str, name: str = "", *, tables: Tables | None = None, **claims: Any) -> Phone:
        """A phone that is signed in as this user and is not connected yet."""
        return self._phones.open(
            name or user,
            self.tables() if tables is None else tables,
            credentials=lambda: {"endpoint": self.endpoint, "token": token(user, **claims)},
            upload=self.take,
        )

    def take(self, crud: Sequence[Mapping[str, Any]]) -> None:
        """What the app's own backend does with what was changed on a phone: write it to the source."""
        with psycopg.connect(self.database.owner_dsn) as connection:
            for entry in crud:
                _take(connection, entry["op"], entry["table"], entry["id"], entry["data"])

    # -- what there is -----------------------------------------------------------------------------

    def tables(self) -> Tables:
        """What an app declares: every table and column."""
        tables: Tables = {}
        for table, column, sql_type in self.database.execute(_COLUMNS):
            if column != "id":
                tables.setdefault(table, {})[column] = _TYPES.get(sql_type, "text")
        return tables

    def selected(self, where: Mapping[str, str]) -> Held:
        """By table and id, the rows that a condition on each table selects, as a client should hold them."""
        types: dict[str, dict[str, str]] = {}
        for table, column, sql_type in self.database.execute(_COLUMNS):
            types.setdefault(table, {})[column] = sql_type
        with psycopg.connect(self.database.owner_dsn, options="-c timezone=UTC") as source:
            return {
                table: _selected(source, table, columns, where[table]) if table in where else {}
                for table, columns in types.items()
            }

    def record(self, user: str) -> Held:
        """The rows that config/rules.yaml gives to this user."""
        own = f"patient_id = '{user}'"
        return self.selected({name: own for name in self.tables()} | {"users": f"id = '{user}'"})

    def assert_holds_record(self, phone: Phone, user: str) -> None:
        assert_same(phone.held(), self.record(user))

    def become_equal_on(self, phone: Phone, expected: Held | None = None) -> None:
        """Wait until a phone holds this, or the record of whose phone it is; every table is looked at."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                return assert_same(phone.held(), self.record(phone.name) if expected is None else expected)
            except AssertionError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.03)


def assert_same(held: Held, expected: Held) -> None:
    """Say which rows differ rather than print them all."""
    for table, rows in expected.items():
        there = held.get(table, {})
        lacks, extra = rows.keys() - there.keys(), there.keys() - rows.keys()
        other = {row_id for row_id in rows.keys() & there.keys() if rows[row_id] != there[row_id]}
        assert not lacks, f"{table}: {len(lacks)} rows are lacking, of {len(rows)}"
        assert not extra, f"{table}: {len(extra)} rows should not be there; {len(rows)} should"
        assert not other, f"{table}: {[(there[one], rows[one]) for one in sorted(other)[:2]]}"


def _selected(
    source: Connection, table: str, types: Mapping[str, str], where: str
) -> dict[str, tuple[Any, ...]]:
    names = [name for name in types if name != "id"]
    shown = [_SHOWN.get(types[name], "{0}::text").format(f'"{name}"') for name in names]
    query = f"SELECT id::text, {', '.join(shown)} FROM {table} WHERE {where}"
    return {row[0]: tuple(row[1:]) for row in source.execute(query.encode())}


def _take(connection: Connection, op: str, table: str, row_id: str, data: Mapping[str, Any]) -> None:
    name, columns = sql.Identifier(table), [sql.Identifier(one) for one in data]
    if op == "DELETE":
        connection.execute(sql.SQL("DELETE FROM {} WHERE id = %s").format(name), [row_id])
    elif op == "PATCH":
        settings = sql.SQL(", ").join(sql.SQL("{} = %s").format(one) for one in columns)
        update = sql.SQL("UPDATE {} SET {} WHERE id = %s").format(name, settings)
        connection.execute(update, [*data.values(), row_id])
    else:
        places = sql.SQL(", ").join([sql.Placeholder()] * (len(columns) + 1))
        listed = sql.SQL(", ").join([sql.Identifier("id"), *columns])
        insert = sql.SQL("INSERT INTO {} ({}) VALUES ({}) ON CONFLICT (id) DO NOTHING")
        connection.execute(insert.format(name, listed, places), [row_id, *data.values()])
