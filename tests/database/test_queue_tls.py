"""A record system behind TLS: whom we do not trust gets nothing, and costs one error."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

from replicator.ehr.sandbox.server import Sandbox
from replicator.errors import ConfigError
from tests.database.queued import (
    Worker,
    delivered,
    held,
    left,
    prepared,
    reading,
    sandbox_with_template,
)
from tests.fixtures.postgres import Database
from tests.fixtures.signals import Signals
from tests.serve.test_tls import certify

pytestmark = pytest.mark.migrated


@pytest.fixture
async def sandbox(database: Database) -> AsyncIterator[Sandbox]:
    clinic = await prepared(database)
    await clinic.append(*(clinic.put("readings", reading(str(n), f"p{n}")) for n in range(30)))
    async with sandbox_with_template(database.owner_dsn) as sandbox:
        yield sandbox


@pytest.fixture
async def url(sandbox: Sandbox, tmp_path: Path) -> AsyncIterator[str]:
    """The sandbox, as `localhost` and with a certificate that nobody here knows."""
    shown = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    shown.load_cert_chain(*certify(tmp_path))
    behind = int(sandbox.root.rpartition(":")[2])

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, here = await asyncio.open_connection("127.0.0.1", behind)
        await asyncio.gather(_pass_on(reader, here), _pass_on(there, writer))

    server = await asyncio.start_server(relay, "127.0.0.1", 0, ssl=shown)
    port = server.sockets[0].getsockname()[1]
    yield sandbox.url.replace("http://", "https://").replace(sandbox.root[7:], f"localhost:{port}")
    server.close()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError, ssl.SSLError):
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()
    writer.close()


async def test_a_certificate_that_nobody_vouches_for_is_said_once_and_costs_no_job_a_try(
    url: str, database: Database, tmp_path: Path, signals: Signals
) -> None:
    async with Worker(tmp_path, database, url):
        assert "certificate" in str((await signals.wait("held", what="server"))["why"])
        await signals.wait("probing")
    assert signals.count("held") == 1 and left(database) == 30
    assert database.execute("SELECT sum(attempts) FROM replicator.ehr_sync_queue") == [(0,)]


async def test_who_vouches_for_it_is_named_by_the_configuration(
    url: str, database: Database, tmp_path: Path
) -> None:
    async with Worker(tmp_path, database, url, ca_file="cert.pem"):
        await delivered(database)
    assert len(held(database)) == 30


@pytest.mark.parametrize(("file", "why"), [("nowhere.pem", "No such file"), ("key.pem", "no certificate")])
async def test_a_file_that_vouches_for_nobody_is_told_before_anything_starts(
    url: str, database: Database, tmp_path: Path, file: str, why: str
) -> None:
    with pytest.raises(ConfigError, match=f"ehr.ca_file .*{why}"):
        async with Worker(tmp_path, database, url, ca_file=file):
            pass
