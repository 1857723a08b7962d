"""The same connections, held by an RSocket client that is not ours."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import bson
import orjson
import pytest

from replicator.buckets.model import Op, OpId
from replicator.errors import ReplicatorError
from replicator.sync.auth import User
from replicator.sync.lines import DataLine
from replicator.sync.request import Request
from replicator.sync.rsocket_stream import Stream
from tests.unit.sync.rsocket_peer import JSON, PATH, Place, number, serving, token

NOT_HERE = "the package rsocket is not installed"
peers = pytest.importorskip("rsocket.awaitable.awaitable_rsocket", reason=NOT_HERE)
payloads = pytest.importorskip("rsocket.payload", reason=NOT_HERE)
transports = pytest.importorskip("rsocket.transports.aiohttp_websocket", reason=NOT_HERE)
LINES = 300


class NoRules(ReplicatorError):
    code = "PSYNC_S2302"


async def converse(user: User, request: Request, out: Stream) -> None:
    if request.client_id == "refused":
        raise NoRules("No rules yet")
    if request.client_id == "large":
        op = Op(OpId(1), "a[]", "PUT", "t", "1", "k", 5, "x" * 20_000_000)
        await out.send([DataLine("a[]", OpId(0), OpId(1), False, [op])])
    await out.send([number(at) for at in range(LINES)])


@asynccontextmanager
async def client(place: Place, **options: Any) -> AsyncIterator[Any]:
    async with (
        place.session.ws_connect(place.url, max_msg_size=1 << 25) as socket,
        transports.websocket_client(
            websocket=socket,
            setup_payload=payloads.Payload(b"{}", orjson.dumps({"token": token()})),
            data_encoding=JSON.encode(),
            metadata_encoding=JSON.encode(),
            keep_alive_period=timedelta(milliseconds=200),
            max_lifetime_period=timedelta(seconds=30),
            **options,
        ) as connection,
    ):
        yield peers.AwaitableRSocket(connection)


async def stream(connection: Any, client_id: str, credit: int) -> list[dict[str, Any]]:
    # Long enough to be sent in pieces, where the client is told to.
    body = orjson.dumps({"client_id": client_id, "buckets": [{"name": "n" * 999, "after": "0"}]})
    async with asyncio.timeout(60):
        values = await connection.request_stream(payloads.Payload(body, PATH), limit_rate=credit)
    return [dict(bson.decode(value.data)) for value in values]


def op_ids(documents: list[dict[str, Any]]) -> list[int]:
    return [int(document["checkpoint_complete"]["last_op_id"]) for document in documents]


@pytest.mark.parametrize("credit", [1, 7, 1_000])
async def test_every_line_arrives_in_order_whatever_the_credit(credit: int) -> None:
    async with serving(converse) as place, client(place) as connection:
        assert op_ids(await stream(connection, "phone", credit)) == list(range(LINES))


async def test_streams_of_one_connection_do_not_mix() -> None:
    async with serving(converse) as place, client(place) as connection:
        both = await asyncio.gather(stream(connection, "a", 3), stream(connection, "b", 5))
        assert [op_ids(documents) for documents in both] == [list(range(LINES))] * 2


async def test_requests_come_and_lines_go_in_pieces() -> None:
    async with serving(converse) as place, client(place, fragment_size_bytes=128) as connection:
        large, *others = await stream(connection, "large", 5)
        assert len(large["data"]["data"][0]["data"]) == 20_000_000
        assert op_ids(others) == list(range(LINES))


async def test_a_refusal_is_understood() -> None:
    async with serving(converse) as place, client(place) as connection:
        with pytest.raises(RuntimeError, match=r"\[PSYNC_S2302\] No rules yet"):
            await stream(connection, "refused", 5)
        assert op_ids(await stream(connection, "phone", 5)) == list(range(LINES))
