"""A Config → the running daemon: connect, refuse to lie, follow the log, and come back after faults."""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from functools import partial
from typing import NamedTuple

from replicator import __version__
from replicator.buckets import deploy
from replicator.buckets.compacting import keep_compacted
from replicator.buckets.divergence import beginning, divergence, standing
from replicator.buckets.force import Configured, Force
from replicator.buckets.lookups import Lookups
from replicator.buckets.numbers import Numbers
from replicator.buckets.read import position
from replicator.buckets.retire import retire_for_ever
from replicator.buckets.rows import RowStates
from replicator.buckets.ticking import tick
from replicator.buckets.write import (
    Source,
    Writer,
    agree,
    begin,
    begin_again,
    give_up,
    open_writer,
    require_alone,
)
from replicator.config import Config
from replicator.copying.copier import Copier
from replicator.copying.copies import Copies, Redeployed, Refused, Wanted
from replicator.copying.weave import Weaver
from replicator.database import Connection, check_migrated, connected, pooled
from replicator.dsn import describe_dsn
from replicator.ehr.job import Jobs
from replicator.ehr.mapping import load_mapping
from replicator.ehr.queue import Feed, Meanings
from replicator.ehr.queue_found import Finder, asks_others
from replicator.errors import ReplicatorError, SlotBlocked, SlotLost, StandingBy, Unavailable
from replicator.marks import mark
from replicator.replicate import Limits, replicate
from replicator.rules.met import Met
from replicator.rules.model import Rules
from replicator.rules.route import Router
from replicator.wal.lsn import Lsn
from replicator.wal.preflight import require_ours, require_ready, require_unread
from replicator.wal.slots import Blocker, create_slot
from replicator.wal.source import Slot, drop_slot, find_slot, identify, is_held_up, printing, sender_timeout_s
from replicator.wal.stream import Stream
from replicator.wal.transactions import Assembler

#: Waiting for what heals by itself: from so much, doubling, to so much; each wait a random part of it.
_BACKOFF_S = (0.1, 5.0)
#: A connection that lasted this long was a good one: the next fault is a new one.
_GOOD_S = 10.0
#: Why we wait is said again after so long, if it is still the same.
_TOLD_AGAIN_S = 300.0
#: Whoever has not answered by then, before the stream begins, is not waited for any longer.
_OPENING_S = 120.0
#: When the pipeline has stood still for so long, the source is asked whether it waits for us.
_STUCK_S = 10.0
#: How long open transactions may keep a new slot waiting before we say whose they are, and try again.
_SLOT_TIMEOUT_S = 30.0
#: How often storage is asked whether other rules are to be prepared, or are in force.
_HEARD_S = 2.0


class Ready(NamedTuple):
    """Everything open and agreed upon, so that the main path can begin."""

    stream: Stream
    weaver: Weaver
    copier: Copier
    lookups: Lookups
    writer: Writer
    force: Force
    notes: Connection


async def run_replicate(config: Config, rules: Rules, stop: asyncio.Event) -> None:
    """Replicate until told to stop, connecting again after whatever heals by itself."""
    source, storage = config.source, describe_dsn(config.storage_dsn)
    mark(
        "starting",
        level=logging.INFO,
        version=__version__,
        source=describe_dsn(config.source_dsn),
        slot=source.slot,
        publication=source.publication,
        storage=f"{storage} schema {config.storage.schema_name}",
    )
    await _again_and_again(config, Configured(rules), stop)
    mark("stopped", level=logging.INFO, slot=source.slot)


async def _again_and_again(config: Config, rules: Configured, stop: asyncio.Event) -> None:
    attempt, last, told = 0, ReplicatorError(""), -math.inf
    while not stop.is_set():
        began = time.monotonic()
        try:
            await replicate_once(config, rules, stop)
        except (Unavailable, SlotBlocked, SlotLost) as error:
            if isinstance(error, SlotLost) and isinstance(last, SlotLost):
                raise
            # A slot that is lost under a stream is looked at once more: then it is judged together with what
            # is stored, and what to do about it is known, or said.
            attempt = 1 if time.monotonic() - began > _GOOD_S else attempt + 1
            first, most = _BACKOFF_S
            wait_s = random.uniform(0.5, 1) * min(most, first * 2 ** min(attempt, 16))
            # A standby may say the same for months.
            is_news = error.what != last.what or time.monotonic() - told > _TOLD_AGAIN_S
            level = logging.INFO if isinstance(error, StandingBy) else logging.WARNING
            level, told = (level, time.monotonic()) if is_news else (logging.DEBUG, told)
            mark("waiting", level=level, why=error.what, seconds=round(wait_s, 2))
            last = error
            await _stopped_within(stop, wait_s)


