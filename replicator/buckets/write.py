"""Puts and Removes → Ops, and a Checkpoint, in one storage transaction.

One writer per slot, twice over: an advisory lock keeps a second one waiting, and a fence number in the
checkpoint row stops a first one that lost its lock without noticing. Op ids are counted here, from the
stored checkpoint up; since nobody else writes and a batch commits as a whole, the order of ids is the order
in which readers can see them, and no id at or below a checkpoint ever appears later.

A transaction that the checkpoint already covers is left out, by its position: so whatever the source sends
twice is stored once. Each storage transaction begins by holding the checkpoint, and finds it where the one
before it has left it, or ends.

Making ops and storing them go on side by side. Storage takes in ops while more are made, and commits one
batch while the next is being made; there is never more than one of each. Where something else has to be said
on the same connection, `rest` waits until both hands are free.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

import psycopg
from psycopg.rows import TupleRow

from replicator import queries
from replicator.buckets.changed import MOST_TOLD, Changed, numbers
from replicator.buckets.entries import Entries
from replicator.buckets.held import Held
from replicator.buckets.inflow import Inflow
from replicator.buckets.lookups import Lookups
from replicator.buckets.model import Checkpoint, OpId, Position
from replicator.buckets.numbers import Numbers
from replicator.buckets.read import position
from replicator.buckets.told_writes import ToldWrites
from replicator.database import Connection, rows
from replicator.errors import StandingBy, StorageUnready, Unavailable
from replicator.marks import mark
from replicator.rules.model import Put, Remove
from replicator.rules.printed import Intended, put_again
from replicator.rules.route import Enter, ForNew, Intent, Leave, Truncated
from replicator.wal.lsn import Lsn
from replicator.wal.transactions import Change, Transaction

_q = queries.load("buckets")

#: So many changes are routed together.
_ROUTED = 1000
#: Whoever commits is made way for after so many changes, in half a millisecond; and gets so many turns.
_TURN_CHANGES, _TURNS = 128, 2
#: So many bytes of them are kept back while the batch before them is being committed.
_BYTES_HELD = 12 << 20
#: Storage that does not answer for so long ends the transaction with the connection.
_ROLLBACK_S = 5.0
#: The source counts time from 2000 on, we from 1970.
_EPOCH_S = 946_684_800.0
#: What an op takes in storage besides what it says of the row, and what that is besides the row's text.
_OVERHEAD, _NAMES = 50, 100


class Feed(Protocol):
    """Something besides ops that a batch stores: made of the changes as they pass, sent before the commit."""

    @property
    def is_full(self) -> bool: ...
    async def add(self, changes: Sequence[Change], commit_lsn: Lsn) -> None: ...
    async def spill(self, connection: Connection) -> None: ...
    async def send(self, connection: Connection) -> None: ...
    def kept(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Source:
    """Whose log a checkpoint belongs to."""

    system_id: str
    timeline: int


class Writer:
    """The one writer of a slot's ops; made by `open_writer`."""

    def __init__(
        self,
        connection: Connection,
        slot: str,
        fence: int,
        checkpoint: Checkpoint,
        numbers: Numbers,
        clock: float = 0.0,
    ) -> None:
        self.connection, self.numbers = connection, numbers
        self.key = {"slot": slot, "fence": fence}
        #: What is committed, as of the last commit that was answered.
        self.checkpoint = checkpoint
        self.inflow = Inflow(connection)
        #: None while nothing is routed: as in a writer that only stores what it is given.
        self.lookups: Lookups | None = None
        #: Makes the feed of a batch; None while no row of the source is to become anything else than ops.
        self.feed: Callable[[], Feed] | None = None
        #: A row that is longer than this when printed is left out; and how many have been.
        self.row_most = 15_000_000
        self.left_out = 0
        #: The time that the last batch had, in seconds since 1970.
        self.clock = clock
        self._committing: asyncio.Task[None] | None = None
        #: With how many changes something has been done since it was last made way for.
        self._done = 0

    def batch(self) -> Batch:
        """The next storage transaction; nothing is sent before something is appended."""
        return Batch(self, self.checkpoint)

    def checked(self, op: Put | Remove | bytes) -> Put | Remove | bytes:
        """The same; or, of a row too large for any client, that it is not there, nor as it was before."""
        put: Put | Remove | None
        if isinstance(op, bytes):
            # What is printed is never shorter than its text.
            put = put_again(op) if len(op) > self.row_most else None
        else:
            put = op
        if not isinstance(put, Put) or len(put.data) <= self.row_most:
            return op
        self.left_out += 1
        if self.left_out <= 10 or self.left_out % 1000 == 0:
            mark(
                "row too large",
                level=logging.WARNING,
                row=f"{put.object_type}/{put.object_id}",
                bytes=len(put.data),
                most=self.row_most,
                times=self.left_out,
            )
        return Remove(*put[:4])

    @property
    def is_committing(self) -> bool:
        return self._committing is not None and not self._committing.done()

    async def make_way(self, changes: int) -> None:
        """After something has been done with so many changes: let the batch that is being committed go on.

        What storage is asked and given waits for its turn of the loop, and storage stands still meanwhile. An
        answer that has come is noticed in one turn, and heard in the next.
        """
        self._done += changes
        if self._done >= _TURN_CHANGES:
            self._done = 0
            if self.is_committing:
                for _ in range(_TURNS):
                    await asyncio.sleep(0)

    def commit(self, work: Coroutine[None, None, None]) -> None:
        """Have a batch committed while the next one is being made."""
        assert self._committing is None, "one batch is committed before the next one begins"
        self._committing = asyncio.create_task(work)

    async def settle(self) -> None:
        """Wait until the batch that was to be committed is."""
        committing, self._committing = self._committing, None
        if committing is not None:
            await committing

    async def abandon(self) -> None:
        """End whatever is under way: nothing of it is to be stored any more."""
        if self._committing is not None:
            self._committing.cancel()
            await asyncio.gather(self._committing, return_exceptions=True)
        await self.numbers.abandon()
        await self.inflow.abandon()
        # At once: whoever beside us waits for what the transaction holds cannot always be ended.
        with suppress(psycopg.Error, TimeoutError):
            async with asyncio.timeout(_ROLLBACK_S):
                await self.connection.rollback()


