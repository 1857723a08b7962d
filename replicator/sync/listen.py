"""An address and an app → a socket, and what takes connections from it and watches over them."""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
import ssl
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, cast

import uvicorn
from starlette.types import ASGIApp

from replicator.errors import ConfigError
from replicator.marks import mark
from replicator.settings.keys import SyncKeys
from replicator.sync.connections import Http, WebSocket
from replicator.sync.watch import STRANGERS_MOST, Watch, Watched

_BACKLOG = 2_048
#: Storage, source, logs, and whatever else the process has open.
_OTHERS = 100
#: In seconds, as the loop goes round once a second.
_LOOK_EVERY = 5


def listen(sync: SyncKeys) -> socket.socket:
    """The socket, before anything else is opened: a port that is taken is told at once."""
    family = socket.AF_INET6 if ":" in sync.host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((sync.host, sync.port))
    except OSError as error:
        listening.close()
        raise ConfigError(
            f"sync.listen: cannot listen at {sync.listen}: {error.strerror}",
            "Another process may be listening there; choose another port, or 0 for any.",
        ) from None
    listening.listen(_BACKLOG)
    return listening


def listener(app: ASGIApp, tls: ssl.SSLContext | None, known_most: int) -> Listener:
    """What takes connections for the app: so many of those who are known, and others."""
    for name in ("uvicorn.error", "uvicorn.asgi"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # ours say what happens, without what was sent
    watch = Watch(_strangers_most(known_most))
    config = uvicorn.Config(
        app,
        loop="none",
        http=cast(Any, partial(Http, watch=watch)),
        ws=WebSocket,
        # RSocket has signs of life of its own; and each connection would keep a compressor of 100 KB.
        ws_ping_interval=None,
        ws_per_message_deflate=False,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=2,
        backlog=_BACKLOG,
    )
    config.load()
    config.ssl = tls  # as it has been looked at, instead of two files
    return Listener(config, watch)


class Listener(uvicorn.Server):
    """Ends when it is told to, and leaves signals to the process it is in."""

    def __init__(self, config: uvicorn.Config, watch: Watch) -> None:
        super().__init__(config)
        self._watch, self._leaving = watch, asyncio.Event()

    def leave(self) -> None:
        self.should_exit = True
        self._leaving.set()

    async def main_loop(self) -> None:
        """Go round once a second, for the date that answers carry, and look at all connections at times."""
        rounds = 0
        while not await self.on_tick(0):
            rounds += 1
            if rounds % _LOOK_EVERY == 0:
                connections = cast(Iterable[Watched], self.server_state.connections)
                self._watch.look(connections, time.time())
            with suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await self._leaving.wait()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _strangers_most(known_most: int) -> int:
    """How many beside those who are known; all of these may come anew at once, and are strangers at first."""
    wanted = known_most + STRANGERS_MOST
    there = _descriptors(known_most + wanted + _OTHERS)
    if there < 2 * known_most + _OTHERS:
        mark(
            "few descriptors",
            level=logging.WARNING,
            there=there,
            hint="Raise the limit (ulimit -n, LimitNOFILE).",
        )
    return max(min(wanted, there - known_most - _OTHERS), _OTHERS)


def _descriptors(wanted: int) -> int:
    """How many files may be open, after asking for so many: what a shell gives is for programs of old."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return wanted
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
