"""A chunk read between two watermarks, and the changes around it → the rows that still count. No I/O.

Theory. A table is copied while its changes stream past. The copier writes a mark into the log (low), reads
the next rows of the table by key, and writes another mark (high). Every change that committed between the
marks reaches us between them, and may be newer than what was read; so the keys touched there are left out of
the chunk, and what is left is applied at the high mark, as if it had been written at that place in the log.
No lock is held, nothing is paused, and the copy goes on from its last key after any interruption.

One trap. A transaction enters the log before it becomes visible to others. It can stand before the low mark
and still have been invisible to the reading that came after it: its rows are not among those touched, and
the chunk holds what they were before it. So the chunk brings along which transactions its reading could not
see, and when one of those has already passed us, the chunk is read again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from replicator.wal.messages import Relation, Row
from replicator.wal.transactions import Change, Kind

#: Looked up once: an Enum's member takes longer to find than a row to pass.
_INSERT = Kind.INSERT
#: A tuple first and its type after: half the price of calling the type.
_make = tuple.__new__
#: What a table's rows are told apart by: the values of its key columns.
Key = tuple[str | None, ...]

#: How many transactions before a low mark are remembered. One that has been invisible for longer than this
#: many others took to pass is looked for in vain, so the reading is repeated until it has become visible.
REMEMBERED = 200_000
#: And so many before a copy begins, whatever they touched: one that waits for a standby has passed us.
_RECENT = 50_000
#: So many keys at most are noted in one window; where more are touched, the same rows are read again.
TOUCHED_MAX = 100_000


class Visibility(NamedTuple):
    """What a reading saw, as pg_current_snapshot() says it: `xmin:xmax:xid,xid…`."""

    xmin: int
    xmax: int
    in_progress: frozenset[int]

    @classmethod
    def parse(cls, text: str) -> Visibility:
        xmin, xmax, running = text.split(":")
        return cls(int(xmin), int(xmax), frozenset(int(xid) for xid in running.split(",") if xid))

    def saw(self, xid: int) -> bool:
        """Whether a committed transaction, known by the low half of its id, was visible."""
        # The stream carries 32 bits of a 64-bit id; what is running now lies close to xmax, on either side.
        full = self.xmax - (1 << 31) + ((xid - self.xmax + (1 << 31)) & 0xFFFFFFFF)
        return full < self.xmin or (full < self.xmax and full not in self.in_progress)


@dataclass(frozen=True, slots=True)
class Chunk:
    """The next rows of a table, by key."""

    relation: Relation
    #: Where the key columns stand in a row.
    key_at: tuple[int, ...]
    rows: Sequence[Row]
    visibility: Visibility
    #: Whether the table has no rows after these.
    is_last: bool
    #: About how many bytes they are.
    size: int = 0

    @property
    def last_key(self) -> Key | None:
        return key_of(self.rows[-1], self.key_at) if self.rows else None


class Merged(NamedTuple):
    """What a high mark brought."""

    chunk: Chunk
    #: The rows that still count, as inserts.
    changes: list[Change]
    #: Whether the chunk held rows from before a transaction that had already passed, or too much passed to
    #: tell which of its rows still count; then there are no changes, and the same rows must be read again.
    is_stale: bool


@dataclass(slots=True)
class _Window:
    oid: int
    key_at: tuple[int, ...]
    #: Whether its low mark has passed. What is touched before belongs to what the reading must have seen.
    is_open: bool = False
    #: The transactions that had passed before the low mark.
    earlier: frozenset[int] = frozenset()
    touched: set[Key] = field(default_factory=set)
    is_truncated: bool = False
    #: Whether more was touched than is worth noting.
    is_overrun: bool = False
    chunk: Chunk | None = None


@dataclass(slots=True)
class _Copied:
    """A table being copied: transactions that touched it, in the order they passed us."""

    passed: dict[int, None] = field(default_factory=dict)
    #: The newest of those that had to be forgotten to keep this bounded.
    forgotten: int | None = None


class Windows:
    """The windows that are open in the log, by the name their marks carry."""

    def __init__(self) -> None:
        self._open: dict[str, _Window] = {}
        self._tables: dict[int, _Copied] = {}
        #: The newest transactions that passed us.
        self._recent: deque[int] = deque(maxlen=_RECENT)

    def watch(self, oid: int) -> None:
        """This table is about to be copied. What passed us lately may have touched it, and not be visible."""
        if oid not in self._tables:
            self._tables[oid] = _Copied(dict.fromkeys(self._recent))

    def is_watched(self, oid: int) -> bool:
        return oid in self._tables

    def forget(self, oid: int) -> None:
        """This table is not being copied any more."""
        self._tables.pop(oid, None)
        self._open = {name: window for name, window in self._open.items() if window.oid != oid}

    def expect(self, name: str, oid: int, key_at: tuple[int, ...]) -> None:
        """A window of this name is about to be opened by its low mark."""
        self._open[name] = _Window(oid, key_at)

    def drop(self, name: str) -> None:
        """What this window was opened for is not wanted any more."""
        self._open.pop(name, None)

    def deposit(self, name: str, chunk: Chunk) -> None:
        """What was read; to be called before the high mark is written."""
        if name in self._open:
            self._open[name].chunk = chunk

    def low(self, name: str) -> bool:
        """A low mark passed; False if it is not one of ours (an earlier run's, sent again)."""
        window = self._open.get(name)
        if window is None:
            return False
        window.is_open, window.earlier = True, frozenset(self._tables[window.oid].passed)
        return True

    def pass_by(self, xid: int, changes: Iterable[Change]) -> None:
        """Changes of a transaction stream past."""
        self._recent.append(xid)
        if not self._tables:
            return
        for change in changes:
            table = self._tables.get(change.relation.oid)
            if table is None:
                continue
            table.passed[xid] = None
            if len(table.passed) > REMEMBERED:
                table.forgotten = next(iter(table.passed))
                del table.passed[table.forgotten]
            for window in self._open.values():
                if window.is_open and window.oid == change.relation.oid:
                    _touch(window, change)

    def high(self, name: str) -> Merged | None:
        """A high mark passed: the chunk, without what changed meanwhile; None if it is not one of ours."""
        window = self._open.pop(name, None)
        if window is None or window.chunk is None:
            return None
        chunk, table = window.chunk, self._tables[window.oid]
        saw = chunk.visibility.saw
        table.passed = {xid: None for xid in table.passed if not saw(xid)}
        is_stale = not all(map(saw, window.earlier)) or (
            table.forgotten is not None and not saw(table.forgotten)
        )
        if is_stale or window.is_overrun:
            return Merged(chunk, [], True)
        rows: Iterable[tuple[int, Row]] = [] if window.is_truncated else enumerate(chunk.rows)
        if window.touched:
            rows = [one for one in rows if key_of(one[1], chunk.key_at) not in window.touched]
        relation = chunk.relation
        changes = [_make(Change, (_INSERT, relation, None, row, ordinal, False)) for ordinal, row in rows]
        return Merged(chunk, changes, False)


def _touch(window: _Window, change: Change) -> None:
    if change.kind is Kind.TRUNCATE:
        window.is_truncated = True
    if window.is_overrun:
        return
    window.touched.update(key_of(row, window.key_at) for row in (change.old, change.new) if row is not None)
    if len(window.touched) > TOUCHED_MAX:
        window.is_overrun = True
        window.touched.clear()


def key_of(row: Row, key_at: tuple[int, ...]) -> Key:
    """A row's key, as text."""
    return tuple(None if row[at] is None else str(row[at]) for at in key_at)
