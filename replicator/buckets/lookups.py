"""Changes that take what other rows say × stored lookups → Puts and Removes, in the storage transaction.

Which parts of the lookups some changes can touch follows from the changes, so they are read in two steps
for all of them together, however many there are: first what stands under the keys of the changed rows, then
what else the rows found there look up. An outer key with very many rows behind it is not read whole: what
changes under it is told to its rows page by page.

Time works the same way. A row whose place depends on it is entered under the moment at which it next changes;
a batch has one time, later than that of the batch before, and begins with the rows whose moment has come.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from psycopg.rows import TupleRow

from replicator import queries
from replicator.buckets.rows import pack_row, unpack_row
from replicator.database import Connection, rows
from replicator.rules.compile import Compiled, Need
from replicator.rules.lookups import (
    DUE,
    OTHERS,
    OUTER,
    Moved,
    Outer,
    Step,
    View,
    apply,
    due_at,
    due_key,
    outer_of,
    shift,
    withdraw,
)
from replicator.rules.printed import Intended
from replicator.rules.route import ForNew, Intent, Leave, Router, Truncated, Written
from replicator.wal.messages import Row
from replicator.wal.transactions import Change, Kind

if TYPE_CHECKING:
    from replicator.buckets.write import Batch

_q = queries.load("lookups")

#: A key with more outer rows than this is told page by page.
WIDE = 2000
#: And where many keys change at once, with more than its share of these; each has a few in any case.
MOST_HELD = 20_000
_FEW = 8
PAGE = 500


class Lookups:
    """The lookups of one set of rules, as they are stored."""

    def __init__(self, connection: Connection, router: Router) -> None:
        self._connection, self._router = connection, router
        variants = [variant for rules in router.all_rules() for variant in rules.variants()]
        lookups = [lookup for rules in router.all_rules() for lookup in rules.lookups]
        terms = [(v.name, term) for v in variants for query in v.data for term in query.terms]
        self._joined = sorted({join.lookup for _, term in terms for join in term.joins})
        #: Where rows whose place depends on the time are entered. What others stand there for is over.
        self._dues = sorted(
            {DUE + name for name, term in terms if term.windows}
            | {DUE + lookup.id for lookup in lookups if lookup.windows}
        )
        self._next_due: str | None = None
        #: The last of the rows that time has moved on, while it does so.
        self._moved_on = "", ""
        #: Whether anything is entered at all, by these rules or, from before, by others.
        self._is_used = bool(lookups) or any(term.joins or term.windows for _, term in terms)

    async def open(self) -> None:
        """Know when the next row's moment comes, and what other rules may have left behind."""
        self._next_due = (await rows(self._connection, _q.next_due, names=self._dues))[0][0]
        self._is_used = self._is_used or (await rows(self._connection, _q.stands_any))[0][0]

    @property
    def next_due(self) -> float | None:
        """When the next row's place changes by itself, in seconds since 1970."""
        return None if self._next_due is None else due_at(self._next_due)

    # -- changes -----------------------------------------------------------------------------------

    async def route(self, changes: Sequence[Change], batch: Batch) -> Sequence[Intent | Intended]:
        """What buckets and lookups should come to hold because of these changes, in their order."""
        router = self._router
        if isinstance(changes, ForNew) and router.new is not None:
            router = router.new
        if not router.is_joined(changes):
            return router.print(changes, batch.now)
        steps: list[Step] = []
        for change in changes:
            table = router.compiled(change.relation)
            if table is not None and change.kind is Kind.TRUNCATE:
                await batch.add(await self._apply(steps, batch, batch.now))
                steps = []
                await batch.add([Truncated(table.prefix)])
            elif table is not None:
                steps.append(self._step(table, change.old, change.new, batch.now, batch.now))
        return await self._apply(steps, batch, batch.now)

    def written(self, changes: Sequence[Change], now: float) -> list[Written]:
        """What these changes say of clients' writes."""
        return self._router.written(changes, now)

    async def advance(self, batch: Batch, then: float) -> None:
        """Move the rows whose moment came between the time of the batch before and that of this one."""
        upto = due_key(batch.now)
        self._moved_on = "", ""
        while self._next_due is not None and self._next_due <= upto:
            await batch.rest()
            found = await rows(self._connection, _q.read_due, names=self._dues, upto=upto, limit=PAGE)
            steps: dict[tuple[str, str], Step] = {}
            for _, key, value, subkey in found:
                outer = self._outer(value, subkey)
                # It may stand there for several reasons, at several moments: it is moved on once.
                if outer is not None and _is_turn(outer, key, then, batch.now):
                    steps[key, subkey] = self._step(outer.table, outer.row, outer.row, then, batch.now)
            await batch.add(await self._apply(list(steps.values()), batch, then))
            # Whatever became of the rows: these moments are over.
            await batch.add([Leave(*entry) for entry in found])
            await batch.rest()
            await self.open()

    async def withdraw(self, batch: Batch, prefix: str, begun: int) -> None:
        """What one table's rows had been a reason for, at or before an op, they are no longer."""
        if not self._is_used:
            return
        which = {"prefix": prefix, "begun": begun}
        # First the rows themselves: they are gone, or have been put anew, and nothing moves them any more.
        await self._connection.execute(_q.sweep_rows, which)
        lookup = key = after = ""
        while self._joined:
            places = {"lookups": self._joined, "lookup": lookup, "key": key, "after": after, "limit": PAGE}
            found = await rows(self._connection, _q.read_stale, **which, **places)
            if not found:
                break
            lookup, key, _, after = found[-1]
            needs = {(lookup, key) for lookup, key, _, _ in found}
            view = await self._view(needs, needs, {subkey for _, _, _, subkey in found})
            intents: list[Intent] = []
            moved = withdraw([tuple(entry) for entry in found], batch.now, view, intents.append)
            await batch.add(intents)
            await self._spread(moved, view, batch, batch.now)
            await batch.rest()
        await self._connection.execute(_q.sweep_entries, {"op_id": batch.next_op_id(), **which})

    async def _apply(self, steps: list[Step], batch: Batch, then: float) -> list[Intent]:
        """Apply steps one after another; what has been added to the batch meanwhile is not answered."""
        if not steps:
            return []
        await batch.rest()
        rows_of = {
            step.table.subkey(row) for step in steps for row in (step.old, step.new) if row is not None
        }
        view = await self._view(*_needs_of(steps, self._joined), rows_of)
        view.moved_on = self._moved_on
        made: list[Intent] = []
        for step in steps:
            moved = apply(step, view, made.append)
            self._note_due(step)
            if moved:
                await batch.add(made)
                made = []
                await self._spread(moved, view, batch, then)
        self._moved_on = view.moved_on
        return made

    async def _spread(self, moved: Sequence[Moved], view: View, batch: Batch, then: float) -> None:
        """Tell rows that no view holds what has changed under their key."""
        for at, one in enumerate(moved):
            lookup, key = one.need
            after = ""
            while True:
                await batch.rest()
                page = await rows(
                    self._connection, _q.read_page, lookup=OUTER + lookup, key=key, after=after, limit=PAGE
                )
                if not page:
                    break
                after = page[-1][1]
                outers = [outer for value, subkey in page if (outer := self._outer(value, subkey, lookup))]
                await self._read(view, {n for o in outers for n in o.table.needs(o.row)})
                intents: list[Intent] = []
                for outer in outers:
                    shift(outer, at, moved, then, batch.now, view, intents.append)
                await batch.add(intents)

    def _note_due(self, step: Step) -> None:
        if step.new is None:
            return
        for _, at in step.table.dues(step.new, step.now):
            key = due_key(at)
            self._next_due = key if self._next_due is None else min(self._next_due, key)

    def _step(self, table: Compiled, old: Row | None, new: Row | None, then: float, now: float) -> Step:
        def packed(row: Row | None) -> str:
            return "" if row is None else pack_row(row, table.relation).decode()

        is_kept, is_anew = table.is_kept, table.relation.oid in self._router.anew
        old_packed, new_packed = (packed(old), packed(new)) if is_kept else ("", "")
        return Step(table, old, new, then, now, old_packed, new_packed, is_anew)

    # -- what is stored ----------------------------------------------------------------------------

    async def _view(self, needs: set[Need], changing: set[Need], subkeys: Iterable[str]) -> View:
        """What stands under these keys, and of those that change, the rows that look them up.

        `subkeys` are the rows that may become or cease to be a reason while the view is used.
        """
        view = View(subkeys)
        await self._read(view, needs | changing)
        await self._read_outer(view, changing)
        further = {n for outers in view.outer.values() for o in outers.values() for n in o.table.needs(o.row)}
        await self._read(view, further)
        return view

    async def _read(self, view: View, needs: Iterable[Need]) -> None:
        asked = [need for need in needs if need not in view.reasons]
        for need in asked:
            view.reasons[need] = {}
        found = await self._entries(_q.read_entries, asked, subkeys=list(view.changing))
        for lookup, key, value, subkeys, is_all in found:
            view.reasons[lookup, key][value] = {*subkeys, *(() if is_all else (OTHERS,))}

    async def _read_outer(self, view: View, needs: Iterable[Need]) -> None:
        asked = [(OUTER + lookup, key) for lookup, key in needs]
        for need in asked:
            view.outer[need] = {}
        most = min(WIDE, max(_FEW, MOST_HELD // max(1, len(asked))))
        found = await self._entries(_q.read_rows, asked, limit=most + 1)
        counted = Counter((lookup, key) for lookup, key, _, _ in found)
        view.wide = {need for need, count in counted.items() if count > most}
        for lookup, key, value, subkey in found:
            if (lookup, key) not in view.wide:
                outer = self._outer(value, subkey, lookup.removeprefix(OUTER))
                if outer is not None:
                    view.outer[lookup, key][subkey] = outer

    async def _entries(self, query: bytes, asked: Sequence[Need], **more: object) -> list[TupleRow]:
        if not asked:
            return []
        values = {"lookups": [lookup for lookup, _ in asked], "keys": [key for _, key in asked]}
        return await rows(self._connection, query, **values, **more)

    def _outer(self, packed: str, subkey: str, lookup: str | None = None) -> Outer | None:
        """A row as it was entered; None if its table has changed since, for then it is copied again."""
        table = self._router.known(int(subkey.partition("/")[0]))
        row = None if table is None else unpack_row(packed.encode(), table.relation)
        if table is None or row is None:
            return None
        return Outer(table, row) if lookup is None else outer_of(table, row, lookup)


def _is_turn(outer: Outer, key: str, then: float, now: float) -> bool:
    at = outer.table.turn(outer.row, then, now)
    return at is not None and due_key(at) == key


def _needs_of(steps: Iterable[Step], joined: Iterable[str]) -> tuple[set[Need], set[Need]]:
    """The keys under which these changes look something up, and those that they change."""
    brings = frozenset(joined)
    needs: set[Need] = set()
    changing: set[Need] = set()
    for table, old, new, then, now, _, _, _ in steps:
        for row, at in ((old, then), (new, now)):
            if row is not None:
                needs.update(table.needs(row))
                changing.update(
                    (lookup, key) for lookup, key, _ in table.entries(row, at) if lookup in brings
                )
    return needs, changing
