"""A database → tables that are replicated by a process of its own, and can be compared with their buckets."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import psycopg
from psycopg import sql

from replicator import queries
from replicator.database import migrate
from replicator.rules.expression import Column
from replicator.rules.model import Rules
from replicator.rules.parse import parse_rules
from replicator.rules.versions import Versions, versioned
from tests.fixtures.children import CLI, At, Child, StartChild
from tests.fixtures.least import restrict
from tests.fixtures.postgres import Connection, Database
from tests.oracle import tight
from tests.oracle.values import Shown, read

#: The newest op of each row of each bucket, as a reader at the shown checkpoint finds it.
_NEWEST = """
SELECT bucket, object_type, object_id, data FROM (
    SELECT DISTINCT ON (bucket, object_type, object_id, subkey) ops.*
    FROM replicator.history AS ops, replicator.checkpoints WHERE ops.op_id <= shown_op_id
    ORDER BY bucket, object_type, object_id, subkey, ops.op_id DESC) AS newest
WHERE op = 'PUT' AND split_part(bucket, '[', 1) = ANY (%s)
"""
_COLUMNS = """
SELECT a.attname, format_type(a.atttypid, -1) FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
WHERE a.attrelid = to_regclass(%s) AND a.attnum > 0 AND NOT a.attisdropped
  AND (a.attgenerated = '' OR EXISTS (
          SELECT FROM pg_publication_tables
          WHERE (schemaname, tablename) = (c.relnamespace::regnamespace::text, c.relname)
            AND a.attname = ANY (attnames) AND current_setting('server_version_num')::integer >= 180000))
ORDER BY a.attnum
"""
#: The same op of the same row twice, one right after the other.
_REPEATED = """
SELECT bucket, object_type, object_id, op_id FROM (
    SELECT *, (op, data) IS NOT DISTINCT FROM (lag(op) OVER w, lag(data) OVER w) AS is_repeated
    FROM replicator.history
    WINDOW w AS (PARTITION BY bucket, object_type, object_id, subkey ORDER BY op_id)) AS told
