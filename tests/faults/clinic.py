"""A database → a clinic that is replicated by a process of its own, and can be compared with its buckets."""

from __future__ import annotations

import json
import time
from pathlib import Path

import psycopg

from replicator import queries
from replicator.database import migrate
from tests.fixtures.children import At, Child, StartChild
from tests.fixtures.postgres import Database

_BUCKETS = """
SELECT bucket, object_type, object_id, data::jsonb ->> 'notes' FROM (
    SELECT DISTINCT ON (bucket, object_type, object_id, subkey) *
    FROM replicator.ops, replicator.checkpoints WHERE ops.op_id <= shown_op_id
    ORDER BY bucket, object_type, object_id, subkey, ops.op_id DESC) AS newest
WHERE op = 'PUT' ORDER BY 1, 2, 3
"""
_ROWS = """
SELECT 'user_data["' || id || '"]', 'users', id::text, NULL FROM users
UNION ALL
SELECT 'user_data["' || patient_id || '"]', 'vital_signs', id::text, notes FROM vital_signs
WHERE patient_id IS NOT NULL ORDER BY 1, 2, 3
"""


class Clinic:
    """The demo's tables in a database, with what replicates them."""

    def __init__(self, database: Database, folder: Path, children: StartChild, **source: str) -> None:
        self.database, self._children = database, children
        self._file = folder / "replicator.yaml"
        #: Slots are known to the whole server; tests share it.
        self.slot = f"slot_{database.name}"
        rules = queries.house("config") / "rules.yaml"
        keys = {"dsn": database.dsn, "slot": self.slot, **source}
        self._file.write_text(json.dumps({"source": keys, "rules": str(rules)}))

    async def build(self, patients: int = 3) -> None:
        await migrate(self.database.dsn, "replicator")
        clinic = queries.load("clinic")
        with psycopg.connect(self.database.dsn, autocommit=True) as connection:
            connection.execute(clinic.schema)
            connection.execute(clinic.publish)
        for number in range(patients):
            self.database.execute(
                "INSERT INTO users (firebase_uid, full_name) VALUES (%s, 'somebody')", [f"p{number}"]
            )

    def run(self, kill_at: At | None = None) -> Child:
        return self._children("run", "--config", self._file, kill_at=kill_at)

    def ask(self, *verb: str) -> int:
        """The exit code of another verb."""
        return self._children(*verb, "--config", self._file).wait()

    def measure(self, notes: str, times: int = 1) -> None:
        """So many measurements of each patient, each in a transaction of its own."""
        for _ in range(times):
            self.database.execute(
                "INSERT INTO vital_signs (patient_id, notes) SELECT id, %s FROM users", [notes]
            )

    def catch_up(self) -> None:
        """Wait until what has been committed so far is shown."""
        upto = self.database.execute("SELECT pg_logical_emit_message(true, 'test', '')")[0][0]
        query = "SELECT shown_lsn > %s::pg_lsn FROM replicator.checkpoints"
        with psycopg.connect(self.database.dsn, autocommit=True) as listening:
            listening.execute("LISTEN replicator_checkpoint")
            deadline = time.monotonic() + 60
            while self.database.execute(query, [upto]) != [(True,)]:
                assert time.monotonic() < deadline, self.database.execute(
                    "SELECT lsn, shown_lsn FROM replicator.checkpoints"
                )
                # The wait is for the notice; the timeout looks after a checkpoint that came before it.
                list(listening.notifies(timeout=0.2, stop_after=1))

    def assert_equal(self) -> None:
        """What buckets reduce to is what the tables hold, and nothing was stored twice."""
        shown = [row for row in self.database.execute(_BUCKETS) if row[1] in ("users", "vital_signs")]
        assert shown == self.database.execute(_ROWS)
