"""The parts of `run` → processes beside each other, which begin and end together.

Replicating and serving each keep a processor busy, and one interpreter has only one. So serving is a
process of its own: the same command with --only. It ends when this one does, in whatever way; and this one
when it does.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from replicator.config import Config
from replicator.errors import ReplicatorError
from replicator.sync.keys_configured import client_keyring

#: How long a part is given to end in good order.
_STOP_S = 10.0
#: Set for a part: the number of a pipe, whose end is the end of the process that started it.
PARENT = "REPLICATOR_PARENT_PIPE"


def is_served(config: Config, environ: Mapping[str, str]) -> bool:
    """Whether anybody could be let in."""
    return not client_keyring(config, environ).is_empty


async def beside(work: Coroutine[Any, Any, None], config: Path | None, stop: asyncio.Event) -> None:
    """Do the work with a serving process beside it."""
    watched, held = os.pipe()
    options = [] if config is None else ["--config", str(config)]
    serving = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "replicator", "run", "--only", "serve", *options,
        env={**os.environ, PARENT: str(watched)}, pass_fds=[watched],
    )  # fmt: skip
    os.close(watched)
    working, ended = asyncio.ensure_future(work), asyncio.ensure_future(serving.wait())
    try:
        await asyncio.wait({working, ended}, return_when=asyncio.FIRST_COMPLETED)
        stop.set()
        if serving.returncode is None:
            serving.send_signal(signal.SIGTERM)
            with suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(ended), _STOP_S)
        await working
    finally:
        os.close(held)
        if serving.returncode is None:
            serving.kill()
        await ended
    if serving.returncode:
        raise ReplicatorError(
            f"the serving process ended with code {serving.returncode}", "What it said stands above."
        )


async def end_with_parent() -> None:
    """Returns when the process that started this one has ended; never, if none did."""
    number = os.environ.pop(PARENT, None)
    if number is None:
        await asyncio.Event().wait()
    else:
        ended = asyncio.Event()
        asyncio.get_running_loop().add_reader(int(number), ended.set)
        await ended.wait()
