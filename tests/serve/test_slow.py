"""Who is slow, greedy or does not read at all costs the others nothing, and is let go in the end."""

from __future__ import annotations

import asyncio
import json
import resource
import select
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.fixtures.children import StartChild
from tests.fixtures.postgres import Database
from tests.fixtures.tokens import token
from tests.serve.server import Served, ops, served, until

pytestmark = pytest.mark.migrated

_KNOWN, _SHARE = 20, 3
#: More than are let be, beside those who are known.
_SLOW = 1_500
_LARGE = "INSERT INTO visits SELECT 'l' || n, 'u1', repeat(md5(n::text), 30000) FROM generate_series(1, 30) n"


@pytest.fixture
async def server(database: Database, tmp_path: Path, children: StartChild) -> AsyncIterator[Served]:
    sync = {"max_connections": _KNOWN, "max_connections_per_user": _SHARE}
    async with served(database, tmp_path, children, **sync) as one:
        yield one


def _address(server: Served) -> tuple[str, int]:
    host, _, port = str(server.serving.wait_for("serving")["address"]).rpartition(":")
    return host, int(port)


def _head(user: str, lasts_s: float = 3600) -> bytes:
    body = b'{"raw_data": true}'
    return (
        b"POST /sync/stream HTTP/1.1\r\nhost: app\r\nauthorization: Token "
        + token(user, lasts_s=lasts_s).encode()
        + b"\r\ncontent-length: %d\r\n\r\n" % len(body)
        + body
    )


@contextmanager
def _files(most: int) -> Iterator[None]:
    """May this process open so many, where it is given as many: an ordinary user often begins with 1,024."""
    soft, hard = before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if resource.RLIM_INFINITY != hard < most:
        pytest.skip(f"takes {most} open files, and {hard} are allowed")
    if resource.RLIM_INFINITY != soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def _ends(client: socket.socket) -> bool:
    """Whether the connection ends within two minutes, without its having been read from."""
    poll = select.poll()
    poll.register(client, select.POLLHUP | select.POLLERR)
    return bool(poll.poll(120_000))


async def test_a_client_that_never_reads_is_let_go_with_its_token(server: Served) -> None:
    server.database.execute(_LARGE)
    lines = server.lines()
    while ("visits", "l30") not in ops(await until(lines, "checkpoint_complete")):
        pass
    for lasts_s in (3, 15, 60):
        with socket.create_connection(_address(server)) as client:
            client.sendall(_head("u1", lasts_s=lasts_s))
            status = await asyncio.to_thread(client.recv, 12, socket.MSG_PEEK)
            if status.endswith(b" 200"):  # where much else goes on, a short one has ended before
                assert await asyncio.to_thread(_ends, client)
                break
    server.serving.wait_for("connection cut", why="its token has ended, and the client does not read")
    assert await until(server.lines("u2"), "checkpoint_complete")


async def test_one_user_cannot_take_the_places_of_all(server: Served) -> None:
    headers = {"authorization": f"Token {token('u1')}"}
    lines = [server.lines("u1") for _ in range(_SHARE)]
    for one in lines:
        await until(one, "checkpoint_complete")
    async with server.http.post("/sync/stream", json={}, headers=headers) as got:
        assert (got.status, await got.read()) == (429, b"")
    assert await until(server.lines("u2"), "checkpoint_complete")


async def test_one_who_says_without_end_that_it_has_written_is_stopped_and_nobody_else(
    server: Served,
) -> None:
    async def ask(user: str) -> int:
        headers = {"authorization": f"Token {token(user)}"}
        async with server.http.get("/write-checkpoint2.json?client_id=phone", headers=headers) as got:
            await got.read()
            return got.status

    async with asyncio.timeout(120):
        while 429 not in (answers := await asyncio.gather(*(ask("u1") for _ in range(300)))):
            assert set(answers) == {200}
        assert set(answers) == {200, 429}
        assert await ask("u2") == 200
        while await ask("u1") != 200:
            pass


async def test_thousands_that_never_finish_asking_keep_nobody_out(server: Served) -> None:
    address = _address(server)
    with ExitStack() as stack:
        stack.enter_context(_files(2 * _SLOW))
        slow = [stack.enter_context(socket.create_connection(address)) for _ in range(_SLOW)]
        begun = _head("u1").partition(b"\r\ncontent")[0]
        for client in slow:
            with_token = begun if client.fileno() % 2 else b"POST /sync"
            try:
                client.sendall(with_token)
            except ConnectionError:
                pass  # it has been cut already
        told = await until(server.lines(client_id="phone"), "checkpoint_complete")
        assert {row[0] for row in ops(told)} == {"visits", "news"}
        headers = {"authorization": f"Token {token('u1')}"}
        async with server.http.get("/write-checkpoint2.json", headers=headers) as got:
            assert got.status == 200 and json.loads(await got.read())["data"]
        # What has been there longest has made way.
        assert await asyncio.to_thread(_ends, slow[0])
    assert await until(server.lines("u2"), "checkpoint_complete")
