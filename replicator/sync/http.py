"""A request for a stream → its lines, written as the client wants them and no faster than it reads them.

Plain ASGI: a stream lives for hours and there are thousands, so nothing stands around it that a request of a
second would not mind.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from typing import Any, Protocol, TypeAlias

import orjson

from replicator.errors import ReplicatorError, place_of
from replicator.marks import mark
from replicator.sync import request as requests
from replicator.sync.auth import AuthError, User
from replicator.sync.auth_keyring import Keyring
from replicator.sync.drive import Out
from replicator.sync.lines import Encoding, Line, encode
from replicator.sync.lines_accept import Compression, accept_encoding, negotiate
from replicator.sync.places import Full, Places
from replicator.sync.press import presser
from replicator.sync.request import Request

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
#: Holds a conversation with a verified user; raises Refused before it has sent anything, or ends.
Converse: TypeAlias = Callable[[User, Request, Out], Awaitable[None]]

#: Any page may ask, for it is the token that lets one in, and not where one comes from.
CORS = ((b"access-control-allow-origin", b"*"), (b"access-control-expose-headers", b"Content-Type"))
#: A body that asks for a stream is no longer than this: ten thousand buckets and their names.
BODY_MOST = 8 << 20
#: From whom nobody knows, so much is read as it takes to say what is wrong.
UNKNOWN_MOST = 1 << 16
TOO_LARGE = 413
#: And it comes within so long.
_BODY_S = 30.0
#: What a client is given to take the last word.
_LAST_WORD_S = 5.0


class Connection(Protocol):
    """What a request has come on."""

    def is_known(self, until: float, on_gone: Callable[[], None]) -> None:
        """Somebody is served who may be, for so long; when the connection has ended, that is told."""


class Refused(ReplicatorError):
    """A request that is not answered as it was meant."""

    def __init__(self, status: int, code: str, what: str, hint: str = "", name: str = "ServiceError") -> None:
        super().__init__(what, hint)
        self.status, self.code, self.name = status, code, name

    def body(self) -> dict[str, object]:
        error = {"name": self.name, "code": self.code, "status": self.status, "description": self.what}
        return {"error": {**error, "details": self.hint} if self.hint else error}


def invalid(messages: Sequence[str]) -> Refused:
    """What a request is told that cannot be understood."""
    return Refused(
        400, "PSYNC_S2001", "Validation failed", orjson.dumps(messages).decode(), "ValidationError"
    )


class StreamEndpoint:
    """POST /sync/stream."""

    def __init__(
        self, keyring: Keyring, converse: Converse, places: Places, clock: Callable[[], float] = time.time
    ):
        self._keyring, self._converse, self._clock = keyring, converse, clock
        self._places = places

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != "POST":
            await answer(send, Refused(404, "PSYNC_S2002", "There is nothing here but POST"))
            return
        headers = headers_of(scope)
        try:
            user = await self._keyring.user(headers.get("authorization"), self._clock())
        except AuthError as error:
            await answer(send, await _told_first(error, headers, receive))
            return
        try:
            with self._places.one_for(user.sub):
                await self._stream(user, headers, scope, receive, send)
        except Full:
            await answer_too_many(send)

    async def _stream(
        self, user: User, headers: Mapping[str, str], scope: Scope, receive: Receive, send: Send
    ) -> None:
        try:
            request = _read(await body_of(receive), headers)
        except Refused as error:
            await answer(send, error)
            return
        pressed = accept_encoding(headers.get("accept-encoding"))
        out = _Out(send, negotiate(headers.get("accept")), pressed, raw_data=request.raw_data)
        # With the token in them they are larger than most of what stays; the connection has the same list.
        del headers
        scope["headers"].clear()
        connection: Connection = scope["state"]["connection"]
        # A client that does not read keeps us waiting, but not beyond its token.
        connection.is_known(user.expires_at + _LAST_WORD_S, out.close)
        try:
            await self._converse(user, request, out)
            await out.end()
        except Refused as error:
            if out.is_begun:
                raise
            await answer(send, error)
        except ReplicatorError as error:
            mark("stream broken", level=logging.WARNING, why=error.what, hint=error.hint)
            if out.is_begun:
                # What is on its way cannot be taken back: the connection breaks, and the client comes again.
                raise
            await answer(send, _refused(error))
        except Exception as error:
            mark("stream failed", level=logging.ERROR, why=place_of(error))
            raise


async def _told_first(error: AuthError, headers: Mapping[str, str], receive: Receive) -> Refused | AuthError:
    """Why somebody unknown is not served. What is no request is told so first, whoever sends it."""
    try:
        _read(await body_of(receive, UNKNOWN_MOST), headers)
    except Refused as refused:
        # A client whose token has expired is to fetch another, however much it has to ask for.
        return error if refused.status == TOO_LARGE else refused
    return error


def _refused(error: ReplicatorError) -> Refused:
    """What a client is told of what went wrong before anything was sent."""
    code = getattr(error, "code", None)
    if code is None:
        return Refused(503, "PSYNC_S2003", "Storage or source do not answer now", "Try again.")
    return Refused(500, code, error.what, error.hint)


def _read(body: bytes, headers: Mapping[str, str]) -> Request:
    request = requests.read(body, is_bson=_is_bson(headers))
    if isinstance(request, requests.Refused):
        raise invalid(request.messages)
    return request


class _Out:
    """Where the lines of one HTTP response go."""

    def __init__(self, send: Send, encoding: Encoding, pressed: Compression, *, raw_data: bool) -> None:
        self._send, self._encoding, self._raw_data = send, encoding, raw_data
        self._pressed, self._presser = pressed, presser(pressed)
        self.is_begun = self.is_closed = False
        #: Called when the client has gone.
        self.on_close: Callable[[], None] = lambda: None

    async def send(self, lines: Sequence[Line]) -> None:
        if not self.is_begun:
            await self._begin()
        chunk = b"".join([encode(line, self._encoding, raw_data=self._raw_data) for line in lines])
        if chunk:
            pressed = self._presser.press(chunk)
            await self._send({"type": "http.response.body", "body": pressed, "more_body": True})

    async def end(self) -> None:
        if not self.is_begun:
            await self._begin()
        if not self.is_closed:
            await self._send({"type": "http.response.body", "body": self._presser.end()})

    def close(self) -> None:
        self.is_closed = True
        self.on_close()

    async def _begin(self) -> None:
        self.is_begun = True
        headers = [(b"content-type", self._encoding.value.encode()), (b"x-accel-buffering", b"no"), *CORS]
        if self._pressed is not Compression.IDENTITY:
            headers.append((b"content-encoding", self._pressed.value.encode()))
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})


async def body_of(receive: Receive, most: int = BODY_MOST) -> bytes:
    """The whole body of a request, if it is not too large and does not take too long."""
    parts, size = [], 0
    try:
        async with asyncio.timeout(_BODY_S):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Refused(400, "PSYNC_S2001", "The request ended before its body did")
                parts.append(message.get("body", b""))
                size += len(parts[-1])
                if size > most:
                    raise Refused(TOO_LARGE, "PSYNC_S2001", f"The body is longer than {most:,} bytes")
                if not message.get("more_body"):
                    return b"".join(parts)
    except TimeoutError:
        raise Refused(408, "PSYNC_S2001", f"The body did not come within {_BODY_S:g} s") from None


def headers_of(scope: Scope) -> Mapping[str, str]:
    """By name in small letters; of several of one name, the last."""
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}


async def answer(send: Send, error: Refused | AuthError) -> None:
    """The envelope in which clients look for errors."""
    headers = [(b"content-type", b"application/json; charset=utf-8"), *CORS]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": orjson.dumps(error.body())})


async def answer_too_many(send: Send) -> None:
    """What clients know: come again later."""
    await send({"type": "http.response.start", "status": 429, "headers": list(CORS)})
    await send({"type": "http.response.body", "body": b""})


def _is_bson(headers: Mapping[str, str]) -> bool:
    return headers.get("content-type", "").partition(";")[0].strip().lower() in (
        "application/bson",
        Encoding.BSON.value,
    )
