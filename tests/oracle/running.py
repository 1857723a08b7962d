"""A configuration → a replicator that runs, in this process or in one of its own, and can be ended."""

from __future__ import annotations

import asyncio
import json
import signal
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from replicator.config import load
from replicator.rules.parse import load_rules
from replicator.supervise import run_replicate
from tests.fixtures.children import At, Child, StartChild
from tests.oracle import tight


class Running(Protocol):
    """Either kind."""

    @property
    def has_ended(self) -> bool: ...

    def stop(self) -> None:
        """Ask it to end, and see that it ends well."""

    def kill(self) -> None:
        """End it without asking."""

    def why(self) -> str:
        """How it ended, for a report."""


class Inside:
    """In a thread of this process, with an event loop of its own."""

    def __init__(self, path: Path) -> None:
        self._config = load(path, {})
        self._rules = load_rules(self._config.rules_path)
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self.error: BaseException | None = None
        self._task: asyncio.Task[None] | None = None
        self._thread = threading.Thread(target=self._run, name="replicator")
        self._thread.start()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            try:
                runner.run(self._main())
            except BaseException as error:
                self.error = error

    async def _main(self) -> None:
        self._task = asyncio.current_task()
        await run_replicate(self._config, self._rules, self._stop)

    @property
    def has_ended(self) -> bool:
        return not self._thread.is_alive()

    def stop(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
        self.join()
        if self.error is not None:
            raise self.error

    def kill(self) -> None:
        def cancel() -> None:
            assert self._task is not None
            self._task.cancel()

        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(cancel)
        self.join()

    def join(self) -> None:
        self._thread.join(60)
        assert not self._thread.is_alive(), "the replicator does not end"

    def why(self) -> str:
        return f"in this process: {self.error!r} {getattr(self.error, 'hint', '')}"


class Outside:
    """A process of its own, which a signal can end between any two instructions."""

    def __init__(
        self, children: StartChild, path: Path, bounds: Mapping[str, float], kill_at: At | None = None
    ) -> None:
        env = {tight.VARIABLE: json.dumps(dict(bounds))}
        target = f"{tight.__name__}:main"
        self.child: Child = children("run", "--config", path, target=target, env=env, kill_at=kill_at)

    @property
    def has_ended(self) -> bool:
        return self.child.code is not None

    def stop(self) -> None:
        self.child.terminate()
        code = self.child.wait()
        # Asked before it could listen (Python was still starting), it ends the way any process does.
        was_early = code == -signal.SIGTERM and not self.child.count("writing")
        assert code == 0 or was_early, self.why()

    def kill(self) -> None:
        self.child.kill()

    def why(self) -> str:
        return f"a process of its own: {self.child.code}\n{self.child.stderr[-300000:]}"
