"""One request → one Answer, or Unreached.

Bodies are health data: they are neither logged nor kept, and no redirect carries them to another server.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace, TracebackType
from typing import Any, Self
from urllib.parse import quote, urlencode, urlsplit

import aiohttp
from yarl import URL

from replicator.ehr.client.answers import Answer, answer_from
from replicator.ehr.client.auth import Anonymous, Auth
from replicator.ehr.client.bodies import Body
from replicator.ehr.client.faults import Fault, Unreached, fault_of
from replicator.ehr.client.turns import Turns
from replicator.errors import ConfigError
from replicator.marks import mark


@dataclass(frozen=True, slots=True)
class Limits:
    """How much, how many, how long."""

    connections: int = 16
    connect_s: float = 10.0
    #: From the first byte sent to the last one received.
    answer_s: float = 60.0
    answer_bytes: int = 16 * 1024 * 1024


class Exchange:
    """Connections to one server, used as `async with`."""

    def __init__(
        self,
        base: str,
        *,
        auth: Auth | None = None,
        limits: Limits | None = None,
        tls: ssl.SSLContext | None = None,
        turns: Turns | None = None,
    ) -> None:
        self._base = _checked(base)
        self._auth = auth or Anonymous()
        self._limits = limits or Limits()
        self._tls = tls
        self._turns = turns or Turns()
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        counts = aiohttp.TraceConfig()
        counts.on_request_headers_sent.append(_count)
        counts.on_request_chunk_sent.append(_sent)
        limits = self._limits
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=limits.connections, ssl=self._tls or True),
            timeout=aiohttp.ClientTimeout(
                total=limits.answer_s, connect=limits.connect_s, sock_connect=limits.connect_s
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            trace_configs=[counts],
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def ask(
        self,
        call: str,
        method: str,
        *path: str,
        body: Body | None = None,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send it; once more if a token was what it lacked. `call` is for errors and logs."""
        answer = await self._send(call, method, path, body, query or {}, headers or {})
        # What is refused for its token was not obeyed, so it may be repeated.
        if answer.status == 401 and self._auth.refused():
            answer = await self._send(call, method, path, body, query or {}, headers or {})
        mark("ehr answered", call=call, status=answer.status)
        return answer

    async def _send(
        self,
        call: str,
        method: str,
        path: tuple[str, ...],
        body: Body | None,
        query: Mapping[str, str],
        headers: Mapping[str, str],
    ) -> Answer:
        session = self._session
        assert session is not None, "used as a context"
        await self._turns.wait()
        authorization = await self._auth.header(session, asyncio.get_running_loop().time())
        asked = {"Accept": "application/json", **headers}
        if authorization is not None:
            asked["Authorization"] = authorization
        if body is not None:
            asked["Content-Type"] = body.media_type
            query = {**query, **body.query}
        counted = SimpleNamespace(sends=0)
        try:
            async with session.request(
                method,
                self._url(path, query),
                data=body.content if body is not None else None,
                headers=asked,
                allow_redirects=False,
                trace_request_ctx=counted,
            ) as response:
                content = await self._read(response, call)
                return answer_from(response.status, response.headers, content, sends=max(1, counted.sends))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unreached(fault_of(error, sent=counted.sends > 0), self._what(call)) from error

    async def _read(self, response: aiohttp.ClientResponse, call: str) -> bytes:
        """The body, if it is not larger than we want to hold."""
        content = bytearray()
        async for piece in response.content.iter_chunked(65536):
            content += piece
            if len(content) > self._limits.answer_bytes:
                response.close()
                raise Unreached(Fault.TOO_LARGE, self._what(call))
        return bytes(content)

    def _url(self, path: tuple[str, ...], query: Mapping[str, str]) -> URL:
        where = "/".join([self._base, *(quote(part, safe=":") for part in path)])
        return URL(f"{where}?{urlencode(query)}" if query else where, encoded=True)

    def _what(self, call: str) -> str:
        return f"{call} at {urlsplit(self._base).netloc}"


def _checked(base: str) -> str:
    parts = urlsplit(base)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or "@" in parts.netloc:
        raise ConfigError(
            "ehr.url is not the address of an openEHR REST API",
            "Write it as https://host:port/ehrbase/rest/openehr/v1, and who we are under ehr.auth.",
        )
    return base.rstrip("/")


async def _count(session: aiohttp.ClientSession, context: SimpleNamespace, params: Any) -> None:
    if context.trace_request_ctx is not None:
        context.trace_request_ctx.sends += 1
        mark("ehr sent")


async def _sent(session: aiohttp.ClientSession, context: SimpleNamespace, params: Any) -> None:
    """A body is on its way, too."""
    mark("ehr sent")
