"""Puts and Removes → Ops, and a Checkpoint, in one storage transaction.

One writer per slot, twice over: an advisory lock keeps a second one waiting, and a fence number in the
checkpoint row stops a first one that lost its lock without noticing. Op ids are counted here, from the
stored checkpoint up; since nobody else writes and a batch commits as a whole, the order of ids is the order
in which readers can see them, and no id at or below a checkpoint ever appears later.

A transaction that the checkpoint already covers is left out, by its position, inside the storage
transaction that would append it: so whatever the source sends twice is stored once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from zlib import crc32

from psycopg.rows import TupleRow

from replicator import queries
from replicator.buckets.model import Checkpoint, OpId, Position
from replicator.buckets.read import position
from replicator.database import Connection, rows
from replicator.errors import StorageUnready, Unavailable
from replicator.marks import mark
from replicator.rules.model import Put, Remove
from replicator.rules.route import Intent, Truncated
from replicator.wal.lsn import Lsn
from replicator.wal.transactions import Transaction

_q = queries.load("buckets")

#: COPY text format: what must be escaped in a value.
_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


@dataclass(frozen=True, slots=True)
class Source:
    """Whose log a checkpoint belongs to."""

    system_id: str
    timeline: int


class Writer:
    """The one writer of a slot's ops; made by `open_writer`."""

    def __init__(self, connection: Connection, slot: str, fence: int, checkpoint: Checkpoint) -> None:
        self._connection = connection
        self._slot, self._fence = slot, fence
        #: What is committed, as of the last commit that was answered.
        self.checkpoint = checkpoint

    def batch(self) -> Batch:
        """The next storage transaction; nothing is sent before something is appended."""
        return Batch(self._connection, self._slot, self._fence, self)


class Batch:
    """One storage transaction: some source transactions' ops, and the checkpoint they arrive at."""

    def __init__(self, connection: Connection, slot: str, fence: int, writer: Writer) -> None:
        self._connection, self._writer = connection, writer
        self._key = {"slot": slot, "fence": fence}
        self._open = False
        self._held = writer.checkpoint
        self._op_id: int = writer.checkpoint.op_id
        self._lsn = writer.checkpoint.lsn
        self._lines: list[str] = []
        #: How much has been appended.
        self.rows = 0
        self.bytes = 0

    async def covers(self, piece: Transaction) -> bool:
        """Whether the checkpoint already covers this transaction: the source sent it again."""
        if not self._open:
            await self._begin()
        if piece.commit_lsn >= self._held.lsn:
            return False
        mark("already stored", commit_lsn=piece.commit_lsn)
        return True

    async def append(self, piece: Transaction, intents: Sequence[Intent]) -> None:
        """Add what a piece of a source transaction, which the checkpoint does not cover, comes to."""
        for intent in intents:
            if isinstance(intent, Truncated):
                await self.sweep(intent.subkey_prefix)
            else:
                self._lines.append(self._line(intent))
        if len(self._lines) >= 2000:
            await self._copy()
        if piece.end_lsn is not None:
            self._lsn = piece.end_lsn

    async def commit(self, quiet_lsn: Lsn | None = None) -> Checkpoint:
        """Store everything, at the end of the last transaction or at a quiet position after it."""
        if not self._open:
            await self._begin()
        await self._copy()
        lsn = max(self._lsn, quiet_lsn or self._lsn)
        position = {"op_id": self._op_id, "lsn": str(lsn)}
        cursor = await self._connection.execute(_q.advance, self._key | position)
        if cursor.rowcount != 1:
            raise _replaced(str(self._key["slot"]))
        await self._connection.execute(_q.announce)
        mark("appended", lsn=lsn, op_id=self._op_id, rows=self.rows)
        await self._connection.execute(b"COMMIT")
        self._open = False
        self._writer.checkpoint = Checkpoint(OpId(self._op_id), lsn)
        mark("stored", lsn=lsn, op_id=self._op_id, rows=self.rows)
        return self._writer.checkpoint

    @property
    def is_empty(self) -> bool:
        return not self._open

    async def _begin(self) -> None:
        await self._connection.execute(b"BEGIN")
        self._open = True
        found = await rows(self._connection, _q.hold_checkpoint, **self._key)
        if not found:
            raise _replaced(str(self._key["slot"]))
        self._held = Checkpoint(OpId(found[0][0]), Lsn.parse(found[0][1]))
        self._op_id, self._lsn = self._held

    def _line(self, intent: Put | Remove) -> str:
        self._op_id += 1
        self.rows += 1
        if isinstance(intent, Put):
            bucket, kind, row_id, subkey, data = intent
            op, checksum = "PUT", crc32(f"{kind}\t{row_id}\t{data}".encode())
            data = _escaped(data)
        else:
            bucket, kind, row_id, subkey = intent
            op, checksum, data = "REMOVE", crc32(f"{kind}\t{row_id}".encode()), "\\N"
        line = (
            f"{_escaped(bucket)}\t{self._op_id}\t{op}\t{_escaped(kind)}\t{_escaped(row_id)}\t"
            f"{_escaped(subkey)}\t{checksum}\t{data}\n"
        )
        self.bytes += len(line)
        return line

    async def _copy(self) -> None:
        if not self._lines:
            return
        block = "".join(self._lines).encode()
        self._lines.clear()
        async with self._connection.cursor().copy(_q.append_ops) as copy:
            await copy.write(block)

    async def note(self, query: bytes, oid: int, **values: object) -> list[TupleRow]:
        """Record something about a source table, with the ops it belongs to."""
        key = {"slot": self._key["slot"], "oid": oid, "op_id": self._op_id}
        cursor = await self._connection.execute(query, key | values)
        return await cursor.fetchall() if cursor.description else []

    async def sweep(self, subkey_prefix: str, begun: int | None = None) -> None:
        """Remove what a source table had put, up to an op; or all of it."""
        await self._copy()
        values = {
            "after": self._op_id,
            "prefix": subkey_prefix,
            "begun": self._op_id if begun is None else begun,
        }
        cursor = await self._connection.execute(_q.sweep_table, values)
        self._op_id += cursor.rowcount
        self.rows += cursor.rowcount


