"""Failures to order → the next requests that fit fail so.

    sandbox.trouble.order("503", times=2)
    sandbox.trouble.order("drop after", method="POST")     done, and nobody is told

The same over HTTP: `POST /sandbox/trouble` with `{"kind": "503", "times": 2}`; `DELETE` ends it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Literal, get_args

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from replicator.ehr.sandbox.refusals import GENERIC, Refused
from replicator.marks import mark

Kind = Literal["403", "429", "500", "502", "503", "504", "silent", "silent after", "drop", "drop after"]
#: Requests about the sandbox itself never fail to order.
_OWN = "/sandbox/"


@dataclass(slots=True)
class Order:
    """What is to fail, and how often yet."""

    kind: Kind
    times: int
    method: str | None
    path: str

    def fits(self, scope: Scope) -> bool:
        return self.method in (None, scope["method"]) and self.path in scope["path"]


class Trouble:
    """The orders, and the ASGI layer that carries them out."""

    def __init__(self) -> None:
        self._orders: list[Order] = []

    def order(self, kind: Kind, *, times: int = 1, method: str | None = None, path: str = "") -> None:
        """Let the next requests of this method and with this in their path fail; the oldest order first."""
        if kind not in get_args(Kind):
            raise Refused(400, f"No such trouble; there are: {', '.join(get_args(Kind))}")
        self._orders.append(Order(kind, times, method, path))

    def end(self) -> None:
        self._orders.clear()

    @property
    def left(self) -> int:
        """How many requests are still to fail."""
        return sum(order.times for order in self._orders)

    def around(self, app: ASGIApp) -> ASGIApp:
        async def layer(scope: Scope, receive: Receive, send: Send) -> None:
            kind = None if scope["type"] != "http" or scope["path"].startswith(_OWN) else self._next(scope)
            if kind is None:
                await app(scope, receive, send)
                return
            mark("sandbox trouble", kind=kind, method=scope["method"])
            await _fail(kind, app, scope, receive, send)

        return layer

    def _next(self, scope: Scope) -> Kind | None:
        order = next((order for order in self._orders if order.fits(scope)), None)
        if order is None:
            return None
        order.times -= 1
        if order.times <= 0:
            self._orders.remove(order)
        return order.kind


async def _fail(kind: Kind, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    if kind.isdigit():
        after = {"Retry-After": "1"} if kind in ("429", "503") else None
        refused = Refused(int(kind), GENERIC)
        await JSONResponse(refused.body, refused.status, after)(scope, receive, send)
        return
    if kind.endswith("after"):
        await app(scope, receive, _swallow)
    else:
        await _whole(receive)
    if kind.startswith("drop"):
        transport: asyncio.WriteTransport = scope["state"]["transport"]
        transport.abort()
    while (await receive())["type"] != "http.disconnect":
        pass


async def _whole(receive: Receive) -> None:
    """Take the request in; the sandbox has heard it, and says nothing."""
    while (await receive()).get("more_body", False):
        pass


async def _swallow(message: Message) -> None:
    """An answer nobody gets."""
