"""A database → a replicator that serves it, and requests to it that say what they got."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from replicator.database import migrate
from tests.fixtures.children import Child, StartChild
from tests.fixtures.least import restrict
from tests.fixtures.postgres import Database
from tests.fixtures.tokens import AUDIENCE, KEY, token

RULES = {
    "bucket_definitions": {
        "mine": {
            "parameters": "SELECT request.user_id() AS user_id",
            "data": ["SELECT * FROM visits WHERE owner = bucket.user_id"],
        },
        "ours": {
            "parameters": "SELECT clinic FROM staff WHERE user_id = request.user_id()",
            "data": ["SELECT * FROM news WHERE clinic = bucket.clinic"],
        },
    }
}
_TABLES = """
CREATE TABLE visits (id text PRIMARY KEY, owner text NOT NULL, note text);
CREATE TABLE staff (id text PRIMARY KEY, user_id text NOT NULL, clinic text NOT NULL);
CREATE TABLE news (id text PRIMARY KEY, clinic text NOT NULL, text text);
CREATE PUBLICATION powersync FOR TABLE visits, staff, news;
INSERT INTO visits SELECT n, 'u' || n % 3, 'first' FROM generate_series(1, 9) n;
INSERT INTO staff VALUES ('s1', 'u1', 'north');
INSERT INTO news VALUES ('n1', 'north', 'open'), ('n2', 'south', 'closed');
"""
Line = dict[str, Any]


@dataclass
class Served:
    """A server at work."""

    database: Database
    config: Path
    replicating: Child
    serving: Child
    http: aiohttp.ClientSession

    async def lines(self, user: str = "u1", **body: Any) -> AsyncIterator[Line]:
        """What a client is sent, line after line."""
        headers = {"authorization": f"Token {token(user)}"}
        async with self.http.post("/sync/stream", json={"raw_data": True, **body}, headers=headers) as got:
            assert got.status == 200, await got.text()
            rest = b""
            async for chunk in got.content.iter_any():
                *whole, rest = (rest + chunk).split(b"\n")
                for line in whole:
                    yield json.loads(line)


@asynccontextmanager
async def served(
    database: Database, folder: Path, children: StartChild, **sync: Any
) -> AsyncIterator[Served]:
    """The clinic of these tests, replicated and served."""
    database.execute(_TABLES)
    await migrate(database.dsn, "replicator")
    config = folder / "replicator.yaml"
    (folder / "rules.yaml").write_text(json.dumps(RULES))
    given = {
        "source": {"dsn": database.dsn, "slot": database.name},
        "rules": "rules.yaml",
        "sync": {"listen": "127.0.0.1:0", "audience": [AUDIENCE], "keys": [KEY], **sync},
    }
    config.write_text(json.dumps(given))
    restrict(database, config)
    replicating = children("run", "--only", "replicate", "--config", config)
    serving = children("run", "--only", "serve", "--config", config)
    said = await asyncio.to_thread(serving.wait_for, "serving")
    timeout = aiohttp.ClientTimeout(total=240)
    async with aiohttp.ClientSession(f"http://{said['address']}", timeout=timeout) as http:
        one = Served(database, config, replicating, serving, http)
        await _ready(one)
        yield one


async def _ready(one: Served) -> None:
    async with asyncio.timeout(120):
        while True:
            # A connection that stayed idle from here on would be the first to make way for others.
            async with one.http.get("/probes/readiness", headers={"connection": "close"}) as got:
                if got.status == 200:
                    return
            await asyncio.sleep(0.02)


async def until(lines: AsyncIterator[Line], key: str) -> list[Line]:
    """The lines up to the next of this kind."""
    found = []
    async for line in lines:
        found.append(line)
        if key in line:
            return found
    raise AssertionError(f"the stream ended without {key}: {found}")


def ops(lines: list[Line]) -> dict[tuple[str, str], str]:
    """What was sent of each row, the last word about each."""
    return {
        (op["object_type"], op["object_id"]): op.get("data", op["op"])
        for line in lines
        if "data" in line
        for op in line["data"]["data"]
        if "object_id" in op
    }