class Batch:
    """One storage transaction: some source transactions' ops, and the checkpoint they arrive at."""

    def __init__(self, writer: Writer, before: Checkpoint) -> None:
        self._writer = writer
        #: Where the batch before this one arrives, committed or about to be.
        self._before = before
        self._op_id: int = before.op_id
        self._lsn = before.lsn
        self._changed = Changed()
        #: What has been added last.
        self._held = Held(writer.numbers, self._changed)
        #: How much is kept back.
        self._bytes_held = 0
        self._entries = Entries()
        self._feed = writer.feed() if writer.feed is not None else None
        self._writes = ToldWrites()
        self._is_begun = False
        #: The time at which its rows are where they are: never earlier than that of the batch before.
        self.now = writer.clock
        self._has_time = False
        self.is_empty = True
        #: What else is to be stored with it, once its ops are.
        self.before_commit: list[Callable[[], Awaitable[None]]] = []
        #: How much has been appended.
        self.rows = 0
        self.bytes = 0
        #: Of how many changes; and when the transactions that end in it were committed, in s since 1970.
        self.changes = self._counted = 0
        self.committed: list[float] = []

    def covers(self, piece: Transaction) -> bool:
        """Whether what is stored already covers this transaction: the source sent it again."""
        if piece.commit_lsn >= self._before.lsn:
            return False
        mark("already stored", commit_lsn=piece.commit_lsn)
        return True

    async def append(self, piece: Transaction, changes: Sequence[Change], now: float) -> None:
        """Route a piece of a transaction that the checkpoint does not cover, and add what it comes to.

        The batch takes the time from the first of its pieces, and first moves on what depends on it.
        """
        lookups = self._writer.lookups
        assert lookups is not None, "what is to be routed needs rules"
        self.is_empty = False
        if not self._has_time:
            self._has_time = True
            then, self.now = self.now, max(self.now, now)
            self._writer.clock = self.now
            await lookups.advance(self, then)
        for some in _slices(changes):
            await self.add(await lookups.route(some, self))
            await self._writer.make_way(len(some))
            self._writes.add(lookups.written(some, self.now))
            if self._writes.is_full:
                await self.rest()
                await self._writes.send(self._writer.connection)
            await self._hand_on()
            await self._writer.make_way(len(some))
        if piece.end_lsn is not None:
            self._lsn = piece.end_lsn

    async def _hand_on(self) -> None:
        """Give storage what is worth giving; or keep it, numbered, while the batch before is committed."""
        if self._held.is_due:
            await self._held.number_soon()
            if not self._writer.is_committing:
                await self._begin()
                await self._send_blocks()
        if self._bytes_held >= _BYTES_HELD:
            await self._send()

    def count(self, piece: Transaction) -> None:
        """Note what the log brings with a piece: rows that are copied, and marks, are not counted."""
        self._counted += len(piece.changes)
        if piece.end_lsn is not None and self._counted:
            self.changes += self._counted
            self._counted = 0
            self.committed.append(piece.committed_at / 1e6 + _EPOCH_S)

    async def tell(self, changes: Sequence[Change], commit_lsn: Lsn) -> None:
        """What the log says has changed, whole: of it others make what they store with the checkpoint."""
        if self._feed is not None:
            await self._feed.add(changes, commit_lsn)
            await self._writer.make_way(len(changes))
            if self._feed.is_full:
                await self.rest()
                await self._feed.spill(self._writer.connection)

    async def add(self, intents: Sequence[Intent | Intended]) -> None:
        """Add ops and entries in this order."""
        kinds = set(map(type, intents))
        if Truncated in kinds:
            for intent in intents:
                if isinstance(intent, Truncated):
                    await self.sweep(intent.subkey_prefix)
                else:
                    await self.add([intent])
        elif Enter in kinds or Leave in kinds:
            self._add([intent for intent in intents if isinstance(intent, Put | Remove | Intended)])
            entries = [intent for intent in intents if isinstance(intent, Enter | Leave)]
            await self._held.number_all()
            self._op_id = self._entries.add(entries, self._op_id)
            self._changed.enter(entries)
            if self._entries.is_full:
                await self.rest()
        else:
            self._add(intents)  # type: ignore[arg-type]  # nothing else is among them

    async def commit(self, then: Callable[[Checkpoint], None], quiet_lsn: Lsn | None = None) -> Batch:
        """Begin to store all of it, at the end of the last transaction or at a quiet position after it.

        Answers the batch that follows, to be filled meanwhile; `then` is called when this one is stored.
        """
        await self._send()
        after = Checkpoint(OpId(self._op_id), max(self._lsn, quiet_lsn or self._lsn))
        self._writer.commit(self._commit(after, then))
        return Batch(self._writer, after)

    async def _commit(self, after: Checkpoint, then: Callable[[Checkpoint], None]) -> None:
        writer, connection = self._writer, self._writer.connection
        await writer.inflow.rest()
        await self._entries.send(connection)
        for store in self.before_commit:
            await store()
        await self._writes.send(connection, after.lsn)
        if self._changed.due:
            await connection.execute(_q.sum_up, {"buckets": numbers(self._changed.due)})
        if self._feed is not None:
            await self._feed.send(connection)
        position: dict[str, object] = {"op_id": after.op_id, "lsn": str(after.lsn), "clock": self.now}
        position["committed_at"] = max(self.committed, default=None)
        told = {"is_change": after.op_id > self._before.op_id, **self._changed.told()}
        if not await rows(connection, _q.advance, **writer.key, **position, **told):
            raise _replaced(str(writer.key["slot"]))
        mark("appended", lsn=after.lsn, op_id=after.op_id, rows=self.rows)
        await connection.execute(b"COMMIT")
        if self._feed is not None:
            self._feed.kept()
        writer.checkpoint = after
        mark("stored", lsn=after.lsn, op_id=after.op_id, rows=self.rows)
        then(after)

    async def _begin(self) -> None:
        """Open the transaction, after the one before it, and find the checkpoint as that one left it."""
        if self._is_begun:
            return
        writer = self._writer
        await writer.settle()
        await writer.connection.execute(b"BEGIN")
        self._is_begun = True
        found = await rows(writer.connection, _q.hold_checkpoint, **writer.key)
        if not found:
            raise _replaced(str(writer.key["slot"]))
        held = Checkpoint(OpId(found[0][0]), Lsn.parse(found[0][1]))
        if held != self._before:
            raise Unavailable(f"slot {writer.key['slot']} is stored up to {held.lsn}, not {self._before.lsn}")

    def _add(self, intents: Sequence[Put | Remove | Intended]) -> None:
        plain: list[Put | Remove | bytes] = []
        for intent in intents:
            if type(intent) is not Intended:
                plain.append(intent)  # type: ignore[arg-type]  # as has just been looked at
                continue
            self._hold_plain(plain)
            plain = []
            self._hold(*intent)
        self._hold_plain(plain)

    def _hold_plain(self, ops: list[Put | Remove | bytes]) -> None:
        if ops:
            self._hold([op[0] for op in ops], ops)  # type: ignore[misc]  # none of them is printed

    def _hold(self, buckets: list[str], ops: list[Put | Remove | bytes]) -> None:
        # About what they come to: the last thing that a Put says is its row.
        sizes = [len(op) if type(op) is bytes else _NAMES + len(op[-1]) for op in ops]  # type: ignore[arg-type]  # a text, else
        if max(sizes) > self._writer.row_most:
            ops = list(map(self._writer.checked, ops))
        self._held.add(buckets, ops, self._op_id)
        size = sum(sizes) + _OVERHEAD * len(ops)
        self._op_id += len(ops)
        self.rows += len(ops)
        self.bytes += size
        self._bytes_held += size

    async def _send(self) -> None:
        await self._begin()
        await self._held.number_all()
        await self._send_blocks()

    async def _send_blocks(self) -> None:
        if blocks := self._held.blocks():
            self._bytes_held = 0
            await self._writer.inflow.send(blocks)

    async def rest(self) -> None:
        """Be in the transaction, with everything appended so far in it, and nothing under way."""
        await self._send()
        await self._writer.inflow.rest()
        await self._entries.send(self._writer.connection)

    async def note(self, query: bytes, oid: int, **values: object) -> list[TupleRow]:
        """Record something about a source table, with the ops it belongs to."""
        await self.rest()
        self.is_empty = False
        key = {"slot": self._writer.key["slot"], "oid": oid, "op_id": self._op_id}
        cursor = await self._writer.connection.execute(query, key | values)
        return await cursor.fetchall() if cursor.description else []

    async def sweep(self, subkey_prefix: str, begun: int | None = None) -> None:
        """Remove what a source table had put, and entered, up to an op; or all of it."""
        await self.rest()
        self.is_empty = False
        upto = self._op_id if begun is None else begun
        values = {"after": self._op_id, "prefix": subkey_prefix, "begun": upto, "limit": MOST_TOLD + 1}
        count, buckets = (await rows(self._writer.connection, _q.sweep_table, **values))[0]
        self._changed.sweep(buckets)
        self._op_id += count
        self.rows += count
        if self._writer.lookups is not None:
            await self._writer.lookups.withdraw(self, subkey_prefix, upto)

    def next_op_id(self) -> int:
        """An op id for what is no op, but must be seen to happen in their order."""
        self._op_id += 1
        return self._op_id


