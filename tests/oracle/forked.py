"""A configuration and a fault → a replicator in a process of its own, soon, and the steps it takes.

It tells of its steps one after another, so that whoever started it can lay a fault at any of them.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path

from tests.fixtures.forks import CONTEXT
from tests.oracle import tight
from tests.oracle.steps import Fault, Steps


class Forked:
    """One process; its steps go on counting where another's have ended."""

    def __init__(
        self, path: Path, bounds: Mapping[str, float], done: Sequence[str] = (), fault: Fault | None = None
    ) -> None:
        self._steps, told = CONTEXT.Pipe(duplex=False)
        #: What it has done, by name, as far as we have looked.
        self.steps: list[str] = []
        self._log = path.with_suffix(".log")
        order = json.dumps(
            {"path": str(path), "bounds": dict(bounds), "done": done, "fault": fault, "log": str(self._log)}
        )
        self._process = CONTEXT.Process(target=_main, args=[order, told], daemon=True)
        self._process.start()
        told.close()

    @property
    def has_ended(self) -> bool:
        return not self._process.is_alive()

    @property
    def was_killed(self) -> bool:
        """Whether it has ended at its step."""
        return self._process.exitcode == -signal.SIGKILL

    def wait_for_step(self, number: int) -> None:
        """Until it has begun so many steps, or has ended; it must come so far."""
        while len(self.steps) < number and self._read(timeout=60):
            pass

    def _read(self, timeout: float) -> bool:
        """Whether there was one more step."""
        try:
            if not self._steps.poll(timeout):
                return False
            self.steps.append(self._steps.recv_bytes().decode())
        except EOFError:
            return False
        return True

    def stop(self) -> None:
        """Ask it to end, and see that it ends; the answer may be that it met its fault on the way."""
        self._process.terminate()
        self.join()

    def join(self) -> None:
        self._process.join(60)
        assert self._process.exitcode in (0, -signal.SIGKILL), self.why()
        while self._read(timeout=0):
            pass

    def kill(self) -> None:
        self._process.kill()
        self._process.join(60)

    def why(self) -> str:
        log = self._log.read_text(errors="replace") if self._log.exists() else ""
        return f"a forked process: {self._process.exitcode}\n{log[-30_000:]}"


def _main(order: str, told: Connection) -> None:
    given = json.loads(order)
    _end_with_parent()
    log = os.open(given["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, sys.stdout.fileno())
    os.dup2(log, sys.stderr.fileno())
    fault = Fault(*given["fault"]) if given["fault"] else None
    Steps(lambda name: told.send_bytes(name.encode()), given["done"], fault).count()
    from replicator.cli import main

    with tight.bounded(given["bounds"]):
        main(["run", "--config", given["path"]], "replicator")


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=wait, daemon=True).start()
