"""Servers that misbehave, on real sockets → what the client knows afterwards."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from uuid import uuid4

import orjson
import pytest

from replicator.ehr.client import (
    Basic,
    Bearer,
    Client,
    ClientCredentials,
    Fault,
    Flat,
    Limits,
    Refusal,
    Subject,
    Unreached,
    VersionUid,
)
from replicator.errors import ConfigError, ProtocolError

LOOPBACK = "127.0.0.1"
SECRET = "hunter2-secret"
Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
COMPOSITION = Flat("t", {"a/name": "Ngo Awa"})


@asynccontextmanager
async def talking(talk: Talk) -> AsyncIterator[str]:
    """A server that does just this with each connection."""
    writers: list[asyncio.StreamWriter] = []

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            await talk(reader, writer)
        writer.close()

    server = await asyncio.start_server(one, LOOPBACK, 0)
    try:
        yield f"http://{LOOPBACK}:{server.sockets[0].getsockname()[1]}/rest"
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
        for writer in writers:
            with suppress(ConnectionError):
                await writer.wait_closed()


async def heard(reader: asyncio.StreamReader) -> tuple[str, dict[str, str], bytes]:
    """One request: its first line, its headers, its body. Raises at the end of the connection."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
    return head[0], headers, await reader.readexactly(int(headers.get("content-length", "0")))


