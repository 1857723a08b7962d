"""Changes that carry only part of a row → whole changes, from the rows as they were last seen.

With REPLICA IDENTITY FULL the log holds the row as it was, and nothing is kept here. With any other, an
update says what the row is now, except for the TOASTed values it did not touch, and of the row as it was
at most the key. So the newest version of every row of such tables is kept in storage under its key, and
changes in the same transaction as everything else.

Storage is told once per batch, before it commits, and asked as little as possible. What it was told lately or
has answered is at hand (`kept.py`): there is one writer, so nobody else changes it, and whatever ends a batch
otherwise ends the connection, and with it everything that was at hand.

It is not asked what is in the place of a row that is inserted into a table that has been copied, or that
arrives there under a new key: nothing. A key that identifies rows is unique at every moment (Postgres takes
no deferrable one for it), so whoever had it before has left it by a change that stands earlier in the log.
Every row such a table has was told by the log since, or brought by the copy, which a low mark had begun by
forgetting what was kept before. And what the source sends again is recognised before it comes here. While a
table is being copied that is not so: a chunk brings rows that the log has told already. Then every place is
looked up. Should storage have a row there after all, it is replaced.

A row that is not there yet when an update leaves out some of its values cannot be completed. That happens
only while its table is being copied (the log began before the copy reached the row). It is left out, and
its key told to the copier, which brings the row.

A few bytes of log can name hundreds of large rows. So changes are made whole some at a time, in their order.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import psycopg

from replicator import queries
from replicator.buckets.kept import Changed, Form, Kept, Place, keeps_state, pack_row, unpack_row
from replicator.database import Connection
from replicator.wal.messages import UNCHANGED, Relation
from replicator.wal.transactions import Change, Kind, relations_of
from replicator.wal.window import Key, key_of

if TYPE_CHECKING:
    from replicator.buckets.write import Batch

__all__ = ["Completed", "RowStates", "keeps_state", "pack_row", "unpack_row"]

_q = queries.load("rows")

#: So much of kept rows is in memory at once, but for one row that is larger; and so much that storage has not
#: been told.
MOST_BYTES = 8 << 20
#: About so much of them is sent to storage together.
_BYTES_SENT = 1 << 18
#: Looked up once: an Enum's member takes longer to find than a row to pass.
_INSERT, _TRUNCATE = Kind.INSERT, Kind.TRUNCATE


_State = tuple[Place, bytes]


class Completed(NamedTuple):
    """Some changes made whole."""

    changes: list[Change]
    #: The keys of rows that had to be left out.
    holes: list[tuple[int, Key]]
    #: The changes that follow them, which are still as they were.
    rest: Sequence[Change]


class RowStates:
    """The kept rows of one slot, completing changes inside the storage transaction that stores them."""

    def __init__(self, connection: Connection, slot: str) -> None:
        self._connection = connection
        self._slot = {"slot": slot}
        self._kept = Kept()
        self._forms: dict[int, Form] = {}
        #: Whose changes these are that storage has not been told.
        self._batch: Batch | None = None

    def concern(self, changes: Sequence[Change]) -> bool:
        """Whether any of these changes needs a kept row, or becomes one."""
        return any([self._form(relation).keeps for relation in relations_of(changes)])

    async def complete(self, changes: Sequence[Change], batch: Batch, copied: Collection[int]) -> Completed:
        """The first of these changes made whole, as many as memory allows; `copied` says which tables are."""
        self._turn_to(batch)
        ready = await self.look_up(changes, batch, copied)
        whole: list[Change] = []
        holes: list[tuple[int, Key]] = []
        size = end = 0
        met: Relation | None = None
        for change in changes[:ready]:
            if size >= MOST_BYTES:
                break
            end += 1
            if change[1] is not met:
                met, form = change[1], self._form(change[1])
            if not form.keeps:
                whole.append(change)
            elif change[0] is _TRUNCATE:
                await self.forget(form.oid, batch)
                whole.append(change)
            else:
                size += _complete(change, form, self._kept, whole, holes)
        if self._kept.changed.size >= MOST_BYTES:
            await self.flush(batch)
        self._kept.age()
        return Completed(whole, holes, changes[end:])

    async def look_up(self, changes: Sequence[Change], batch: Batch, copied: Collection[int]) -> int:
        """Have at hand what the first of these changes need; answers how many they are."""
        asked, near, ready = self._asked(changes, copied)
        if not asked:
            return ready
        await batch.rest()
        wanted = _columns(asked) | {"ats": list(asked.values()), "most": max(1, MOST_BYTES - near)}
        # Planned each time: by a plan from when there were few rows, all would be read to find some.
        cursor = await self._connection.execute(_q.read_states, self._slot | wanted, prepare=False)
        async for oid, key, row in cursor:
            place = b"%d\t%b" % (oid, key.encode())
            at = asked.pop(place)
            if row is None:
                ready = min(ready, at)
            else:
                self._kept.learn(place, row.encode())
        for place in asked:
            self._kept.learn(place, None)
        return ready

    async def flush(self, batch: Batch) -> None:
        """Tell storage now what has changed, inside the open transaction."""
        self._turn_to(batch)
        if self._kept.changed.rows:
            await batch.rest()
            await self._tell(self._kept.changed)
            self._kept.settle()

    async def forget(self, oid: int, batch: Batch) -> None:
        """None of a table's rows is kept any more."""
        self._turn_to(batch)
        await batch.rest()
        self._kept.forget(oid)
        await self._connection.execute(_q.forget_rows, self._slot | {"oid": oid})

    def _turn_to(self, batch: Batch) -> None:
        if batch is not self._batch:
            self._batch = batch
            batch.before_commit.append(partial(self._tell, self._kept.begin()))

    def _form(self, relation: Relation) -> Form:
        form = self._forms.get(relation.oid)
        if form is None or form.relation is not relation:
            form = self._forms[relation.oid] = Form(relation)
        return form

    def _asked(self, changes: Sequence[Change], copied: Collection[int]) -> tuple[dict[Place, int], int, int]:
        """Places that are not at hand, with the first of these changes that has to know what is in them.

        And of how many bytes are those that are, and of how many changes this is said.
        """
        asked: dict[Place, int] = {}
        near = 0
        are_copied = all([relation.oid in copied for relation in relations_of(changes)])
        if are_copied and all([change[0] is _INSERT for change in changes]):
            return asked, near, len(changes)
        arrived: set[Place] = set()
        for at, change in enumerate(changes):
            if near >= MOST_BYTES:
                return asked, near, at
            form = self._form(change.relation)
            leaves, comes = _places(change, form)
            is_empty = form.oid in copied
            # What it leaves comes first: a row whose long key is told twice leaves the place it comes to.
            for place in (leaves, None if is_empty else comes):
                if place is None or place in arrived:
                    continue
                if self._kept.wants(place):
                    asked.setdefault(place, at)
                else:
                    near += len(self._kept.get(place) or b"")
            if comes is not None and is_empty:
                arrived.add(comes)
        return asked, near, len(changes)

    async def _tell(self, changed: Changed) -> None:
        if brought := changed.brought():
            await self._bring(brought)
        if replaced := changed.replaced():
            await self._replace(replaced)
        if gone := changed.gone():
            await self._connection.execute(_q.drop_states, self._slot | _columns(gone), prepare=False)

    async def _bring(self, states: Sequence[_State]) -> None:
        head = f"{self._slot['slot']}\t".encode()
        try:
            # A savepoint: where there is a row after all, nothing but this is undone.
            async with (
                self._connection.transaction(),
                self._connection.cursor().copy(_q.bring_states) as copying,
            ):
                for some in _portions(states):
                    lines = b"".join([b"%b%b\t%b\n" % (head, place, row) for place, row in some])
                    # JSON has escaped everything but the backslashes it did so with.
                    await copying.write(lines.replace(b"\\", b"\\\\") if b"\\" in lines else lines)
        except psycopg.errors.UniqueViolation:
            await self._replace(states)

    async def _replace(self, states: Sequence[_State]) -> None:
        for some in _portions(states):
            values = _columns([place for place, _ in some]) | {"rows": [row.decode() for _, row in some]}
            await self._connection.execute(_q.write_states, self._slot | values)


