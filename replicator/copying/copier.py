"""The source's catalogue and tables → marks in the log, and chunks between them, beside the stream."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Sequence

from replicator import queries
from replicator.buckets.tables import TableState, fingerprint, is_rewritten, load, want, want_again
from replicator.copying.copies import Copies, Restarted
from replicator.database import Connection, rows
from replicator.errors import TableReentered
from replicator.marks import mark
from replicator.wal.preflight import find_missing
from replicator.wal.snapshot import (
    Moved,
    Table,
    next_limit,
    read_chunk,
    read_tables,
    require_key,
    require_whole,
    write_mark,
)
from replicator.wal.window import Key, Merged

_q = queries.load("copy")

#: How often the catalogue is looked at for what the log does not tell.
LOOK_S = 20.0
#: How often storage is asked whether an operator wants a table copied.
_ASKED_S = 2.0
_FIRST_ROWS = 1000
_HOLES_AT_ONCE = 500


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

    async def prepare(self) -> None:
        """Know the tables before the stream begins: nothing is shown until they have been copied."""
        self._copies.tables = await load(self._storage, self._wanted.slot)
        await self._look(first=True)

    async def run(self) -> None:
        """Copy what is wanted, then wait until something is again; for ever."""
        while True:
            for state in [state for state in self._copies.tables.values() if not state.is_copied]:
                await self._copy(state)
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
        found = {
            table.relation.oid: table
            for table in await read_tables(self._source, wanted.publication, wanted.tables)
        }
        await self._meet(list(found.values()))
        self._copies.partitioned = frozenset(oid for oid, table in found.items() if table.kind == "p")
        self._copies.catalogue = found.copy()  # from which the stream strikes what it finds otherwise
        missing = await find_missing(self._source, wanted.publication, wanted.tables, list(found.values()))
        if first and missing:
            mark("table missing", level=logging.WARNING, tables=", ".join(missing))
        asked = await load(self._storage, wanted.slot)
        by_other_rules: list[str] = []
        for oid, table in found.items():
            known, stored = tables.get(oid), asked.get(oid)
            require_whole(table, wanted.publication)
            if known is None or not known.membership or (stored is not None and stored.state == "wanted"):
                await self._want(table)
            elif known.membership != table.membership:
                raise _reentered(known, table, wanted.publication)
            elif (known.namespace, known.name) != (table.relation.namespace, table.relation.name):
                await self._write("changed", oid)
            elif known.rules != self._digest(table):
                by_other_rules.append(table.label)
                await self._want(table)
            elif is_rewritten(known.form, table.form, table.membership):
                mark("rewritten", level=logging.WARNING, table=table.label)
                await self._want(table)
            elif known.columns != fingerprint(table.relation):
                await (self._write("changed", oid) if known.is_copied else self._want(table))
            elif known.form != (form := json.dumps(table.form)):
                await self._storage.execute(_q.accept_form, {"slot": wanted.slot, "oid": oid, "form": form})
                known.form = form
        for oid in [oid for oid in tables if oid not in found]:
            await self._write("gone", oid)
        if by_other_rules:
            mark("rules changed", level=logging.INFO, tables=", ".join(by_other_rules))

    async def _want(self, table: Table) -> None:
        relation, rules = table.relation, self._digest(table)
        await want(self._storage, self._wanted.slot, table, rules)
        self._copies.abandon(relation.oid)
        self._copies.tables[relation.oid] = TableState(
            relation.oid,
            relation.namespace,
            relation.name,
            table.membership,
            fingerprint(relation),
            json.dumps(table.form),
            rules,
            "wanted",
            None,
            0,
            table.rows_estimated,
            False,
        )

    def _digest(self, table: Table) -> str:
        return self._wanted.digest(table.relation.namespace, table.relation.name)

    # -- one copy ----------------------------------------------------------------------------------

    async def _copy(self, state: TableState) -> None:
        """Copy one table from where its copy stands to its end."""
        table = self._copies.catalogue.get(state.oid)
        if table is None:
            return  # gone meanwhile; the mark that says so is on its way
        require_key(table)
        mark("copying", level=logging.INFO, table=table.label, rows_estimated=state.rows_expected)
        self._copies.windows.watch(state.oid)
        if state.has_holes:
            # Which rows were missing is known only to the run that missed them.
            await want_again(self._storage, self._wanted.slot, state.oid)
            state.state, state.copied_to, state.has_holes = "wanted", None, False
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
        while self._copies.has_holes(oid):
            if self._copies.take_riddled(oid):
                await self._copy_rows(table, None)
                continue
            # Taken before they are read. Those not found have been deleted, which the log says further on.
            keys = self._copies.take_holes(oid, _HOLES_AT_ONCE)
            merged = await self._chunk(table, None, len(keys), only=_in_key_order(table, keys))
            if merged.is_stale:
                for key in keys:
                    self._copies.note_hole(oid, key)

    async def _chunk(
        self, table: Table, after: Key | None, limit: int, only: Sequence[Key] | None = None
    ) -> Merged:
        oid, windows = table.relation.oid, self._copies.windows
        name = self._copies.name_mark()
        future = self._copies.expect(name, oid)
        windows.expect(name, oid, table.key_at)
        await write_mark(self._source, mark="low", name=name, oid=oid)
        chunk = await read_chunk(
            self._source, self._wanted.publication, table, after=after, limit=limit, only=only
        )
        mark("read", oid=oid, rows=len(chunk.rows))
        windows.deposit(name, chunk)
        await write_mark(self._source, mark="high", name=name, oid=oid, holes=int(only is not None))
        merged = await future
        assert merged is not None, "a high mark brings what was merged"
        return merged

    async def _finish(self, oid: int) -> None:
        """Write that the copy is complete, and wait until that has been acted on."""
        name = self._copies.name_mark()
        future = self._copies.expect(name, oid)
        await write_mark(self._source, mark="done", name=name, oid=oid)
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


def _in_key_order(table: Table, keys: Sequence[Key]) -> list[Key]:
    """Keys whose values stand in the order of the columns, in the order of the index."""
    columns = sorted(table.key_at)
    order = [columns.index(at) for at in table.key_at]
    return [tuple([key[at] for at in order]) for key in keys]
