"""Nothing at all → a Postgres, a clinic at work in it, and a replicator beside it that one can look at."""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import aiohttp
import click

from replicator.buckets.deploy import named_in_force
from replicator.buckets.model import OpId
from replicator.buckets.read import follow, position
from replicator.config import Config, load
from replicator.database import connected, migrate
from replicator.demo import clinic
from replicator.demo.binaries import for_the_demo
from replicator.demo.place import Place, lay_out
from replicator.demo.port import Port
from replicator.demo.postgres import Server
from replicator.demo.record import furnish, tell, watch_record
from replicator.ehr.sandbox.server import Sandbox
from replicator.errors import Unavailable
from replicator.notify import Notifier
from replicator.supervise import first_to_end
from replicator.together import Together, Watch, parts

#: How long the parts are given to end.
_STOP_S = 10.0
#: How often is asked whether there is something to serve.
_ASK_S = 0.1


async def show(*, seconds: float | None, patients: int, rate: float, keep: Path | None) -> None:
    """Run the demo for so long, or until it is ended."""
    binaries, began, luck = for_the_demo(os.environ), time.monotonic(), random.Random(1)
    click.echo(
        f"starting Postgres {binaries.version} ({binaries.origin}), a clinic in it, and the replicator …"
    )
    async with AsyncExitStack() as stack:
        is_kept = keep is not None
        server = stack.enter_context(Server(binaries, directory=keep, keep=is_kept, fsync=is_kept))
        sandbox = await stack.enter_async_context(Sandbox(server.dsn()))
        port = Port(0)
        stack.callback(port.release)
        place = lay_out(server.directory, server.dsn(), sandbox.url, port.number)
        config = load(place.config, {})
        await migrate(config.storage_dsn, config.storage.schema_name)
        source = await stack.enter_async_context(connected(config.source_dsn, "demo"))
        people = await clinic.opened(source, patients, luck)
        await furnish(sandbox, config, source)
        port.hand_over()
        running = await stack.enter_async_context(_running(place, config))
        _explain(place, sandbox.url, people, rate, time.monotonic() - began)
        await first_to_end(
            _unasked(running),
            clinic.work(source, people, rate, luck),
            _watch(config, f'user_data["{people[0]}"]'),
            watch_record(config, people[0]),
            asyncio.sleep(seconds if seconds is not None else 10**9),
        )
    if keep is not None:
        click.echo(f"everything is kept in {keep}; replicator demo --keep {keep} goes on from there")


@asynccontextmanager
async def _running(place: Place, config: Config) -> AsyncIterator[asyncio.Task[int]]:
    """The same as `replicator run`, once there is something to serve.

    A row that is written while its table is being copied may rightly come twice: nothing is, before that.
    """
    names, stop = parts(config, {}), asyncio.Event()
    together = Together(names, place.config, Watch(names, Notifier({})))
    running = asyncio.create_task(together.run(stop, _STOP_S))
    try:
        await first_to_end(_unasked(running), _served(place))
        yield running
    finally:
        stop.set()
        await asyncio.wait({running})


async def _unasked(running: asyncio.Task[int]) -> None:
    """Return never: a part that has ended for good is something to tell."""
    code = await asyncio.shield(running)
    raise Unavailable(f"the replicator has ended with code {code}", "Above it says why.")


async def _served(place: Place) -> None:
    async with aiohttp.ClientSession(place.root) as http:
        while True:
            with suppress(aiohttp.ClientError):
                async with http.get("/probes/readiness") as answer:
                    if answer.status == 200:
                        return
            await asyncio.sleep(_ASK_S)


def _explain(place: Place, record: str, people: Sequence[str], rate: float, took_s: float) -> None:
    commands = Path(sys.executable).parent
    click.echo(
        f"a clinic with {len(people)} patients, about {rate:g} changes a second; ready in {took_s:.0f} s\n\n"
        f"  status page   {place.root}/#token={place.token}\n"
        f"  record        {record}  (a sandbox, which stands for a record system)\n\n"
        f"Below, of one patient, the bucket fills as checkpoints make changes visible, and the record as\n"
        f"compositions arrive. Ctrl-C ends it all. To look closer, in another terminal:\n\n"
        f"  export REPLICATOR_CONFIG={place.config} PATH={commands}:$PATH\n"
        f"  replicator tail --user {people[0]}\n"
        f"  replicator rules test --user {people[0]}\n"
        f"  replicator queue list --state done --limit 10\n"
    )


async def _watch(config: Config, bucket: str) -> None:
    """Tell of each op of a bucket from here on."""
    schema, slot = config.storage.schema_name, config.source.slot
    async with connected(config.storage_dsn, "tail", schema=schema) as connection:
        bucket, now = await named_in_force(connection, slot, bucket), await position(connection, slot)
        after = OpId(0) if now is None or now.shown is None else now.shown.op_id
        async for _, ops in follow(connection, slot, after=after, bucket=bucket):
            for op in ops:
                what = click.style(f"{op.op:<8}", fg="green" if op.op == "PUT" else "red")
                tell("bucket", f"{what}  {op.object_type}/{op.object_id}  {op.data or ''}")