async def replicate_once(config: Config, rules: Configured, stop: asyncio.Event) -> None:
    """One connection's worth of replicating: from the stored checkpoint until stopped or interrupted.

    Or until other rules are to be prepared, or are in force.
    """
    try:
        async with AsyncExitStack() as stack:
            ready = await _unless(stop, _open(stack, config, rules))
            if ready is not None:
                await _go_on(ready, config, stop)
    except Redeployed:
        return
    except Refused as refused:
        await _refuse(config, str(refused))


async def _go_on(ready: Ready, config: Config, stop: asyncio.Event) -> None:
    limits, schema, slot = config.replicate, config.storage.schema_name, config.source.slot
    await first_to_end(
        replicate(
            ready.stream,
            Assembler(schema, frozenset(ready.force.tables)),
            ready.weaver,
            ready.writer,
            Limits(limits.batch_rows, limits.batch_bytes, limits.batch_ms / 1000),
        ),
        ready.copier.run(),
        tick(ready.lookups, config.source_dsn),
        keep_compacted(config, config.compact.every_s),
        retire_for_ever(
            config.storage_dsn, schema, slot, ready.notes, (ready.force.active, ready.force.preparing)
        ),
        _let_go(ready.stream, config.source_dsn),
        _stop_when(stop, ready.stream),
        _stop_when_redeployed(ready, slot),
    )


async def _refuse(config: Config, why: str) -> None:
    """The set in preparation cannot be prepared; the one in force goes on alone."""
    slot = config.source.slot
    async with connected(config.storage_dsn, "rules", schema=config.storage.schema_name) as storage:
        _, preparing = await deploy.standing(storage, slot)
        if preparing is not None and await deploy.fail(storage, slot, preparing, why):
            mark("rules failed", level=logging.WARNING, rules=preparing, why=why)


async def _open(stack: AsyncExitStack, config: Config, rules: Configured) -> Ready:
    """Connect to both sides, see that they agree, and begin to listen."""
    source, schema, opened = config.source, config.storage.schema_name, stack.enter_async_context
    store = await opened(connected(config.storage_dsn, "write", schema=schema))
    await check_migrated(store, schema)
    notes = await opened(connected(config.storage_dsn, "tables", schema=schema))
    clinic = await opened(connected(printing(config.source_dsn), "copy"))
    await require_ready(clinic, source.publication, await rules.names(store, source.slot))
    numbers = Numbers(await opened(connected(config.storage_dsn, "numbers", schema=schema)))
    writer = await open_or_begin(store, clinic, config, numbers)
    writer.row_most = config.replicate.row_bytes
    force = await rules.take(store, source.slot)
    copies = Copies(
        Wanted(
            config.source_dsn,
            source.slot,
            source.publication,
            force.tables,
            force.preparing,
            force.kept,
            force.new,
        )
    )
    router = Router(force.rules, beside=force.beside)
    router.anew = copies.anew
    copier = Copier(copies, clinic, notes, Met(router, clinic))
    await copier.prepare()
    if force.preparing is not None and await deploy.put_in_force_at_once(store, source.slot, force.preparing):
        mark("rules switched", rules=force.preparing)
        raise Redeployed  # nothing had to be copied
    writer.lookups = lookups = Lookups(store, router)
    writer.feed = await feed_of(stack, config)
    await lookups.open()
    timeout_s = await sender_timeout_s(clinic)

    async def still_agreed() -> None:
        """The slot can have been dropped and made again since it was looked at; now it is held."""
        now, stands = await identify(config.source_dsn), await position(store, source.slot)
        assert stands is not None, "this writer has it open"
        if problem := divergence(source.slot, now, await find_slot(clinic, source.slot), stands):
            raise problem

    start = writer.checkpoint.lsn
    stream = await opened(
        Stream(
            config.source_dsn,
            source.slot,
            source.publication,
            start,
            timeout_s=timeout_s,
            agreed=still_agreed,
        )
    )
    weaver = Weaver(copies, RowStates(store, source.slot))
    return Ready(stream, weaver, copier, lookups, writer, force, notes)


