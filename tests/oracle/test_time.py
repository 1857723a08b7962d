"""Rules about now(): rows leave and enter when their time comes, also where nothing is written."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest

from tests.fixtures.children import StartChild
from tests.fixtures.postgres import Database
from tests.oracle.compare import Checkpoint, Op, Reader
from tests.oracle.driven import Clock, Driven
from tests.oracle.history import State
from tests.oracle.scene import Scene, make_source, make_storage
from tests.oracle.tight import KEEP, TIGHT
from tests.oracle.values import Kind, shown
from tests.oracle.world import Column, Contents, Row, Table, World

pytestmark = pytest.mark.oracle

_ID = Column("id", Kind.TEXT, False)
VISITS = Table(
    "public", "visits", (_ID, Column("owner", Kind.TEXT), Column("at", Kind.TIME)), ("id",), "full"
)
NOTES = Table(
    "public", "notes", (_ID, Column("visit", Kind.TEXT), Column("at", Kind.TIME)), ("id",), "default"
)
#: When all this happens.
BEGIN = 1_700_000_000.0


class Timed(World):
    """How many seconds each kind of row stays, or is to come: none, and nothing is said of the latter."""

    def __init__(self, visits: int = 10, inner: int = 5, soon: int = 2) -> None:
        super().__init__((VISITS, NOTES), (), ())
        object.__setattr__(self, "seconds", (visits, inner, soon))

    seconds: tuple[int, int, int]

    def rules(self) -> str:
        visits, inner, soon = self.seconds
        mine = [
            f"SELECT * FROM visits WHERE owner = bucket.x AND at > now() - interval '{visits} seconds'",
            "SELECT * FROM notes WHERE at <= now() AND visit IN "
            f"(SELECT id FROM visits WHERE owner = bucket.x AND at > now() - interval '{inner} seconds')",
        ]
        later = f"at > now() AND at <= now() + interval '{soon} seconds'"
        found: dict[str, object] = {"mine": {"parameters": "SELECT request.user_id() AS x", "data": mine}}
        if soon:
            found["soon"] = {"data": [f"SELECT * FROM notes AS later WHERE {later}"]}
        return json.dumps({"bucket_definitions": found})

    def changed(self, rng: random.Random) -> World:
        visits, inner, soon = self.seconds
        if rng.random() < 0.6:
            visits, inner = rng.choice(((10, 5), (4, 6), (4, 5)))
        return Timed(visits, inner, rng.choice((soon, 0, 2, 3)))

    def outputs(self) -> dict[str, Table]:
        return {"visits": VISITS, "notes": NOTES, "later": NOTES}


def buckets_of(world: Timed, output: str, row: Row, state: State, now: float) -> Iterator[str]:
    at = row["at"]
    if at is None:
        return
    visits, inner, soon = world.seconds
    if output == "visits" and row["owner"] is not None and moment(at) + visits > now:
        yield f'mine["{row["owner"]}"]'
    if output == "later" and now < moment(at) <= now + soon:
        yield "soon[]"
    if output == "notes" and moment(at) <= now:
        for visit in state[VISITS]:
            is_his = visit["id"] == row["visit"] and visit["owner"] is not None and visit["at"] is not None
            if is_his and moment(str(visit["at"])) + inner > now:
                yield f'mine["{visit["owner"]}"]'


def moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


class TimedReader(Reader):
    """Compares each checkpoint at the time that it says it is."""

    has_gaps = True
    _now = 0.0

    def _compare(self, checkpoint: Checkpoint, states: list[State], applied: list[Op]) -> None:
        # While a table is copied, what is shown is of an earlier time than what is stored.
        assert (checkpoint.shown_op_id, checkpoint.shown_lsn) == (checkpoint.op_id, checkpoint.lsn)
        self._now = checkpoint.clock
        super()._compare(checkpoint, states, applied)

    def _contents(self, name: str, table: Table, state: State) -> Contents:
        world = self._world
        assert isinstance(world, Timed)
        return {
            (bucket, str(row["id"])): {c.name: shown(c.kind, row[c.name]) for c in table.columns}
            for row in state[table]
            for bucket in buckets_of(world, name, row, state, self._now)
        }


class TimedScene(Scene):
    """Writes, and lets time pass."""

    def __init__(self, source: Database, folder: Path, rng: random.Random) -> None:
        super().__init__(Timed(), source, source, folder, rng)
        self.reader = TimedReader(self.world, self.history)
        self.clock = Clock(folder / "clock", BEGIN)
        self._rng, self._connection = rng, source.connect()

    def write(self) -> None:
        """A few rows, about now; moments and the clock are multiples of a quarter, so that they meet."""
        self._connection.execute(b"BEGIN")
        for number in range(self._rng.choice((1, 2, 6))):
            at = datetime.fromtimestamp(self.clock.now + self._rng.randrange(-48, 24) / 4, UTC)
            table, column = self._rng.choice((("visits", "owner"), ("notes", "visit")))
            values = (
                self._rng.choice("abcdefgh"),
                self._rng.choice(("u", "v", None) if column == "owner" else "abcd"),
                at,
            )
            # One row is written in any case: there may be somebody who is to be killed by what comes of it.
            if number and self._rng.random() < 0.2:
                self._connection.execute(f"DELETE FROM {table} WHERE id = %s".encode(), values[:1])
                continue
            self._connection.execute(
                f"INSERT INTO {table} (id, {column}, at) VALUES (%s, %s, %s) "
                f"ON CONFLICT (id) DO UPDATE SET {column} = excluded.{column}, at = excluded.at".encode(),
                values,
            )
        self.history.commit(lambda: self._connection.execute(b"COMMIT"), (VISITS, NOTES))

    def next_due(self, after: float) -> float | None:
        """When a row that is there next comes or goes: as the rules would have it, whoever it is for."""
        state = self.history.commits[-1].state
        at = [
            (table, moment(str(row["at"]))) for table in (VISITS, NOTES) for row in state[table] if row["at"]
        ]
        assert isinstance(self.world, Timed)
        visits, inner, soon = self.world.seconds
        plus = {VISITS: (inner, visits), NOTES: (-soon, 0)}
        found = [one + seconds for table, one in at for seconds in plus[table]]
        return min((one for one in found if one > after), default=None)

    def is_in_force(self, running: Driven, deploys: bool) -> bool:
        """Whether nothing is under way that makes the moments others than those of this world."""
        if deploys:
            self.settle(running)
        return self.reader.goes_by(self.world)

    def wait_for_clock(self, running: Driven, until: float) -> None:
        """Until what is stored is of this time."""
        deadline = time.monotonic() + 60
        with self.storage.connect() as storage:
            storage.execute(b"LISTEN replicator_checkpoint")
            while stored_clock(storage) < until:
                assert not running.has_ended, running.why()
                assert time.monotonic() < deadline, f"it does not become {until}"
                for _ in storage.notifies(timeout=0.05, stop_after=1):
                    pass


def stored_clock(storage: psycopg.Connection[tuple[object, ...]]) -> float:
    ((clock,),) = storage.execute(b"SELECT clock FROM replicator.checkpoints").fetchall()
    return float(str(clock))


@pytest.mark.parametrize("deploys", [False, True], ids=["one set of rules", "deploys"])
@pytest.mark.parametrize("number", range(3))
def test_rows_come_and_go_with_the_time(
    number: int, deploys: bool, database: Database, children: StartChild, rng: random.Random, tmp_path: Path
) -> None:
    make_source(Timed(), database)
    make_storage(database)
    scene = TimedScene(database, tmp_path, rng)
    for _ in range(5):
        scene.write()
    bounds = {**(TIGHT if rng.random() < 0.8 else {"replicator.buckets.ticking._LOOK_S": 0.05}), **KEEP}
    running = Driven(children, scene.path, bounds, scene.clock)
    scene.settle(running)
    quiet = 0
    for _ in range(40):
        luck = rng.random()
        if deploys and rng.random() < 0.2:
            scene.deploy(rng)
        if luck < 0.4:
            scene.write()
        elif luck < 0.8:
            was = max(scene.clock.now, BEGIN)
            scene.clock.set(scene.clock.now + rng.randrange(1, 12) / 4)
            if rng.random() < 0.3:
                scene.settle(running)
            due = scene.next_due(was)
            if due is not None and due <= scene.clock.now and scene.is_in_force(running, deploys):
                scene.wait_for_clock(running, due)
                quiet += 1
        elif luck < 0.9:
            if rng.random() < 0.5:
                running.kill()
            else:
                running.stop()
            scene.end_of_backends()
            scene.clock.set(scene.clock.now + rng.choice((0, 0.5, 3, -0.25)))
            if rng.random() < 0.6:
                # Killed with what comes of the next write, just before it is stored or just after.
                fated = Driven(
                    children, scene.path, bounds, scene.clock, (rng.choice(("appended", "stored")), 1)
                )
                scene.write()
                fated.child.wait()
                scene.end_of_backends()
            running = Driven(children, scene.path, bounds, scene.clock)
        else:
            scene.settle(running)
    scene.settle(running)
    print(f"shown by rules {scene.reader.shown_by}")
    assert (quiet or deploys) and scene.reader.compared
    print(f"{quiet} times nothing was written, {scene.reader.compared} checkpoints")