def _slices(changes: Sequence[Change]) -> Iterator[Sequence[Change]]:
    """Some after the others: storage takes the first of many in while the others are routed."""
    if len(changes) <= _ROUTED:
        yield changes
        return
    for begin in range(0, len(changes), _ROUTED):
        some = changes[begin : begin + _ROUTED]
        yield ForNew(some) if isinstance(changes, ForNew) else some


async def open_writer(connection: Connection, slot: str, numbers: Numbers) -> tuple[Writer, Position] | None:
    """Become the one writer of a slot, if it has a checkpoint; None if it never began."""
    if not (await rows(connection, _q.lock_writer, slot=slot))[0][0]:
        # Also true for a moment after a writer was killed, until storage has noticed.
        raise StandingBy(
            f"another replicator is writing for slot {slot}: standing by",
            "Only one writes at a time; this one takes over when that one ends.",
        )
    raised = await rows(connection, _q.raise_fence, slot=slot)
    if not raised:
        return None
    stood = await position(connection, slot)
    assert stood is not None, "its fence has just been raised"
    mark("writing", slot=slot, fence=stood.fence, lsn=stood.stored.lsn, op_id=stood.stored.op_id)
    return Writer(connection, slot, stood.fence, stood.stored, numbers, stood.clock), stood


async def require_alone(connection: Connection, slot: str) -> None:
    """Refuse to begin where another slot's ops are stored: readers of either would see both."""
    for (other,) in await rows(connection, _q.other_slot, slot=slot):
        raise StorageUnready(
            f"the storage schema holds what slot {other} has brought, and cannot serve {slot} as well",
            f"Set source.slot to {other}, or storage.schema to a schema of its own. If what is there is not "
            "wanted any more: replicator slot drop, and DROP SCHEMA.",
        )


