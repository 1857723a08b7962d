"""A configuration's path, and a lease's seconds → a worker in a process of its own, until told to stop."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence
from pathlib import Path

from replicator.config import load
from replicator.ehr.mapping import load_mapping
from replicator.ehr.pace import Pace
from replicator.work import run_work

TARGET = "tests.database.queue_worker:main"


def main(argv: Sequence[str]) -> None:
    config = load(Path(argv[0]), os.environ)
    pace = Pace(concurrency=2, jobs=3, lease_s=float(argv[1]))

    async def work() -> None:
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        await run_work(config, load_mapping(config.ehr.mapping_path), stop, pace=pace)

    asyncio.run(work())
