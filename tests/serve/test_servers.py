"""Several servers of one storage are as one: what one began, another goes on with."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.fixtures.children import StartChild
from tests.fixtures.postgres import Database
from tests.fixtures.tokens import token
from tests.serve.server import Line, Served, ops, served, until

pytestmark = pytest.mark.migrated

_ROWS = 6_000
_MANY = (
    f"INSERT INTO visits SELECT 'm' || n, 'u1', repeat(md5(n::text), 60) FROM generate_series(1, {_ROWS}) n"
)


@pytest.fixture
async def one(database: Database, tmp_path: Path, children: StartChild) -> AsyncIterator[Served]:
    async with served(database, tmp_path, children) as server:
        yield server


@asynccontextmanager
async def _another(one: Served, children: StartChild) -> AsyncIterator[Served]:
    """One more server of the same storage, that has something to serve."""
    serving = children("run", "--only", "serve", "--config", one.config)
    address = (await asyncio.to_thread(serving.wait_for, "serving"))["address"]
    async with aiohttp.ClientSession(f"http://{address}", timeout=aiohttp.ClientTimeout(total=240)) as http:
        await asyncio.to_thread(serving.wait_for, "rules served")
        yield replace(one, serving=serving, http=http)


class _Phone:
    """What a client keeps of what it is sent: rows, and how far it is."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], str] = {}
        self.after: dict[str, str] = {}
        self.sums: dict[str, int] = {}
        self.told: dict[str, int] = {}

    @property
    def buckets(self) -> list[dict[str, str]]:
        return [{"name": name, "after": after} for name, after in self.after.items()]

    async def follow(self, lines: AsyncIterator[Line], most: int | None = None) -> None:
        """Until a checkpoint is complete, or so many data lines have come, or the stream ends."""
        async for line in lines:
            self._take(line)
            if "checkpoint_complete" in line:
                return
            if "data" in line and most is not None:
                most -= 1
                if not most:
                    return

    def _take(self, line: dict[str, Any]) -> None:
        told = line.get("checkpoint", {}).get("buckets") or line.get("checkpoint_diff", {}).get(
            "updated_buckets", []
        )
        self.told |= {one["bucket"]: one["checksum"] & 0xFFFFFFFF for one in told}
        if (data := line.get("data")) is None:
            return
        for op in data["data"]:
            name = data["bucket"]
            self.sums[name] = (self.sums.get(name, 0) + op["checksum"]) & 0xFFFFFFFF
            self.after[name] = op["op_id"]
        self.rows |= ops([line])


async def _has_come(server: Served, row: tuple[str, str]) -> None:
    lines = server.lines("u1")
    async with asyncio.timeout(120):
        while row not in ops(await until(lines, "checkpoint_complete")):
            pass


@pytest.mark.parametrize("how", ["kill", "terminate"])
async def test_a_download_goes_on_at_another_server(one: Served, children: StartChild, how: str) -> None:
    phone = _Phone()
    async with _another(one, children) as other:
        one.database.execute(_MANY)
        await _has_come(one, ("visits", f"m{_ROWS}"))
        lines = one.lines("u1")
        await phone.follow(lines, most=2)
        getattr(one.serving, how)()
        with suppress(aiohttp.ClientError):  # it breaks, or ends in good order
            await phone.follow(lines)
        assert len(phone.rows) < _ROWS, "it was to end before"
        await phone.follow(other.lines("u1", buckets=phone.buckets))
        assert sum(row[0] == "visits" for row in phone.rows) == _ROWS + 3
        assert phone.sums == phone.told
        notes = dict(one.database.execute("SELECT id, note FROM visits WHERE owner = 'u1'"))
        assert {
            row[1]: json.loads(data)["note"] for row, data in phone.rows.items() if row[0] == "visits"
        } == notes
    if how == "terminate":
        assert await asyncio.to_thread(one.serving.wait) == 0


async def test_what_is_said_to_one_server_is_told_by_the_other(one: Served, children: StartChild) -> None:
    async with _another(one, children) as other:
        lines = other.lines(client_id="phone")
        await until(lines, "checkpoint_complete")
        headers = {"authorization": f"Token {token('u1')}"}
        async with one.http.get("/write-checkpoint2.json?client_id=phone", headers=headers) as got:
            assert await got.json() == {"data": {"write_checkpoint": "1"}}
        told = await until(lines, "checkpoint_complete")
        assert told[0]["checkpoint_diff"]["write_checkpoint"] == "1"
        one.serving.kill()
        one.database.execute("UPDATE visits SET note = 'later' WHERE id = '1'")
        assert ("visits", "1") in ops(await until(lines, "checkpoint_complete"))
