"""Two servers, a bad network and a sandbox → a replicator among them, and what all of them then hold."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import psycopg

from replicator.database import migrate
from tests.fixtures.children import Child, StartChild
from tests.fixtures.least import restrict
from tests.fixtures.postgres import Connection, Database, MakeDatabase, Server
from tests.fixtures.proxy import MakeProxy
from tests.fixtures.tokens import AUDIENCE, KEY
from tests.soak.load import TABLES, admit

PARTS = ("replicate", "serve", "work")
_PULSE = "pulse_encounter/pulse/any_event:0/rate"
_MAPPING: dict[str, Any] = {
    "system": "clinic",
    "namespace": "clinic",
    "ctx": {"language": "en", "territory": "CM", "setting": "other care", "composer": "Clinic", "time": "at"},
    "tables": {
        "users": {"key": "id", "patient": "id", "priority": 0, "status": {"modifiable": "active"}},
        "readings": {
            "key": "id",
            "patient": "patient_id",
            "template": "replicator.pulse.v1",
            "ignore": ["ward"],
            "fields": {_PULSE: {"column": "rate", "unit": "/min"}},
        },
    },
}
_SHOWN = "SELECT shown_lsn > %s::pg_lsn FROM replicator.checkpoints"
_OPEN = "SELECT count(*) FROM replicator.ehr_sync_queue_open"
#: Of every composition its newest version, unless that is a deletion.
_HELD = f"""
SELECT (body ->> '{_PULSE}|magnitude')::float FROM (
    SELECT DISTINCT ON (object_id) * FROM sandbox.versions WHERE kind = 'COMPOSITION'
    ORDER BY object_id, number DESC) AS newest
