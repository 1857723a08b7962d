"""How `tail --user` connects, to a server that answers what a test tells it to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from replicator.config import load
from replicator.errors import ConfigError, ProtocolError, ReplicatorError
from replicator.observe.tail_mirror import Verdict
from replicator.observe.tail_shown import Begun, Ended, Event, Lines
from replicator.observe.tail_user import Door, Mismatch, door, tail_user

CHECKPOINT: dict[str, Any] = {"checkpoint": {"last_op_id": "1", "write_checkpoint": None, "buckets": []}}
COMPLETE = {"checkpoint_complete": {"last_op_id": "1"}}
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


def lines(*some: object) -> bytes:
    return b"".join(json.dumps(one).encode() + b"\n" for one in some)


class Server:
    """Answers each connection with the next of what it was given, and remembers who came."""

    def __init__(self, *answers: tuple[int, bytes]) -> None:
        self._answers = list(answers)
        self.tokens: list[str] = []
        self.bodies: list[dict[str, Any]] = []

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.tokens.append(request.headers["authorization"])
        self.bodies.append(await request.json())
        status, body = self._answers.pop(0)
        response = web.StreamResponse(status=status)
        await response.prepare(request)
        for at in range(0, len(body), 7):  # no line comes in one piece
            await response.write(body[at : at + 7])
        return response

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        app = web.Application()
        app.router.add_post("/sync/stream", self.answer)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()


class Kept(Lines):
    """What would be shown."""

    def __init__(self) -> None:
        super().__init__(lambda _: None, as_json=False, with_rows=False)
        self.events: list[Event] = []

    def tell(self, event: Event, line: Any = None) -> None:
        super().tell(event, line)
        self.events.append(event)


async def tailed(server: Server, *, is_renewable: bool = True, limit: int = 1) -> list[Event]:
    shown, made = Kept(), iter(range(100))
    async with server.running() as url:
        way = Door(url, lambda: f"t{next(made)}", is_renewable)
        async with asyncio.timeout(30):
            await tail_user(way, shown, limit, "c1", retry_s=0.01)
    return shown.events


async def test_a_token_about_to_end_is_exchanged_at_once() -> None:
    first = lines(CHECKPOINT, {"token_expires_in": 31}, {"token_expires_in": 30}, COMPLETE)
    server = Server((200, first), (200, lines(CHECKPOINT, COMPLETE)))
    events = await tailed(server)
    assert server.tokens == ["Token t0", "Token t1"]
    assert [type(event) for event in events].count(Verdict) == 1, "what followed was not waited for"
    assert Ended("the token is renewed") in events


async def test_a_token_that_was_given_ends_it() -> None:
    server = Server((200, lines(CHECKPOINT, {"token_expires_in": 20}, COMPLETE, {"token_expires_in": 0})))
    with pytest.raises(ReplicatorError, match="the token has ended"):
        await tailed(server, is_renewable=False, limit=2)


async def test_it_connects_again_where_the_server_ends_it_or_has_no_room() -> None:
    server = Server((503, b""), (429, b""), (200, lines(CHECKPOINT)[:-1]), (200, lines(CHECKPOINT, COMPLETE)))
    events = await tailed(server)
    assert len(server.tokens) == 4 and len([e for e in events if isinstance(e, Begun)]) == 2
    assert [body["client_id"] for body in server.bodies] == ["c1"] * 4


@pytest.mark.parametrize("status", [400, 401, 403, 404])
async def test_it_ends_where_trying_again_cannot_help(status: int) -> None:
    body = {"error": {"code": "PSYNC_S2101", "description": "No such key", "details": "Look."}}
    with pytest.raises(ReplicatorError, match=f"{status}: PSYNC_S2101 No such key") as error:
        await tailed(Server((status, lines(body))))
    assert error.value.exit_code == 1 and error.value.hint == "Look."


async def test_a_sum_that_does_not_hold_ends_it() -> None:
    bucket = {"bucket": "b[]", "checksum": 5, "count": 1, "priority": 3}
    wrong = {"checkpoint": {"last_op_id": "1", "write_checkpoint": None, "buckets": [bucket]}}
    with pytest.raises(Mismatch) as error:
        await tailed(Server((200, lines(wrong, COMPLETE))))
    assert error.value.exit_code == 1 and error.value.hint == "b[]: told 5, and what was sent comes to 0"


@pytest.mark.parametrize("body", [b"angina\n", b'["angina"]\n', b'{"data": "angina"}\n'])
async def test_what_is_no_line_ends_it_and_is_not_repeated(body: bytes) -> None:
    with pytest.raises(ProtocolError) as error:
        await tailed(Server((200, lines(CHECKPOINT) + body)))
    assert "angina" not in error.value.what + error.value.hint


def test_the_way_in_is_the_configured_one(tmp_path: Any) -> None:
    def configured(sync: dict[str, Any]) -> Door:
        file = tmp_path / "replicator.yaml"
        file.write_text(json.dumps({"source": {"dsn": "host=a"}, "sync": sync}))
        return door(load(file, {}), {}, "ann", None, None)

    secret = {"kty": "oct", "k": "A" * 43}
    assert configured({"keys": [secret]}).url == "http://127.0.0.1:8080"
    anywhere = {"keys": [secret], "without_tls": "anywhere"}
    assert configured({**anywhere, "listen": "0.0.0.0:81"}).url == "http://127.0.0.1:81"
    assert configured({**anywhere, "listen": "[::]:81"}).url == "http://[::1]:81"
    tls = {"tls_cert_file": "a", "tls_key_file": "b"}
    assert configured({"keys": [secret], "listen": "0.0.0.0:81", **tls}).url == "https://127.0.0.1:81"
    assert configured({"keys": [secret], "token": {"url": "https://sync/"}}).url == "https://sync"
    for refused in ({}, {"keys": [secret], "listen": "127.0.0.1:0"}):
        with pytest.raises(ConfigError):
            configured(refused)
    for server, token in (("ftp://a", "a.e30.b"), ("http://a", "x"), ("http://a", "a.e30.b")):
        with pytest.raises(ConfigError):
            door(None, {}, None, server, token)
