"""A real server with an RSocketEndpoint, and a client that says exactly the frames it is told to."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from socket import create_server
from typing import Any

import aiohttp
import bson
import orjson
import uvicorn

from replicator.buckets.model import OpId
from replicator.sync.auth import User
from replicator.sync.auth_keyring import Keyring
from replicator.sync.keys import Terms, key_of_jwk
from replicator.sync.lines import CompleteLine, Line
from replicator.sync.places import Places
from replicator.sync.request import Request
from replicator.sync.rsocket import RSocketEndpoint
from replicator.sync.rsocket_frames import (
    Error,
    Frame,
    Payload,
    RequestStream,
    Setup,
    decode,
    encode,
)
from replicator.sync.rsocket_stream import Stream
from tests.unit.sync.signers import jwk_of, sign

JSON = "application/json"
PATH = b'{"path":"/sync/stream"}'


def token(**claims: Any) -> str:
    now = int(time.time())
    return "Token " + sign("HS256", {"iat": now, "exp": now + 3600, **claims})


def setup(authorization: str | None = None, **other: Any) -> Setup:
    metadata = {"token": authorization or token(), "user_agent": "test"}
    said: dict[str, Any] = {"keepalive_ms": 20_000, "lifetime_ms": 90_000}
    said |= {"metadata_type": JSON, "data_type": JSON, "metadata": orjson.dumps(metadata), **other}
    return Setup(**said)


def ask(stream: int = 1, n: int = 10, body: bytes = b'{"raw_data":true}', **other: Any) -> RequestStream:
    return RequestStream(stream, n, **{"metadata": PATH, "data": body, **other})


def number(at: int) -> Line:
    return CompleteLine(OpId(at))


class Told:
    """The other side of the seam: what was asked for, and lines to send as a test says."""

    def __init__(self) -> None:
        self.conversations: asyncio.Queue[Conversation] = asyncio.Queue()

    async def converse(self, user: User, request: Request, out: Stream) -> None:
        conversation = Conversation(user, request, out)
        self.conversations.put_nowait(conversation)
        out.on_close = conversation.closed.set
        try:
            await conversation.hold()
        finally:
            conversation.over.set()

    async def next(self) -> Conversation:
        return await self.conversations.get()


class Conversation:
    """One stream, from inside."""

    def __init__(self, user: User, request: Request, out: Stream) -> None:
        self.user, self.request, self.out = user, request, out
        self.closed, self.over = asyncio.Event(), asyncio.Event()
        self.sent = 0
        self._todo: asyncio.Queue[list[Line] | Exception | None] = asyncio.Queue()

    def say(self, *lines: Line) -> None:
        self._todo.put_nowait(list(lines))

    def end(self, error: Exception | None = None) -> None:
        self._todo.put_nowait(error)

    async def hold(self) -> None:
        """Do as told until told to end, or until nobody listens."""
        closing = asyncio.ensure_future(self.closed.wait())
        try:
            while not self.out.is_closed:
                taking = asyncio.ensure_future(self._todo.get())
                await asyncio.wait((taking, closing), return_when=asyncio.FIRST_COMPLETED)
                if not taking.done():
                    taking.cancel()
                    return
                todo = taking.result()
                if isinstance(todo, Exception):
                    raise todo
                if todo is None:
                    return
                await self.out.send(todo)
                self.sent += len(todo)
        finally:
            closing.cancel()


class Peer:
    """A client by hand."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket

    async def say(self, *frames: Frame | bytes) -> None:
        for frame in frames:
            await self.socket.send_bytes(frame if isinstance(frame, bytes) else encode(frame))

    async def hear(self) -> Frame:
        async with asyncio.timeout(30):
            frame = decode(await self.socket.receive_bytes())
        assert isinstance(frame, Frame)
        return frame

    async def document(self) -> dict[str, Any]:
        """The next frame, which must be a value and no more."""
        frame = await self.hear()
        assert isinstance(frame, Payload), frame
        assert (frame.next, frame.complete, frame.follows, frame.metadata) == (True, False, False, None)
        return dict(bson.decode(frame.data))

    async def fault(self) -> str:
        """What the error says that is heard next, after which the connection ends."""
        frame = await self.hear()
        assert isinstance(frame, Error) and frame.stream == 0, frame
        async with asyncio.timeout(30):
            assert (await self.socket.receive()).type is aiohttp.WSMsgType.CLOSE
        return f"{frame.code:#x} {frame.text}"


class Place:
    """A server that listens, and what its clients asked for."""

    def __init__(self, endpoint: RSocketEndpoint, told: Told, url: str) -> None:
        self.endpoint, self.told, self.url = endpoint, told, url
        self.session = aiohttp.ClientSession()
        #: A socket nobody keeps is closed.
        self._peers: list[Peer] = []

    async def connect(self, *frames: Frame | bytes, path: str = "/sync/stream") -> Peer:
        peer = Peer(await self.session.ws_connect(self.url + path, max_msg_size=1 << 25))
        self._peers.append(peer)
        await peer.say(*frames)
        return peer

    async def close(self) -> None:
        for peer in self._peers:
            await peer.socket.close()
        await self.session.close()


Converse = Callable[[User, Request, Stream], Awaitable[None]]


@asynccontextmanager
async def serving(
    converse: Converse | None = None, *, most: int = 100, each: int = 100, **options: Any
) -> AsyncIterator[Place]:
    told = Told()
    keyring = Keyring([key_of_jwk(jwk_of("HS256", secret=True), Terms(("app",)))])
    endpoint = RSocketEndpoint(keyring, converse or told.converse, Places(most, each), **options)
    config = uvicorn.Config(
        endpoint,
        loop="none",
        ws="wsproto",
        lifespan="off",
        log_config=None,
        ws_ping_interval=None,
        ws_per_message_deflate=False,
        timeout_graceful_shutdown=5,
    )
    server = uvicorn.Server(config)
    # Connections wait in it until the server takes them.
    socket = create_server(("127.0.0.1", 0))
    task = asyncio.create_task(server._serve([socket]))
    place = Place(endpoint, told, f"ws://127.0.0.1:{socket.getsockname()[1]}")
    try:
        yield place
    finally:
        await place.close()
        server.should_exit = True
        await task
