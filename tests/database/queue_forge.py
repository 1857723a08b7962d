"""A configuration → workers one after another, each in a fork that may be killed at one of its marks.

`forge` reads one order a line, `[mark, nth]` or `null`, and answers each with how that worker ended: -9 if it
was killed, 0 if it came to the end of the queue. A mark of "" is any. It is forked from what has imported
everything, so that a thousand workers cost little more than what they do.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from replicator import marks
from replicator.config import Config, load
from replicator.database import connected
from replicator.ehr.mapping import load_mapping
from replicator.ehr.pace import Pace
from replicator.work import run_work
from tests.fixtures.forks import Forked

#: A mark's name, and which of that name.
At = tuple[str, int]


class Forge:
    """The process that forks them, as a test sees it."""

    def __init__(self, config: Path, lease_s: float) -> None:
        orders, self._orders = os.pipe()
        self._answers, answers = os.pipe()
        word = json.dumps([str(config), lease_s])
        try:
            self._process = Forked(forge, word, os.environ, 1, 2, [orders, answers])
        finally:
            os.close(orders)
            os.close(answers)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._orders)
        os.close(self._answers)
        self._process.wait(60)

    def work(self, kill_at: At | None = None) -> int:
        os.write(self._orders, json.dumps(kill_at).encode() + b"\n")
        # As short as the order before it, so that it comes whole.
        return int(os.read(self._answers, 100))

    def work_through(self, chance: random.Random, within: int, most: int) -> int:
        """Work, killed where chance will have it until it comes to the end, or so often; then once in peace.

        Answers how often it was killed.
        """
        killed, code = 0, -signal.SIGKILL
        while code and killed < most:
            at = ("", chance.randrange(3, within))
            code = self.work(at)
            assert code in (0, -signal.SIGKILL), at
            killed += code != 0
        assert self.work() == 0
        return killed


def _kill_at(name: str, nth: int) -> None:
    """End this process at that mark, in the midst of what it does."""
    seen = 0

    def hear(passed: str, fields: dict[str, object]) -> None:
        nonlocal seen
        seen += name in ("", passed)
        if seen >= nth:
            os.kill(os.getpid(), signal.SIGKILL)

    marks.listeners.append(hear)


async def _work(config: Config, lease_s: float) -> None:
    stop = asyncio.Event()

    async def until_empty() -> None:
        asked = "SELECT EXISTS (SELECT FROM ehr_lanes WHERE state <> 'idle')"
        async with connected(config.storage_dsn, "test", schema="replicator") as storage:
            while await (await storage.execute(asked)).fetchone() != (False,):
                await asyncio.sleep(0.01)
        stop.set()

    waiting = asyncio.create_task(until_empty())
    pace = Pace(concurrency=2, jobs=3, lease_s=lease_s)
    await run_work(config, load_mapping(config.ehr.mapping_path), stop, pace=pace)
    await waiting


def forge(word: str, passed: Sequence[int]) -> None:
    path, lease_s = json.loads(word)
    orders, answers = passed
    config = load(Path(path), os.environ)
    with open(orders) as lines:
        for line in lines:
            order = json.loads(line)
            if (pid := os.fork()) == 0:
                if order is not None:
                    _kill_at(*order)
                try:
                    asyncio.run(_work(config, lease_s))
                    os._exit(0)
                except BaseException:
                    traceback.print_exc()
                    os._exit(1)
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            os.write(answers, f"{code}\n".encode())
