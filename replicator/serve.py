"""Buckets → clients. VERB.

Each client's conversation is a Session, which decides, and a place in the Feed, which tells it when there is
something to decide. What is served is what checkpoints show; serving writes nothing but numbers of clients'
writes, so any number of processes may serve from one storage.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from replicator.buckets.write_checkpoints import Client, Writes
from replicator.config import Config
from replicator.database import check_migrated, connected, pooled
from replicator.errors import ConfigError, ReplicatorError
from replicator.marks import mark
from replicator.observe.api import Way, api
from replicator.rules.model import Rules
from replicator.sync.auth import AuthError, User
from replicator.sync.auth_keyring import Keyring
from replicator.sync.drive import Out, Wanting, drive
from replicator.sync.feed import Feed, Viewer
from replicator.sync.http import Refused, StreamEndpoint, invalid
from replicator.sync.keys_configured import client_keyring, login_keyring
from replicator.sync.request import Request
from replicator.sync.rsocket import RSocketEndpoint
from replicator.sync.session import Session
from replicator.sync.tokens import SigningKey, jwks
from replicator.sync.upstream import exchange, issuing
from replicator.sync.upstream_subject import source_lookup
from replicator.together import end_with_parent

#: Connections to storage that all clients of a process share, and to the source.
_STORAGE_CONNECTIONS = 8
_SOURCE_CONNECTIONS = 2
#: How long streams are given to end in good order.
_DRAIN_S = 5.0
_ID_MOST = (1 << 63) - 1
_Handler = Callable[[HttpRequest], Coroutine[Any, Any, Response]]


class Server:
    """What one process serves, and to whom."""

    def __init__(
        self, config: Config, rules: Rules, feed: Feed, writes: Writes, keyring: Keyring, connect: Any
    ) -> None:
        self.config, self.rules, self.feed = config, rules, feed
        self._writes, self._keyring, self._connect = writes, keyring, connect
        self._viewers: set[Viewer] = set()
        self.is_stopping = False
        self.started_at = time.time()

    # -- streams -----------------------------------------------------------------------------------

    async def converse(self, user: User, request: Request, out: Out) -> None:
        """Hold one client's conversation to its end."""
        if self.is_stopping:
            raise Refused(503, "PSYNC_S2003", "The server is shutting down")
        if self.feed.moment is None:
            raise Refused(
                500, "PSYNC_S2302", "No sync config available", "The first copy is not complete yet."
            )
        viewer = Viewer(Client(user.sub, request.client_id or ""))
        out.on_close = viewer.woken.set
        self._viewers.add(viewer)
        self.feed.join(viewer)
        try:
            moment = await self.feed.catch_up(viewer, await self.feed.first(request.furthest))
            most = self.config.sync.max_buckets
            wanting = Wanting(self.feed, viewer, self.rules, user, request, most)
            await drive(
                Session(request), wanting, self.feed, viewer, out, moment, user.expires_at, self._connect
            )
        finally:
            self.feed.leave(viewer)
            self._viewers.discard(viewer)

    async def drain(self) -> None:
        """End every stream, each where it is: its client connects again, elsewhere or later."""
        self.is_stopping = True
        for viewer in self._viewers:
            viewer.is_to_end = True
            viewer.woken.set()
        until = time.monotonic() + _DRAIN_S
        while self._viewers and time.monotonic() < until:
            await asyncio.sleep(0.02)

    # -- answers -----------------------------------------------------------------------------------

    async def write_checkpoint(self, http: HttpRequest) -> Response:
        user = await self._user(http)
        number = await self._writes.request(Client(user.sub, _client_id(http.query_params.get("client_id"))))
        return _data({"write_checkpoint": str(number)})

    async def checkpoint_request(self, http: HttpRequest) -> Response:
        body = await _json(http)
        client_id, number = body.get("client_id"), body.get("checkpoint_request_id")
        problems = [] if isinstance(client_id, str) and client_id else ["client_id: must be a text"]
        number = (
            int(number) if isinstance(number, str) and number.isdecimal() and len(number) < 20 else number
        )
        if type(number) is not int or not 1 <= number <= _ID_MOST:
            problems.append("checkpoint_request_id: must be a number from 1 to 2^63 - 1, as text or as it is")
        if problems:
            raise invalid(problems)
        user = await self._user(http)
        stored = await self._writes.request(Client(user.sub, _client_id(client_id)), number)
        return _data({"checkpoint_request_id": str(stored)})

    async def probe(self, http: HttpRequest) -> Response:
        is_ready = self.feed.moment is not None and not self.is_stopping
        state = {"started": True, "ready": is_ready, "touched_at": _iso(time.time())}
        is_well = is_ready if http.path_params["which"] == "readiness" else True
        if http.path_params["which"] not in ("startup", "liveness", "readiness"):
            raise Refused(404, "PSYNC_S2002", "There is no such probe")
        return _plain(state, 200 if is_well else 400)

    async def _user(self, http: HttpRequest) -> User:
        return await self._keyring.user(http.headers.get("authorization"), time.time())


