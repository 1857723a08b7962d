"""The source's catalogue and tables → marks in the log, and chunks between them, beside the stream."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from replicator import queries
from replicator.buckets import deploy
from replicator.buckets.deploy import RuleCopy
from replicator.buckets.tables import (
    TableState,
    fingerprint,
    forget,
    is_rewritten,
    load,
    want,
    want_again,
)
from replicator.copying.copies import FOR_JOBS, Copies, Refused, Restarted
from replicator.database import Connection, rows
from replicator.errors import OldUnready, SourceUnready, TableReentered
from replicator.marks import mark
from replicator.wal.names import qualify
from replicator.wal.own import is_own, require_foreign
from replicator.wal.preflight import find_missing
from replicator.wal.snapshot import (
    Moved,
    Table,
    next_limit,
    read_chunk,
    read_tables,
    require_key,
    require_readable,
    require_whole,
    write_mark,
)
from replicator.wal.window import Chunk, Key, Merged

_q = queries.load("copy")

#: How often the catalogue is looked at for what the log does not tell.
LOOK_S = 20.0
#: How often storage is asked whether an operator wants a table copied.
_ASKED_S = 2.0
_FIRST_ROWS = 1000
#: The longest between two readings of the same rows: one that waits for a standby may do so for hours.
_STALE_S_MAX = 1.0
_HOLES_AT_ONCE = 500


class _Reading(NamedTuple):
    """A chunk between its marks."""

    name: str
    #: The key that it begins after.
    after: Key | None
    chunk: Chunk
    #: Answers when the high mark has come round.
    merged: asyncio.Future[Merged | None]


class Copier:
    """Copies what is wanted, and notices what the log does not tell."""

    def __init__(
        self,
        copies: Copies,
        source: Connection,
        storage: Connection,
        meet: Callable[[list[Table]], Awaitable[None]],
    ) -> None:
        self._copies, self._wanted = copies, copies.wanted
        #: Told of the tables whenever the catalogue has been looked at.
        self._meet = meet
        self._source, self._storage = source, storage
        #: How long to wait before the same rows are read once more.
        self._stale_s = 0.0

    async def prepare(self) -> None:
        """Know the tables before the stream begins: nothing is shown until they have been copied."""
        self._copies.tables = await load(self._storage, self._wanted.slot)
        await self._forget_unread()
        if self._wanted.preparing is not None:
            self._copies.again = await deploy.copies(self._storage, self._wanted.slot, self._wanted.preparing)
            self._copies.anew |= {oid for oid, copy in self._copies.again.items() if not copy.is_copied}
        await self._look(first=True)

    async def _forget_unread(self) -> None:
        """Tables that no rule names any more: from here on their changes pass by, and nothing kept is true.

        Only buckets of rules that are over have rows of them. It is done before any change passes by: other
        rules may name them again, and this end before it hears anything. A table of storage, which an earlier
        release has read, is another matter: rules in force may mean it still, and none ever will again. Its
        rows are taken out, as of one that is gone.
        """
        wanted = self._wanted
        for oid, state in list(self._copies.tables.items()):
            if is_own(state.namespace, state.name, wanted.storage_schema):
                continue
            if not wanted.reads(state.namespace, state.name):
                await forget(self._storage, self._wanted.slot, oid)
                del self._copies.tables[oid]
                mark("table gone", level=logging.INFO, table=qualify(state.namespace, state.name))

    async def run(self) -> None:
        """Copy what is wanted, then wait until something is again; for ever."""
        while True:
            for state in [state for state in self._copies.tables.values() if not state.is_copied]:
                await self._copy(state)
            for copy in [copy for copy in self._copies.again.values() if not copy.is_copied]:
                await self._copy_again(copy)
            await self._wait()
            await self._look()

    async def _wait(self) -> None:
        """Until something wants looking at: the stream, an operator, or the time."""
        for _ in range(int(LOOK_S / _ASKED_S)):
            try:
                await asyncio.wait_for(self._copies.poked.wait(), _ASKED_S)
            except TimeoutError:
                if not (await rows(self._storage, _q.is_asked, slot=self._wanted.slot))[0][0]:
                    continue
            break
        self._copies.poked.clear()

    # -- what is there -----------------------------------------------------------------------------

    async def _look(self, first: bool = False) -> None:
        """Compare the source's catalogue with what we know of it."""
        wanted, tables = self._wanted, self._copies.tables
        there = await read_tables(self._source, wanted.publication, wanted.every)
        # A publication of everything, and a name that may mean anything, mean nothing of what we write.
        read = [table for table in there if wanted.reads(table.relation.namespace, table.relation.name)]
        found = {table.relation.oid: table for table in read}
        await self._meet(list(found.values()))
        self._copies.partitioned = frozenset(oid for oid, table in found.items() if table.kind == "p")
        self._copies.catalogue = found.copy()  # from which the stream strikes what it finds otherwise
        missing = await self._find_missing(there)
        if first and missing:
            mark("table missing", level=logging.WARNING, tables=", ".join(missing))
        asked = await load(self._storage, wanted.slot)
        for oid, table in found.items():
            known, stored = tables.get(oid), asked.get(oid)
            with self._for_new(table):
                require_whole(table, wanted.publication)
            if known is None or not known.membership or (stored is not None and stored.state == "wanted"):
                await self._want(table)
            elif known.for_rules == FOR_JOBS and self._for_rules(table) is None:
                await self._want(table)  # copied, but no rule has seen a row of it
            elif known.membership != table.membership and known.for_rules not in (None, FOR_JOBS):
                await self._want(table)  # nobody has seen anything of it yet
            elif known.membership != table.membership:
                raise _reentered(known, table, wanted.publication)
            elif (known.namespace, known.name) != (table.relation.namespace, table.relation.name):
                await self._write("changed", oid)
            elif is_rewritten(known.form, table.form, table.membership):
                mark("rewritten", level=logging.WARNING, table=table.label)
                await self._want(table)
            elif known.columns != fingerprint(table.relation):
                await (self._write("changed", oid) if known.is_copied else self._want(table))
            elif known.form != (form := json.dumps(table.form)):
                await self._storage.execute(_q.accept_form, {"slot": wanted.slot, "oid": oid, "form": form})
                known.form = form
            await self._note_rules(table)
        for oid in [oid for oid in tables if oid not in found]:
            await self._write("gone", oid)

    async def _want(self, table: Table) -> None:
        relation, wanted, for_rules = table.relation, self._wanted, self._for_rules(table)
        await want(self._storage, wanted.slot, table, for_rules)
        self._copies.abandon(relation.oid)
        self._copies.tables[relation.oid] = TableState(
            relation.oid,
            relation.namespace,
            relation.name,
            table.membership,
            fingerprint(relation),
            json.dumps(table.form),
            for_rules,
            "wanted",
            None,
            0,
            table.rows_estimated,
            False,
        )
        if self._copies.cover(relation.oid):
            await self._note_copy(self._copies.again[relation.oid])

    # -- what is new in the rules ------------------------------------------------------------------

    async def _note_rules(self, table: Table) -> None:
        """Whether only the set in preparation reads a table, and whether that needs it read once more."""
        relation, wanted = table.relation, self._wanted
        oid, where = relation.oid, (relation.namespace, relation.name)
        state = self._copies.tables.get(oid)
        if state is None:
            return  # lost a moment ago, by what the log says; it is looked at again
        if state.for_rules != (for_rules := wanted.for_rules(*where)):
            await deploy.set_for(self._storage, wanted.slot, oid, for_rules)
            state.for_rules = for_rules
        if not wanted.is_new(*where) or oid in self._copies.again:
            return
        # What is copied for everybody from its first row on is copied for the new rules as well.
        is_covered = state.state == "wanted"
        copy = RuleCopy(oid, "copied" if is_covered else "wanted", None, 0, table.rows_estimated)
        await self._note_copy(copy)
        self._copies.again[oid] = copy
        if not is_covered:
            self._copies.anew.add(oid)

    async def _note_copy(self, copy: RuleCopy) -> None:
        assert self._wanted.preparing is not None, "it is copied for a set"
        await deploy.want_copy(self._storage, self._wanted.slot, self._wanted.preparing, copy)

    async def _find_missing(self, found: Sequence[Table]) -> list[str]:
        """Tables that are not there: reason enough to stay with the set in force, if there is one."""
        wanted, source = self._wanted, self._source
        if wanted.kept is None:
            require_foreign(wanted.tables, wanted.storage_schema)
            return await find_missing(source, wanted.publication, wanted.every, found, wanted.storage_schema)
        try:
            missing = await find_missing(source, wanted.publication, wanted.new, found, wanted.storage_schema)
        except SourceUnready as error:
            raise Refused(error.what) from error
        if missing:
            raise Refused(f"the source has no table {', '.join(missing)}")
        try:
            require_foreign(wanted.kept, wanted.storage_schema)
        except SourceUnready as error:
            raise OldUnready(error.what, error.hint) from error
        old = [*wanted.kept, *wanted.mapped]
        return await find_missing(source, wanted.publication, old, found, wanted.storage_schema)

    @contextmanager
    def _for_new(self, table: Table) -> Iterator[None]:
        """What is wrong with a table that only the set in preparation reads is wrong with that set."""
        try:
            yield
        except SourceUnready as error:
            if self._for_rules(table) in (None, FOR_JOBS):
                raise
            raise Refused(error.what) from error

    def _for_rules(self, table: Table) -> int | None:
        return self._wanted.for_rules(table.relation.namespace, table.relation.name)

    # -- one copy ----------------------------------------------------------------------------------

    async def _copy(self, state: TableState) -> None:
        """Copy one table from where its copy stands to its end."""
        table = self._copies.catalogue.get(state.oid)
        if table is None:
            return  # gone meanwhile; the mark that says so is on its way
        with self._for_new(table):
            require_key(table)
            await require_readable(self._source, table.relation)
        mark("copying", level=logging.INFO, table=table.label, rows_estimated=state.rows_expected)
        self._copies.windows.watch(state.oid)
        if state.has_holes:
            # Which rows were missing is known only to the run that missed them.
            await want_again(self._storage, self._wanted.slot, state.oid)
            state.state, state.copied_to, state.has_holes = "wanted", None, False
            if not self._copies.has_holes(state.oid):
                self._copies.read_again.add(state.oid)
        try:
            await self._copy_rows(table, state.copied_to)
            await self._copy_holes(table)
            await self._finish(state.oid)
        except (Restarted, Moved):
            self._copies.abandon(state.oid)
            self._copies.catalogue.pop(state.oid, None)
            self._copies.poke()
            return
        self._copies.windows.forget(state.oid)
        mark("copied", level=logging.INFO, table=table.label, rows=state.rows_copied)

    async def _copy_again(self, copy: RuleCopy) -> None:
        """Read one table for what is new in the rules. Everything else has its rows and goes on with them."""
        table, state = self._copies.catalogue.get(copy.oid), self._copies.tables.get(copy.oid)
        if table is None or state is None or not state.is_copied:
            return  # first it is copied for everybody
        rules = self._wanted.preparing
        mark("copying", level=logging.INFO, table=table.label, rows_estimated=copy.rows_expected, rules=rules)
        self._copies.windows.watch(copy.oid)
        try:
            await self._copy_rows(table, copy.copied_to, rules=rules)
            await self._finish(copy.oid, rules=rules)
        except (Restarted, Moved):
            self._copies.abandon(copy.oid)
            self._copies.catalogue.pop(copy.oid, None)
            self._copies.poke()
            return
        self._copies.windows.forget(copy.oid)
        mark("copied", level=logging.INFO, table=table.label, rows=copy.rows_copied, rules=rules)

    async def _copy_rows(self, table: Table, after: Key | None, rules: int | None = None) -> None:
        """Read and merge chunk after chunk; each is read while the one before it is merged and stored."""
        limit, before = _FIRST_ROWS, None
        while True:
            reading = await self._read(table, after, limit, rules=rules)
            if before is not None and await self._is_stale(before):
                # How far a copy has come is one key, so what was read after it is of no use before it.
                self._copies.drop(reading.name)
                after, before = before.after, None
                continue
            await self._close(reading, rules=rules)
            before = reading
            chunk = reading.chunk
            if not chunk.is_last:
                after, limit = chunk.last_key or after, next_limit(limit, chunk)
            elif not await self._is_stale(before):
                return
            else:
                before = None

    async def _copy_holes(self, table: Table) -> None:
        """Read once more the rows that arrived incomplete and that no chunk has brought since."""
        oid = table.relation.oid
        while self._copies.has_holes(oid):
            if self._copies.take_riddled(oid):
                await self._copy_rows(table, None)
                continue
            # Taken before they are read. Those not found have been deleted, which the log says further on.
            keys = self._copies.take_holes(oid, _HOLES_AT_ONCE)
            reading = await self._read(table, None, len(keys), only=_in_key_order(table, keys))
            await self._close(reading, is_holes=True)
            if await self._is_stale(reading):
                for key in keys:
                    self._copies.note_hole(oid, key)

    async def _read(
        self,
        table: Table,
        after: Key | None,
        limit: int,
        only: Sequence[Key] | None = None,
        rules: int | None = None,
    ) -> _Reading:
        """Write the low mark, and read."""
        oid, windows = table.relation.oid, self._copies.windows
        name = self._copies.name_mark()
        future = self._copies.expect(name, oid)
        windows.expect(name, oid, table.key_at)
        await write_mark(self._source, mark="low", name=name, oid=oid, **_for_new(rules))
        chunk = await read_chunk(
            self._source, self._wanted.publication, table, after=after, limit=limit, only=only
        )
        mark("read", oid=oid, rows=len(chunk.rows))
        windows.deposit(name, chunk)
        return _Reading(name, after, chunk, future)

    async def _close(self, reading: _Reading, *, is_holes: bool = False, rules: int | None = None) -> None:
        """Write the high mark, where what was read is merged."""
        content: dict[str, str | int] = {"name": reading.name, "oid": reading.chunk.relation.oid}
        await write_mark(self._source, mark="high", holes=int(is_holes), **content, **_for_new(rules))

    async def _is_stale(self, reading: _Reading) -> bool:
        """Whether it has to be read again; known once it has been merged. After a while, if it often is."""
        merged = await reading.merged
        assert merged is not None, "a high mark brings what was merged"
        if not merged.is_stale:
            self._stale_s = 0.0
            return False
        await asyncio.sleep(self._stale_s)
        self._stale_s = min(2 * self._stale_s or 0.01, _STALE_S_MAX)
        return True

    async def _finish(self, oid: int, rules: int | None = None) -> None:
        """Write that the copy is complete, and wait until that has been acted on."""
        name = self._copies.name_mark()
        future = self._copies.expect(name, oid)
        await write_mark(self._source, mark="done", name=name, oid=oid, **_for_new(rules))
        await future

    async def _write(self, kind: str, oid: int) -> None:
        await write_mark(self._source, mark=kind, name=self._copies.name_mark(), oid=oid)


def _reentered(known: TableState, table: Table, publication: str) -> TableReentered:
    """Why what is stored of the table has a gap."""
    was = json.loads(known.form)["publication"] if known.form else None
    if was not in (None, table.form["publication"]):
        return TableReentered(
            f"publication {publication} was dropped and made again: "
            f"what was written in between is not in the log",
            "replicator snapshot --all",
        )
    return TableReentered(
        f"table {table.label} left publication {publication} and came back: "
        f"what was written to it in between is not in the log",
        f"replicator snapshot {table.relation.namespace}.{table.relation.name}",
    )


def _for_new(rules: int | None) -> dict[str, int]:
    """What a mark says beside, if only what is new in these rules is to have the rows."""
    return {} if rules is None else {"rules": rules}


def _in_key_order(table: Table, keys: Sequence[Key]) -> list[Key]:
    """Keys whose values stand in the order of the columns, in the order of the index."""
    columns = sorted(table.key_at)
    order = [columns.index(at) for at in table.key_at]
    return [tuple([key[at] for at in order]) for key in keys]
