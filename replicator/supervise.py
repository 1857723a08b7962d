"""A Config → the running daemon: connect, refuse to lie, follow the log, and come back after faults."""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import NamedTuple, TypeVar

from psycopg.pq import TransactionStatus

from replicator import __version__, pulse
from replicator.buckets import deploy
from replicator.buckets.compacting import keep_compacted
from replicator.buckets.divergence import beginning, divergence, standing
from replicator.buckets.force import Configured, Force
from replicator.buckets.lookups import Lookups
from replicator.buckets.numbers import Numbers
from replicator.buckets.read import position
from replicator.buckets.retire import retire_for_ever
from replicator.buckets.rows import RowStates
from replicator.buckets.standby import become_writer
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
from replicator.ehr.columns import read_catalogue
from replicator.ehr.job import Jobs
from replicator.ehr.mapping import mapping_of
from replicator.ehr.model import RecordMapping
from replicator.ehr.queue import Feed, Meanings
from replicator.ehr.queue_existing import fill, note_mappings
from replicator.ehr.queue_found import Finder, asks_others
from replicator.ehr.queue_noted import note_manners
from replicator.ehr.used import tables_followed
from replicator.errors import (
    NewUnready,
    OldUnready,
    ReplicatorError,
    SlotBlocked,
    SlotLost,
    SourceUnready,
    Unavailable,
)
from replicator.files import Files
from replicator.marks import mark
from replicator.observe.metrics.telling import count_batch
from replicator.patience import Patience, stopped_within
from replicator.replicate import Limits, replicate
from replicator.rules.doubts import Doubts
from replicator.rules.met import Met
from replicator.rules.model import Rules
from replicator.rules.route import Router
from replicator.wal.lsn import Lsn
from replicator.wal.own import is_own, require_foreign
from replicator.wal.preflight import require_ours, require_ready, require_unread
from replicator.wal.slots import Blocker, create_slot
from replicator.wal.source import Slot, drop_slot, find_slot, identify, is_held_up, printing, sender_timeout_s
from replicator.wal.stream import Stream
from replicator.wal.transactions import Assembler

_T = TypeVar("_T")

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
    #: Every table that rules read or that is mapped.
    followed: Sequence[tuple[str, str]]
    #: What queues the rows that were there before their mapping.
    fill: Callable[[], Awaitable[object]]


class Given:
    """What is replicated by: the rules, and the mapping where there is a record system."""

    def __init__(
        self, rules: Rules, mapping: RecordMapping | None, files: Files | None, doubts: Doubts
    ) -> None:
        self.rules, self.mapping = Configured(rules), mapping
        self.doubts = doubts
        self._files = files

    def take_up(self) -> None:
        """What the files say by now, if they have been read again."""
        if self._files is None or not self._files.renewed.is_set():
            return
        self._files.renewed.clear()
        assert self._files.rules is not None, "they were read for replicating"
        self.rules.renew(self._files.rules)
        self.mapping = self._files.mapping

    def read_again(self) -> bool:
        """Whether the files say something else by now, though nobody has asked to read them again."""
        return self._files is not None and self._files.reload() and self._files.renewed.is_set()

    async def other(self) -> None:
        """Return when they say something else."""
        await (asyncio.Event() if self._files is None else self._files.renewed).wait()


async def run_replicate(
    config: Config, rules: Rules, stop: asyncio.Event, files: Files | None = None
) -> None:
    """Replicate until told to stop, connecting again after whatever heals by itself.

    With `files`, go over to what they say when they are read again.
    """
    # Rows pass by in their thousands, and hold nothing that holds them: looking for such among them every few
    # hundred takes a twelfth of all time.
    gc.set_threshold(10_000, 20, 50)
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
    given = Given(rules, mapping_of(config), files, Doubts(str(config.rules_path)))
    await _again_and_again(config, given, stop)
    mark("stopped", level=logging.INFO, slot=source.slot)


