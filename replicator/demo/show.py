"""Nothing at all → a Postgres, a clinic in it, and one patient's bucket filling on the terminal."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Sequence
from contextlib import AsyncExitStack

import click

from replicator import marks, queries
from replicator.buckets.model import OpId
from replicator.buckets.read import follow
from replicator.config import Config, load
from replicator.database import connected, migrate
from replicator.demo import clinic
from replicator.demo.binaries import for_the_demo
from replicator.demo.postgres import Server
from replicator.observe.tail import line
from replicator.rules.parse import load_rules
from replicator.supervise import first_to_end, run_replicate


async def show(*, seconds: float | None, patients: int, rate: float) -> None:
    """Run the demo for so long, or until it is ended."""
    binaries = for_the_demo(os.environ)
    click.echo(f"starting Postgres {binaries.version} ({binaries.origin}) …")
    async with AsyncExitStack() as stack:
        server = stack.enter_context(Server(binaries))
        config = load(None, {"SOURCE_DSN": server.dsn()})
        await migrate(config.storage_dsn, config.storage.schema_name)
        source = await stack.enter_async_context(connected(config.source_dsn, "demo"))
        await clinic.build(source)
        people = await clinic.admit(source, patients)
        replicating = await _start(config)
        _explain(server.dsn(), people, rate)
        await first_to_end(
            replicating,
            clinic.work(source, people, rate, random.Random(1)),
            _watch(config, f'1#user_data["{people[0]}"]'),
            asyncio.sleep(seconds if seconds is not None else 10**9),
        )


async def _start(config: Config) -> asyncio.Task[None]:
    """Replicate, with every table copied: a row written while one is being copied may rightly come twice."""
    copied = asyncio.Event()

    def hear(name: str, fields: dict[str, object]) -> None:
        if name == "copied":
            del uncopied[:1]
            if not uncopied:
                loop.call_soon_threadsafe(copied.set)

    loop = asyncio.get_running_loop()
    rules = load_rules(queries.house("config") / "rules.yaml")
    uncopied = list(rules.tables())
    marks.listeners.append(hear)
    task = asyncio.create_task(run_replicate(config, rules, asyncio.Event()))
    waiting = asyncio.create_task(copied.wait())
    await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
    marks.listeners.remove(hear)
    if not waiting.done():
        waiting.cancel()
        await task
    return task


def _explain(dsn: str, people: Sequence[str], rate: float) -> None:
    click.echo(
        f"a clinic with {len(people)} patients, about {rate:g} changes a second\n"
        f"the bucket of one of them, as checkpoints make changes visible (Ctrl-C ends it all):\n\n"
        f"  in another terminal:  export SOURCE_DSN='{dsn}'\n"
        f"                        replicator tail --from-start\n"
    )


async def _watch(config: Config, bucket: str) -> None:
    schema = config.storage.schema_name
    async with connected(config.storage_dsn, "tail", schema=schema) as connection:
        async for _, ops in follow(connection, config.source.slot, after=OpId(0), bucket=bucket):
            for op in ops:
                click.echo(line(op))
