"""The parts of `run` → processes beside each other, kept going, and ended together.

Replicating, serving and delivering each keep a processor busy, and one interpreter has only one. So each is a
process of its own: the same command with --only. This one only keeps watch: it starts a part again that was
killed or has crashed, ends them all when one of them ends for a reason that does not heal, and speaks for all
of them to the service manager. They end when it does, in whatever way.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import orjson

from replicator.config import Config
from replicator.marks import mark
from replicator.notify import VARIABLES, Notifier
from replicator.part import PARENT
from replicator.patience import Patience, stopped_within
from replicator.pulse import Pulse

#: How a part ends that did not foresee how. Its reason may pass, which those of 1 and 2 do not.
CRASHED = 70
#: A part that crashes so often in a row, each time at once, will not come right.
_CRASHES_MOST = 5


def parts(config: Config, environ: Mapping[str, str]) -> list[str]:
    """What there is to run: replicating; serving, if anybody is let in; delivering, if there is a url."""
    # Slow to import, and a part that is started again in a hurry does not need it.
    from replicator.sync.keys_configured import client_keyring

    served = [] if client_keyring(config, environ).is_empty else ["serve"]
    return ["replicate", *served, *(["work"] if config.ehr.url is not None else [])]


class Watch:
    """How each part is → what the service manager is told of all of them."""

    def __init__(self, names: Sequence[str], notifier: Notifier) -> None:
        self._notifier = notifier
        self._last = {name: Pulse() for name in names}
        #: Who has gone round since the watchdog was told so.
        self._alive: set[str] = set()
        self._is_ready, self._said = False, ""

    def hear(self, name: str, now: Pulse) -> None:
        before = self._last[name]
        if now.is_ready and not before.is_ready:
            mark("part ready", part=name, doing=now.doing)
        if now.rounds != before.rounds:
            self._alive.add(name)
        self._last[name] = now
        if not self._is_ready and all(one.is_ready for one in self._last.values()):
            self._is_ready = True
            mark("ready")
            self._notifier.tell(READY=1)
        self._say()
        if self._alive == self._last.keys():
            self._alive.clear()
            self._notifier.tell(WATCHDOG=1)

    def lose(self, name: str) -> None:
        """It has ended, and is started again."""
        self._last[name] = Pulse(doing="starting again")
        self._alive.discard(name)
        self._say()

    def stop(self) -> None:
        self._notifier.tell(STOPPING=1, STATUS="stopping")

    def _say(self) -> None:
        said = "; ".join(f"{name}: {one.doing}" for name, one in self._last.items())
        if said != self._said:
            self._said = said
            self._notifier.tell(STATUS=said)


class _Part:
    """One of them, while it is kept going."""

    def __init__(self, name: str, options: Sequence[str], watch: Watch) -> None:
        self.name, self._options, self._watch = name, options, watch
        self.process: asyncio.subprocess.Process | None = None

    def send(self, number: int) -> None:
        if self.process is not None and self.process.returncode is None:
            with suppress(ProcessLookupError):
                self.process.send_signal(number)

    async def keep(self, stop: asyncio.Event) -> int:
        """Run it again and again until told to stop, or for good; then the code of that end."""
        patience, crashes = Patience(), 0
        while not stop.is_set():
            began = time.monotonic()
            code = await self._run(stop)
            if stop.is_set():
                break
            if code in (1, 2):
                return code  # it has said why
            wait_s = patience.after(time.monotonic() - began)
            crashes = min(crashes + 1, patience.attempts) if code == CRASHED else 0
            mark("part ended", level=logging.WARNING, part=self.name, code=code, again_in=round(wait_s, 2))
            if crashes >= _CRASHES_MOST:
                mark("part given up", level=logging.ERROR, part=self.name, crashes=crashes)
                return 1
            self._watch.lose(self.name)
            await stopped_within(stop, wait_s)
        return 0

    async def _run(self, stop: asyncio.Event) -> int:
        ours, theirs = socket.socketpair()
        environ = {name: value for name, value in os.environ.items() if name not in VARIABLES}
        with theirs:
            self.process = process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "replicator", "run", "--only", self.name, *self._options,
                env=environ | {PARENT: str(theirs.fileno())}, pass_fds=[theirs.fileno()],
            )  # fmt: skip
        mark("part started", part=self.name, pid=process.pid)
        if stop.is_set():
            self.send(signal.SIGTERM)
        lines, way = await asyncio.open_connection(sock=ours)
        try:
            async for line in lines:
                self._watch.hear(self.name, Pulse(**orjson.loads(line)))
            return await process.wait()
        finally:
            way.close()
            if process.returncode is None:
                process.kill()
                await process.wait()


class Together:
    """All of them."""

    def __init__(self, names: Sequence[str], config: Path | None, watch: Watch) -> None:
        options = [] if config is None else ["--config", str(config)]
        self._watch = watch
        self._parts = [_Part(name, options, watch) for name in names]

    def reload(self) -> None:
        """Each takes up again what is its own."""
        for part in self._parts:
            part.send(signal.SIGHUP)

    async def run(self, stop: asyncio.Event, stop_timeout_s: float) -> int:
        """Keep them going until told to stop, or until one ends for good; the exit code."""
        kept = [asyncio.create_task(part.keep(stop)) for part in self._parts]
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({*kept, stopping}, return_when=asyncio.FIRST_COMPLETED)
            stop.set()
            self._watch.stop()
            for part in self._parts:
                part.send(signal.SIGTERM)
            _, late = await asyncio.wait(kept, timeout=stop_timeout_s)
        finally:
            for one in (*kept, stopping):
                one.cancel()
            ended = await asyncio.gather(*kept, return_exceptions=True)
        if late:
            names = [part.name for part, task in zip(self._parts, kept, strict=True) if task in late]
            mark("cut short", level=logging.WARNING, parts=", ".join(names), seconds=stop_timeout_s)
        codes = [code for code in ended if isinstance(code, int)]
        for error in ended:
            if isinstance(error, Exception):
                raise error
        return max(codes, default=0)