async def _again_and_again(config: Config, given: Given, stop: asyncio.Event) -> None:
    patience, last, told = Patience(), ReplicatorError(""), -math.inf
    while not stop.is_set():
        began = time.monotonic()
        given.take_up()
        try:
            await replicate_once(config, given, stop)
        except (Unavailable, SlotBlocked, SlotLost) as error:
            if isinstance(error, SlotLost) and isinstance(last, SlotLost):
                raise
            # A slot that is lost under a stream is looked at once more: then it is judged together with what
            # is stored, and what to do about it is known, or said.
            wait_s = patience.after(time.monotonic() - began)
            is_news = error.what != last.what or time.monotonic() - told > _TOLD_AGAIN_S
            level, told = (logging.WARNING, time.monotonic()) if is_news else (logging.DEBUG, told)
            mark("waiting", level=level, why=error.what, seconds=round(wait_s, 2))
            pulse.at(f"waiting: {error.what}", is_ready=False)
            last = error
            await stopped_within(stop, wait_s)
        except SourceUnready:
            # Perhaps rules that do not need it have been written: whoever starts it again would read them.
            if not given.read_again():
                raise


async def replicate_once(config: Config, given: Given, stop: asyncio.Event) -> None:
    """One connection's worth of replicating: from the stored checkpoint until stopped or interrupted.

    Or until other rules are to be prepared, or are in force.
    """
    try:
        async with AsyncExitStack() as stack:
            store = await _unless(stop, _OPENING_S, _open_storage(stack, config))
            if store is None or not await _unless(stop, None, become_writer(store, config.source.slot)):
                return
            ready = await _unless(stop, _OPENING_S, _open(stack, config, store, given))
            if ready is not None:
                pulse.at("replicating", is_ready=True)
                await _go_on(ready, config, given, stop)
    except Redeployed:
        return
    except (Refused, NewUnready) as refused:
        await _refuse(config, str(refused))
    except OldUnready as error:
        await _go_over(config, error)


async def _go_on(ready: Ready, config: Config, given: Given, stop: asyncio.Event) -> None:
    limits, schema, slot = config.replicate, config.storage.schema_name, config.source.slot
    await first_to_end(
        replicate(
            ready.stream,
            Assembler(schema, frozenset(ready.followed)),
            ready.weaver,
            ready.writer,
            Limits(limits.batch_rows, limits.batch_bytes, limits.batch_ms / 1000),
            count=count_batch,
        ),
        ready.copier.run(),
        tick(ready.lookups, config.source_dsn),
        keep_compacted(config, config.compact.every_s),
        retire_for_ever(
            config.storage_dsn, schema, slot, ready.notes, (ready.force.active, ready.force.preparing)
        ),
        _let_go(ready.stream, config.source_dsn),
        ready.fill(),
        _stop_when(stop.wait(), ready.stream),
        _stop_when(given.other(), ready.stream),
        _stop_when_redeployed(ready, slot),
        _live_while_storage_works(ready.writer),
    )


async def _refuse(config: Config, why: str) -> None:
    """The set in preparation cannot be prepared; the one in force goes on alone."""
    slot = config.source.slot
    async with connected(config.storage_dsn, "rules", schema=config.storage.schema_name) as storage:
        _, preparing = await deploy.standing(storage, slot)
        if preparing is not None and await deploy.fail(storage, slot, preparing, why):
            mark("rules failed", level=logging.WARNING, rules=preparing, why=why)


async def _go_over(config: Config, error: OldUnready) -> None:
    """The set in force cannot be followed any more; the one in preparation goes on alone."""
    async with connected(config.storage_dsn, "rules", schema=config.storage.schema_name) as storage:
        preparing = await deploy.give_up(storage, config.source.slot, error.what)
    mark("rules given up", level=logging.WARNING, why=error.what, preparing=preparing)


async def _open_storage(stack: AsyncExitStack, config: Config) -> Connection:
    schema = config.storage.schema_name
    store = await stack.enter_async_context(connected(config.storage_dsn, "write", schema=schema))
    await check_migrated(store, schema)
    return store


