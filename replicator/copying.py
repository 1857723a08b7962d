"""Source tables → their copies in the buckets, woven into the stream that goes on meanwhile.

Two halves that meet in the log. `run` reads chunks of the tables that are wanted and writes marks around
them (wal/window.py says why). `weave` stands in the main path: it lets changes pass by, and where a high
mark passes, it puts the rows of the chunk in its place, so that they are appended with that transaction and
the copy's progress is committed with them. Killed anywhere, the copy goes on from the last committed chunk.

The same way round goes everything that is noticed outside the log and must be acted on in its order: a
table that is gone, or changed without being written to. The notice is written into the log as a mark, and
acted on when it comes back, after every change that stands before it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from replicator import queries
from replicator.buckets.rows import RowStates
from replicator.buckets.tables import TableState, fingerprint, is_only_wider, load, want, want_again
from replicator.buckets.write import Batch
from replicator.database import Connection, connected, rows
from replicator.errors import TableReentered
from replicator.marks import mark
from replicator.wal.messages import Relation
from replicator.wal.preflight import find_missing
from replicator.wal.snapshot import (
    PREFIX,
    Table,
    next_limit,
    read_chunk,
    read_tables,
    require_key,
    write_mark,
)
from replicator.wal.transactions import Change, Transaction
from replicator.wal.window import Key, Merged, Windows, key_of

_q = queries.load("copy")

#: How often the catalogue is looked at for what the log does not tell.
LOOK_S = 20.0
#: How often storage is asked whether an operator wants a table copied.
_ASKED_S = 2.0
_FIRST_ROWS = 1000
#: So many rows at most are read again one by one; beyond that the whole table is.
_HOLES_MAX = 10_000
_HOLES_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be replicated: tables of a publication, for a slot."""

    source_dsn: str
    slot: str
    publication: str
    tables: Sequence[tuple[str, str]]


class Restarted(Exception):
    """The table changed while it was being copied; the copy begins again."""