async def feed_of(stack: AsyncExitStack, config: Config) -> Callable[[], Feed] | None:
    """What makes jobs for the record system, where there is one."""
    if config.ehr.url is None:
        return None
    mapping = load_mapping(config.ehr.mapping_path)
    finder = None
    if asks_others(mapping):
        # Within a batch, storage waits for the answers.
        finder = Finder(await stack.enter_async_context(pooled(printing(config.source_dsn), "find", most=1)))
    jobs = Jobs(mapping, finder.find if finder is not None else lambda *asked: None, {})
    return partial(Feed, Meanings(jobs, finder))


async def open_or_begin(store: Connection, clinic: Connection, config: Config, numbers: Numbers) -> Writer:
    """The writer of this slot; on the very first start, with its slot created and its checkpoint begun."""
    name = config.source.slot
    opened = await open_writer(store, name, numbers)
    # Looked at only now that nobody else writes: what was seen before could be older than what is stored.
    identity = await identify(config.source_dsn)
    now = Source(identity.system_id, identity.timeline)
    slot = await find_slot(clinic, name)
    if slot is not None:
        await require_ours(clinic, name, slot)
    if opened is None:
        return await _begin(store, clinic, config, slot, now, numbers)
    writer, position = opened
    problem = divergence(name, identity, slot, position)
    given_up = standing(identity, slot and slot.confirmed_lsn), beginning(identity)
    is_given_up = position.given_up in given_up
    if problem is None and not is_given_up:
        await agree(store, name)
        mark("agreed", slot=name, stored=position.stored.lsn, confirmed=slot and slot.confirmed_lsn)
        return writer
    resync = isinstance(problem, SlotLost) and config.source.on_slot_loss == "resync"
    if problem is not None and not (is_given_up or resync):
        raise problem
    why = problem.what if problem else "the publication is not the one that the log was read by"
    mark("beginning again", level=logging.WARNING, why=why)
    await give_up(store, name, beginning(identity))
    if slot is not None:
        await drop_slot(clinic, name)
    return await begin_again(store, name, writer, await _make_slot(clinic, config), now)


async def _begin(
    store: Connection,
    clinic: Connection,
    config: Config,
    slot: Slot | None,
    now: Source,
    numbers: Numbers,
) -> Writer:
    """The first start: nothing is stored, so a slot that is there has to be unread and whole."""
    name = config.source.slot
    await require_alone(store, name)
    if slot is not None:
        require_unread(name, slot)
    lsn = (slot and slot.confirmed_lsn) or await _make_slot(clinic, config)
    await begin(store, name, lsn, now)
    opened = await open_writer(store, name, numbers)
    assert opened is not None, "a checkpoint was begun a moment ago"
    return opened[0]


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


async def _unless(stop: asyncio.Event, work: Coroutine[None, None, Ready]) -> Ready | None:
    """What the work comes to; None if we are to stop before it has."""
    working, stopping = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({working, stopping}, timeout=_OPENING_S, return_when=asyncio.FIRST_COMPLETED)
    finally:
        working.cancel()
        stopping.cancel()
        await asyncio.wait({working, stopping})
    if not working.cancelled():
        return working.result()
    if stop.is_set():
        return None
    raise Unavailable(
        f"the source or the storage did not answer within {_OPENING_S:g} s",
        "A network path may have broken without a word; connecting again.",
    )


async def _let_go(stream: Stream, source_dsn: str) -> None:
    """End a stream that the source wants to end, and cannot tell us so because the pipeline stands still."""
    while True:
        await asyncio.sleep(_STUCK_S)
        if stream.stuck_s < _STUCK_S:
            continue
        async with connected(source_dsn, "watch") as source:
            if await is_held_up(source, stream.sender_pid):
                raise Unavailable(
                    "the source wants to end the stream, and storage has kept us from hearing it",
                    "What had not been stored is read again.",
                )


async def _stop_when(stop: asyncio.Event, stream: Stream) -> None:
    await stop.wait()
    stream.stop()
    await asyncio.Event().wait()  # the main path ends by itself, in its own time


async def _stop_when_redeployed(ready: Ready, slot: str) -> None:
    """End, to begin anew, when other rules are in force or to be prepared than those that this began with."""
    force = ready.force
    same = {(force.active, force.preparing)}
    if force.active is None:
        same.add((force.preparing, None))  # the first of all has come into force, and is routed by already
    while await deploy.standing(ready.notes, slot) in same:
        await asyncio.sleep(_HEARD_S)
    ready.stream.stop()
    await asyncio.Event().wait()


async def _stopped_within(stop: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return
