"""Buckets → clients. VERB.

Each client's conversation is a Session, which decides, and a place in the Feed, which tells it when there is
something to decide. What is served is what checkpoints show; serving writes nothing but numbers of clients'
writes, so any number of processes may serve from one storage.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from replicator import pulse
from replicator.buckets.write_checkpoints import Client, Writes
from replicator.config import Config
from replicator.database import check_migrated, connected, pooled
from replicator.errors import ConfigError, ReplicatorError, Unavailable
from replicator.marks import mark
from replicator.observe.api import Way, api
from replicator.observe.metrics.figures import ours
from replicator.observe.metrics.jobs import JobAges
from replicator.observe.metrics.telling import count_sent
from replicator.observe.page.looks import Looks
from replicator.observe.page.routes import Page
from replicator.observe.status.look import Looker
from replicator.patience import Patience
from replicator.sync.auth import AuthError, User
from replicator.sync.auth_keyring import Keyring
from replicator.sync.drive import Out, Wanting, drive
from replicator.sync.feed import Feed, Viewer
from replicator.sync.grants import Most
from replicator.sync.http import UNKNOWN_MOST, Refused, StreamEndpoint, body_of, invalid
from replicator.sync.keys_configured import client_keyring, login_keyring
from replicator.sync.listen import listen, listener
from replicator.sync.pace import Pace
from replicator.sync.places import Places
from replicator.sync.request import Request
from replicator.sync.rsocket import RSocketEndpoint
from replicator.sync.session import Session
from replicator.sync.tls import tls_of
from replicator.sync.tokens import SigningKey, jwks
from replicator.sync.upstream import exchange, issuing
from replicator.sync.upstream_subject import source_lookup

#: Connections to storage that all clients of a process share, and to the source.
_STORAGE_CONNECTIONS = 8
_SOURCE_CONNECTIONS = 2
#: How long streams are given to end in good order.
_DRAIN_S = 5.0
#: So often one user may say at once that it has written, and so often a second: many times what an app does.
_WRITES = (200, 20.0)
_ID_MOST = (1 << 63) - 1
_Handler = Callable[[HttpRequest], Coroutine[Any, Any, Response]]


class TooOften(Exception):
    """Somebody asks more often than is answered."""


class Server:
    """What one process serves, and to whom."""

    def __init__(self, config: Config, feed: Feed, writes: Writes, keyring: Keyring, connect: Any) -> None:
        self.config, self.feed = config, feed
        self._writes, self._keyring, self._connect = writes, keyring, connect
        self._pace = Pace(*_WRITES)
        self._viewers: set[Viewer] = set()
        self.is_stopping = False
        feed.on_sent, ours.clients = count_sent, lambda: len(self._viewers)

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
        out.on_close = viewer.bell.ring
        self._viewers.add(viewer)
        self.feed.join(viewer)
        try:
            moment = await self.feed.catch_up(viewer, await self.feed.first(request.furthest))
            most = Most(self.config.sync.max_buckets, self.config.sync.max_results)
            wanting = Wanting(self.feed, viewer, self.feed.rules, user, request, most)
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
            viewer.bell.ring()
        until = time.monotonic() + _DRAIN_S
        while self._viewers and time.monotonic() < until:
            await asyncio.sleep(0.02)

    # -- answers -----------------------------------------------------------------------------------

    async def write_checkpoint(self, http: HttpRequest) -> Response:
        user = await self._writer(http)
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
        user = await self._writer(http)
        stored = await self._writes.request(Client(user.sub, _client_id(client_id)), number)
        return _data({"checkpoint_request_id": str(stored)})

    async def probe(self, http: HttpRequest) -> Response:
        is_ready = self.feed.moment is not None and not self.is_stopping
        state = {"started": True, "ready": is_ready, "touched_at": _iso(time.time())}
        is_well = is_ready if http.path_params["which"] == "readiness" else True
        if http.path_params["which"] not in ("startup", "liveness", "readiness"):
            raise Refused(404, "PSYNC_S2002", "There is no such probe")
        return _plain(state, 200 if is_well else 400)

    async def _writer(self, http: HttpRequest) -> User:
        """Who says that it has written; each time, something is written to storage and source for it."""
        user = await self._keyring.user(http.headers.get("authorization"), time.time())
        if not self._pace.allows(user.sub, time.monotonic()):
            mark("too many write checkpoints of one user", level=logging.WARNING)
            raise TooOften
        return user


async def run_serve(config: Config, stop: asyncio.Event, environ: Mapping[str, str]) -> None:
    """Serve until told to stop, by whichever rules are in force; while storage is away, say that it is."""
    keyring = client_keyring(config, environ)
    if keyring.is_empty:
        raise ConfigError(
            "no client could be let in: sync.keys, sync.jwks_uri and sync.supabase are all empty",
            "Say whose tokens are to be accepted. For a first try: replicator token keygen",
        )
    schema = config.storage.schema_name
    tls = tls_of(config.sync, environ)
    listening = listen(config.sync)
    async with (
        pooled(config.storage_dsn, "reader", schema=schema, most=_STORAGE_CONNECTIONS) as connect,
        pooled(config.source_dsn, "writes", most=_SOURCE_CONNECTIONS) as source,
    ):
        feed = Feed(config.storage_dsn, schema, config.source.slot, connect)
        writes = Writes(source, connect)
        server = Server(config, feed, writes, keyring, connect)
        host, port = listening.getsockname()[:2]
        following = asyncio.create_task(_follow(config, feed, f"{host}:{port}"))
        http = listener(_app(server, config, environ, source), tls, config.sync.max_connections)
        serving = asyncio.create_task(http.serve(sockets=[listening]))
        mark("serving", level=logging.INFO, address=f"{host}:{port}")
        try:
            stopping = asyncio.create_task(stop.wait())
            await asyncio.wait({serving, following, stopping}, return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            await server.drain()
        finally:
            http.leave()
            following.cancel()
            await asyncio.gather(following, serving, return_exceptions=True)
            await writes.close()
            await keyring.close()
        for task in (serving, following):
            if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                raise error
    mark("served", level=logging.INFO, address=f"{host}:{port}")


async def _follow(config: Config, feed: Feed, address: str) -> None:
    """Follow what storage says, from when it answers first."""
    patience, said, schema = Patience(), "", config.storage.schema_name
    while True:
        try:
            async with connected(config.storage_dsn, "serve", schema=schema) as storage:
                await check_migrated(storage, schema)
            pulse.at(f"serving at {address}", is_ready=True)
            return await feed.run()
        except Unavailable as error:
            if error.what != said:
                mark("waiting", level=logging.WARNING, why=error.what)
            said = error.what
            pulse.at(f"waiting: {error.what}", is_ready=False)
            await asyncio.sleep(patience.after(0.0))


def _app(server: Server, config: Config, environ: Mapping[str, str], source: Any) -> ASGIApp:
    """Streams are answered here; everything else is a request of a moment, and goes through the router."""
    places = Places(config.sync.max_connections, config.sync.max_connections_per_user)
    stream = StreamEndpoint(server._keyring, server.converse, places)
    socket_streams = RSocketEndpoint(server._keyring, server.converse, places)
    looks = Looks(Looker(config, server._connect, source, serves=True))
    page = Page(config, looks, JobAges(server._connect), server._connect)
    others = _router(server, config, environ, source, page)

    def renew() -> None:
        nonlocal others
        others = _router(server, config, environ, source, page)

    server.feed.on_rules = renew

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await socket_streams(scope, receive, send)
        elif scope["path"] == "/sync/stream" and scope["method"] != "OPTIONS":
            await stream(scope, receive, send)
        else:  # the preflight of a browser is one for all paths
            await others(scope, receive, send)

    return app


def _router(server: Server, config: Config, environ: Mapping[str, str], source: Any, page: Page) -> Starlette:
    ours = issuing(config.sync, environ)
    login = login_keyring(config, environ)
    lookup = source_lookup(config.sync.token.subject, source)

    async def token(http: HttpRequest) -> Response:
        found = await exchange(http.headers.get("authorization"), ours, login, time.time(), lookup)
        return _plain(found.body, found.status)

    async def key_set(_: HttpRequest) -> Response:
        return _plain(jwks([ours.key] if isinstance(ours.key, SigningKey) else []))

    asked = api(config, server.feed, server._keyring, server._connect, source)
    routes = [
        _route("/write-checkpoint2.json", server.write_checkpoint),
        _route("/sync/checkpoint-request", server.checkpoint_request, "POST"),
        _route("/probes/{which}", server.probe),
        _route("/token", token, "POST"),
        _route("/.well-known/jwks.json", key_set),
        *[_route(way.path, _answering(way), way.method) for way in asked.ways],
        *[_route(way.path, way.answer, way.method) for way in page.ways(asked.status.buckets)],
    ]
    cors = Middleware(
        CORSMiddleware,
        allow_origins=["*"],
        allow_methods=["GET", "POST", "OPTIONS"],
        allow_headers=["Content-Type", "Authorization", "User-Agent", "X-User-Agent"],
        expose_headers=["Content-Type"],
        max_age=3600,
    )
    app = Starlette(routes=routes, middleware=[cors], exception_handlers={HTTPException: _no_route})
    app.router.redirect_slashes = False  # where to would be for the client to say
    return app


async def _no_route(_: HttpRequest, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    refused = Refused(error.status_code, "PSYNC_S2002", "The path does not exist, or not for this method")
    return _plain(refused.body(), error.status_code)


def _route(path: str, handler: _Handler, method: str = "GET") -> Route:
    """What answers there, with what goes wrong told in the envelope that clients know."""

    async def handled(http: HttpRequest) -> Response:
        try:
            return await handler(http)
        except (Refused, AuthError) as error:
            return _plain(error.body(), error.status)
        except TooOften:
            return Response(status_code=429, headers={"retry-after": "1"})
        except ReplicatorError as error:
            mark("request failed", level=logging.WARNING, path=path, why=error.what)
            refused = Refused(503, "PSYNC_S2003", "Storage or source do not answer now", "Try again.")
            return _plain(refused.body(), refused.status)

    return Route(path, handled, methods=[method])


def _answering(way: Way) -> _Handler:
    async def answered(http: HttpRequest) -> Response:
        return _plain(await way.answer(http))

    return answered


def _client_id(written: str | None) -> str:
    if written and (len(written) > 200 or not written.isprintable()):
        raise invalid(["client_id: must be a text of at most 200 characters"])
    return written or ""


async def _json(http: HttpRequest) -> dict[str, Any]:
    try:
        body = orjson.loads(await body_of(http.receive, UNKNOWN_MOST))
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
