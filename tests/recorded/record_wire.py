"""A live Postgres server → recordings of what its walsender says, for tests/unit/test_wire.py.

    python tests/recorded/record_wire.py 'host=… user=postgres dbname=scratch' tests/recorded/wire

The role must be a superuser and the database is scribbled on. The server needs `wal_level = logical`,
`max_prepared_transactions > 0`, `track_commit_timestamp = on` and `logical_decoding_work_mem = 64kB`.

Beside the frames stands what SQL says about the same things (oids, xids, commit times, positions before and
after), so that the test compares two statements of the server and not our reading with itself.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from psycopg import pq

SCHEMA = """
DROP PUBLICATION IF EXISTS recorded;
DROP TABLE IF EXISTS vitals, notes, phases, lines, documents, visits, wards, empty, "Größe ""x"" y", noise;
DROP TYPE IF EXISTS phase;
CREATE TYPE phase AS ENUM ('rest', 'effort');
CREATE TABLE vitals (id uuid PRIMARY KEY, pulse int, temperature numeric(4,1), note text,
    taken_at timestamptz);
CREATE TABLE notes (id int PRIMARY KEY, note varchar(40), flag bool);
ALTER TABLE notes REPLICA IDENTITY FULL;
CREATE TABLE phases (id int, code text NOT NULL UNIQUE, phase phase);
ALTER TABLE phases REPLICA IDENTITY USING INDEX phases_code_key;
CREATE TABLE lines (line text);
ALTER TABLE lines REPLICA IDENTITY NOTHING;
CREATE TABLE documents (id int PRIMARY KEY, title text, body text);
ALTER TABLE documents ALTER body SET STORAGE EXTERNAL;
CREATE TABLE wards (id int PRIMARY KEY);
CREATE TABLE visits (id int PRIMARY KEY, ward int REFERENCES wards);
CREATE TABLE empty ();
CREATE TABLE "Größe ""x"" y" ("µg/l" int PRIMARY KEY);
CREATE TABLE noise (text text);
CREATE PUBLICATION recorded FOR TABLE
    vitals, notes, phases, lines, documents, wards, visits, empty, "Größe ""x"" y";
"""
PUBLISHED = ("vitals", "notes", "phases", "lines", "documents", "wards", "visits", "empty", '"Größe ""x"" y"')
ID = "00000000-0000-4000-8000-00000000000"
#: Not published, but enough to make the server stream the transaction it is in.
FILL = "INSERT INTO noise SELECT repeat(n::text, 100) FROM generate_series(1000, 1250) AS n"

ROWS = (
    f"INSERT INTO vitals VALUES ('{ID}1', 72, 36.6, 'Ruhe, früh – 🙂', '2026-11-21 02:33:10.123456+00')",
    f"INSERT INTO vitals VALUES ('{ID}2', NULL, NULL, '', NULL)",
    f"UPDATE vitals SET pulse = 75 WHERE id = '{ID}1'",
    f"UPDATE vitals SET id = '{ID}3' WHERE id = '{ID}2'",
    f"DELETE FROM vitals WHERE id = '{ID}3'",
    "INSERT INTO notes VALUES (1, 'before', true)",
    "UPDATE notes SET note = NULL, flag = false",
    "DELETE FROM notes",
    "INSERT INTO phases VALUES (7, 'a', 'rest')",
    "UPDATE phases SET phase = 'effort', code = 'b'",
    "INSERT INTO lines VALUES ('only ever inserted')",
    "INSERT INTO empty DEFAULT VALUES",
    'INSERT INTO "Größe ""x"" y" VALUES (1)',
)
LONG_VALUES = (
    "INSERT INTO documents VALUES (1, 'old', repeat('0123456789', 300))",
    "UPDATE documents SET title = 'new'",
    "ALTER TABLE documents REPLICA IDENTITY FULL",
    "UPDATE documents SET title = 'newer'",
)
TRUNCATES = (
    "TRUNCATE lines",
    "TRUNCATE wards, notes RESTART IDENTITY CASCADE",
)
MESSAGE = "SELECT pg_logical_emit_message({transactional}, 'watermark', '\\x00ff0a'::bytea)"


class Recorder:
    """One server, one slot's stream at a time, and what has been recorded of it."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self.client = psycopg.connect(dsn, autocommit=True)
        self.other = psycopg.connect(dsn, autocommit=True)
        self.sessions: dict[str, Any] = {}
        self.frames: list[bytes] = []
        self.transactions: list[dict[str, Any]] = []
        self.barriers = 0

    def ask(self, query: str, *values: object) -> Any:
        row = self.client.execute(query.encode(), values or None).fetchone()
        return row[0] if row else None

    @contextmanager
    def session(
        self, name: str, options: Mapping[str, str], *, two_phase: bool = False, timeout: str = "60s"
    ) -> Iterator[None]:
        """Record what the server says with these options while the body of the `with` is at work."""
        self.frames, self.transactions = [], []
        self.ask("SELECT pg_create_logical_replication_slot('recorded', 'pgoutput', false, %s)", two_phase)
        options = {"publication_names": "recorded", "messages": "true", **options}
        self.stream = psycopg.connect(
            self.dsn,
            autocommit=True,
            replication="database",
            options=f"-c timezone=UTC -c datestyle=ISO -c wal_sender_timeout={timeout}",
        )
        words = ", ".join(f"{key} '{value}'" for key, value in options.items())
        result = self.stream.pgconn.exec_(f"START_REPLICATION SLOT recorded LOGICAL 0/0 ({words})".encode())
        if result.status != pq.ExecStatus.COPY_BOTH:
            raise SystemExit(f"{name}: {result.error_message.decode()}")
        yield
        self.stream.close()
        while self.ask("SELECT active FROM pg_replication_slots WHERE slot_name = 'recorded'"):
            pass  # its walsender has not noticed yet
        self.ask("SELECT pg_drop_replication_slot('recorded')")
        self.sessions[name] = {
            "options": options,
            "transactions": self.transactions,
            "frames": [frame.hex() for frame in self.frames],
        }

    def transaction(
        self, *statements: str, end: str = "COMMIT", afterwards: str = "", listen: bool = False
    ) -> None:
        """Run the statements as one transaction, and note what SQL can say about it."""
        before = self.ask("SELECT pg_current_wal_insert_lsn()")
        self.client.execute("BEGIN")
        for statement in statements:
            self.client.execute(statement.encode())
        xid = self.ask("SELECT pg_current_xact_id()::text::int8 % 4294967296")
        if listen:
            self.listen()
        for statement in (end, afterwards):
            if statement:
                self.client.execute(statement.encode())
        after = self.ask("SELECT pg_current_wal_insert_lsn()")
        committed = None
        if "ROLLBACK" not in end + afterwards:
            committed = self.ask(
                "SELECT (extract(epoch FROM pg_xact_commit_timestamp((%s)::text::xid)) * 1000000)::int8"
                " - 946684800000000",
                xid,
            )
        self.transactions.append(
            {"xid": xid, "commit_time": committed, "lsn_before": before, "lsn_after": after}
        )
        self.listen()

    def listen(self) -> None:
        """Record everything up to now, which is known by a message of our own that arrives after it."""
        self.barriers += 1
        with self.other.transaction():
            self.other.execute("SELECT pg_logical_emit_message(false, 'barrier', %s)", [str(self.barriers)])
            self.other.execute("INSERT INTO noise VALUES ('')")  # committed, and so flushed
        while (frame := self.read())[:1] != b"w" or b"barrier\0" not in frame:
            if frame[:1] == b"w":
                self.frames.append(frame)

    def listen_for_keepalives(self) -> None:
        """Record keepalives up to the one that asks for an answer."""
        while (frame := self.read())[:1] != b"k" or frame[-1] != 1:
            self.frames.append(frame)
        self.frames.append(frame)

    def read(self) -> bytes:
        length, data = self.stream.pgconn.get_copy_data(0)
        if length <= 0:
            raise SystemExit(self.stream.pgconn.get_error_message())
        return bytes(data)


