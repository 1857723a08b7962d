"""The work of one part of `run` → a process that ends when it should, and says how it is.

A part is a process of its own, started by together.py, or the only one there is. It is told to stop by a
signal, or by the end of the process that started it, in whatever way that came: then nobody waits for it any
more, and it must not keep the writer's lock.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import orjson

from replicator import pulse
from replicator.marks import mark
from replicator.pulse import Pulse

#: Set for a part: the number of a socket. Its end is the end of the process that started it.
PARENT = "REPLICATOR_PARENT_PIPE"
#: How often it is looked at whether there is something to say.
_LOOK_S = 0.25
#: A part whose parent has gone ends within so long.
_ORPHANED_S = 2.0
#: What does not end when it is told to is not waited for any longer.
_CANCELLED_S = 2.0

Tell = Callable[[Pulse], None]


class Parent:
    """The process that started this one."""

    def __init__(self, number: int) -> None:
        self._socket = socket.socket(fileno=number)

    def tell(self, now: Pulse) -> None:
        with suppress(OSError):  # it reads nothing any more, or cannot keep up
            self._socket.send(orjson.dumps(now._asdict()) + b"\n", socket.MSG_DONTWAIT)

    def watch(self, loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
        """Stop when it ends; and end, if that takes too long. In a thread, so that nothing can hold it up."""
        threading.Thread(target=self._watch, args=[loop, stop], daemon=True, name="parent").start()

    def _watch(self, loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
        with suppress(OSError):
            while self._socket.recv(64):
                continue
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(stop.set)
        time.sleep(_ORPHANED_S)
        os._exit(1)


def parent() -> Parent | None:
    number = os.environ.pop(PARENT, None)
    return None if number is None else Parent(int(number))


async def live(
    work: Callable[[asyncio.Event], Coroutine[Any, Any, None]],
    stop: asyncio.Event,
    stop_timeout_s: float | None,
    tell: Tell,
) -> None:
    """Do the work until it ends; once told to stop, for so long at most."""
    working = asyncio.ensure_future(work(stop))
    stopping, telling = asyncio.create_task(stop.wait()), asyncio.create_task(_tell_of_it(tell))
    try:
        await asyncio.wait({working, stopping, telling}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            await asyncio.wait({working}, timeout=stop_timeout_s)
        if not working.done():
            mark("cut short", level=logging.WARNING, seconds=stop_timeout_s)
            working.cancel()
            await asyncio.wait({working}, timeout=_CANCELLED_S)
        elif not working.cancelled():
            working.result()
    finally:
        for one in (working, stopping, telling):
            one.cancel()


async def _tell_of_it(tell: Tell) -> None:
    """Say how it is whenever the loop has gone round since it was said last."""
    said: Pulse | None = None
    while True:
        if (now := pulse.felt()) != said:
            tell(now)
            said = now
        await asyncio.sleep(_LOOK_S)
