"""A Config → the running daemon: connect, refuse to lie, follow the log, and come back after faults."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable
from contextlib import AsyncExitStack

from replicator.buckets.divergence import divergence
from replicator.buckets.rows import RowStates
from replicator.buckets.write import Source, Writer, begin, begin_again, open_writer
from replicator.config import Config
from replicator.copying.copier import Copier
from replicator.copying.copies import Copies, Wanted
from replicator.copying.weave import Weaver
from replicator.database import Connection, check_migrated, connected
from replicator.errors import SlotBlocked, SlotLost, Unavailable
from replicator.marks import mark
from replicator.replicate import Limits, replicate
from replicator.rules.model import Rules
from replicator.rules.route import Router
from replicator.wal.lsn import Lsn
from replicator.wal.preflight import require_ready
from replicator.wal.slots import Blocker, create_slot
from replicator.wal.source import drop_slot, find_slot, identify, printing, sender_timeout_s
from replicator.wal.stream import Stream
from replicator.wal.transactions import Assembler

#: Waiting for what heals by itself: from so much, doubling, to so much; each wait a random part of it.
_BACKOFF_S = (0.1, 5.0)
#: A connection that lasted this long was a good one: the next fault is a new one.
_GOOD_S = 10.0
#: How long open transactions may keep a new slot waiting before we say whose they are, and try again.
_SLOT_TIMEOUT_S = 30.0


async def run_replicate(config: Config, rules: Rules, stop: asyncio.Event) -> None:
    """Replicate until told to stop, connecting again after whatever heals by itself."""
    attempt = 0
    while not stop.is_set():
        began = time.monotonic()
        try:
            await replicate_once(config, rules, stop)
            return
        except (Unavailable, SlotBlocked) as error:
            attempt = 1 if time.monotonic() - began > _GOOD_S else attempt + 1
            first, most = _BACKOFF_S
            wait_s = random.uniform(0.5, 1) * min(most, first * 2 ** min(attempt, 16))
            mark("waiting", level=logging.WARNING, why=error.what, seconds=round(wait_s, 2))
            await _stopped_within(stop, wait_s)


async def replicate_once(config: Config, rules: Rules, stop: asyncio.Event) -> None:
    """One connection's worth of replicating: from the stored checkpoint until stopped or interrupted."""
    source, schema = config.source, config.storage.schema_name
    async with AsyncExitStack() as stack:
        opened = stack.enter_async_context
        store = await opened(connected(config.storage_dsn, "write", schema=schema))
        await check_migrated(store, schema)
        notes = await opened(connected(config.storage_dsn, "tables", schema=schema))
        clinic = await opened(connected(printing(config.source_dsn), "copy"))
        await require_ready(clinic, source.publication, rules.tables())
        writer = await open_or_begin(store, clinic, config)
        wanted = Wanted(config.source_dsn, source.slot, source.publication, rules.tables())
        copies = Copies(wanted)
        copier = Copier(copies, clinic, notes)
        await copier.prepare()
        timeout_s = await sender_timeout_s(clinic)
        start = writer.checkpoint.lsn
        stream = await opened(
            Stream(config.source_dsn, source.slot, source.publication, start, timeout_s=timeout_s)
        )
        limits = config.replicate
        await first_to_end(
            replicate(
                stream,
                Assembler(own_schema=schema),
                Weaver(copies, RowStates(store, source.slot)),
                Router(rules),
                writer,
                Limits(limits.batch_rows, limits.batch_bytes, limits.batch_ms / 1000),
            ),
            copier.run(),
            _stop_when(stop, stream),
        )


async def open_or_begin(store: Connection, clinic: Connection, config: Config) -> Writer:
    """The writer of this slot; on the very first start, with its slot created and its checkpoint begun."""
    name = config.source.slot
    identity = await identify(config.source_dsn)
    now = Source(identity.system_id, identity.timeline)
    slot = await find_slot(clinic, name)
    opened = await open_writer(store, name)
    if opened is None:
        lsn = (slot and slot.confirmed_lsn) or await _make_slot(clinic, config)
        await begin(store, name, lsn, now)
        opened = await open_writer(store, name)
        assert opened is not None, "a checkpoint was begun a moment ago"
        return opened[0]
    writer, position = opened
    problem = divergence(name, identity, slot, position)
    if problem is None:
        return writer
    resync = isinstance(problem, SlotLost) and config.source.on_slot_loss == "resync"
    if not (position.is_to_begin_again or resync):
        raise problem
    mark("beginning again", level=logging.WARNING, why=problem.what)
    if slot is not None:
        await drop_slot(clinic, name)
    return await begin_again(store, name, writer, await _make_slot(clinic, config), now)


async def _make_slot(clinic: Connection, config: Config) -> Lsn:
    def say(blockers: list[Blocker]) -> None:
        mark("slot waits", level=logging.WARNING, behind="; ".join(map(str, blockers)))

    async with connected(config.source_dsn, "watch") as watcher:
        return await create_slot(
            clinic,
            watcher,
            config.source.slot,
            failover=False,
            timeout_s=_SLOT_TIMEOUT_S,
            waiting=say,
        )


async def first_to_end(*works: Awaitable[object]) -> None:
    """Wait until one of several ends, end the others, and raise what went wrong, if anything did."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()


async def _stop_when(stop: asyncio.Event, stream: Stream) -> None:
    await stop.wait()
    stream.stop()
    await asyncio.Event().wait()  # the main path ends by itself, in its own time


async def _stopped_within(stop: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return