def _portions(states: Sequence[_State]) -> Iterator[Sequence[_State]]:
    """Some states after the others, none of the portions much larger than what is sent at once."""
    begin = size = 0
    for at, (_, row) in enumerate(states):
        if size >= _BYTES_SENT:
            yield states[begin:at]
            begin, size = at, 0
        size += len(row)
    yield states[begin:]


def _complete(
    change: Change, form: Form, kept: Kept, whole: list[Change], holes: list[tuple[int, Key]]
) -> int:
    """Make one change whole by what is known; what becomes known by it replaces that. How much that was."""
    kind, _, _, new, _, _ = change
    if kind is _INSERT and new is not None:  # most of them, and most of those into empty places
        place, packed = form.place(new), form.pack(new)
        if kept.bring(place, packed):
            whole.append(change)
            return len(packed)
    was = change.old if change.old is not None else new
    assert was is not None, "a change that is no TRUNCATE has a row before or after it"
    place = form.place(was)
    left = kept.take(place)
    size = len(left or b"")
    old = form.unpack(left)
    if new is None:
        if old is not None:
            whole.append(change._replace(old=old, old_is_whole=True))
        return size
    there = None
    if was is not new:
        place = form.place(new)
        # Under its new key the row can be known: the copy may have read it after this change was made.
        there = form.unpack(kept.take(place))
        if there is not None:
            whole.append(Change(Kind.DELETE, change.relation, there, None, change.ordinal, True))
    if UNCHANGED in new:
        source = old if old is not None else there
        if source is None:
            holes.append((form.oid, key_of(new, form.key_at)))
            return size
        new = tuple([s if n is UNCHANGED else n for s, n in zip(source, new, strict=True)])
    packed = form.pack(new)
    kept.put(place, packed)
    whole.append(change._replace(old=old, new=new, old_is_whole=True))
    return size + len(packed)


def _places(change: Change, form: Form) -> tuple[Place | None, Place | None]:
    """The place of the row that a change is about, and the one that is new to it."""
    if not form.keeps or change.kind is Kind.TRUNCATE:
        return None, None
    comes = None if change.new is None else form.place(change.new)
    if change.old is not None:
        return form.place(change.old), comes
    return (None, comes) if change.kind is _INSERT else (comes, None)


def _columns(places: Iterable[Place]) -> dict[str, object]:
    named = [place.decode().split("\t", 1) for place in places]
    return {"oids": [int(oid) for oid, _ in named], "keys": [key for _, key in named]}