async def run_serve(config: Config, rules: Rules, stop: asyncio.Event, environ: Mapping[str, str]) -> None:
    """Serve until told to stop."""
    keyring = client_keyring(config, environ)
    if keyring.is_empty:
        raise ConfigError(
            "no client could be let in: sync.keys, sync.jwks_uri and sync.supabase are all empty",
            "Say whose tokens are to be accepted. For a first try: replicator token keygen",
        )
    schema = config.storage.schema_name
    async with connected(config.storage_dsn, "serve", schema=schema) as storage:
        await check_migrated(storage, schema)
    listening = _listen(config)
    async with (
        pooled(config.storage_dsn, "reader", schema=schema, most=_STORAGE_CONNECTIONS) as connect,
        pooled(config.source_dsn, "writes", most=_SOURCE_CONNECTIONS) as source,
    ):
        feed = Feed(config.storage_dsn, schema, config.source.slot, connect)
        writes = Writes(source, connect)
        server = Server(config, rules, feed, writes, keyring, connect)
        listener = asyncio.create_task(feed.run())
        http = _Uvicorn(_uvicorn_config(_app(server, config, environ, source)))
        serving = asyncio.create_task(http.serve(sockets=[listening]))
        host, port = listening.getsockname()[:2]
        mark("serving", level=logging.INFO, address=f"{host}:{port}")
        try:
            stopping = [asyncio.create_task(stop.wait()), asyncio.create_task(end_with_parent())]
            await asyncio.wait({serving, listener, *stopping}, return_when=asyncio.FIRST_COMPLETED)
            for one in stopping:
                one.cancel()
            await server.drain()
        finally:
            http.should_exit = True
            listener.cancel()
            await asyncio.gather(listener, serving, return_exceptions=True)
            await writes.close()
            await keyring.close()
        for task in (serving, listener):
            if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                raise error
    mark("served", level=logging.INFO, address=f"{host}:{port}")


def _app(server: Server, config: Config, environ: Mapping[str, str], source: Any) -> ASGIApp:
    """Streams are answered here; everything else is a request of a moment, and goes through the router."""
    stream = StreamEndpoint(server._keyring, server.converse, config.sync.max_connections)
    socket_streams = RSocketEndpoint(
        server._keyring, server.converse, connections_most=config.sync.max_connections
    )
    others = _router(server, config, environ, source)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await socket_streams(scope, receive, send)
        elif scope["path"] == "/sync/stream" and scope["method"] != "OPTIONS":
            await stream(scope, receive, send)
        else:  # the preflight of a browser is one for all paths
            await others(scope, receive, send)

    return app