async def _open(stack: AsyncExitStack, config: Config, store: Connection, given: Given) -> Ready:
    """Connect to both sides, see that they agree, and begin to listen."""
    source, schema, opened = config.source, config.storage.schema_name, stack.enter_async_context
    rules = given.rules
    notes = await opened(connected(config.storage_dsn, "tables", schema=schema))
    clinic = await opened(connected(printing(config.source_dsn), "copy"))
    mapped = tables_of(given.mapping)
    names = await rules.names(store, source.slot)
    if await position(store, source.slot) is None:
        require_foreign(names, schema)
    foreign = {name for name in names if not is_own(*name, schema)}
    await require_ready(clinic, source.publication, sorted({*foreign, *mapped}), schema)
    numbers = Numbers(await opened(connected(config.storage_dsn, "numbers", schema=schema)))
    writer = await open_or_begin(store, clinic, config, numbers)
    await numbers.read()
    writer.row_most = config.replicate.row_bytes
    force = await rules.take(store, source.slot)
    if force.next is not None:
        try:
            require_foreign(force.next.tables(), schema)
        except SourceUnready as error:
            raise Refused(error.what) from error
    await given.doubts.tell(rules.rules, clinic, source.publication)
    wanted = Wanted(
        config.source_dsn,
        source.slot,
        source.publication,
        force.tables,
        force.preparing,
        force.kept,
        force.new,
        mapped,
        schema,
    )
    copies = Copies(wanted)
    router = Router(force.rules, beside=force.beside)
    router.anew, router.next, router.is_to_come = copies.anew, force.next, copies.is_to_come
    copier = Copier(copies, clinic, notes, Met(router, clinic))
    await copier.prepare()
    if force.preparing is not None and await deploy.put_in_force_at_once(store, source.slot, force.preparing):
        mark("rules switched", rules=force.preparing)
        raise Redeployed  # nothing had to be copied
    writer.lookups = lookups = Lookups(store, router)
    writer.feed, existing = await feed_of(stack, config, given.mapping, clinic, notes)
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
    return Ready(stream, weaver, copier, lookups, writer, force, notes, wanted.every, existing)


def tables_of(mapping: RecordMapping | None) -> list[tuple[str, str]]:
    """The tables whose changes can make jobs."""
    names = tables_followed(mapping) if mapping is not None else []
    return [(name.partition(".")[0], name.partition(".")[2]) for name in names]


async def feed_of(
    stack: AsyncExitStack,
    config: Config,
    mapping: RecordMapping | None,
    clinic: Connection,
    notes: Connection,
) -> tuple[Callable[[], Feed] | None, Callable[[], Awaitable[object]]]:
    """What makes jobs for the record system, where there is one, of changes and of what was there before."""
    await note_mappings(notes, mapping)
    if mapping is None:
        return None, asyncio.Event().wait
    columns, types = await read_catalogue(clinic, mapping)
    noted = await note_manners(notes, mapping, columns)
    find = await stack.enter_async_context(pooled(printing(config.source_dsn), "find", most=1))
    # Within a batch, storage waits for the answers.
    finder = Finder(find) if asks_others(mapping) else None
    jobs = Jobs(mapping, finder.find if finder is not None else lambda *asked: None, {}, types)
    return partial(Feed, Meanings(jobs, finder, noted)), partial(fill, config, mapping, types)


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


async def _unless(stop: asyncio.Event, seconds: float | None, work: Coroutine[None, None, _T]) -> _T | None:
    """What the work comes to, in time; None if we are to stop before it has."""
    working, stopping = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({working, stopping}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        working.cancel()
        stopping.cancel()
        await asyncio.wait({working, stopping})
    if not working.cancelled():
        return working.result()
    if stop.is_set():
        return None
    raise Unavailable(
        f"the source or the storage did not answer within {seconds:g} s",
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


async def _live_while_storage_works(writer: Writer) -> None:
    """A statement about a large table can take minutes, in which nothing goes round and nothing is wrong.

    That it ends when storage does is its connection's care.
    """
    while True:
        await asyncio.sleep(_STUCK_S / 2)
        if writer.connection.pgconn.transaction_status == TransactionStatus.ACTIVE:
            pulse.went_round()


async def _stop_when(told: Awaitable[object], stream: Stream) -> None:
    await told
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
