"""Bytes of a connection → its requests and messages, as long as they are of some use.

Whoever can reach the server can send to it, before saying who they are. The protocols beneath hold what makes
no sense yet: the beginning of a request, for as long and as large as it comes. And a WebSocket frame of six
bytes costs thousands of times what it costs to send. So a connection that sends nothing else is cut; when it
takes too long is for the Watch to say.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.wsproto_impl import WSProtocol
from wsproto import events

from replicator.sync.watch import Stuck, Watch

#: What stands around bodies: the head of a request with a token of the longest, several times over.
HEAD_MOST = 1 << 16
#: So many messages, pings and pieces may come in one read.
_EVENTS_MOST = 2_000


class Http(HttpToolsProtocol):
    """A connection that asks over HTTP."""

    def __init__(self, *given: Any, watch: Watch, **named: Any) -> None:
        super().__init__(*given, **named)
        self._watch = watch
        #: What has come since a head was whole or a part of a body was there.
        self._unused = 0
        self.stuck = Stuck()
        #: Since when nothing is being answered.
        self.rests_since = math.inf
        #: When it ends, whatever is on its way.
        self.ends_at = math.inf
        #: Called when it has ended.
        self.on_gone: Callable[[], None] = _nothing

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as theirs
        super().connection_made(transport)
        self._rest()

    def connection_lost(self, exc: Exception | None) -> None:
        self._watch.forget(self)
        super().connection_lost(exc)
        gone, self.on_gone = self.on_gone, _nothing
        gone()
        if self.scope is not None:
            self.scope["state"].clear()  # which would keep all of it until somebody collects it

    def data_received(self, data: bytes) -> None:
        self._unused += len(data)
        super().data_received(data)
        if self._unused > HEAD_MOST:
            self.transport.abort()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["state"]["connection"] = self

    def on_headers_complete(self) -> None:
        self._unused = 0
        super().on_headers_complete()
        if self.cycle is not None and not self.cycle.response_complete:
            self.rests_since = math.inf

    def on_body(self, body: bytes) -> None:
        self._unused = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._unused = 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        if not self.pipeline:
            self._rest()
        super().on_response_complete()

    def handle_websocket_upgrade(self) -> None:
        self._watch.forget(self)
        self.scope["state"].clear()
        super().handle_websocket_upgrade()

    def is_known(self, until: float, on_gone: Callable[[], None]) -> None:
        """Somebody is served who may be, for so long."""
        self._watch.forget(self)
        self.ends_at, self.on_gone = until, on_gone

    def _rest(self) -> None:
        self.rests_since, self.ends_at, self.on_gone = time.time(), math.inf, _nothing
        self._watch.strange(self)


class WebSocket(WSProtocol):
    """A connection that has become a WebSocket."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._events = 0
        self.stuck = Stuck()
        #: Whether anything is being answered is for those to know who speak through it.
        self.rests_since = self.ends_at = math.inf

    def data_received(self, data: bytes) -> None:
        self._events = 0
        try:
            super().data_received(data)
        except _TooManyError:
            self.transport.abort()

    def handle_message(self, event: events.TextMessage | events.BytesMessage) -> None:
        self._count()
        super().handle_message(event)

    def handle_ping(self, event: events.Ping) -> None:
        self._count()
        if self.writable.is_set():  # else the answers to one who does not read would pile up
            super().handle_ping(event)

    def handle_pong(self, event: events.Pong) -> None:
        self._count()
        super().handle_pong(event)

    def _count(self) -> None:
        self._events += 1
        if self._events > _EVENTS_MOST:
            raise _TooManyError


class _TooManyError(Exception):
    """More has come at once than anybody means."""


def _nothing() -> None:
    pass