class Copier:
    """The copies of one slot's tables."""

    def __init__(self, wanted: Wanted, source: Connection, storage: Connection, states: RowStates) -> None:
        self._wanted, self._source, self._storage = wanted, source, storage
        self._row_states = states
        self._tables: dict[int, TableState] = {}
        self._catalogue: dict[int, Table] = {}
        self._windows = Windows()
        #: Marks of an earlier run are told from ours by this.
        self._run = secrets.token_hex(4)
        self._counter = 0
        #: By the name of the mark that answers it: whose table, and who waits.
        self._awaited: dict[str, tuple[int, asyncio.Future[Merged | None]]] = {}
        #: By table, keys of rows that arrived incomplete; a key's values stand in the order of the columns.
        self._holes: dict[int, dict[Key, None]] = {}
        #: Tables with more of them than are worth noting.
        self._riddled: set[int] = set()
        self._poked = asyncio.Event()

    # -- beside the stream -------------------------------------------------------------------------

    async def prepare(self) -> None:
        """Know the tables before the stream begins: nothing is shown until they have been copied."""
        self._tables = await load(self._storage, self._wanted.slot)
        await self._look(first=True)

    async def run(self) -> None:
        """Copy what is wanted, then wait until something is again; for ever."""
        while True:
            for state in [state for state in self._tables.values() if not state.is_copied]:
                await self._copy(state)
            await self._wait()
            await self._look()

    def poke(self) -> None:
        """Look at once: something was asked for."""
        self._poked.set()

    async def _wait(self) -> None:
        """Until something wants looking at: the stream, an operator, or the time."""
        for _ in range(int(LOOK_S / _ASKED_S)):
            try:
                await asyncio.wait_for(self._poked.wait(), _ASKED_S)
            except TimeoutError:
                if not (await rows(self._storage, _q.is_asked, slot=self._wanted.slot))[0][0]:
                    continue
            break
        self._poked.clear()

    async def _look(self, first: bool = False) -> None:
        """Compare the source's catalogue with what we know of it."""
        wanted = self._wanted
        found = {
            table.relation.oid: table
            for table in await read_tables(self._source, wanted.publication, wanted.tables)
        }
        self._catalogue = found
        missing = await find_missing(self._source, wanted.publication, wanted.tables, list(found.values()))
        if first and missing:
            mark("table missing", level=logging.WARNING, tables=", ".join(missing))
        asked = await load(self._storage, wanted.slot)
        for oid, table in found.items():
            known, stored = self._tables.get(oid), asked.get(oid)
            if stored is not None and stored.state == "wanted":
                await self._want(table)
            elif known is None:
                await self._want(table)
            elif known.membership != table.membership:
                raise TableReentered(
                    f"table {table.label} left publication {wanted.publication} and came back: "
                    f"what was written to it in between is not in the log",
                    f"replicator snapshot {table.relation.namespace}.{table.relation.name}",
                )
            elif known.is_copied and known.columns != fingerprint(table.relation):
                await self._write("changed", oid)
        for oid in [oid for oid in self._tables if oid not in found]:
            await self._write("gone", oid)

    async def _want(self, table: Table) -> None:
        await want(self._storage, self._wanted.slot, table)
        relation = table.relation
        self._abandon(relation.oid)
        self._tables[relation.oid] = TableState(
            relation.oid,
            relation.namespace,
            relation.name,
            table.membership,
            fingerprint(relation),
            "wanted",
            None,
            0,
            table.rows_estimated,
            False,
        )

    async def _copy(self, state: TableState) -> None:
        """Copy one table from where its copy stands to its end."""
        table = self._catalogue.get(state.oid)
        if table is None:
            return  # gone meanwhile; the mark that says so is on its way
        require_key(table)
        mark("copying", level=logging.INFO, table=table.label, rows=state.rows_expected)
        self._windows.watch(state.oid)
        if state.has_holes:
            # Which rows were missing is known only to the run that missed them.
            await want_again(self._storage, self._wanted.slot, state.oid)
            state.state, state.copied_to, state.has_holes = "wanted", None, False
        try:
            await self._copy_rows(table, state.copied_to)
            await self._copy_holes(table)
            await self._expect(state.oid, "done")
        except Restarted:
            self._catalogue.pop(state.oid, None)
            self._poked.set()
            return
        self._windows.forget(state.oid)
        mark("copied", level=logging.INFO, table=table.label, rows=state.rows_copied)

    async def _copy_rows(self, table: Table, after: Key | None) -> None:
        limit = _FIRST_ROWS
        while True:
            merged = await self._chunk(table, after, limit)
            if merged.is_stale:
                continue
            after, limit = merged.chunk.last_key or after, next_limit(limit, merged.chunk)
            if merged.chunk.is_last:
                return

    async def _copy_holes(self, table: Table) -> None:
        """Read once more the rows that arrived incomplete and that no chunk has brought since."""
        oid = table.relation.oid
        while oid in self._riddled or self._holes.get(oid):
            holes = self._holes.setdefault(oid, {})
            # Struck off before they are read: one that arrives incomplete meanwhile is noted once more. Those
            # that are not found have been deleted, which the log says further on.
            if oid in self._riddled:
                self._riddled.discard(oid)
                holes.clear()
                await self._copy_rows(table, None)
                continue
            keys = list(islice(holes, _HOLES_AT_ONCE))
            for key in keys:
                del holes[key]
            merged = await self._chunk(table, None, len(keys), only=_in_key_order(table, keys))
            if merged.is_stale:
                holes.update(dict.fromkeys(keys))

    async def _chunk(
        self, table: Table, after: Key | None, limit: int, only: Sequence[Key] | None = None
    ) -> Merged:
        oid = table.relation.oid
        name = self._name()
        self._windows.expect(name, oid, table.key_at)
        future = self._await(name, oid)
        await write_mark(self._source, mark="low", name=name, oid=oid)
        chunk = await read_chunk(self._source, table, after=after, limit=limit, only=only)
        self._windows.deposit(name, chunk)
        await write_mark(self._source, mark="high", name=name, oid=oid, holes=int(only is not None))
        merged = await future
        assert merged is not None, "a high mark brings what was merged"
        return merged

    async def _expect(self, oid: int, kind: str) -> None:
        """Write a mark and wait until it has been acted on."""
        name = self._name()
        future = self._await(name, oid)
        await write_mark(self._source, mark=kind, name=name, oid=oid)
        await future

    async def _write(self, kind: str, oid: int) -> None:
        await write_mark(self._source, mark=kind, name=self._name(), oid=oid)

    def _name(self) -> str:
        self._counter += 1
        return f"{self._run}/{self._counter}"

    def _await(self, name: str, oid: int) -> asyncio.Future[Merged | None]:
        future: asyncio.Future[Merged | None] = asyncio.get_running_loop().create_future()
        self._awaited[name] = oid, future
        return future

    # -- in the stream -----------------------------------------------------------------------------

    async def weave(self, piece: Transaction, batch: Batch) -> Sequence[Change]:
        """A piece's changes made whole, and in them the rows of a chunk that ends here."""
        for relation in piece.relations:
            await self._meet(relation, batch)
        changes: Sequence[Change] = piece.changes
        self._windows.pass_by(piece.xid, changes)
        for message in piece.messages:
            if message.prefix == PREFIX:
                changes = await self._heed(json.loads(message.content), batch) or changes
        if not self._row_states.concern(changes):
            return changes
        await batch.rest()
        whole, holes = await self._row_states.complete(changes)
        if holes:
            await self._note_holes(holes, batch)
        return whole

    async def _heed(self, said: dict[str, str | int], batch: Batch) -> Sequence[Change]:
        """Act on a mark of ours; its transaction holds nothing else."""
        name, oid = str(said["name"]), int(said["oid"])
        if not name.startswith(self._run + "/"):
            return []
        changes: Sequence[Change] = []
        merged: Merged | None = None
        match said["mark"]:
            case "low":
                if self._windows.low(name) and self._tables[oid].state == "wanted":
                    self._tables[oid].state = "copying"
                    await batch.note(_q.begin_copy, oid)
                    # Why it is copied may be that what was kept is not true any more.
                    await batch.note(_q.forget_rows, oid)
                return []
            case "high":
                merged = self._windows.high(name)
                if merged is not None and not merged.is_stale:
                    changes = await self._merge(oid, merged, bool(said["holes"]), batch)
            case "done":
                await self._finish(oid, name, batch)
            case "gone":
                await self._lose(oid, batch)
            case "changed":
                if oid in self._catalogue:
                    await self._meet(self._catalogue[oid].relation, batch)
        if name in self._awaited:
            _, future = self._awaited.pop(name)
            if not future.done():
                future.set_result(merged)
        return changes

    async def _merge(self, oid: int, merged: Merged, is_holes: bool, batch: Batch) -> Sequence[Change]:
        state, chunk = self._tables[oid], merged.chunk
        if not is_holes and chunk.last_key is not None:
            state.copied_to, state.rows_copied = chunk.last_key, state.rows_copied + len(chunk.rows)
            await batch.note(_q.advance_copy, oid, copied_to=list(chunk.last_key), rows=len(chunk.rows))
        if holes := self._holes.get(oid):
            key_at = tuple(sorted(chunk.key_at))
            for change in merged.changes:
                holes.pop(key_of(change.new or (), key_at), None)
        mark("chunk", oid=oid, rows=len(merged.changes))
        return merged.changes

    async def _finish(self, oid: int, name: str, batch: Batch) -> None:
        if name not in self._awaited:
            return  # the copy has begun again since this was written
        if oid in self._riddled or self._holes.get(oid):
            self._abandon(oid)
            return
        finished = await batch.note(_q.finish_copy, oid)
        if not finished:
            self._abandon(oid)  # an operator asked for it to be copied again
            return
        begun_op_id, may_be_stale = finished[0]
        if may_be_stale:
            await batch.sweep(f"{oid}/", begun_op_id)
        self._tables[oid].state, self._tables[oid].has_holes = "copied", False

    async def _lose(self, oid: int, batch: Batch) -> None:
        """The table is not there any more under a name the rules read: its rows leave the buckets."""
        state = self._tables.pop(oid, None)
        if state is None or oid in self._catalogue:
            return
        self._abandon(oid)
        await batch.sweep(f"{oid}/")
        await batch.note(_q.forget_rows, oid)
        await batch.note(_q.forget_table, oid)
        mark("table gone", level=logging.WARNING, table=f'"{state.namespace}"."{state.name}"')

    async def _meet(self, relation: Relation, batch: Batch) -> None:
        """The log describes a relation: if it is not as we knew it, its rows may not be either."""
        state = self._tables.get(relation.oid)
        if state is None:
            if (relation.namespace, relation.name) in self._wanted.tables:
                self.poke()  # a table new under this name: looking will find it, and want it
            return
        if (relation.namespace, relation.name) != (state.namespace, state.name):
            self._catalogue.pop(relation.oid, None)
            await self._lose(relation.oid, batch)
            self.poke()
            return
        columns = fingerprint(relation)
        if columns == state.columns:
            return
        mark("columns changed", level=logging.WARNING, table=f'"{state.namespace}"."{state.name}"')
        if await self._is_harmless(state, relation):
            await batch.note(_q.accept_columns, relation.oid, columns=columns)
            state.columns = columns
            return
        await batch.note(_q.want_again, relation.oid, columns=columns)
        self._abandon(relation.oid)
        state.columns, state.state, state.copied_to, state.rows_copied = columns, "wanted", None, 0
        self.poke()

    async def _is_harmless(self, state: TableState, relation: Relation) -> bool:
        """Whether the change is only new columns that are NULL in every row there was."""
        # Not the copier's connection: that may be in the middle of a chunk.
        async with connected(self._wanted.source_dsn, "catalogue") as source:
            found = await read_tables(source, self._wanted.publication, [(relation.namespace, relation.name)])
        known = [table.filled for table in found if table.relation.oid == relation.oid]
        if not known or not state.is_copied:
            return False
        return is_only_wider(state.columns, fingerprint(relation), known[0])

    async def _note_holes(self, holes: list[tuple[int, Key]], batch: Batch) -> None:
        for oid, key in holes:
            state = self._tables.get(oid)
            if state is None:
                continue
            noted = self._holes.setdefault(oid, {})
            noted[key] = None
            if len(noted) > _HOLES_MAX:
                noted.clear()
                self._riddled.add(oid)
            if not state.has_holes:
                state.has_holes = True
                await batch.note(_q.mark_holes, oid, has_holes=True)
            if state.is_copied:
                # Not expected once a table has been copied; copying it again is the sure way.
                state.state, state.copied_to = "wanted", None
                await batch.note(_q.want_again, oid, columns=None)
                self.poke()

    def _abandon(self, oid: int) -> None:
        """Whatever was being copied of this table is not wanted any more."""
        self._windows.forget(oid)
        self._holes.pop(oid, None)
        self._riddled.discard(oid)
        for name, (whose, future) in list(self._awaited.items()):
            if whose == oid:
                del self._awaited[name]
                if not future.done():
                    future.set_exception(Restarted())


def _in_key_order(table: Table, keys: Sequence[Key]) -> list[Key]:
    """Keys whose values stand in the order of the columns, in the order of the index."""
    columns = sorted(table.key_at)
    order = [columns.index(at) for at in table.key_at]
    return [tuple([key[at] for at in order]) for key in keys]
