"""Requests of every kind get the answer that the protocol has for them, and streams end when they should."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.children import StartChild
from tests.fixtures.postgres import Database
from tests.fixtures.tokens import token
from tests.serve.server import Line, Served, ops, served, until

pytestmark = pytest.mark.migrated


@pytest.fixture
async def server(database: Database, tmp_path: Path, children: StartChild) -> AsyncIterator[Served]:
    async with served(database, tmp_path, children, max_connections=3) as one:
        yield one


async def test_a_client_gets_what_it_is_granted_and_then_what_changes(server: Served) -> None:
    lines = server.lines()
    first = await until(lines, "checkpoint_complete")
    told = first[0]["checkpoint"]
    assert sorted(bucket["bucket"] for bucket in told["buckets"]) == ['1#mine["u1"]', '1#ours["north"]']
    assert sorted(ops(first)) == [("news", "n1"), *(("visits", n) for n in "147")]
    server.database.execute(
        "UPDATE visits SET note = 'second' WHERE id = '4'; DELETE FROM visits WHERE id = '2'"
    )
    second = await until(lines, "checkpoint_complete")
    assert {row: json.loads(data)["note"] for row, data in ops(second).items()} == {("visits", "4"): "second"}
    assert [bucket["bucket"] for bucket in second[0]["checkpoint_diff"]["updated_buckets"]] == [
        '1#mine["u1"]'
    ]
    # Nobody has touched a row of theirs; they are granted another bucket.
    server.database.execute("INSERT INTO staff VALUES ('s2', 'u1', 'south')")
    third = await until(lines, "checkpoint_complete")
    assert ops(third).keys() == {("news", "n2")}
    server.database.execute("DELETE FROM staff WHERE clinic = 'north'")
    fourth = await until(lines, "checkpoint_complete")
    assert fourth[0]["checkpoint_diff"]["removed_buckets"] == ['1#ours["north"]']


async def test_a_write_is_acknowledged_on_an_idle_source(server: Served) -> None:
    lines = server.lines(client_id="phone")
    first = await until(lines, "checkpoint_complete")
    assert first[0]["checkpoint"]["write_checkpoint"] is None
    headers = {"authorization": f"Bearer {token('u1')}"}
    for expected in ("1", "2"):
        async with server.http.get("/write-checkpoint2.json?client_id=phone", headers=headers) as got:
            assert await got.json() == {"data": {"write_checkpoint": expected}}
        told = await until(lines, "checkpoint_complete")
        assert told[0]["checkpoint_diff"]["write_checkpoint"] == expected
        assert not told[0]["checkpoint_diff"]["updated_buckets"]
    # Who comes back is told at once.
    again = await until(server.lines(client_id="phone"), "checkpoint_complete")
    assert again[0]["checkpoint"]["write_checkpoint"] == "2"
    other = await until(server.lines("u2", client_id="phone"), "checkpoint_complete")
    assert other[0]["checkpoint"]["write_checkpoint"] is None


async def test_a_client_may_number_its_writes_itself(server: Served) -> None:
    headers = {"authorization": f"Token {token('u1')}"}

    async def ask(number: object) -> tuple[int, object]:
        body = {"client_id": "phone", "checkpoint_request_id": number}
        async with server.http.post("/sync/checkpoint-request", json=body, headers=headers) as got:
            return got.status, await got.json()

    assert await ask("12") == (200, {"data": {"checkpoint_request_id": "12"}})
    assert await ask(7) == (200, {"data": {"checkpoint_request_id": "12"}})
    for wrong in (0, -1, 1 << 63, "x", None, 1.5, True):
        status, body = await ask(wrong)
        assert status == 400 and "PSYNC_S2001" in str(body), wrong
    told = await until(server.lines(client_id="phone"), "checkpoint_complete")
    while "12" not in str(told[0]):
        told = await until(server.lines(client_id="phone"), "checkpoint_complete")


@pytest.mark.parametrize(
    "shown, code",
    [
        (None, "PSYNC_S2106"),
        ("x.y", "PSYNC_S2101"),
        ({"lasts_s": -100}, "PSYNC_S2103"),
        ({"aud": "other"}, "PSYNC_S2105"),
        ({"lasts_s": 90_000}, "PSYNC_S2104"),
    ],
)
async def test_nobody_unknown_is_let_in(
    server: Served, shown: str | dict[str, Any] | None, code: str
) -> None:
    # Made now: at the end of a long run, one made at its beginning is refused because it has ended.
    shown = token("u1", **shown) if isinstance(shown, dict) else shown
    headers = {} if shown is None else {"authorization": f"Token {shown}"}
    for method, path in (("POST", "/sync/stream"), ("GET", "/write-checkpoint2.json")):
        async with server.http.request(method, path, json={}, headers=headers) as got:
            assert (got.status, (await got.json())["error"]["code"]) == (401, code)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b'{"buckets": 5}', b'{"buckets": [{"name": "a"}, {"after": []}]}', b"\xff"],
)
async def test_what_is_no_request_is_refused_before_anybody_is_asked_for(server: Served, body: bytes) -> None:
    async with server.http.post("/sync/stream", data=body) as got:
        assert got.status == 400
        error = (await got.json())["error"]
        assert error["code"] == "PSYNC_S2001" and json.loads(error["details"])


async def test_what_is_not_there_and_what_is_too_much(server: Served) -> None:
    for method, path in (
        ("GET", "/nowhere"),
        ("GET", "/sync/stream"),
        ("GET", "/../etc/passwd"),
        ("POST", "/probes/x"),
    ):
        async with server.http.request(method, path) as got:
            assert got.status in (404, 405)
            assert (await got.json())["error"]["code"] == "PSYNC_S2002"
    headers = {"authorization": f"Token {token('u1')}"}
    async with server.http.post("/sync/stream", data=io.BytesIO(b" " * (9 << 20)), headers=headers) as got:
        assert got.status == 413
    open_ones = [server.lines(f"u{n}") for n in range(3)]
    for one in open_ones:
        await until(one, "checkpoint_complete")
    async with server.http.post("/sync/stream", json={}, headers=headers) as got:
        assert (got.status, await got.read()) == (429, b"")
    await open_ones[0].aclose()  # type: ignore[attr-defined]  # a generator, which ends its request so
    async with asyncio.timeout(120):
        while True:
            async with server.http.post("/sync/stream", json={}, headers=headers) as got:
                if got.status == 200:
                    break
            await asyncio.sleep(0.02)


async def test_a_browser_may_ask_from_any_page(server: Served) -> None:
    asked = {
        "origin": "https://app.example",
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type,x-user-agent",
    }
    async with server.http.options("/sync/stream", headers=asked) as got:
        assert got.status == 200
        assert got.headers["access-control-allow-origin"] == "*"
        assert got.headers["access-control-max-age"] == "3600"
    headers = {"authorization": f"Token {token('u1')}", "origin": "https://app.example"}
    for path, method in (("/sync/stream", "POST"), ("/write-checkpoint2.json", "GET")):
        async with server.http.request(method, path, json={}, headers=headers) as got:
            assert got.status == 200 and got.headers["access-control-allow-origin"] == "*"


async def test_a_stream_ends_with_its_token(server: Served) -> None:
    lines: list[Line] = []
    for lasts_s in (2, 10, 60):  # where much else goes on, a short one ends before all has been sent
        if not any("checkpoint_complete" in line for line in lines):
            headers = {"authorization": f"Token {token('u1', lasts_s=lasts_s)}"}
            async with server.http.post("/sync/stream", json={}, headers=headers) as got:
                lines = [json.loads(line) async for line in got.content]
    assert lines[-1] == {"token_expires_in": 0}
    assert any("checkpoint_complete" in line for line in lines)


async def test_streams_end_in_good_order_when_the_server_does(server: Served) -> None:
    lines = server.lines()
    await until(lines, "checkpoint_complete")
    server.serving.terminate()
    assert [line async for line in lines] == []
    assert await asyncio.to_thread(server.serving.wait) == 0


async def test_nobody_gets_buckets_by_naming_them(server: Served) -> None:
    asked = [{"name": name, "after": "0"} for name in ('mine["u2"]', 'ours["south"]', "mine[]", "x" * 9000)]
    told = await until(server.lines(buckets=asked), "checkpoint_complete")
    assert {bucket["bucket"] for bucket in told[0]["checkpoint"]["buckets"]} == {
        '1#mine["u1"]',
        '1#ours["north"]',
    }
    assert ops(told).keys() == {("news", "n1"), *(("visits", n) for n in "147")}


async def test_claims_of_having_seen_more_than_there_is_do_no_harm(server: Served) -> None:
    asked = [{"name": '1#mine["u1"]', "after": str((1 << 63) - 1)}]
    told = await until(server.lines(buckets=asked), "checkpoint_complete")
    assert not [row for row in ops(told) if row[0] == "visits"]
    assert len(await until(server.lines(), "checkpoint_complete")) > 1, "others go on as before"


async def test_it_waits_for_storage_that_has_restarted(server: Served) -> None:
    lines = server.lines()
    await until(lines, "checkpoint_complete")
    server.database.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'replicator feed'"
    )
    server.database.execute("UPDATE visits SET note = 'later' WHERE id = '1'")
    told = await until(lines, "checkpoint_complete")
    assert ("visits", "1") in ops(told)