def _router(server: Server, config: Config, environ: Mapping[str, str], source: Any) -> Starlette:
    ours = issuing(config.sync, environ)
    login = login_keyring(config, environ)
    lookup = source_lookup(config.sync.token.subject, source)

    async def token(http: HttpRequest) -> Response:
        found = await exchange(http.headers.get("authorization"), ours, login, time.time(), lookup)
        return _plain(found.body, found.status)

    async def key_set(_: HttpRequest) -> Response:
        return _plain(jwks([ours.key] if isinstance(ours.key, SigningKey) else []))

    routes = [
        Route("/write-checkpoint2.json", _told(server.write_checkpoint)),
        Route("/sync/checkpoint-request", _told(server.checkpoint_request), methods=["POST"]),
        Route("/probes/{which}", _told(server.probe)),
        Route("/token", _told(token), methods=["POST"]),
        Route("/.well-known/jwks.json", _told(key_set)),
        *[
            Route(way.path, _told(_answering(way)), methods=[way.method])
            for way in api(config, server.rules, server._keyring, server._connect, source)
        ],
    ]
    cors = Middleware(
        CORSMiddleware,
        allow_origins=["*"],
        allow_methods=["GET", "POST", "OPTIONS"],
        allow_headers=["Content-Type", "Authorization", "User-Agent", "X-User-Agent"],
        expose_headers=["Content-Type"],
        max_age=3600,
    )
    return Starlette(routes=routes, middleware=[cors], exception_handlers={HTTPException: _no_route})


async def _no_route(_: HttpRequest, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    refused = Refused(error.status_code, "PSYNC_S2002", "The path does not exist, or not for this method")
    return _plain(refused.body(), error.status_code)


def _told(handler: _Handler) -> _Handler:
    """The same, with what goes wrong told in the envelope that clients know."""

    async def handled(http: HttpRequest) -> Response:
        try:
            return await handler(http)
        except (Refused, AuthError) as error:
            return _plain(error.body(), error.status)
        except ReplicatorError as error:
            mark("request failed", level=logging.WARNING, path=http.url.path, why=error.what)
            refused = Refused(503, "PSYNC_S2003", "Storage or source do not answer now", "Try again.")
            return _plain(refused.body(), refused.status)

    return handled


def _answering(way: Way) -> _Handler:
    async def answered(http: HttpRequest) -> Response:
        return _plain(await way.answer(http))

    return answered


class _Uvicorn(uvicorn.Server):
    """Ends when it is told to, and leaves signals to the process it is in."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _uvicorn_config(app: ASGIApp) -> uvicorn.Config:
    for name in ("uvicorn.error", "uvicorn.asgi"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # ours say what happens, without what was sent
    return uvicorn.Config(
        app,
        loop="none",
        http="httptools",
        ws="wsproto",
        # RSocket has signs of life of its own; and each connection would keep a compressor of 100 KB.
        ws_ping_interval=None,
        ws_per_message_deflate=False,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=2,
        backlog=2048,
    )


def _listen(config: Config) -> socket.socket:
    """The socket, before anything else is opened: a port that is taken is told at once."""
    host, port = config.sync.host, config.sync.port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise ConfigError(
            f"sync.listen: cannot listen at {config.sync.listen}: {error.strerror}",
            "Another process may be listening there; choose another port, or 0 for any.",
        ) from None
    listening.listen(2048)
    return listening


def _client_id(written: str | None) -> str:
    if written and (len(written) > 200 or not written.isprintable()):
        raise invalid(["client_id: must be a text of at most 200 characters"])
    return written or ""


async def _json(http: HttpRequest) -> dict[str, Any]:
    try:
        body = orjson.loads(await http.body())
    except orjson.JSONDecodeError as error:
        raise invalid([f"body: not JSON: {error}"]) from None
    if not isinstance(body, dict):
        raise invalid(["body: must be an object"])
    return body


def _data(result: dict[str, str]) -> Response:
    return _plain({"data": result})


def _plain(body: object, status: int = 200) -> Response:
    return Response(orjson.dumps(body), status, media_type="application/json")


def _iso(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