WHERE is_repeated
"""
_AHEAD = """
SELECT confirmed_flush_lsn, lsn FROM pg_replication_slots, replicator.checkpoints
WHERE slot_name = slot AND confirmed_flush_lsn > lsn
"""

_STANDING = """
SELECT lsn, shown_lsn, name, state FROM replicator.checkpoints LEFT JOIN replicator.tables USING (slot)
"""

_IN_FORCE = """
SELECT id, content, versions FROM replicator.rule_sets
WHERE id = (SELECT shown_rules FROM replicator.checkpoints)
"""

#: Bucket, type, id, and the row as a client holds it.
Held = tuple[str, str, str, tuple[tuple[str, Shown | None], ...]]


def rules_over(**tables: str | None) -> str:
    """Rules of the form that is understood: for each table the column that says whose a row is, or None."""
    mine = [
        f"SELECT * FROM {name} WHERE {column} = bucket.user_id" for name, column in tables.items() if column
    ]
    ours = [f"SELECT * FROM {name}" for name, column in tables.items() if not column]
    definitions: dict[str, object] = {}
    if mine:
        definitions["mine"] = {"parameters": "SELECT request.user_id() AS user_id", "data": mine}
    if ours:
        definitions["ours"] = {"data": ours}
    return json.dumps({"bucket_definitions": definitions})


class Clinic:
    """Tables in a database, with what replicates them: the demo's, or those that a test brings.

    `rules` is the text of a rules file. With `bounds`, the process runs within them (see oracle/tight.py), so
    that few rows meet every bound, and what the log does not tell is looked for all the time.
    """

    def __init__(
        self,
        database: Database,
        folder: Path,
        children: StartChild,
        *,
        rules: str | None = None,
        bounds: Mapping[str, float] | None = None,
        **source: str,
    ) -> None:
        self.database, self._children = database, children
        self.path = folder / "replicator.yaml"
        #: Slots are known to the whole server; tests share it.
        self.slot = f"slot_{database.name}"
        self.rules = queries.house("config") / "rules.yaml"
        if rules is not None:
            self.rules = folder / "rules.yaml"
            self.rules.write_text(rules)
        keys = {"dsn": database.dsn, "slot": self.slot, **source}
        self.path.write_text(json.dumps({"source": keys, "rules": str(self.rules)}))
        self._target, self._env = CLI, {}
        if bounds is not None:
            self._target, self._env = "tests.oracle.tight:main", {tight.VARIABLE: json.dumps(bounds)}
        self._last: Child | None = None

    async def build(self, patients: int = 3, tables: str | None = None) -> None:
        """Make the storage and the demo's tables; or, from a test's own SQL, its tables and publication."""
        await migrate(self.database.dsn, "replicator")
        if tables is None:
            self._build_clinic(patients)
        else:
            with psycopg.connect(self.database.owner_dsn, autocommit=True) as connection:
                connection.execute(tables.encode())
        restrict(self.database, self.path)

    def _build_clinic(self, patients: int) -> None:
        clinic = queries.load("clinic")
        with psycopg.connect(self.database.owner_dsn, autocommit=True) as connection:
            connection.execute(clinic.schema)
            connection.execute(clinic.publish)
        for number in range(patients):
            self.database.execute(
                "INSERT INTO users (firebase_uid, full_name) VALUES (%s, 'somebody')", [f"p{number}"]
            )

    def run(self, kill_at: At | None = None, block_at: At | None = None, is_fresh: bool = False) -> Child:
        self._last = self._children(
            "run",
            "--config",
            self.path,
            target=self._target,
            env=self._env,
            kill_at=kill_at,
            block_at=block_at,
            is_fresh=is_fresh,
        )
        return self._last

    def ask(self, *verb: str) -> int:
        """The exit code of another verb."""
        return self._children(*verb, "--config", self.path).wait()

    def measure(self, notes: str, times: int = 1) -> None:
        """So many measurements of each patient, each in a transaction of its own."""
        for _ in range(times):
            self.database.execute(
                "INSERT INTO vital_signs (patient_id, notes) SELECT id, %s FROM users", [notes]
            )

    def catch_up(self) -> None:
        """Wait until what has been committed so far is shown, by the rules as they are."""
        upto = self.database.execute("SELECT pg_logical_emit_message(true, 'test', '')")[0][0]
        query = (
            "SELECT shown_lsn > %s::pg_lsn AND content = %s FROM replicator.checkpoints AS c "
            "JOIN replicator.rule_sets AS r ON r.id = c.shown_rules"
        )
        rules = self.rules.read_text()
        with psycopg.connect(self.database.owner_dsn, autocommit=True) as listening:
            listening.execute("LISTEN replicator_checkpoint")
            deadline = time.monotonic() + 120
            while self.database.execute(query, [upto, rules]) != [(True,)]:
                assert time.monotonic() < deadline, self.database.execute(_STANDING)
                if self._last is not None and self._last.code is not None:
                    raise AssertionError(f"it ended with {self._last.code}: {self._last.stderr}")
                # The wait is for the notice; the timeout looks after a checkpoint that came before it.
                list(listening.notifies(timeout=0.2, stop_after=1))

    def assert_equal(self) -> None:
        """What buckets reduce to is what the tables hold, in every column; the slot is not ahead of it."""
        _, content, versions = self.in_force()
        newest = self.database.execute(_NEWEST, [list(versions.buckets())])
        shown = Counter(_told(bucket, name, at, read(data)) for bucket, name, at, data in newest)
        with psycopg.connect(self.database.owner_dsn, options="-c timezone=UTC") as source:
            rules = versioned(parse_rules(content, "in force"), versions)
            expected = Counter(_expected(rules, source))
        assert expected - shown == Counter(), "rows that buckets lack"
        assert shown - expected == Counter(), "rows that buckets should not hold"
        assert self.database.execute(_AHEAD) == []

    def become_equal(self) -> None:
        """Wait until the two are equal, where nothing says when what changed will have been noticed."""
        deadline = time.monotonic() + 120
        while True:
            self.catch_up()
            try:
                return self.assert_equal()
            except AssertionError:
                if time.monotonic() > deadline:
                    raise

    def in_force(self) -> tuple[int, str, Versions]:
        """The number, the text and the versions of the set that readers go by."""
        ((number, content, versions),) = self.database.execute(_IN_FORCE)
        return number, content, Versions.from_json(versions)

    def assert_told_once(self) -> None:
        """No op says again what the one before it said of the same row; for tables copied only once."""
        assert self.database.execute(_REPEATED) == []


def _expected(rules: Rules, source: Connection) -> Iterator[Held]:
    for variant in rules.variants():
        for query in variant.data:
            (term,) = query.terms
            column = term.values[0] if term.values else None
            assert column is None or isinstance(column, Column), "the story needs plain rules"
            for row in _rows(source, sql.Identifier(query.table.namespace or "public", query.table.name)):
                owner = None if column is None else row[column.name]
                if column is None or owner is not None:
                    key = "" if owner is None else json.dumps(owner[1], ensure_ascii=False)
                    output, found = query.output or query.table.name, row["id"]
                    yield _told(f"{variant.name}[{key}]", output, str(found and found[1]), row)


def _rows(source: Connection, table: sql.Identifier) -> Iterator[dict[str, Shown | None]]:
    """The rows of a table as clients hold them; none if there is no such table."""
    columns: dict[str, str] = dict(source.execute(_COLUMNS, [table.as_string()]).fetchall())
    if not columns:
        return
    texts = sql.SQL(", ").join([sql.SQL("{}::text").format(sql.Identifier(name)) for name in columns])
    for values in source.execute(sql.SQL("SELECT {} FROM {}").format(texts, table)).fetchall():
        yield {
            name: _shown(sql_type, text)
            for (name, sql_type), text in zip(columns.items(), values, strict=True)
        }


def _told(bucket: str, output: str, row_id: str, row: Mapping[str, Shown | None]) -> Held:
    """A client reads a column that is not there as NULL."""
    return bucket, output, row_id, tuple(sorted((name, value) for name, value in row.items() if value))


def _shown(sql_type: str, text: str | None) -> Shown | None:
    """What a client must hold of a value that Postgres casts to this text."""
    if text is None:
        return None
    match sql_type:
        case "smallint" | "integer" | "bigint":
            return ("integer", int(text))
        case "boolean":
            return ("integer", int(text == "true"))
        case "real" | "double precision":
            return ("real", float(text))
        case "timestamp with time zone":
            return ("text", text.removesuffix("+00") + "Z")
        case _:
            return ("text", text)
