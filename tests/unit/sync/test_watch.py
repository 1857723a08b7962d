"""A connection that takes too long is cut, whatever it takes too long for; one that gets on is left alone."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from starlette.types import Receive, Scope, Send

from replicator.sync.connections import Http
from replicator.sync.listen import Listener, listener
from replicator.sync.watch import Watch

_HEAD = b"GET / HTTP/1.1\r\nhost: app\r\n\r\n"
_LARGE = 16 << 20
#: As the watch has them.
_ASK_S, _STALLED_S, _END_S = 30.0, 300.0, 60.0
App = Callable[[Scope, Receive, Send], Awaitable[None]]


@dataclass
class Place:
    """A server, and what its connections are."""

    server: Listener
    port: int
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    @property
    def connections(self) -> list[Http]:
        return [one for one in self.server.server_state.connections if isinstance(one, Http)]

    def look(self, later_s: float) -> None:
        """As if it were so much later."""
        self.server._watch.look(self.connections, time.time() + later_s)

    async def connect(self, sent: bytes, *, room: int = 1 << 20) -> asyncio.StreamReader:
        """One more connection, on which so much has been sent; the client takes no more than this unasked."""
        before = len(self.connections)
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=room)
        self.writers.append(writer)
        writer.write(sent)
        await writer.drain()
        await until(lambda: len(self.connections) > before)
        return reader


@asynccontextmanager
async def serving(app: App, watch: Watch | None = None) -> AsyncIterator[Place]:
    server = listener(app, None, 100)
    if watch is not None:
        server = Listener(server.config, watch)
        server.config.http_protocol_class.keywords["watch"] = watch  # type: ignore[attr-defined]  # a partial
    listening = socket.create_server(("127.0.0.1", 0))
    task = asyncio.create_task(server.serve([listening]))
    place = Place(server, listening.getsockname()[1])
    try:
        yield place
    finally:
        for writer in place.writers:
            writer.transport.abort()
        server.leave()
        await task


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not holds():
            await asyncio.sleep(0)


async def gone(reader: asyncio.StreamReader) -> bytes:
    """What still comes on a connection that ends."""
    async with asyncio.timeout(60):
        try:
            return await reader.read()
        except ConnectionResetError:
            return b""


async def _take_some(reader: asyncio.StreamReader, connection: Http) -> None:
    """So much that the server notices."""
    left = connection.transport.get_write_buffer_size()
    async with asyncio.timeout(60):
        while connection.transport.get_write_buffer_size() == left:
            assert await reader.read(1 << 16), "it was cut"


def answering(body: bytes = b"well", *, close: bool = False) -> App:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-length", b"%d" % len(body)), *([(b"connection", b"close")] if close else [])]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return app


async def test_a_head_that_comes_byte_by_byte_ends_in_time() -> None:
    async with serving(answering()) as place:
        reader = await place.connect(b"")
        for byte in _HEAD[:-1]:
            place.writers[0].write(bytes((byte,)))
            await place.writers[0].drain()
        place.look(_ASK_S - 1)
        assert place.connections
        place.look(_ASK_S + 1)
        assert await gone(reader) == b""


async def test_a_body_that_nobody_waits_for_ends_in_time() -> None:
    async with serving(answering()) as place:
        reader = await place.connect(b"POST / HTTP/1.1\r\nhost: app\r\ncontent-length: 1000\r\n\r\n")
        assert (await reader.readuntil(b"well")).startswith(b"HTTP/1.1 200")
        place.writers[0].write(b"x")
        place.look(_ASK_S - 1)
        assert place.connections
        place.look(_ASK_S + 1)
        assert await gone(reader) == b""


async def test_whoever_is_being_answered_is_not_hurried() -> None:
    go_on = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await go_on.wait()
        await answering()(scope, receive, send)

    async with serving(app) as place:
        reader = await place.connect(_HEAD)
        await until(lambda: place.connections[0].cycle)
        place.look(1e6)
        go_on.set()
        assert (await reader.readuntil(b"well")).startswith(b"HTTP/1.1 200")


async def test_who_takes_nothing_is_cut_and_who_takes_something_is_not() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(2):  # the second waits for the first
            await send({"type": "http.response.body", "body": bytes(_LARGE), "more_body": True})

    async with serving(app) as place:
        reader = await place.connect(_HEAD, room=1 << 10)
        [connection] = place.connections
        await until(connection.transport.get_write_buffer_size)
        place.look(0)
        place.look(_STALLED_S - 1)
        await _take_some(reader, connection)
        place.look(_STALLED_S + 1)
        place.look(2 * _STALLED_S)
        assert place.connections
        place.look(2 * _STALLED_S + 2)
        await until(lambda: not place.connections)


async def test_what_is_to_end_ends_however_slowly_the_rest_is_taken() -> None:
    async with serving(answering(bytes(_LARGE), close=True)) as place:
        reader = await place.connect(_HEAD, room=1 << 10)
        [connection] = place.connections
        await until(connection.transport.is_closing)
        place.look(0)
        await _take_some(reader, connection)
        place.look(_END_S - 1)
        assert place.connections
        place.look(_END_S + 1)
        await until(lambda: not place.connections)


async def test_a_stream_that_is_not_read_ends_with_its_token_and_is_told() -> None:
    told = asyncio.Event()
    ended = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        connection: Any = scope["state"]["connection"]
        connection.is_known(time.time() + 1000, told.set)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while not told.is_set():
            await send({"type": "http.response.body", "body": bytes(1 << 20), "more_body": True})
        ended.set()

    async with serving(app) as place:
        await place.connect(_HEAD, room=1 << 10)
        [connection] = place.connections
        await until(lambda: connection.flow.write_paused)
        place.look(900)
        assert not told.is_set()
        place.look(1001)
        async with asyncio.timeout(60):
            await told.wait()
            await ended.wait()


async def test_who_leaves_a_stream_is_noticed() -> None:
    told = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        connection: Any = scope["state"]["connection"]
        connection.is_known(time.time() + 1000, told.set)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await told.wait()

    async with serving(app) as place:
        await place.connect(_HEAD)
        await until(lambda: place.connections[0].ends_at < 1e300)
        place.writers[0].transport.abort()
        async with asyncio.timeout(60):
            await told.wait()


async def test_of_many_whom_nobody_knows_the_newest_are_kept() -> None:
    async with serving(answering(), Watch(3)) as place:
        first = await place.connect(b"GET")
        second = await place.connect(_HEAD)
        assert (await second.readuntil(b"well")).startswith(b"HTTP/1.1 200")  # and has begun to rest only now
        await place.connect(b"GET")
        async with asyncio.timeout(60):
            newest, writer = await asyncio.open_connection("127.0.0.1", place.port)
        place.writers.append(writer)
        assert await gone(first) == b""
        writer.write(_HEAD)
        assert (await newest.readuntil(b"well")).startswith(b"HTTP/1.1 200")
        place.writers[1].write(_HEAD)
        assert (await second.readuntil(b"well")).startswith(b"HTTP/1.1 200")


async def test_pipelined_requests_are_answered_one_after_the_other() -> None:
    async with serving(answering()) as place:
        reader = await place.connect(_HEAD * 3)
        for _ in range(3):
            assert (await reader.readuntil(b"well")).startswith(b"HTTP/1.1 200")
        await until(lambda: place.connections[0].rests_since < 1e300)
        place.look(_ASK_S + 1)
        assert await gone(reader) == b""