def http(status: int, body: bytes = b"", **headers: str) -> bytes:
    named = {"Content-Length": str(len(body)), **{name.replace("_", "-"): v for name, v in headers.items()}}
    lines = [f"HTTP/1.1 {status} X", *(f"{name}: {value}" for name, value in named.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body


def answering(*responses: bytes) -> tuple[Talk, list[tuple[str, dict[str, str], bytes]]]:
    """Gives these answers in turn, over whatever connections; and what it was asked."""
    asked: list[tuple[str, dict[str, str], bytes]] = []
    left = list(responses)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while left:
            asked.append(await heard(reader))
            writer.write(left.pop(0))
            await writer.drain()

    return talk, asked


async def fault(url: str, **limits: float) -> Unreached:
    async with Client(url, limits=Limits(**limits)) as client:  # type: ignore[arg-type]  # ints are floats
        with pytest.raises(Unreached) as unreached:
            await client.create(str(uuid4()), COMPOSITION)
    assert "Ngo" not in str(unreached.value)
    return unreached.value


# ── Before anything was sent ─────────────────────────────────────────────────────────────────────


async def test_where_nobody_listens_nothing_was_sent() -> None:
    with socket.socket() as held:
        held.bind((LOOPBACK, 0))
        error = await fault(f"http://{LOOPBACK}:{held.getsockname()[1]}/rest")
    assert (error.fault, error.outcome_unknown, error.needs_operator) == (Fault.REFUSED, False, False)


async def test_a_name_nobody_knows_needs_the_operator() -> None:
    error = await fault("http://record-system.invalid/rest")
    assert (error.fault, error.outcome_unknown, error.needs_operator) == (Fault.DNS, False, True)


async def test_a_server_without_tls_is_not_spoken_to_over_tls() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(http(200))
        await writer.drain()
        writer.close()

    async with talking(talk) as url:
        error = await fault(url.replace("http://", "https://"))
    assert (error.fault, error.outcome_unknown, error.needs_operator) == (Fault.TLS, False, True)


async def test_a_connection_that_cannot_be_had_in_time_sends_nothing() -> None:
    with socket.socket() as full:
        # One connection waits to be accepted, and there is room for no other.
        full.bind((LOOPBACK, 0))
        full.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        error = await fault(f"http://{LOOPBACK}:{full.getsockname()[1]}/rest", connect_s=0.5, answer_s=20)
        for one in waiting:
            one.close()
    assert (error.fault, error.outcome_unknown) == (Fault.NO_CONNECTION, False)


# ── After it was sent ────────────────────────────────────────────────────────────────────────────


async def test_a_connection_that_ends_without_an_answer_leaves_the_outcome_unknown() -> None:
    talk, asked = answering(b"")
    async with talking(talk) as url:
        error = await fault(url)
    assert (error.fault, error.outcome_unknown, len(asked)) == (Fault.LOST, True, 1)


async def test_an_answer_that_ends_in_the_middle_leaves_the_outcome_unknown() -> None:
    talk, _ = answering(http(201, b"{}", Content_Length="100"))
    async with talking(talk) as url:
        error = await fault(url)
    assert (error.fault, error.outcome_unknown) == (Fault.LOST, True)


async def test_silence_leaves_the_outcome_unknown() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with talking(talk) as url:
        error = await fault(url, answer_s=0.5)
    assert (error.fault, error.outcome_unknown) == (Fault.SILENT, True)


async def test_an_answer_that_is_not_http_leaves_the_outcome_unknown() -> None:
    talk, _ = answering(b"220 mail.example ESMTP\r\n\r\n")
    async with talking(talk) as url:
        error = await fault(url)
    assert (error.fault, error.outcome_unknown) == (Fault.GARBLED, True)


async def test_an_answer_is_not_held_beyond_its_limit() -> None:
    talk, _ = answering(http(200, b"x" * 300_000))
    async with talking(talk) as url:
        error = await fault(url, answer_bytes=100_000)
    assert (error.fault, error.outcome_unknown) == (Fault.TOO_LARGE, True)


async def test_a_redirect_is_not_followed() -> None:
    talk, asked = answering(http(307, Location="http://elsewhere.invalid/"))
    async with talking(talk) as url, Client(url) as client:
        answer = await client.create(str(uuid4()), COMPOSITION)
    assert (answer.status, answer.ok, len(asked)) == (307, False, 1)


# ── Who we are ───────────────────────────────────────────────────────────────────────────────────


async def test_basic_and_bearer_credentials_go_along_and_nowhere_else(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    talk, asked = answering(http(204), http(204))
    async with talking(talk) as url:
        for auth in (Basic("worker", SECRET), Bearer(SECRET)):
            async with Client(url, auth=auth) as client:
                await client.create(str(uuid4()), COMPOSITION)
            assert SECRET not in repr(auth)
    assert [headers["authorization"].split()[0] for _, headers, _ in asked] == ["Basic", "Bearer"]
    assert SECRET not in caplog.text and "Ngo" not in caplog.text


async def test_a_token_is_fetched_once_and_again_when_it_is_refused() -> None:
    tokens, fetched = answering(
        *(http(200, orjson.dumps({"access_token": name, "expires_in": 900})) for name in ("one", "two"))
    )
    talk, asked = answering(http(204), http(401), http(204))
    async with talking(tokens) as token_url, talking(talk) as url:
        auth = ClientCredentials(token_url, "worker", SECRET, scope="ehr")
        async with Client(url, auth=auth) as client:
            first = await client.create(str(uuid4()), COMPOSITION)
            second = await client.create(str(uuid4()), COMPOSITION)
    assert (first.status, second.status) == (204, 204)
    assert [headers["authorization"] for _, headers, _ in asked] == ["Bearer one", "Bearer one", "Bearer two"]
    assert fetched[0][2] == b"grant_type=client_credentials&scope=ehr" and len(fetched) == 2


async def test_a_token_that_ends_soon_is_not_used() -> None:
    tokens, _ = answering(
        *(http(200, orjson.dumps({"access_token": name, "expires_in": 20})) for name in ("one", "two"))
    )
    talk, asked = answering(http(204), http(204))
    async with talking(tokens) as token_url, talking(talk) as url:
        async with Client(url, auth=ClientCredentials(token_url, "worker", SECRET)) as client:
            for _ in range(2):
                await client.create(str(uuid4()), COMPOSITION)
    assert [headers["authorization"] for _, headers, _ in asked] == ["Bearer one", "Bearer two"]


async def test_a_refused_client_is_a_matter_of_configuration() -> None:
    tokens, _ = answering(http(401, orjson.dumps({"error": "invalid_client", "secret": SECRET})))
    async with talking(tokens) as token_url:
        async with Client(
            "http://127.0.0.1:9/rest", auth=ClientCredentials(token_url, "w", SECRET)
        ) as client:
            with pytest.raises(ConfigError) as refused:
                await client.ehr(str(uuid4()))
    assert SECRET not in str(refused.value) + refused.value.hint


async def test_a_token_server_in_trouble_leaves_nothing_unknown() -> None:
    tokens, _ = answering(http(503))
    async with talking(tokens) as token_url:
        async with Client(
            "http://127.0.0.1:9/rest", auth=ClientCredentials(token_url, "w", SECRET)
        ) as client:
            with pytest.raises(Unreached) as unreached:
                await client.create(str(uuid4()), COMPOSITION)
    assert not unreached.value.outcome_unknown


# ── The rest of the conversation ─────────────────────────────────────────────────────────────────


async def test_if_match_goes_without_quotes_and_with_them_where_that_is_not_understood() -> None:
    refused = http(400, orjson.dumps({"message": "If-Match is not a quoted entity tag"}))
    talk, asked = answering(refused, http(204), http(204))
    uid = VersionUid(str(uuid4()), "there", 1)
    async with talking(talk) as url, Client(url) as client:
        for _ in range(2):
            assert (await client.update(str(uuid4()), uid, COMPOSITION)).ok
    assert [headers["if-match"] for _, headers, _ in asked] == [str(uid), f'"{uid}"', f'"{uid}"']


async def test_names_are_escaped_in_the_path_and_the_query() -> None:
    found = {"ehr_id": {"value": str(uuid4())}, "system_id": {"value": "there"}}
    talk, asked = answering(http(200, b"{}"), http(409, b"{}"), http(200, orjson.dumps(found)))
    async with talking(talk) as url, Client(url) as client:
        await client.web_template("IDCR -  Problem/List.v1?x")
        await client.ensure_ehr(str(uuid4()), Subject("7&8", "a b"))
    assert "/adl1.4/IDCR%20-%20%20Problem%2FList.v1%3Fx " in asked[0][0]
    assert "?subject_id=7%268&subject_namespace=a+b " in asked[2][0]


async def test_an_answer_that_is_no_ehr_is_named() -> None:
    talk, _ = answering(http(201, b'{"hello": "world"}'))
    async with talking(talk) as url, Client(url) as client:
        with pytest.raises(ProtocolError, match="not an EHR"):
            await client.ensure_ehr(str(uuid4()), Subject("7", "clinic"))


async def test_a_conflict_of_a_deletion_without_a_word_is_a_stale_version() -> None:
    talk, _ = answering(http(409))
    async with talking(talk) as url, Client(url) as client:
        answer = await client.delete(str(uuid4()), VersionUid(str(uuid4()), "there", 1))
    assert answer.refusal is Refusal.STALE


@pytest.mark.parametrize("url", ["", "ehrbase:8080", "ftp://a/b", "http://u:p@a/b", "http://a/b?c=d"])
def test_an_address_that_is_none_is_a_matter_of_configuration(url: str) -> None:
    with pytest.raises(ConfigError, match=r"ehr\.url"):
        Client(url)


async def test_tls_that_does_not_satisfy_is_a_fault_of_tls() -> None:
    # A server that speaks TLS, and whose certificate nobody has signed, is not made here; one that breaks off
    # the handshake is as near.
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(b"\x15\x03\x03\x00\x02\x02\x28")  # alert: handshake failure
        await writer.drain()
        writer.close()

    async with talking(talk) as url:
        async with Client(url.replace("http://", "https://"), tls=ssl.create_default_context()) as client:
            with pytest.raises(Unreached) as unreached:
                await client.ehr(str(uuid4()))
    assert (unreached.value.fault, unreached.value.needs_operator) == (Fault.TLS, True)
