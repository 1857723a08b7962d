"""A World → the databases it lives in, watched; the replicator's configuration; and waiting for it."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable
from contextlib import aclosing, suppress
from pathlib import Path

import psycopg
from psycopg import sql

from replicator.buckets.compact import candidates, compact_bucket, lock
from replicator.buckets.deploy import store
from replicator.buckets.model import OpId
from replicator.buckets.tables import want_again
from replicator.config import load
from replicator.database import connected, migrate
from replicator.observe.copies import recopy
from replicator.rules.parse import parse_rules
from tests.fixtures.least import restrict
from tests.fixtures.postgres import Connection, Database
from tests.oracle.compare import Reader, watch
from tests.oracle.history import History
from tests.oracle.running import Running
from tests.oracle.traffic import Traffic
from tests.oracle.world import World

SLOT_PREFIX = "oracle_"
_WAIT_S = 120.0


class Ended(AssertionError):
    """The replicator ended while it was waited for."""


def make_source(world: World, source: Database) -> None:
    """The world's tables, and their publication."""
    source.execute('CREATE SCHEMA "Clinic 2"')
    with source.connect() as connection:
        for table in world.tables:
            for statement in table.create():
                connection.execute(statement)
        tables = sql.SQL(", ").join(table.sql for table in world.tables)
        connection.execute(sql.SQL("CREATE PUBLICATION powersync FOR TABLE {}").format(tables))


def make_storage(storage: Database) -> None:
    """A storage that writes down every checkpoint."""
    asyncio.run(migrate(storage.dsn, "replicator"))
    with storage.connect() as connection:
        watch(connection)