def record(dsn: str) -> dict[str, Any]:
    """Every kind of message this server can be made to say."""
    recorder = Recorder(dsn)
    recorder.client.execute(SCHEMA.encode())
    version = recorder.client.info.server_version

    with recorder.session("rows", {"proto_version": "1"}):
        recorder.transaction(*ROWS)
        recorder.transaction(*LONG_VALUES)
        recorder.transaction(*TRUNCATES)
        recorder.transaction(MESSAGE.format(transactional="true"), MESSAGE.format(transactional="false"))
    with recorder.session("binary", {"proto_version": "1", "binary": "true"}):
        recorder.transaction(*ROWS[5:7])
    with recorder.session("origin", {"proto_version": "1"}):
        recorder.ask("SELECT pg_replication_origin_create('elsewhere')")
        recorder.ask("SELECT pg_replication_origin_session_setup('elsewhere')")
        recorder.transaction(
            ROWS[10], "SELECT pg_replication_origin_xact_setup('A/BC', '2026-11-21 00:00:00+00')"
        )
        recorder.ask("SELECT pg_replication_origin_session_reset()")
        recorder.ask("SELECT pg_replication_origin_drop('elsewhere')")
    with recorder.session("keepalives", {"proto_version": "1"}, timeout="2s"):
        recorder.listen_for_keepalives()
    streaming = {"streamed": {"proto_version": "2", "streaming": "on"}}
    if version >= 160000:
        streaming["parallel"] = {"proto_version": "4", "streaming": "parallel"}
    for name, options in streaming.items():
        with recorder.session(name, options):
            recorder.client.execute("TRUNCATE notes, phases, lines")
            recorder.listen()
            recorder.frames.clear()
            recorder.transaction(
                *ROWS[5:9], MESSAGE.format(transactional="true"), TRUNCATES[0], FILL, listen=True
            )
            recorder.transaction(ROWS[10], "SAVEPOINT s", FILL, "ROLLBACK TO s", FILL, listen=True)
            recorder.transaction(ROWS[10], FILL, end="ROLLBACK", listen=True)
    two_phase = {"proto_version": "3", "streaming": "on"}
    with recorder.session("two_phase", two_phase, two_phase=True):
        prepare = "PREPARE TRANSACTION 'gid/1'"
        recorder.transaction(ROWS[10], end=prepare, afterwards="COMMIT PREPARED 'gid/1'")
        recorder.transaction(ROWS[10], end=prepare, afterwards="ROLLBACK PREPARED 'gid/1'")
        recorder.transaction(ROWS[10], FILL, end=prepare, afterwards="COMMIT PREPARED 'gid/1'", listen=True)

    return {
        "server_version": version,
        "oids": {name: recorder.ask("SELECT %s::regclass::oid::int8", name) for name in PUBLISHED}
        | {"phase": recorder.ask("SELECT 'phase'::regtype::oid::int8")},
        "sessions": recorder.sessions,
    }


def main(arguments: Sequence[str]) -> None:
    dsn, folder = arguments
    recording = record(dsn)
    path = Path(folder) / f"postgres-{recording['server_version'] // 10000}.json"
    path.write_text(json.dumps(recording, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{path}: " + ", ".join(f"{k} {len(v['frames'])}" for k, v in recording["sessions"].items()))


if __name__ == "__main__":
    main(sys.argv[1:])
