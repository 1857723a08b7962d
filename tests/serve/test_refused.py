"""Where a stream cannot be begun, the client is told why, in the envelope it knows."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import aiohttp
import pytest

from replicator.database import migrate
from tests.fixtures.children import StartChild
from tests.fixtures.postgres import Database
from tests.fixtures.tokens import AUDIENCE, KEY, token
from tests.serve.server import RULES, served

pytestmark = pytest.mark.migrated


def allowed() -> dict[str, str]:
    """A token of this minute: one of the module's own would be as old as the whole run, and that is long."""
    return {"authorization": f"Token {token('u1')}"}


async def test_more_buckets_than_one_may_have(
    database: Database, tmp_path: Path, children: StartChild
) -> None:
    async with served(database, tmp_path, children, max_buckets=1) as server:
        async with server.http.post("/sync/stream", json={}, headers=allowed()) as got:
            error = (await got.json())["error"]
            assert (got.status, error["code"]) == (500, "PSYNC_S2305")
            assert "1#mine: 1, 1#ours: 1" in error["description"] and "sync.max_buckets" in error["details"]
            assert got.headers["access-control-allow-origin"] == "*"


async def test_before_the_first_copy_there_is_nothing_to_serve(
    database: Database, tmp_path: Path, children: StartChild
) -> None:
    await migrate(database.dsn, "replicator")
    config = tmp_path / "replicator.yaml"
    (tmp_path / "rules.yaml").write_text(json.dumps(RULES))
    sync = {"listen": "127.0.0.1:0", "audience": [AUDIENCE], "keys": [KEY]}
    source = {"dsn": database.dsn, "slot": database.name}
    config.write_text(json.dumps({"source": source, "rules": "rules.yaml", "sync": sync}))
    serving = children("run", "--only", "serve", "--config", config)
    address = (await asyncio.to_thread(serving.wait_for, "serving"))["address"]
    async with aiohttp.ClientSession(f"http://{address}") as http:
        async with http.post("/sync/stream", json={}, headers=allowed()) as got:
            assert (got.status, (await got.json())["error"]["code"]) == (500, "PSYNC_S2302")
        for probe, status in (("startup", 200), ("liveness", 200), ("readiness", 400)):
            async with http.get(f"/probes/{probe}") as got:
                assert got.status == status and (await got.json())["ready"] is False
