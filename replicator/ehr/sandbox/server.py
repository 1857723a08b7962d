"""A Postgres → a sandbox on a port of the loopback, for as long as it is needed.

async with Sandbox(dsn) as sandbox:
    client = Client(sandbox.url)
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from replicator.ehr.sandbox.routes import BASE, application
from replicator.ehr.sandbox.store import Stores
from replicator.ehr.sandbox.trouble import Trouble
from replicator.errors import Unavailable
from replicator.marks import mark

LOOPBACK = "127.0.0.1"
#: How long requests that hang may go on when it ends: they hang because they were told to.
_PATIENCE_S = 1


class _Protocol(H11Protocol):
    """Lets a request end its own connection (scope["state"]["transport"])."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.app_state = {**self.app_state, "transport": transport}


class _Server(uvicorn.Server):
    """One that leaves signals to the program it runs in, and says when it is ready."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()


class Sandbox:
    """One sandbox. What it holds stays in the database when it ends."""

    def __init__(
        self,
        dsn: str,
        *,
        system: str = "sandbox",
        port: int = 0,
        credentials: tuple[str, str] | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.system = system
        self.trouble = Trouble()
        self._stores = Stores(dsn)
        self._port, self._clock = port, clock
        self._application = application(self._stores, system, clock, self.trouble, credentials)
        self._server: _Server | None = None
        self._serving: asyncio.Task[None] | None = None

    @property
    def root(self) -> str:
        return f"http://{LOOPBACK}:{self._port}"

    @property
    def url(self) -> str:
        """The root of its API, as a client wants it."""
        return f"{self.root}{BASE}"

    async def add_templates(self, web_templates: Iterable[dict[str, Any]]) -> None:
        """Have these, too, as if they had been uploaded."""
        async with self._stores.transaction() as store:
            for each in web_templates:
                await store.add_template(None, each, self._clock())

    async def __aenter__(self) -> Self:
        await self._stores.open()
        try:
            await self._start()
        except BaseException:
            await self._stores.close()
            raise
        mark("sandbox started", level=logging.INFO, url=self.url, what="a sandbox, not a record system")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None and self._serving is not None
        self._server.should_exit = True
        try:
            await self._serving
        finally:
            await self._stores.close()

    async def _start(self) -> None:
        listening = socket.create_server((LOOPBACK, self._port))
        # Connections take this over. Without it a body, which is a write of its own, waits some 40 ms for the
        # acknowledgement of the head before it: asyncio only sees to sockets that say outright they are TCP.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._port = listening.getsockname()[1]
        config = uvicorn.Config(
            self._application,
            http=_Protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=_PATIENCE_S,
        )
        self._server = _Server(config)
        self._serving = asyncio.create_task(self._server.serve([listening]))
        ready = asyncio.create_task(self._server.ready.wait())
        await asyncio.wait({ready, self._serving}, return_when=asyncio.FIRST_COMPLETED)
        if not ready.done():
            ready.cancel()
            raise Unavailable(
                f"the sandbox could not be started on {self.root}"
            ) from self._serving.exception()