WHERE change <> '523'
"""
_JOBS = """
SELECT composition_id, seq, operation, state, attempts, commit_lsn, snapshot, version, note, updated_at
FROM replicator.ehr_sync_queue WHERE mapping = 'readings' AND record_key = %s ORDER BY commit_lsn, ordinal
"""
_VERSIONS = f"""
SELECT number, change, body ->> '{_PULSE}|magnitude' FROM sandbox.versions
WHERE object_id = %s ORDER BY number
"""
#: What lasts at least this long has come to its size, also where much else is started.
_SETTLED_S = 30.0
#: So long one thing may take where ten others go on; and all that has gathered behind it.
_ONE_S, _ALL_S = 300.0, 600.0


class Size(NamedTuple):
    """What a process takes of its machine."""

    descriptors: int
    megabytes: float


class Scene:
    """The replicator, and what surrounds it."""

    def __init__(
        self,
        source: Server,
        storage: Server,
        make_database: MakeDatabase,
        proxies: MakeProxy,
        children: StartChild,
        folder: Path,
    ) -> None:
        self.source_server, self.storage_server = source, storage
        self.source, self.storage = make_database(on=source), make_database(on=storage)
        self.to_source, self.to_storage = proxies(source), proxies(storage)
        self._children, self._folder = children, folder
        self.config = folder / "replicator.yaml"
        self.running: Child
        #: Of each process its first size, once it had come to one, and its last.
        self.sizes: dict[tuple[str, int], tuple[float, Size | None, Size]] = {}
        self._rules = 0

    async def build(self, sandbox: str) -> None:
        await migrate(self.storage.dsn, "replicator")
        with psycopg.connect(self.source.owner_dsn, autocommit=True) as connection:
            connection.execute(TABLES.encode())
            admit(connection)
        self.other_rules()
        (self._folder / "ehr.yaml").write_text(json.dumps(_MAPPING))
        keys: dict[str, Any] = {
            "source": {"dsn": self.to_source.to(self.source)},
            "storage": {"dsn": self.to_storage.to(self.storage)},
            "rules": "rules.yaml",
            "sync": {"listen": "127.0.0.1:0", "audience": [AUDIENCE], "keys": [KEY]},
            "ehr": {"mapping": "ehr.yaml", "url": sandbox, "lease": "10s"},
        }
        self.config.write_text(json.dumps(keys))
        restrict(self.source, self.config)

    def connect(self) -> Connection:
        """To the source, as the application does: not by the network that is bad."""
        return psycopg.connect(self.source.owner_dsn, autocommit=True, connect_timeout=10)

    # The replicator.

    def start(self) -> None:
        self.running = self._children("run", "--config", self.config)

    def pid(self, part: str) -> int:
        """The process of a part as it is now."""
        started = self.running.count("part started", part=part)
        return int(str(self.running.wait_for("part started", part=part, n=max(started, 1))["pid"]))

    def kill(self, part: str) -> None:
        try:
            os.kill(self.pid(part), signal.SIGKILL)
        except ProcessLookupError:
            return  # it is being started again

    def other_rules(self) -> Path:
        """Rules that group readings by something else than the last."""
        self._rules += 1
        column = ("patient_id", "ward")[self._rules % 2]
        by = {
            "parameters": "SELECT request.user_id() AS x",
            "data": [f"SELECT * FROM readings WHERE {column} = bucket.x"],
        }
        path = self._folder / "rules.yaml"
        path.write_text(
            json.dumps({"bucket_definitions": {"mine": by, "all": {"data": ["SELECT * FROM users"]}}})
        )
        return path

    def verb(self, *words: str | Path) -> Child:
        child = self._children(*words, "--config", self.config)
        child.wait(_ALL_S)
        return child

    def restart(self, server: Server, chance: random.Random) -> None:
        """As an operator does, or as a crash would."""
        server.stop("immediate" if chance.random() < 0.5 else "fast", within_s=_ONE_S)
        server.start(within_s=_ONE_S)

    # What has come where.

    def current(self) -> float:
        """Wait until what is committed now is shown to readers; how long that took."""
        began = time.monotonic()
        upto = self._asked(self.source, "SELECT pg_logical_emit_message(true, 'soak', '')", [])[0][0]
        self._until(lambda: self._asked(self.storage, _SHOWN, [upto]) == [(True,)], "a checkpoint")
        return time.monotonic() - began

    def delivered(self) -> None:
        """Wait until the queue is empty."""
        self._until(lambda: self._asked(self.storage, _OPEN, []) == [(0,)], "an empty queue", _ALL_S)

    def _asked(self, database: Database, query: str, values: list[Any]) -> list[tuple[Any, ...]]:
        return database.execute(query, values)

    def _until(self, question: Callable[[], bool], what: str, within_s: float = _ONE_S) -> None:
        deadline = time.monotonic() + within_s
        while not question():
            assert self.running.code is None, f"it ended: {self.running.stderr[-4000:]}"
            assert time.monotonic() < deadline, f"no {what} in {within_s:g} s: {self.running.stderr[-4000:]}"
            time.sleep(0.02)  # between two questions; what is waited for is the answer

    def differences(self, sandbox: Database) -> tuple[Counter[float], Counter[float]]:
        """What the record lacks of the source, and what it holds beyond it."""
        there = Counter(float(rate) for (rate,) in self.source.execute("SELECT rate FROM readings"))
        held = Counter(float(rate) for (rate,) in sandbox.execute(_HELD))
        return there - held, held - there

    def told(self, sandbox: Database, rates: Counter[float]) -> str:
        """What the queue did with the readings that have these rates, and what the record holds of them."""
        lines = []
        for (key,) in self.source.execute("SELECT id FROM readings WHERE rate = ANY (%s)", [list(rates)]):
            jobs = self.storage.execute(_JOBS, [str(key)])
            lines += [f"reading {key}:", *(f"  {job}" for job in jobs)]
            held = sandbox.execute(_VERSIONS, [jobs[0][0]]) if jobs else []
            lines += [f"  held: {version}" for version in held]
        return "\n".join(lines)

    # What it takes.

    def look(self) -> None:
        """Note the size of every process that is there."""
        for part in ("run", *PARTS):
            pid = self.running.pid if part == "run" else self.pid(part)
            size = _size(pid)
            if size is None:
                continue
            began, first, _ = self.sizes.get((part, pid), (time.monotonic(), None, size))
            if first is None and time.monotonic() - began > _SETTLED_S:
                first = size
            self.sizes[part, pid] = began, first, size


def _size(pid: int) -> Size | None:
    """Nothing of one that has ended: until it is asked for its code it shows its files to root alone."""
    try:
        descriptors = len(os.listdir(f"/proc/{pid}/fd"))
    except (FileNotFoundError, ProcessLookupError):
        return None
    except PermissionError:
        if _pages(pid):
            raise
        return None
    pages = _pages(pid)
    return Size(descriptors, pages * os.sysconf("SC_PAGE_SIZE") / 1e6) if pages else None


def _pages(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (FileNotFoundError, ProcessLookupError, IndexError):
        return 0
