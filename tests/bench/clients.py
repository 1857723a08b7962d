"""An order on standard input → clients of a server, and a line of JSON for what happened to them."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

import aiohttp
import psycopg
import uvloop

_COMPLETE = b'{"checkpoint_complete"'


class Client:
    """One client that reads lines as they come, without looking into them."""

    def __init__(self, http: aiohttp.ClientSession, order: dict[str, Any], token: str, number: int) -> None:
        self._http, self._order = http, order
        self._headers = {
            "authorization": f"Token {token}",
            "accept-encoding": order.get("encoding", "identity"),
        }
        self._body = {"buckets": [], "raw_data": True, "client_id": f"client {number}"}
        self._tail = b""
        self.response: aiohttp.ClientResponse

    async def connect(self) -> None:
        while True:
            self.response = await self._http.post("/sync/stream", json=self._body, headers=self._headers)
            if self.response.status == 200:
                return
            assert self.response.status == 500, self.response.status
            self.response.release()
            await asyncio.sleep(0.1)

    async def complete(self) -> None:
        """Wait until a checkpoint is complete."""
        pressed = "content-encoding" in self.response.headers
        pressor = None
        if pressed:
            import zstandard

            pressor = zstandard.ZstdDecompressor().decompressobj(read_across_frames=True)
        async for chunk in self.response.content.iter_any():
            chunk = pressor.decompress(chunk) if pressor is not None else chunk
            seen = self._tail + chunk if len(chunk) < 4096 else self._tail + chunk[-4096:]
            if _COMPLETE in seen:
                self._tail = b""
                return
            self._tail = seen[-len(_COMPLETE) :]
        raise AssertionError("the stream ended")


def say(**what: object) -> None:
    print(json.dumps(what), flush=True)


async def work(order: dict[str, Any]) -> None:
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(
        order["url"], connector=connector, timeout=timeout, auto_decompress=False, read_bufsize=1 << 20
    ) as http:
        clients = [Client(http, order, token, number) for number, token in enumerate(order["tokens"])]
        await VERBS[order["verb"]](clients, order)


async def wait(clients: list[Client], order: dict[str, Any]) -> None:
    """Until there is something to be seen."""
    await clients[0].connect()
    await clients[0].complete()
    say()


async def rows(clients: list[Client], order: dict[str, Any]) -> None:
    """Until a client would be sent so many rows."""
    count = 0
    while count < order["rows"]:
        await clients[0].connect()
        line = json.loads(await clients[0].response.content.readline())
        count = sum(bucket["count"] for bucket in line["checkpoint"]["buckets"])
        clients[0].response.close()
        await asyncio.sleep(0.1)
    say()


async def download(clients: list[Client], order: dict[str, Any]) -> None:
    begun = time.perf_counter()

    async def one(client: Client) -> None:
        await client.connect()
        await client.complete()

    await asyncio.gather(*map(one, clients))
    say(seconds=time.perf_counter() - begun)


async def hear(clients: list[Client], order: dict[str, Any]) -> None:
    """Say when all have a first checkpoint, and then whenever all have another one."""
    for at in range(0, len(clients), 100):
        some = clients[at : at + 100]
        await asyncio.gather(*(client.connect() for client in some))
        await asyncio.gather(*(client.complete() for client in some))
    say()
    while True:
        await asyncio.gather(*(client.complete() for client in clients))
        say(last=time.time())


async def latency(clients: list[Client], order: dict[str, Any]) -> None:
    [client] = clients
    await client.connect()
    await client.complete()
    took = []
    async with await psycopg.AsyncConnection.connect(order["dsn"], autocommit=True) as source:
        update = "UPDATE vital_signs SET heart_rate_bpm = %s WHERE patient_id = %s"
        for number in range(order["commits"]):
            await asyncio.sleep(0.05)
            committing = asyncio.ensure_future(source.execute(update, [number % 200, order["user"]]))
            complete = asyncio.ensure_future(client.complete())
            await committing
            begun = time.perf_counter()
            await complete
            took.append((time.perf_counter() - begun) * 1000)
    say(ms=took)


VERBS = {
    "wait": wait,
    "rows": rows,
    "download": download,
    "hear": hear,
    "latency": latency,
}

if __name__ == "__main__":
    order = json.loads(sys.stdin.readline())
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(work(order))
