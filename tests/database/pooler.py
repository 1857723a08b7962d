"""A server → the same server behind something that behaves like a connection pooler towards a newcomer.

It gives out process numbers of its own, and does not know what a replication connection is.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from psycopg.conninfo import conninfo_to_dict, make_conninfo

_REFUSAL = b"SFATAL\0VFATAL\0C08P01\0Munsupported startup parameter: replication\0\0"


@asynccontextmanager
async def pooled(dsn: str, *, passes_replication: bool = False) -> AsyncIterator[str]:
    """The connection string of the same database, by way of the pooler."""
    target = conninfo_to_dict(dsn)
    host, port = str(target["host"]), int(str(target["port"]))
    running: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        running.add(task)
        with suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            await _relay(reader, writer, host, port, passes_replication)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield make_conninfo(dsn, port=server.sockets[0].getsockname()[1])
    finally:
        server.close()
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def _relay(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, port: int, passes: bool
) -> None:
    head = await reader.readexactly(4)
    startup = head + await reader.readexactly(struct.unpack("!I", head)[0] - 4)
    if b"replication\0" in startup and not passes:
        writer.write(b"E" + struct.pack("!I", len(_REFUSAL) + 4) + _REFUSAL)
        await writer.drain()
        return
    answers, to_server = await asyncio.open_connection(host, port)
    to_server.write(startup)
    try:
        await asyncio.gather(_pass_on(reader, to_server), _answer(answers, writer))
    finally:
        to_server.close()


async def _answer(answers: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        head = await answers.readexactly(5)
        body = await answers.readexactly(struct.unpack("!I", head[1:])[0] - 4)
        if head[:1] == b"K":
            body = struct.pack("!I", 123) + body[4:]
        writer.write(head + body)
        await writer.drain()
        if head[:1] == b"Z":
            return await _pass_on(answers, writer)


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()
