"""A Scene × chance → rounds: traffic, something that goes wrong in the middle of it, and the comparison."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Literal

from tests.fixtures.children import At, StartChild
from tests.fixtures.postgres import Server
from tests.fixtures.signals import Signals
from tests.oracle.running import Inside, Outside, Running
from tests.oracle.scene import Scene
from tests.oracle.tight import bounded

#: What a durable step is followed by, and how often there is one in a round.
MARKS = {"stored": 40, "appended": 40, "chunk": 12, "copied": 3, "copying": 3, "streaming": 1, "writing": 1}


class Rounds:
    """One world's rounds, one after the other; the replicator of the last goes on into the next."""

    def __init__(
        self,
        scene: Scene,
        rng: random.Random,
        children: StartChild,
        signals: Signals,
        bounds: Mapping[str, float],
        own: list[Server],
    ) -> None:
        self.scene, self.rng = scene, rng
        self._children, self._signals, self._bounds, self._own = children, signals, bounds, own
        self._running: Running | None = None
        #: What was done, for a report.
        self.log: list[str] = []

    @contextmanager
    def open(self) -> Iterator[Rounds]:
        """In-process replicators work within the bounds, too; whatever runs at the end is ended."""
        with ExitStack() as stack:
            stack.enter_context(bounded(self._bounds))
            stack.callback(self._end_whatever_runs)
            yield self

    def _end_whatever_runs(self) -> None:
        if self._running is not None:
            self._running.kill()

    def round(self) -> None:
        """One of the ways a day can go."""
        kinds = [self._quiet, self._restart, self._kill_at_a_mark, self._kill, self._fail_at_a_mark]
        kinds += [self._restart_server] if self._own else []
        kind = self.rng.choice(kinds)
        transactions = self.rng.choice((3, 12, 12, 30))
        again = self.rng.random() < 0.35
        self.log.append(f"{kind.__name__} transactions={transactions} again={again}")
        at: dict[int, Callable[[], None]] = {}
        if again:
            at[self.rng.randrange(4 * transactions)] = lambda: self.scene.copy_again(self.rng)
        if self.rng.random() < 0.5:
            at[self.rng.randrange(4 * transactions)] = self._compact
        kind(transactions, at)
        assert self._running is not None
        self.scene.settle(self._running)

    def _compact(self) -> None:
        self.log.append("  compact")
        self.scene.compact(self.rng)

    def report(self) -> str:
        running = "nothing runs" if self._running is None else self._running.why()
        return "\n".join(["rounds:", *self.log, running])

    # ── Ways a day can go ────────────────────────────────────────────────────────────────────────

    def _quiet(self, transactions: int, at: dict[int, Callable[[], None]]) -> None:
        self._start()
        self.scene.run(transactions, at)

    def _restart(self, transactions: int, at: dict[int, Callable[[], None]]) -> None:
        self._start()
        self.scene.run(transactions, at)
        self._end(lambda running: running.stop())
        self.scene.run(self.rng.randrange(5))
        self._start()
        self.scene.run(transactions // 3)

    def _kill(self, transactions: int, at: dict[int, Callable[[], None]]) -> None:
        """At any time, between any two instructions."""
        self._begin_again(self._outside)
        self.scene.run(transactions, at | {self.rng.randrange(5 * transactions): self._kill_now})
        self._kill_now()
        self._start()
        self.scene.run(transactions // 3)

    def _kill_at_a_mark(self, transactions: int, at: dict[int, Callable[[], None]]) -> None:
        name = self.rng.choice(list(MARKS))
        nth = self.rng.randint(1, MARKS[name])
        self.log.append(f"  kill at {name} {nth}")
        self._begin_again(lambda: self._outside((name, nth)))
        self.scene.run(transactions, at)
        self._kill_now()
        self._start()
        self.scene.run(transactions // 3)

    def _fail_at_a_mark(self, transactions: int, at: dict[int, Callable[[], None]]) -> None:
        """An exception in the middle of this process's replicator, which takes it down in good order."""
        nth = self.rng.choice((1, 3, 10, self.rng.randint(1, 100)))
        self.log.append(f"  fail at mark {nth}")
        self._begin_again(self._inside)
        failpoint = self._signals.fail_at(None, nth, OSError("a fault of the test's making"))
        self.scene.run(transactions, at)
        failpoint.met = True  # from here on no more
        self._end(lambda running: running.kill())
        self._start()
        self.scene.run(transactions // 3)

    def _restart_server(self, transactions: int, at: dict[int, Callable[[], None]]) -> None:
        """One of the servers goes down and comes back, while the replicator runs and tries."""
        self._start()
        self.scene.run(transactions, at)
        server = self.rng.choice(self._own)
        modes: tuple[Literal["fast", "immediate"], ...] = ("fast", "immediate")
        mode = self.rng.choice(modes)
        self.log.append(f"  {mode} restart of {server.directory.name}")
        server.stop(mode)
        server.start()
        self.scene.history.reconnect()
        self.scene.run(transactions // 2)

    # ── Starting and ending ──────────────────────────────────────────────────────────────────────

    def _start(self) -> None:
        """See that one runs."""
        if self._running is None:
            self._running = self.rng.choice((self._inside, self._inside, self._outside))()

    def _begin_again(self, start: Callable[[], Running]) -> None:
        """A new one, of this kind."""
        if self._running is not None:
            self._end(lambda running: running.stop())
        self._running = start()

    def _inside(self) -> Running:
        return Inside(self.scene.path)

    def _outside(self, kill_at: At | None = None) -> Running:
        return Outside(self._children, self.scene.path, self._bounds, kill_at)

    def _kill_now(self) -> None:
        if self._running is not None:
            self._end(lambda running: running.kill())

    def _end(self, how: Callable[[Running], None]) -> None:
        assert self._running is not None
        running, self._running = self._running, None
        how(running)
        self.scene.end_of_backends()
