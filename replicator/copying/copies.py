"""Tables, windows, holes, and who waits for which mark: what the two halves of copying know together.

Both run on one event loop, and nothing here waits, so that what one half does the other finds done whole.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from replicator.buckets.deploy import RuleCopy
from replicator.buckets.tables import TableState
from replicator.wal.own import is_meant
from replicator.wal.snapshot import Table
from replicator.wal.window import Key, Merged, Windows

#: Instead of a set of rules: no rule reads the table, and so no client waits for it to be copied.
FOR_JOBS = 0
#: So many rows at most are read again one by one; beyond that the whole table is.
HOLES_MAX = 10_000


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be replicated: tables of a publication, for a slot."""

    source_dsn: str
    slot: str
    publication: str
    #: Those that rules read.
    tables: Sequence[tuple[str, str]]
    #: The set of rules that is to be put in force when everything has been copied, if there is one.
    preparing: int | None = None
    #: The tables of the set in force, if that one is prepared beside it; and those of what is new in it.
    kept: Sequence[tuple[str, str]] | None = None
    new: Sequence[tuple[str, str]] = ()
    #: Those whose rows become jobs for the record system.
    mapped: Sequence[tuple[str, str]] = ()
    #: Where we store all this.
    storage_schema: str = ""

    @property
    def every(self) -> tuple[tuple[str, str], ...]:
        return tuple(sorted({*self.tables, *self.mapped}))

    def for_rules(self, namespace: str, name: str) -> int | None:
        """The set in preparation, if only that one reads this table; FOR_JOBS if none does."""
        if not self._names(self.tables, namespace, name):
            return FOR_JOBS
        is_kept = self.kept is None or self._names(self.kept, namespace, name)
        return None if is_kept else self.preparing

    def is_new(self, namespace: str, name: str) -> bool:
        """Whether what is new in the set in preparation reads this table."""
        return self._names(self.new, namespace, name)

    def reads(self, namespace: str, name: str) -> bool:
        return self._names(self.every, namespace, name)

    def _names(self, names: Sequence[tuple[str, str]], namespace: str, name: str) -> bool:
        return is_meant(names, namespace, name, self.storage_schema)


class Restarted(Exception):
    """The table changed while it was being copied; the copy begins again."""


class Refused(Exception):
    """The set of rules in preparation cannot be prepared, and says why; the one in force goes on alone."""


class Redeployed(Exception):
    """Another set of rules is in force, or to be prepared: everything is opened anew."""


class Copies:
    """The copies of one slot's tables, as they stand."""

    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted
        #: By oid, how far each copy has come.
        self.tables: dict[int, TableState] = {}
        #: By oid, how far each table has come that is read once more, for what is new in the rules.
        self.again: dict[int, RuleCopy] = {}
        #: Those of them that have not been read whole. What is new has not seen all their rows.
        self.anew: set[int] = set()
        #: By oid, what the source's catalogue said when it was last looked at.
        self.catalogue: dict[int, Table] = {}
        #: Those whose rows are in partitions, each of which decides what the log tells of its old rows.
        self.partitioned: frozenset[int] = frozenset()
        self.windows = Windows()
        #: Set when the catalogue wants looking at.
        self.poked = asyncio.Event()
        #: Marks of an earlier run are told from ours by this.
        self._run = secrets.token_hex(4)
        self._counter = 0
        #: By the name of the mark that answers it: whose table, and who waits.
        self._awaited: dict[str, tuple[int, asyncio.Future[Merged | None]]] = {}
        #: By table, keys of rows that arrived incomplete; a key's values stand in the order of the columns.
        self._holes: dict[int, dict[Key, None]] = {}
        #: Tables with more of them than are worth noting; and those that are read again for it.
        self._riddled: set[int] = set()
        self.read_again: set[int] = set()

    def is_to_come(self, oid: int) -> bool:
        """Whether a table's copy is wanted and has not begun."""
        state = self.tables.get(oid)
        return state is not None and state.state == "wanted"

    def poke(self) -> None:
        """Look at once: something was asked for."""
        self.poked.set()

    # -- marks -------------------------------------------------------------------------------------

    def name_mark(self) -> str:
        """A name for a mark, which no other mark has."""
        self._counter += 1
        return f"{self._run}/{self._counter}"

    def is_ours(self, name: str) -> bool:
        return name.startswith(self._run + "/")

    def expect(self, name: str, oid: int) -> asyncio.Future[Merged | None]:
        """What answers when this mark has been acted on; Restarted if the copy has been abandoned."""
        if not self.windows.is_watched(oid):
            raise Restarted
        future: asyncio.Future[Merged | None] = asyncio.get_running_loop().create_future()
        # Who would hear of it may have met something else that ended the copy.
        future.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._awaited[name] = oid, future
        return future

    def drop(self, name: str) -> None:
        """The window of this mark is of no use: nothing is to be merged at its end."""
        self.windows.drop(name)
        self._awaited.pop(name, None)

    def is_awaited(self, name: str) -> bool:
        return name in self._awaited

    def answer(self, name: str, merged: Merged | None) -> None:
        """The mark of this name has been acted on."""
        _, future = self._awaited.pop(name, (0, None))
        if future is not None and not future.done():
            future.set_result(merged)

    def abandon(self, oid: int) -> None:
        """Whatever was being copied of this table is not wanted any more."""
        self.windows.forget(oid)
        self._holes.pop(oid, None)
        self._riddled.discard(oid)
        for name, (whose, future) in list(self._awaited.items()):
            if whose == oid:
                del self._awaited[name]
                if not future.done():
                    future.set_exception(Restarted())

    def cover(self, oid: int) -> bool:
        """The table is copied for everybody, from its first row, and with that for what is new in the rules.

        Answers whether that has to be noted.
        """
        copy = self.again.get(oid)
        self.anew.discard(oid)
        if copy is None or copy.is_copied:
            return False
        copy.state = "copied"
        return True

    # -- holes -------------------------------------------------------------------------------------

    def note_hole(self, oid: int, key: Key) -> None:
        """A row of this table has arrived without all its values."""
        noted = self._holes.setdefault(oid, {})
        noted[key] = None
        if len(noted) > HOLES_MAX:
            noted.clear()
            self._riddled.add(oid)

    def fill_hole(self, oid: int, key: Key) -> bool:
        """A row of this table has been brought whole; whether it was one that had been missing."""
        noted = self._holes.get(oid, {})
        is_noted = key in noted
        noted.pop(key, None)
        return is_noted

    def has_holes(self, oid: int) -> bool:
        return oid in self._riddled or bool(self._holes.get(oid))

    def take_riddled(self, oid: int) -> bool:
        """Whether the whole table has to be read again; with that, every hole counts as taken."""
        if oid not in self._riddled:
            return False
        self._riddled.discard(oid)
        self._holes.pop(oid, None)
        self.read_again.add(oid)
        return True

    def take_holes(self, oid: int, most: int) -> list[Key]:
        """Some of the holes. One whose row arrives incomplete once more is noted once more."""
        noted = self._holes.get(oid, {})
        taken = list(noted)[:most]
        for key in taken:
            del noted[key]
        return taken