async def begin(connection: Connection, slot: str, lsn: Lsn, source: Source) -> None:
    """Record a slot's first checkpoint: nothing stored, at the position its stream begins."""
    await connection.execute(
        _q.begin_checkpoint,
        {"slot": slot, "lsn": str(lsn), "system_id": source.system_id, "timeline": source.timeline},
    )


async def give_up(connection: Connection, slot: str, standing: str) -> None:
    """Record that what is lost as things stand may be passed over by copying everything again."""
    await connection.execute(_q.give_up, {"slot": slot, "standing": standing})


async def agree(connection: Connection, slot: str) -> None:
    """The source and what is stored agree: whatever was given up as lost is not lost any more."""
    await connection.execute(_q.agree, {"slot": slot})


async def begin_again(connection: Connection, slot: str, writer: Writer, lsn: Lsn, source: Source) -> Writer:
    """Go on from another position of another log: every table is copied again beside what is stored."""
    values = {"slot": slot, "lsn": str(lsn), "system_id": source.system_id, "timeline": source.timeline}
    async with connection.transaction():
        await connection.execute(_q.want_all, values)
        await connection.execute(_q.miss_jobs)
        await connection.execute(_q.begin_again, values)
    writer.checkpoint = Checkpoint(writer.checkpoint.op_id, lsn)
    return writer


def _replaced(slot: str) -> StorageUnready:
    return StorageUnready(
        f"another replicator has taken over slot {slot}",
        "This one must not write any more. Nothing it had not committed is stored.",
    )
