"""WebSocket connections that speak RSocket → conversations with those who are known.

Plain ASGI, on any path: what is asked for stands in the frames. A connection is one task that reads, and one
for each stream. Nothing is read while an answer to what was read before cannot leave, so a client that sends
and does not read fills nothing but its own socket.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

from replicator.errors import ReplicatorError, place_of
from replicator.marks import mark
from replicator.sync.auth import EXPIRED, AuthError, User
from replicator.sync.auth_keyring import Keyring
from replicator.sync.places import Full, Places
from replicator.sync.request import Request
from replicator.sync.rsocket_frames import (
    Broken,
    Cancel,
    Error,
    ErrorCode,
    Frame,
    Keepalive,
    Kind,
    Lease,
    Other,
    Payload,
    RequestN,
    RequestStream,
    Setup,
    decode,
    encode,
)
from replicator.sync.rsocket_requests import Fault, Introduction, Pieces, asked, introduced, told
from replicator.sync.rsocket_stream import Stream

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
#: Holds a conversation with a verified user, until it ends or is refused with an error that has a `code`.
Converse: TypeAlias = Callable[[User, Request, Stream], Awaitable[None]]

#: All who may be served can come anew at once, and have not said yet who they are; and so many beside them.
_STRANGERS_MOST = 100
#: How long a stream is given to end by itself when its client is gone, and a client to take the last word.
_END_S = 5.0
#: What a client is told of what is not its fault.
_UNAVAILABLE = "PSYNC_S2003"


class Gone(Exception):
    """The client has closed the connection, or lost it."""


class RSocketEndpoint:
    """Every connection of a process."""

    def __init__(
        self,
        keyring: Keyring,
        converse: Converse,
        places: Places,
        *,
        streams_most: int = 10,
        setup_s: float = 10.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.keyring, self.converse, self.clock = keyring, converse, clock
        self.streams_most, self.setup_s = streams_most, setup_s
        #: For those that have said who they are, with whoever else takes them.
        self.places = places
        #: Connections, with those that have not.
        self.open = 0
        #: By how they are waited for: these; the oldest first.
        self._strangers: dict[asyncio.Timeout, None] = {}

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        assert scope["type"] == "websocket", "routed by type"
        if (await receive())["type"] != "websocket.connect":
            return
        self.open += 1
        try:
            await send({"type": "websocket.accept"})
            await _Connection(self, receive, send).hold()
        finally:
            self.open -= 1

    @asynccontextmanager
    async def patience(self) -> AsyncIterator[None]:
        """How long a stranger is waited for. Where there are too many, the one that has had the longest."""
        if len(self._strangers) >= self.places.most + _STRANGERS_MOST:
            oldest = next(iter(self._strangers))
            del self._strangers[oldest]
            oldest.reschedule(asyncio.get_running_loop().time())
        async with asyncio.timeout(self.setup_s) as waiting:
            self._strangers[waiting] = None
            try:
                yield
            finally:
                self._strangers.pop(waiting, None)


class _Connection:
    """One client's connection, from its first frame to its end."""

    def __init__(self, endpoint: RSocketEndpoint, receive: Receive, send: Send) -> None:
        self._endpoint, self._receive, self._send = endpoint, receive, send
        self._streams: dict[int, Stream] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._pieces = Pieces()
        self._last_stream = 0

    async def hold(self) -> None:
        try:
            introduction, user = await self._introduced()
            with self._endpoint.places.one_for(user.sub):
                mark("rsocket connected", known=self._endpoint.places.taken)
                try:
                    await self._serve(introduction, user)
                finally:
                    await self._end_streams()
        except Full as full:
            await self._end(Fault(ErrorCode.REJECTED_SETUP, full.code, full.what, full.hint))
        except Fault as fault:
            await self._end(fault)
        except (Gone, OSError):
            pass

    async def _introduced(self) -> tuple[Introduction, User]:
        try:
            async with self._endpoint.patience():
                frame = await self._frame()
        except TimeoutError:
            raise Fault(ErrorCode.INVALID_SETUP, "PSYNC_S2001", "No SETUP came in time") from None
        if isinstance(frame, Other) and frame.kind == Kind.RESUME:
            raise Fault(ErrorCode.REJECTED_RESUME, "PSYNC_S2001", "Resumption is not served")
        if not isinstance(frame, Setup):
            raise Fault(ErrorCode.INVALID_SETUP, "PSYNC_S2001", "The first frame must be a SETUP")
        introduction = introduced(frame)
        try:
            user = await self._endpoint.keyring.user(introduction.authorization, self._endpoint.clock())
        except AuthError as error:
            raise Fault(ErrorCode.REJECTED_SETUP, error.code, error.what, error.hint) from None
        # A connection lives for hours, and a token may be larger than all else that stays of it.
        return introduction._replace(authorization=None), user

    async def _serve(self, introduction: Introduction, user: User) -> None:
        """Take frames for as long as the client shows that it lives."""
        lifetime_s = introduction.lifetime_s
        try:
            while True:
                async with asyncio.timeout(lifetime_s):
                    await self._take(await self._frame(), introduction, user)
        except TimeoutError:
            what = f"Nothing was heard of the client for {lifetime_s:g} s"
            raise Fault(ErrorCode.CONNECTION_ERROR, _UNAVAILABLE, what) from None

    async def _take(self, frame: Frame, introduction: Introduction, user: User) -> None:
        match frame:
            case Keepalive(is_asking, data):
                if is_asking:
                    await self._write(encode(Keepalive(False, data)))
                if not self._tasks and self._endpoint.clock() >= user.expires_at:
                    raise Fault(ErrorCode.CONNECTION_CLOSE, EXPIRED, "The token has expired")
            case RequestStream(stream):
                self._check_new(stream)
                await self._request(stream, lambda: self._pieces.begin(frame), introduction, user)
            case Payload(stream) if stream in self._pieces:
                await self._request(stream, lambda: self._pieces.add(frame), introduction, user)
            case RequestN(stream, n) if stream in self._streams:
                self._streams[stream].give(n)
            case Cancel(stream) | Error(stream) if stream:
                self._pieces.drop(stream)
                if stream in self._streams:
                    self._streams[stream].close()
            case Error():
                raise Gone
            case Setup():
                raise Fault(ErrorCode.INVALID_SETUP, "PSYNC_S2001", "A connection has one SETUP")
            case Lease():
                raise Fault(ErrorCode.CONNECTION_ERROR, "PSYNC_S2001", "Nobody asked for a LEASE")
            case Other():
                await self._other(frame)

    async def _other(self, frame: Other) -> None:
        match frame.kind:
            case Kind.REQUEST_RESPONSE | Kind.REQUEST_CHANNEL if frame.stream:
                fault = Fault(ErrorCode.REJECTED, "PSYNC_S2002", "Only requests for a stream are served")
                await self._refuse(frame.stream, fault)
            case Kind.REQUEST_FNF | Kind.METADATA_PUSH:
                pass
            case kind if not frame.is_ignorable:
                what = f"A frame of kind {kind:#04x} is not understood"
                raise Fault(ErrorCode.CONNECTION_ERROR, "PSYNC_S2001", what)

    def _check_new(self, stream: int) -> None:
        if stream % 2 == 0 or stream <= self._last_stream:
            what = "The id of a new stream must be odd, and higher than those before it"
            raise Fault(ErrorCode.CONNECTION_ERROR, "PSYNC_S2001", what)
        self._last_stream = stream

    async def _request(
        self, stream: int, taken: Callable[[], RequestStream | None], introduction: Introduction, user: User
    ) -> None:
        """Begin a stream once all of its request is there, if it may be begun."""
        try:
            if len(self._tasks) + len(self._pieces) - (stream in self._pieces) >= self._endpoint.streams_most:
                self._pieces.drop(stream)
                what = "The limit of concurrent streams of a connection is reached"
                raise Fault(ErrorCode.REJECTED, Full.code, what)
            if (request := taken()) is None:
                return
            wanted = asked(request, introduction)
        except Fault as fault:
            await self._refuse(stream, fault)
            return
        clock = self._endpoint.clock
        out = Stream(stream, request.n, self._write, lambda: user.expires_at - clock())
        self._streams[stream] = out
        task = asyncio.create_task(self._converse(user, wanted, out))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _converse(self, user: User, request: Request, out: Stream) -> None:
        text = f"[{_UNAVAILABLE}] The server failed"
        try:
            if self._endpoint.clock() >= user.expires_at:
                raise AuthError(EXPIRED, "The token has expired")
            await self._endpoint.converse(user, request, out)
            text = ""
        except ReplicatorError as error:
            code = getattr(error, "code", None)
            if code is None:
                mark("stream failed", level=logging.WARNING, why=error.what)
                error, code = ReplicatorError("The server cannot answer now", "Try again."), _UNAVAILABLE
            text = told(error, code)
        except Exception as error:
            # Not what it says: that may hold what was sent.
            mark("stream failed", level=logging.ERROR, why=place_of(error))
        finally:
            del self._streams[out.stream]
            if not out.is_closed:
                out.close()
                await self._last_word(encode(_end_of(out.stream, text)))

    async def _end_streams(self) -> None:
        """Let each stream end by itself, which it does where it may be left; force those that do not."""
        for stream in tuple(self._streams.values()):
            stream.close()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=_END_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _end(self, fault: Fault) -> None:
        """Say why, and close."""
        mark("rsocket ended", code=fault.code, why=fault.what)
        await self._last_word(encode(Error(0, fault.error, told(fault, fault.code))))
        try:
            async with asyncio.timeout(_END_S):
                await self._send({"type": "websocket.close", "code": 1000, "reason": f"[{fault.code}]"})
        except (OSError, TimeoutError):
            pass

    async def _refuse(self, stream: int, fault: Fault) -> None:
        await self._write(encode(Error(stream, fault.error, told(fault, fault.code))))

    async def _last_word(self, message: bytes) -> None:
        """A client that does not take it does without."""
        try:
            async with asyncio.timeout(_END_S):
                await self._write(message)
        except (OSError, TimeoutError):
            pass

    async def _write(self, message: bytes) -> None:
        await self._send({"type": "websocket.send", "bytes": message})

    async def _frame(self) -> Frame:
        message = await self._receive()
        if message["type"] == "websocket.disconnect":
            raise Gone
        written = message.get("bytes")
        frame = Broken("a message is text") if written is None else decode(written)
        if isinstance(frame, Broken):
            raise Fault(ErrorCode.CONNECTION_ERROR, "PSYNC_S2001", f"Not RSocket: {frame.why}")
        return frame


def _end_of(stream: int, text: str) -> Frame:
    """How a stream ends: well, unless there is something to say about it."""
    if text:
        return Error(stream, ErrorCode.APPLICATION_ERROR, text)
    return Payload(stream, complete=True, next=False)
