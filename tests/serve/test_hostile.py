"""What anybody can send costs the server little, and those whom it serves nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import bson
import pytest

from tests.fixtures.children import StartChild
from tests.fixtures.postgres import Database
from tests.fixtures.tokens import token
from tests.serve.server import Served, served, until

pytestmark = pytest.mark.migrated

_UPGRADE = (
    b"GET / HTTP/1.1\r\nhost: app\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
    b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\r\n"
)
_PIECE_WITHOUT_DATA, _PING = b"\x00\x80\0\0\0\0", b"\x89\x80\0\0\0\0"


@pytest.fixture
async def server(database: Database, tmp_path: Path, children: StartChild) -> AsyncIterator[Served]:
    async with served(database, tmp_path, children) as one:
        yield one


async def _connect(server: Served) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, _, port = str(server.serving.wait_for("serving")["address"]).rpartition(":")
    return await asyncio.open_connection(host, int(port))


async def _is_cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, sent: bytes) -> bool:
    """Whether the connection ends, with nothing said, while so much is sent again and again."""
    try:
        async with asyncio.timeout(120):
            for _ in range(64):
                writer.write(sent)
                await writer.drain()
            return await reader.read() == b""
    except ConnectionError:
        return True
    except TimeoutError:
        return False
    finally:
        writer.close()


@pytest.mark.parametrize(
    "begin, rest",
    [
        (b"GET / HTTP/1.1\r\n", b"x-more: y\r\n" * 6_000),
        (b"GET / HTTP/1.1\r\nx-more: ", b"y" * 60_000),
        (b"GET /", b"y" * 60_000),
        (b"POST /sync/stream HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n", b"x-more: y\r\n" * 6_000),
    ],
    ids=["fields", "one field", "address", "trailers"],
)
async def test_a_head_without_an_end_is_not_kept(server: Served, begin: bytes, rest: bytes) -> None:
    reader, writer = await _connect(server)
    writer.write(begin)
    assert await _is_cut(reader, writer, rest)


@pytest.mark.parametrize("frame", [_PIECE_WITHOUT_DATA, _PING], ids=["pieces", "pings"])
async def test_frames_of_no_use_end_a_connection(server: Served, frame: bytes) -> None:
    reader, writer = await _connect(server)
    writer.write(_UPGRADE)
    assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
    writer.write(b"\x02\x80\0\0\0\0")
    assert await _is_cut(reader, writer, frame * 50_000)
    assert await until(server.lines(), "checkpoint_complete")


async def test_little_is_read_from_whom_nobody_knows(server: Served) -> None:
    large = json.dumps({"client_id": 5, "more": "x" * 1_000_000}).encode()
    headers = {"authorization": f"Token {token('u1')}"}
    for known, status in (({}, 401), (headers, 400)):
        async with server.http.post("/sync/stream", data=large, headers=known) as got:
            assert got.status == status
    async with server.http.post("/sync/checkpoint-request", data=large) as got:
        assert got.status == 413


async def test_code_is_no_text(server: Served) -> None:
    headers = {"authorization": f"Token {token('u1')}", "content-type": "application/bson"}
    code = bson.Code("phone", {})
    for body in ({"client_id": code}, {"parameters": {"a": code}}):
        async with server.http.post("/sync/stream", data=bson.encode(body), headers=headers) as got:
            assert got.status == 400 and "not a BSON" not in await got.text()


async def test_who_has_reached_the_last_number_stands_in_nobodys_way(server: Served) -> None:
    last = (1 << 63) - 1

    async def ask(user: str) -> tuple[int, object]:
        headers = {"authorization": f"Token {token(user)}"}
        async with server.http.get("/write-checkpoint2.json?client_id=phone", headers=headers) as got:
            return got.status, await got.json()

    body = {"client_id": "phone", "checkpoint_request_id": last}
    headers = {"authorization": f"Token {token('u1')}"}
    async with server.http.post("/sync/checkpoint-request", json=body, headers=headers) as got:
        assert got.status == 200
    assert await ask("u1") == (200, {"data": {"write_checkpoint": str(last)}})
    answers = await asyncio.gather(*(ask(f"u{n % 2 + 1}") for n in range(20)))
    assert {status for status, _ in answers} == {200}


async def test_nobody_is_sent_elsewhere_by_a_name_that_a_client_made_up(server: Served) -> None:
    async with server.http.get(
        "/probes/liveness/", headers={"host": "elsewhere.example"}, allow_redirects=False
    ) as got:
        assert got.status == 404
