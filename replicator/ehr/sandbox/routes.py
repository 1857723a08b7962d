"""A request → the call it is, in one transaction → its response, labelled as a sandbox's."""

from __future__ import annotations

import base64
import hmac
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import orjson
import psycopg
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from replicator.ehr.sandbox import compositions, contributions, ehrs, search, templates
from replicator.ehr.sandbox.refusals import GENERIC, Refused
from replicator.ehr.sandbox.reply import Reply, Room
from replicator.ehr.sandbox.store import Stores
from replicator.ehr.sandbox.trouble import Trouble

BASE = "/ehrbase/rest/openehr/v1"
LABEL = {"X-Sandbox": "not a record system: for demonstration and tests only"}
_WORDS = (
    "This is a sandbox: a stand-in for a record system, for demonstration and tests. Keep no records in it.\n"
)

Call = Callable[[Room, Request], Awaitable[Reply]]

_CALLS: tuple[tuple[str, str, Call], ...] = (
    ("POST", "/ehr", ehrs.create),
    ("GET", "/ehr", ehrs.find),
    ("PUT", "/ehr/{ehr_id}", ehrs.create_with_id),
    ("GET", "/ehr/{ehr_id}", ehrs.read),
    ("GET", "/ehr/{ehr_id}/ehr_status", ehrs.status),
    ("PUT", "/ehr/{ehr_id}/ehr_status", ehrs.update_status),
    ("POST", "/ehr/{ehr_id}/composition", compositions.create),
    ("GET", "/ehr/{ehr_id}/composition/{uid}", compositions.read),
    ("PUT", "/ehr/{ehr_id}/composition/{uid}", compositions.update),
    ("DELETE", "/ehr/{ehr_id}/composition/{uid}", compositions.delete),
    ("GET", "/ehr/{ehr_id}/versioned_composition/{uid}/revision_history", compositions.history),
    ("POST", "/ehr/{ehr_id}/contribution", contributions.commit),
    ("GET", "/ehr/{ehr_id}/contribution/{uid}", contributions.read),
    ("POST", "/definition/template/adl1.4", templates.upload),
    ("GET", "/definition/template/adl1.4", templates.listed),
    ("GET", "/definition/template/adl1.4/{template_id:path}", templates.read),
    ("POST", "/query/aql", search.run),
)


@dataclass(frozen=True, slots=True)
class _Answering:
    """What every call has in common."""

    stores: Stores
    system: str
    clock: Callable[[], datetime]
    credentials: tuple[str, str] | None = field(repr=False)

    def route(self, method: str, path: str, call: Call) -> Route:
        async def endpoint(request: Request) -> Response:
            try:
                self._let_in(request)
                async with self.stores.transaction() as store:
                    reply = await call(Room(store, self.system, self.clock(), f"{request.base_url}"), request)
            except Refused as refused:
                reply = Reply(refused.status, refused.body, refused.headers)
            except psycopg.errors.UniqueViolation:
                # Somebody was quicker with the same uid, in another EHR: EHRbase has no better word for it.
                reply = Reply(500, Refused(500, GENERIC).body)
            except ClientDisconnect:
                # Whoever asked has gone before the end of what it said, as one that is killed does.
                return Response(status_code=400)
            return _response(reply)

        return Route(BASE + path, endpoint, methods=[method])

    def _let_in(self, request: Request) -> None:
        if self.credentials is None:
            return
        expected = "Basic " + base64.b64encode(":".join(self.credentials).encode()).decode()
        if not hmac.compare_digest(request.headers.get("authorization", "").encode(), expected.encode()):
            raise Refused(401, "Unauthorized", {"WWW-Authenticate": "Basic"})


def application(
    stores: Stores,
    system: str,
    clock: Callable[[], datetime],
    trouble: Trouble,
    credentials: tuple[str, str] | None,
) -> ASGIApp:
    """The whole of it, as ASGI."""
    answering = _Answering(stores, system, clock, credentials)
    routes = [answering.route(*call) for call in _CALLS]
    # Starlette answers HEAD for GET by itself; EHRbase's probe is plain text.
    routes.append(Route("/", _said))
    routes.append(Route("/ehrbase/rest/status", _said))
    routes.append(Route("/sandbox/trouble", _ordering(trouble), methods=["POST", "DELETE"]))
    return trouble.around(Starlette(routes=routes))


async def _said(request: Request) -> Response:
    return PlainTextResponse(_WORDS, headers=LABEL)


def _ordering(trouble: Trouble) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        if request.method == "DELETE":
            trouble.end()
            return _response(Reply(204))
        try:
            order = orjson.loads(await request.body())
            trouble.order(**order)
        except (orjson.JSONDecodeError, TypeError):
            return _response(Reply(400, {"error": "Bad Request", "message": "kind, times, method, path"}))
        except Refused as refused:
            return _response(Reply(refused.status, refused.body))
        return _response(Reply(204))

    return endpoint


def _response(reply: Reply) -> Response:
    headers: Mapping[str, str] = {**reply.headers, **LABEL}
    if reply.body is None:
        return Response(status_code=reply.status, headers=headers)
    content: Any = reply.body
    encoded = content if isinstance(content, bytes) else orjson.dumps(content)
    return Response(encoded, reply.status, headers, media_type=reply.media_type)
