"""A small world that is always the same, and its day: everything that leaves a step behind, in few steps.

Three tables, one of each replica identity. In a day rows are copied while they change, inserted, moved from
one person to another and from one key to another, deleted, truncated; a transaction comes in many pieces; a
table is copied again, and then everything is.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import psycopg

from tests.fixtures.postgres import Database
from tests.oracle.forked import Forked
from tests.oracle.scene import Ended, Scene, make_source, make_storage
from tests.oracle.steps import Fault
from tests.oracle.tight import TIGHT
from tests.oracle.values import Kind
from tests.oracle.world import Column, Definition, Query, Table, World

_ID = Column("id", Kind.INTEGER, False)
_OWNER, _READER = Column("owner", Kind.TEXT), Column("Second Reader", Kind.TEXT)
_NOTE, _SCAN = Column("note", Kind.TEXT), Column("scan", Kind.WIDE)
#: The log carries the whole old row.
VISITS = Table("public", "visits", (_ID, _OWNER, _READER, _NOTE, _SCAN), ("id",), "full")
#: The log carries the key, where it changes, and leaves out the scan.
LETTERS = Table("public", "letters", (_ID, _OWNER, _READER, _NOTE, _SCAN), ("id",), "default")
#: The same, with another key than the id that clients see.
CODES = Table("public", "codes", (_ID, Column("code", Kind.TEXT, False), _OWNER, _SCAN), ("code",), "index")
WORLD = World(
    (VISITS, LETTERS, CODES),
    (
        Definition("mine", "user_id", tuple(Query(t, None, "owner") for t in (VISITS, LETTERS, CODES))),
        Definition("read", "me", (Query(LETTERS, None, "Second Reader"), Query(VISITS, "seen", "owner"))),
        Definition("all", None, (Query(CODES, None, None),)),
    ),
    ("u1", "u2", "u3"),
)
#: What is deployed in the evening: one definition stays, one becomes another, one goes, and one comes.
LATER = World(
    (VISITS, LETTERS, CODES),
    (
        Definition("mine", "user_id", (Query(LETTERS, None, "Second Reader"), Query(CODES, None, "owner"))),
        WORLD.definitions[1],
        Definition("new", "me", (Query(VISITS, None, "Second Reader"),)),
    ),
    WORLD.people,
)

_WIDE = "repeat(md5('wide'), 80)"
#: What is there before the slot. More letters than are read at once.
MORNING = (
    f"INSERT INTO visits SELECT n, 'u' || n % 3, 'u1', 'n', {_WIDE} FROM generate_series(1, 4) n",
    f"INSERT INTO letters SELECT n, 'u' || n % 3, 'u2', 'n', {_WIDE} FROM generate_series(1, 9) n",
    f"INSERT INTO codes SELECT n, 'c' || n, 'u' || n % 3, {_WIDE} FROM generate_series(1, 4) n",
)

#: An acknowledgement waits for others only a little, so that there are some.
_BOUNDS = {**TIGHT, "replicator.wal.stream._ACKNOWLEDGE_S": 0.005}

Transaction = tuple[tuple[Table, ...], tuple[str, ...]]

#: While tables are being copied for the first time.
_MEANWHILE: tuple[Transaction, ...] = (
    ((LETTERS,), ("UPDATE letters SET note = 'unsent' WHERE id IN (2, 8, 9)",)),
    ((LETTERS, VISITS), ("UPDATE letters SET owner = 'u1' WHERE id = 3", "DELETE FROM visits WHERE id = 1")),
    ((CODES,), ("UPDATE codes SET code = 'd' || id", "INSERT INTO codes VALUES (9, 'c9', 'u1', 'new')")),
)
_AT_WORK: tuple[Transaction, ...] = (
    ((VISITS,), ("INSERT INTO visits VALUES (20, 'u1', 'u2', 'late', NULL)",)),
    ((LETTERS,), ("UPDATE letters SET owner = 'u3', note = 'moved' WHERE owner = 'u1'",)),
    ((VISITS, CODES), ("UPDATE visits SET owner = 'u2'", "UPDATE codes SET owner = 'u2' WHERE id < 3")),
    (
        (LETTERS,),
        ("UPDATE letters SET id = id + 100 WHERE id < 4", "UPDATE letters SET id = 2 WHERE id = 103"),
    ),
    ((CODES,), ("UPDATE codes SET id = id + 50, code = 'e' || code", "DELETE FROM codes WHERE id = 52")),
    (
        (LETTERS,),
        ("DELETE FROM letters WHERE id = 5", "INSERT INTO letters VALUES (5, 'u2', NULL, 'b', 'c')"),
    ),
)
#: A transaction of many pieces, and one that takes most of it away.
_HEAVY: tuple[Transaction, ...] = (
    (
        (LETTERS, VISITS),
        (
            "INSERT INTO letters SELECT n, 'u' || n % 3, 'u3', 'heavy', repeat('w', 2100) || n "
            "FROM generate_series(1000, 1011) n",
            "UPDATE letters SET note = 'heavier' WHERE id >= 1006",
            "UPDATE visits SET owner = 'u3'",
            "UPDATE letters SET owner = 'u1' WHERE id >= 1008",
        ),
    ),
    ((LETTERS,), ("DELETE FROM letters WHERE id BETWEEN 1003 AND 1010",)),
)
_EVENING: tuple[Transaction, ...] = (
    ((CODES,), ("TRUNCATE codes", "INSERT INTO codes VALUES (70, 'z', 'u1', 'after')")),
    ((VISITS,), ("INSERT INTO visits VALUES (30, 'u1', 'u2', 'gone again', NULL)", "TRUNCATE visits")),
)
_AGAIN: tuple[Transaction, ...] = (
    ((LETTERS,), ("UPDATE letters SET note = 'while copied again' WHERE id IN (2, 9, 1001)",)),
)
#: While other rules are prepared.
_DEPLOYED: tuple[Transaction, ...] = (
    ((LETTERS,), ("UPDATE letters SET note = 'while deployed' WHERE id IN (2, 9, 1001)",)),
    ((LETTERS, CODES), ("DELETE FROM letters WHERE id = 8", "UPDATE codes SET owner = 'u2'")),
)
#: Between two replicators, and lost from the log.
_UNSEEN: tuple[Transaction, ...] = (
    (
        (VISITS, LETTERS),
        ("INSERT INTO visits VALUES (40, 'u2', 'u1', 'unseen', NULL)", "DELETE FROM letters WHERE id = 9"),
    ),
    ((LETTERS,), ("UPDATE letters SET owner = 'u3', note = 'unseen' WHERE id = 8",)),
)
_NIGHT: tuple[Transaction, ...] = (
    ((LETTERS, CODES), ("UPDATE letters SET owner = 'u2' WHERE owner = 'u1'", "DELETE FROM codes")),
)


class Day:
    """One day, in which the replicator may fail at one step; if it does, another goes on."""

    def __init__(
        self,
        database: Database,
        folder: Path,
        rng: random.Random,
        fault: Fault | None,
    ) -> None:
        self.scene = Scene(WORLD, database, database, folder, rng)
        self._rng, self._fault = rng, fault
        self._connection = database.connect()
        #: What was done until the fault, or until the end.
        self.steps: list[str] = []
        self.has_failed = False
        self._running = self._start()

    def run(self) -> None:
        """All of it; every checkpoint is compared."""
        try:
            self._write(_MEANWHILE, self._after_a_step)
            self._settle()
            self._write(_AT_WORK)
            self._settle()
            self._write(_HEAVY)
            self._settle()
            self._write(_EVENING)
            self._settle()
            self._deploy()
            self._write(_DEPLOYED, self._after_a_step)
            self._settle_in_force()
            self._copy_letters_again()
            self._write(_AGAIN, self._after_a_step)
            self._settle()
            self._begin_again()
            self._write(_NIGHT, self._after_a_step)
            self._settle()
            self._end()
        finally:
            self._running.kill()

    def _start(self) -> Forked:
        fault = None if self.has_failed else self._fault
        return Forked(self.scene.path, _BOUNDS, self.steps, fault)

    def _after_a_step(self) -> None:
        """Let it go on a little, or not at all."""
        self._running.wait_for_step(len(self._running.steps) + self._rng.randrange(4))

    def _write(self, transactions: tuple[Transaction, ...], before: Callable[[], None] | None = None) -> None:
        for touched, statements in transactions:
            if before is not None:
                before()
            self._connection.execute(b"BEGIN")
            for statement in statements:
                self._connection.execute(statement.encode())
            self.scene.history.commit(lambda: self._connection.execute(b"COMMIT"), touched)

    def _copy_letters_again(self) -> None:
        (oid,) = self.scene.source.execute("SELECT 'letters'::regclass::oid")[0]
        self.scene.want_again(oid)

    def _deploy(self) -> None:
        self.scene.deploy_by_hand(LATER)

    def _settle_in_force(self) -> None:
        try:
            self.scene.settle_in_force(self._running)
        except Ended:
            self._go_on()
            self.scene.settle_in_force(self._running)

    def _begin_again(self) -> None:
        """Something else reads from the slot, and an operator says: start over from where the source is."""
        self._end()
        self._write(_UNSEEN)
        self.scene.source.execute(
            "SELECT pg_replication_slot_advance(%s, pg_current_wal_lsn())", [self.scene.slot]
        )
        self.scene.start_over()
        self._running = self._start()

    def _settle(self) -> None:
        try:
            self.scene.settle(self._running)
        except Ended:
            self._go_on()
            self.scene.settle(self._running)

    def _go_on(self) -> None:
        """The replicator has ended; if that was its fault, start one that has none."""
        self._note()
        if not self._running.was_killed or self.has_failed:
            raise AssertionError(f"the replicator ended. {self._running.why()}")
        self.has_failed = True
        self.scene.end_of_backends()
        self._running = self._start()

    def _end(self) -> None:
        self._running.stop()
        if self._running.was_killed:
            self._go_on()
            self.scene.settle(self._running)
            self._running.stop()
        self._note()
        self.scene.end_of_backends()

    def _note(self) -> None:
        """What has been done before the fault counts; what it took to go on does not."""
        self._running.join()
        if not self.has_failed:
            self.steps += self._running.steps


def make_template(database: Database) -> None:
    """The source in the morning, and a storage beside it."""
    make_source(WORLD, database)
    make_storage(database)
    with psycopg.connect(database.owner_dsn, autocommit=True) as connection:
        for statement in MORNING:
            connection.execute(statement.encode())