async def open_writer(connection: Connection, slot: str) -> tuple[Writer, Position] | None:
    """Become the one writer of a slot, if it has a checkpoint; None if it never began."""
    if not (await rows(connection, _q.lock_writer, slot=slot))[0][0]:
        # Also true for a moment after a writer was killed, until storage has noticed.
        raise Unavailable(
            f"another replicator is writing for slot {slot}: standing by",
            "Only one writes at a time; this one takes over when that one ends.",
        )
    raised = await rows(connection, _q.raise_fence, slot=slot)
    if not raised:
        return None
    stood = await position(connection, slot)
    assert stood is not None, "its fence has just been raised"
    mark("writing", slot=slot, fence=stood.fence, lsn=stood.stored.lsn, op_id=stood.stored.op_id)
    return Writer(connection, slot, stood.fence, stood.stored), stood


async def begin(connection: Connection, slot: str, lsn: Lsn, source: Source) -> None:
    """Record a slot's first checkpoint: nothing stored, at the position its stream begins."""
    await connection.execute(
        _q.begin_checkpoint,
        {"slot": slot, "lsn": str(lsn), "system_id": source.system_id, "timeline": source.timeline},
    )


async def begin_again(connection: Connection, slot: str, writer: Writer, lsn: Lsn, source: Source) -> Writer:
    """Go on from another position of another log: every table is copied again beside what is stored."""
    values = {"slot": slot, "lsn": str(lsn), "system_id": source.system_id, "timeline": source.timeline}
    async with connection.transaction():
        await connection.execute(_q.want_all, values)
        await connection.execute(_q.begin_again, values)
    writer.checkpoint = Checkpoint(writer.checkpoint.op_id, lsn)
    return writer


def _escaped(value: str) -> str:
    """A value for COPY's text format; nearly always the value itself."""
    if value.isprintable() and "\\" not in value:
        return value
    return value.translate(_ESCAPES)


def _replaced(slot: str) -> StorageUnready:
    return StorageUnready(
        f"another replicator has taken over slot {slot}",
        "This one must not write any more. Nothing it had not committed is stored.",
    )
