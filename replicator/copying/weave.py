"""A piece of a transaction, and the marks in it → whole changes, with chunks among them, in the stream."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Collection, Sequence

from psycopg.rows import TupleRow

from replicator import queries
from replicator.buckets.deploy import put_in_force
from replicator.buckets.rows import RowStates
from replicator.buckets.tables import TableState, fingerprint, is_only_wider
from replicator.buckets.write import Batch
from replicator.copying.copies import Copies
from replicator.database import connected
from replicator.errors import SourceUnready
from replicator.marks import mark
from replicator.rules.route import ForNew
from replicator.wal.messages import Relation
from replicator.wal.names import qualify
from replicator.wal.snapshot import PREFIX, read_tables
from replicator.wal.transactions import Change, Kind, Transaction
from replicator.wal.window import Key, Merged, key_of

_q = queries.load("copy")
_deploy = queries.load("deploy")


class Weaver:
    """Weaves copies into the changes that stream past."""

    def __init__(self, copies: Copies, states: RowStates) -> None:
        self._copies, self._wanted = copies, copies.wanted
        self._row_states = states
        self._has_switched = False
        #: Rows of the chunk that ends in this piece of which a change was left out.
        self._missed: list[Change] = []

    async def weave(self, piece: Transaction, batch: Batch) -> AsyncIterator[Sequence[Change]]:
        """A piece's changes made whole, and in them the rows of a chunk that ends here; large ones in parts.

        Each part is to be appended before the next one is made. There is one at least, even if it is empty.
        """
        for relation in piece.relations:
            await self._meet(relation, batch)
        changes: Sequence[Change] = piece.changes
        self._missed = []
        if self._copies.partitioned:
            self._require_old_rows(changes)
        self._copies.windows.pass_by(piece.xid, changes)
        for message in piece.messages:
            if message.prefix == PREFIX and (said := self._read(message.content)) is not None:
                changes = await self._heed(said, batch) or changes
        if isinstance(changes, ForNew):
            # Whole rows, of which those that are kept say the same.
            yield changes
            return
        # What a copy adds has not changed, but for the rows whose changes had to be left out before it came.
        is_told = changes is piece.changes
        if self._missed:
            await batch.tell(self._missed, piece.commit_lsn)
        if not self._row_states.concern(changes):
            if is_told:
                await batch.tell(changes, piece.commit_lsn)
            yield self._anew(changes)
            return
        while changes:
            whole, holes, changes = await self._row_states.complete(changes, batch, self._copied())
            if holes:
                await self._note_holes(holes, batch)
            if is_told:
                await batch.tell(whole, piece.commit_lsn)
            yield self._anew(whole)

    async def foresee(self, pieces: Sequence[Transaction], batch: Batch) -> None:
        """These are to be woven one after another: storage is asked once for what they need."""
        changes = [change for piece in pieces for change in piece.changes]
        if len(pieces) > 1 and self._row_states.concern(changes):
            await self._row_states.look_up(changes, batch, self._copied())

    def _copied(self) -> Collection[int]:
        return {oid for oid, state in self._copies.tables.items() if state.is_copied}

    def _anew(self, changes: Sequence[Change]) -> Sequence[Change]:
        """Updates of a table that is being copied, each as its row leaving and coming.

        What has not been put or entered since the copy began is swept at its end. A row that an update left
        where it was would be among it: the chunk that held it has given way to the update.
        """
        tables = self._copies.tables
        if all(state.is_copied for state in tables.values()):
            return changes
        made: list[Change] = []
        for change in changes:
            state = tables.get(change.relation.oid)
            if (
                change.kind is Kind.UPDATE
                and change.old_is_whole
                and state is not None
                and not state.is_copied
            ):
                made.append(change._replace(kind=Kind.DELETE, new=None))
                made.append(change._replace(kind=Kind.INSERT, old=None, old_is_whole=False))
            else:
                made.append(change)
        return made

    # -- marks -------------------------------------------------------------------------------------

    def _read(self, content: bytes) -> dict[str, str | int] | None:
        """What a mark says, if it is one of this run: anybody may write under this prefix, and anything."""
        try:
            said = json.loads(content)
        except (ValueError, RecursionError):
            return None
        is_ours = isinstance(said, dict) and self._copies.is_ours(str(said.get("name")))
        return said if is_ours else None

    async def _heed(self, said: dict[str, str | int], batch: Batch) -> Sequence[Change]:
        """Act on a mark of ours; its transaction holds nothing else."""
        name, oid = str(said["name"]), int(said["oid"])
        changes: Sequence[Change] = []
        merged: Merged | None = None
        for_new = "rules" in said
        match said["mark"]:
            case "low":
                await (self._begin_again if for_new else self._begin)(oid, name, batch)
                return []
            case "high":
                merged = self._copies.windows.high(name)
                if merged is not None and not merged.is_stale and for_new:
                    changes = await self._merge_for_new(oid, merged, batch)
                elif merged is not None and not merged.is_stale:
                    changes = await self._merge(oid, merged, bool(said["holes"]), batch)
            case "done":
                await (self._finish_again if for_new else self._finish)(oid, name, batch)
            case "gone":
                await self._lose(oid, batch)
            case "changed":
                if oid in self._copies.catalogue:
                    await self._meet(self._copies.catalogue[oid].relation, batch)
        self._copies.answer(name, merged)
        return changes

    async def _begin(self, oid: int, name: str, batch: Batch) -> None:
        if self._copies.windows.low(name) and self._copies.tables[oid].state == "wanted":
            self._copies.tables[oid].state = "copying"
            await self._row_states.flush(batch)  # whether there are any is asked next
            await batch.note(_q.begin_copy, oid)
            # Why it is copied may be that what was kept is not true any more.
            await self._row_states.forget(oid, batch)

    async def _merge(self, oid: int, merged: Merged, is_holes: bool, batch: Batch) -> Sequence[Change]:
        state, chunk = self._copies.tables[oid], merged.chunk
        if not is_holes and chunk.last_key is not None:
            state.copied_to, state.rows_copied = chunk.last_key, state.rows_copied + len(chunk.rows)
            await batch.note(_q.advance_copy, oid, copied_to=list(chunk.last_key), rows=len(chunk.rows))
        if is_holes or oid in self._copies.read_again:
            self._missed = merged.changes
        if self._copies.has_holes(oid):
            key_at = tuple(sorted(chunk.key_at))
            filled = [self._copies.fill_hole(oid, key_of(one.new or (), key_at)) for one in merged.changes]
            self._missed = self._missed or [
                one for one, is_one in zip(merged.changes, filled, strict=True) if is_one
            ]
        mark("chunk", oid=oid, rows=len(merged.changes))
        return merged.changes

    async def _finish(self, oid: int, name: str, batch: Batch) -> None:
        if not self._copies.is_awaited(name):
            return  # the copy has begun again since this was written
        if self._copies.has_holes(oid):
            self._copies.abandon(oid)
            return
        finished = await batch.note(_q.finish_copy, oid)
        if not finished:
            self._copies.abandon(oid)  # an operator asked for it to be copied again
            return
        begun_op_id, may_be_stale = finished[0]
        if may_be_stale:
            await batch.sweep(f"{oid}/", begun_op_id)
        self._copies.tables[oid].state, self._copies.tables[oid].has_holes = "copied", False
        self._copies.read_again.discard(oid)
        await self._switch(batch)

    # -- what is new in the rules ------------------------------------------------------------------

    async def _begin_again(self, oid: int, name: str, batch: Batch) -> None:
        if self._copies.windows.low(name) and self._copies.again[oid].state == "wanted":
            self._copies.again[oid].state = "copying"
            await batch.note(_deploy.begin_copy, oid, rules=self._wanted.preparing)

    async def _merge_for_new(self, oid: int, merged: Merged, batch: Batch) -> ForNew:
        copy, chunk = self._copies.again[oid], merged.chunk
        if chunk.last_key is not None:
            copy.copied_to, copy.rows_copied = chunk.last_key, copy.rows_copied + len(chunk.rows)
            values = {"copied_to": list(chunk.last_key), "rows": len(chunk.rows)}
            await batch.note(_deploy.advance_copy, oid, rules=self._wanted.preparing, **values)
        mark("chunk", oid=oid, rows=len(merged.changes), new=True)
        return ForNew(merged.changes)

    async def _finish_again(self, oid: int, name: str, batch: Batch) -> None:
        if not self._copies.is_awaited(name):
            return  # the copy has begun again since this was written
        await batch.note(_deploy.finish_copy, oid, rules=self._wanted.preparing)
        self._copies.again[oid].state = "copied"
        self._copies.anew.discard(oid)
        await self._switch(batch)

    async def _switch(self, batch: Batch) -> None:
        """Put the set in preparation in force, if that was the last it waited for."""
        rules = self._wanted.preparing
        if rules is None or self._has_switched:
            return

        async def execute(query: bytes) -> list[TupleRow]:
            return await batch.note(query, 0, rules=rules)

        if await put_in_force(execute):
            self._has_switched = True
            mark("rules switched", level=logging.INFO, rules=rules)

    async def _cover(self, oid: int, batch: Batch) -> None:
        """A copy for everybody begins; it is one for what is new in the rules as well."""
        if self._copies.cover(oid):
            await batch.note(_deploy.want_copy, oid, rules=self._wanted.preparing, state="copied", rows=0)

    async def _lose(self, oid: int, batch: Batch) -> None:
        """The table is not there any more under a name the rules read: its rows leave the buckets."""
        state = self._copies.tables.pop(oid, None)
        if state is None:
            return
        self._copies.abandon(oid)
        if oid in self._copies.catalogue:
            self._copies.poke()  # it has come back meanwhile, and is copied as one that is new
            return
        self._copies.again.pop(oid, None)
        await batch.sweep(f"{oid}/")
        await self._row_states.forget(oid, batch)
        await batch.note(_q.forget_table, oid)
        await self._switch(batch)
        mark("table gone", level=logging.WARNING, table=qualify(state.namespace, state.name))

    # -- what the log says of tables ---------------------------------------------------------------

    async def _meet(self, relation: Relation, batch: Batch) -> None:
        """The log describes a relation: if it is not as we knew it, its rows may not be either."""
        state = self._copies.tables.get(relation.oid)
        if state is not None and (relation.namespace, relation.name) != (state.namespace, state.name):
            self._copies.catalogue.pop(relation.oid, None)
            await self._lose(relation.oid, batch)
            state = None
        if state is None:
            await self._welcome(relation, batch)
            return
        columns = fingerprint(relation)
        if columns == state.columns:
            return
        mark("columns changed", level=logging.WARNING, table=qualify(state.namespace, state.name))
        if await self._is_harmless(state, relation):
            await batch.note(_q.accept_columns, relation.oid, columns=columns)
            state.columns = columns
            return
        await batch.note(_q.want_again, relation.oid, columns=columns)
        await self._cover(relation.oid, batch)
        self._copies.abandon(relation.oid)
        state.columns, state.state, state.copied_to, state.rows_copied = columns, "wanted", None, 0
        self._copies.poke()

    async def _welcome(self, relation: Relation, batch: Batch) -> None:
        """A table new under this name: if the rules read it, nothing is shown before it has been copied.

        What the catalogue says of it is found when it is looked at next, which is at once.
        """
        namespace, name = relation.namespace, relation.name
        if not self._wanted.reads(namespace, name):
            return
        columns, for_rules = fingerprint(relation), self._wanted.for_rules(namespace, name)
        values = {"namespace": namespace, "name": name, "membership": "", "columns": columns}
        await batch.note(_q.want, relation.oid, form="", for_rules=for_rules, rows=0, **values)
        self._copies.tables[relation.oid] = TableState(
            relation.oid, namespace, name, "", columns, "", for_rules, "wanted", None, 0, 0, False
        )
        self._copies.poke()

    async def _is_harmless(self, state: TableState, relation: Relation) -> bool:
        """Whether the change is only new columns that are NULL in every row there was."""
        # Not the copier's connection: that may be in the middle of a chunk.
        async with connected(self._wanted.source_dsn, "catalogue") as source:
            found = await read_tables(source, self._wanted.publication, [(relation.namespace, relation.name)])
        known = [table.filled for table in found if table.relation.oid == relation.oid]
        if not known or not state.is_copied:
            return False
        return is_only_wider(state.columns, fingerprint(relation), known[0])

    def _require_old_rows(self, changes: Sequence[Change]) -> None:
        """Refuse a partition that tells less of old rows than its table promises: a bucket would keep one."""
        for change in changes:
            relation = change.relation
            if relation.oid not in self._copies.partitioned or not _lacks_old_row(change):
                continue
            state = self._copies.tables.get(relation.oid)
            if state is not None and state.is_copied:
                label = qualify(relation.namespace, relation.name)
                raise SourceUnready(
                    f"a partition of {label} has another replica identity than the table: "
                    f"what a row was before a change is not in the log",
                    f"Give each of its partitions the replica identity of the table, then:\n"
                    f"replicator snapshot {relation.namespace}.{relation.name}",
                )

    async def _note_holes(self, holes: list[tuple[int, Key]], batch: Batch) -> None:
        for oid, key in holes:
            state = self._copies.tables.get(oid)
            if state is None:
                continue
            self._copies.note_hole(oid, key)
            if not state.has_holes:
                state.has_holes = True
                await batch.note(_q.mark_holes, oid, has_holes=True)
            if state.is_copied:
                # Not expected once a table has been copied; copying it again is the sure way.
                state.state, state.copied_to = "wanted", None
                self._copies.read_again.add(oid)
                await batch.note(_q.want_again, oid, columns=None)
                await self._cover(oid, batch)
                self._copies.poke()


def _lacks_old_row(change: Change) -> bool:
    """Whether a change says less of the row as it was than the replica identity of its relation promises."""
    if change.kind is Kind.INSERT or change.kind is Kind.TRUNCATE or change.old_is_whole:
        return False
    relation, old = change.relation, change.old
    if relation.identity == "f":
        return True
    return old is not None and any(
        value is None for column, value in zip(relation.columns, old, strict=True) if column.key
    )