class Scene:
    """Everything around one world, whose databases have been made. All its connections are made anew after a
    server was restarted."""

    def __init__(
        self, world: World, source: Database, storage: Database, folder: Path, rng: random.Random
    ) -> None:
        self.world, self.source, self.storage = world, source, storage
        self.slot = f"{SLOT_PREFIX}{rng.getrandbits(64):x}"
        self.path = folder / f"{self.slot}.yaml"
        self.history = History(world, self._source)
        (may_prepare,) = source.execute("SELECT current_setting('max_prepared_transactions')::int > 0")[0]
        self.traffic = Traffic(world, self.history, rng, may_prepare=may_prepare, name=self.slot)
        self.reader = Reader(world, self.history)
        #: Called between two steps of the traffic.
        self.between: Callable[[], None] = lambda: None
        self._configure(folder, rng)

    def _configure(self, folder: Path, rng: random.Random) -> None:
        rules = folder / f"{self.slot}.rules.yaml"
        rules.write_text(self.world.rules(), encoding="utf-8")
        config: dict[str, object] = {
            "source": {"dsn": self.source.dsn, "slot": self.slot},
            "rules": str(rules),
            "replicate": {"batch_rows": rng.choice((10, 200, 5000)), "batch_ms": rng.choice((1, 20, 50))},
        }
        if self.storage is not self.source:
            config["storage"] = {"dsn": self.storage.dsn}
        self.path.write_text(json.dumps(config), encoding="utf-8")
        restrict(self.source, self.path)

    def _source(self) -> Connection:
        # As the replicator reads values: in UTC.
        return self.source.connect(options="-c timezone=UTC -c extra_float_digits=3")

    def run(self, transactions: int, at: dict[int, Callable[[], None]] | None = None) -> None:
        """So many transactions; before the nth step, something may happen."""
        for number, _ in enumerate(self.traffic.steps(self._source, transactions)):
            if at and number in at:
                at[number]()
            self.between()

    # ── What an operator and a disaster do ───────────────────────────────────────────────────────

    def copy_again(self, rng: random.Random) -> None:
        """What `replicator snapshot TABLE` does."""
        known = self.storage.execute("SELECT oid FROM replicator.tables ORDER BY oid")
        if known:
            self.want_again(rng.choice(known)[0])

    def want_again(self, oid: int) -> None:
        asyncio.run(self._want_again(oid))

    async def _want_again(self, oid: int) -> None:
        async with connected(self.storage.dsn, "test", schema="replicator") as connection:
            await want_again(connection, self.slot, oid)

    def compact(self, rng: random.Random) -> None:
        """What compaction does by itself, up to what has been compared, and not always to its end."""
        upto = self.reader.shown
        if upto is not None:
            # A fault of the test's making may meet it as well.
            with suppress(OSError):
                asyncio.run(self._compact(OpId(rng.randrange(upto + 1)), rng.choice((2, 20, 1000)), rng))

    async def _compact(self, upto: OpId, most: int, rng: random.Random) -> None:
        async with connected(self.storage.dsn, "compact", schema="replicator") as connection:
            await lock(connection)
            async for page in candidates(connection, upto):
                for one in page:
                    async with aclosing(compact_bucket(connection, one.number, upto)) as steps:
                        async for _ in steps:
                            if rng.randrange(most) == 0:
                                return

    def deploy(self, rng: random.Random) -> str:
        """Other rules: by hand, or in the file, where the next replicator finds them. Answers which way."""
        if rng.random() < 0.85:
            self.world = self.world.changed(rng)
        text = self.world.rules() + f"\n# {rng.getrandbits(32)}\n"
        self.reader.worlds[text] = self.world
        has_begun = self.storage.execute("SELECT FROM replicator.checkpoints")
        if not has_begun or rng.random() < 0.4:
            # As a whole, for one may be beginning that reads it.
            new = self.path.with_suffix(".new.yaml")
            new.write_text(text, encoding="utf-8")
            new.replace(self.path.with_suffix(".rules.yaml"))
            return "in the file"
        asyncio.run(self._deploy(text))
        return "by hand"

    def deploy_by_hand(self, world: World) -> None:
        """These rules."""
        self.world = self.reader.worlds[world.rules()] = world
        asyncio.run(self._deploy(world.rules()))

    def come_further(self, running: Running) -> bool:
        """While rules are being prepared, wait until one more chunk has been read."""
        query = """
            SELECT coalesce(sum(rows_copied), 0), count(*) FILTER (WHERE c.state = 'copied'), min(r.begun_at)
            FROM replicator.rule_sets AS r LEFT JOIN replicator.rule_copies AS c ON c.rules = r.id
            WHERE r.state = 'preparing' HAVING count(r.id) > 0"""
        deadline = time.monotonic() + 5  # another one may have to be started first
        before = now = self.storage.execute(query)
        while now and now == before and not running.has_ended and time.monotonic() < deadline:
            now = self.storage.execute(query)
        return bool(now)

    async def _deploy(self, text: str) -> None:
        async with connected(self.storage.dsn, "test", schema="replicator") as connection:
            await store(connection, self.slot, parse_rules(text, "deployed"), "command")

    def start_over(self) -> None:
        """An operator gives up what is lost by now."""
        asyncio.run(recopy(load(self.path, {}), (), everything=True, wait=False))

    def end_of_backends(self) -> None:
        """Wait until both servers have noticed that a killed replicator is gone."""
        for database in (self.source, self.storage):
            deadline = time.monotonic() + 30
            left = (
                "SELECT pid, pg_sleep(0.002) FROM pg_stat_activity WHERE application_name LIKE 'replicator %'"
            )
            while database.execute(left + " AND datname = current_database()"):
                assert time.monotonic() < deadline, "a killed replicator's connections stay"

    # ── Waiting and comparing ────────────────────────────────────────────────────────────────────

    def settle(self, running: Running) -> None:
        """Wait until everything so far is shown, and compare every checkpoint on the way there."""
        emit = "SELECT pg_logical_emit_message(true, 'oracle', '') - '0/0'::pg_lsn"
        until = int(self.source.execute(emit)[0][0])
        self._wait(running, until)
        self.history.check()
        with self.storage.connect() as storage:
            self.reader.compare(storage)

    def settle_in_force(self, running: Running) -> None:
        """The same once the newest rules are in force."""
        standing = (
            "SELECT shown_rules, (SELECT max(id) FROM replicator.rule_sets) FROM replicator.checkpoints"
        )
        deadline = time.monotonic() + _WAIT_S
        self.settle(running)
        while (found := self.storage.execute(standing))[0][0] != found[0][1]:
            assert time.monotonic() < deadline, f"{found} are not in force: {self._stands()}"
            self.settle(running)

    def _wait(self, running: Running, until: int) -> None:
        query = "SELECT (shown_lsn - '0/0')::bigint FROM replicator.checkpoints WHERE slot = %s"
        deadline = time.monotonic() + _WAIT_S
        with self.storage.connect() as storage:
            storage.execute(b"LISTEN replicator_checkpoint")
            while (found := storage.execute(query.encode(), [self.slot]).fetchall()) == [] or (
                found[0][0] or 0
            ) < until:
                if running.has_ended:
                    raise Ended(f"the replicator ended. {running.why()}")
                assert time.monotonic() < deadline, (
                    f"nothing shown at {until:X} in {_WAIT_S:g} s: {self._stands()}"
                )
                # The wait is for the notice; the timeout only looks after a replicator that is gone.
                for _ in storage.notifies(timeout=0.05, stop_after=1):
                    pass

    def _stands(self) -> str:
        columns = "slot, op_id, lsn, shown_op_id, shown_lsn, fence"
        tables = "name, state, copied_to IS NULL, rows_copied, has_holes"
        return (
            f"{self.storage.execute(f'SELECT {columns} FROM replicator.checkpoints')} "
            f"{self.storage.execute(f'SELECT {tables} FROM replicator.tables')} "
            f"{self.storage.execute('SELECT id, state, why FROM replicator.rule_sets')} "
            f"{self.storage.execute('SELECT rules, oid, state, copied_to FROM replicator.rule_copies')} "
            f"{self.source.execute('SELECT active_pid, confirmed_flush_lsn FROM pg_replication_slots')}"
        )


def is_down(error: psycopg.Error) -> bool:
    """Whether a server went away, rather than refused."""
    return error.sqlstate is None or error.sqlstate.startswith(("08", "57"))
