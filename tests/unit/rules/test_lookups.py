"""Lookups, applied change by change, against rules that are evaluated on all rows after each of them."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replicator.rules import keys
from replicator.rules.compile import Need
from replicator.rules.lookups import (
    DUE,
    OTHERS,
    OUTER,
    Moved,
    Outer,
    View,
    apply,
    due_at,
    due_key,
    shift,
    withdraw,
)
from replicator.rules.lookups import Step as Applied
from replicator.rules.model import Put, Remove, Rules
from replicator.rules.route import Enter, Intent, Leave, Router
from replicator.wal.messages import Relation, Row
from replicator.wal.transactions import Change, Kind
from tests.unit.rules.from_scratch import Entry, FromScratch, Place, Shown
from tests.unit.rules.joined import TABLES, World, make_rules, without_at
from tests.unit.rules.plans import read


class Store:
    """What is stored, in memory: buckets, entries, and the rows that entries stand for."""

    def __init__(self, rules: Rules, wide: int, tables: Iterable[Relation] = TABLES) -> None:
        self.router = Router(rules)
        for table in tables:
            self.router.know(table, (0,))
        self.joined = {j.lookup for v in rules.variants() for q in v.data for t in q.terms for j in t.joins}
        self.wide = wide
        self.held: dict[Place, Shown] = {}
        #: By lookup, key and subkey, a row that looks something up: its table and itself.
        self.entries: set[Entry] = set()
        self.rows: dict[tuple[str, str, str], str] = {}
        self.now = 0.0
        self.puts = 0

    def take(self, intents: Iterable[Intent]) -> None:
        for intent in intents:
            match intent:
                case Put(bucket, kind, row_id, subkey, data):
                    self.held[bucket, kind, row_id, subkey] = without_at(json.loads(data))
                    self.puts += 1
                case Remove():
                    self.held.pop(intent[:4], None)
                case Enter(lookup, key, value, subkey) if lookup.startswith(OUTER):
                    assert (lookup, key, subkey) not in self.rows, "entered twice"
                    self.rows[lookup, key, subkey] = value
                case Leave(lookup, key, value, subkey) if lookup.startswith(OUTER):
                    self.rows.pop((lookup, key, subkey), None)
                case Enter():
                    self.entries.add(intent[:4])
                case Leave():
                    self.entries.discard(intent[:4])

    # ── What the storage transaction does ────────────────────────────────────────────────────────

    def change(self, changes: Iterable[Change], now: float) -> None:
        self._advance(now)
        for change in changes:
            table = self.router.compiled(change.relation)
            if table is None:
                continue
            if change.kind is Kind.TRUNCATE:
                self._sweep(table.prefix)
            else:
                self._apply([self._step(change.relation.oid, change.old, change.new, now, now)])

    def change_at_once(self, changes: Iterable[Change], now: float) -> None:
        """The same with one view for all of them; there is no TRUNCATE among them."""
        self._advance(now)
        known = [change for change in changes if self.router.compiled(change.relation) is not None]
        self._apply([self._step(c.relation.oid, c.old, c.new, now, now) for c in known])

    def _advance(self, now: float) -> None:
        then, self.now, self._moved_on = self.now, now, ("", "")
        while due := self._due(now):
            steps = {}
            for key, subkey, lookup in due:
                outer = self._outer(self.rows[lookup, key, subkey])
                turn = outer.table.turn(outer.row, then, now)
                if turn is not None and due_key(turn) == key:
                    oid = outer.table.relation.oid
                    steps[key, subkey] = self._step(oid, outer.row, outer.row, then, now)
            self._apply(list(steps.values()))
            for key, subkey, lookup in due:
                self.rows.pop((lookup, key, subkey), None)

    def _due(self, now: float) -> list[tuple[str, str, str]]:
        """The first two entries whose moment has come."""
        there = [(k, s, lookup) for lookup, k, s in self.rows if lookup.startswith(DUE) and due_at(k) <= now]
        return sorted(there)[:2]

    def _sweep(self, prefix: str) -> None:
        self.held = {place: shown for place, shown in self.held.items() if not place[3].startswith(prefix)}
        self.rows = {place: row for place, row in self.rows.items() if not place[2].startswith(prefix)}
        while True:
            stale = sorted(e for e in self.entries if e[3].startswith(prefix) and e[0] in self.joined)[:3]
            if not stale:
                break
            needs = {(lookup, key) for lookup, key, _, _ in stale}
            view = self._view(needs, needs, {subkey for _, _, _, subkey in stale})
            intents: list[Intent] = []
            moved = withdraw(stale, self.now, view, intents.append)
            self.take(intents)
            self._spread(moved, view, self.now)
        self.entries = {entry for entry in self.entries if not entry[3].startswith(prefix)}

    def _step(self, oid: int, old: Row | None, new: Row | None, then: float, now: float) -> Applied:
        table = self.router.known(oid)
        assert table is not None
        was, becomes = [
            "" if row is None or not table.is_kept else json.dumps([oid, *row]) for row in (old, new)
        ]
        return Applied(table, old, new, then, now, was, becomes)

    def _apply(self, steps: list[Applied]) -> None:
        needs: set[Need] = set()
        changing: set[Need] = set()
        for step in steps:
            for row, at in ((step.old, step.then), (step.new, step.now)):
                if row is not None:
                    needs |= set(step.table.needs(row))
                    changing |= {(e[0], e[1]) for e in step.table.entries(row, at) if e[0] in self.joined}
        rows = {step.table.subkey(row) for step in steps for row in (step.old, step.new) if row is not None}
        view = self._view(needs, changing, rows)
        view.moved_on = self._moved_on
        for step in steps:
            intents: list[Intent] = []
            moved = apply(step, view, intents.append)
            puts = [intent[:4] for intent in intents if isinstance(intent, Put)]
            assert len(set(puts)) == len(puts), "put twice"
            self.take(intents)
            self._spread(moved, view, step.then)
        self._moved_on = view.moved_on

    def _spread(self, moved: list[Moved], view: View, then: float) -> None:
        for at, one in enumerate(moved):
            lookup, key = one.need
            outers = list(self._under(OUTER + lookup, key).values())
            self._read(view, {need for outer in outers for need in outer.table.needs(outer.row)})
            intents: list[Intent] = []
            for outer in outers:
                shift(outer, at, moved, then, self.now, view, intents.append)
            self.take(intents)

    def _view(self, needs: set[Need], changing: set[Need], subkeys: set[str]) -> View:
        view = View(subkeys)
        self._read(view, needs | changing)
        for lookup, key in changing:
            found = self._under(OUTER + lookup, key)
            if len(found) > self.wide:
                view.wide.add((OUTER + lookup, key))
                found = {}
            view.outer[OUTER + lookup, key] = found
        self._read(
            view, {n for outers in view.outer.values() for o in outers.values() for n in o.table.needs(o.row)}
        )
        return view

    def _read(self, view: View, needs: Iterable[Need]) -> None:
        for need in [need for need in needs if need not in view.reasons]:
            view.reasons[need] = {}
            for lookup, key, value, subkey in self.entries:
                if (lookup, key) == need:
                    known = subkey if subkey in view.changing else OTHERS
                    view.reasons[need].setdefault(value, set()).add(known)

    def _under(self, *place: str) -> dict[str, Outer]:
        return {one[2]: self._outer(row) for one, row in self.rows.items() if one[:2] == place}

    def _outer(self, packed: str) -> Outer:
        oid, *row = json.loads(packed)
        table = self.router.known(oid)
        assert table is not None
        return Outer(table, tuple(row))


@settings(max_examples=1000, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([0, 1, 1000]), st.booleans())
def test_after_each_change_buckets_hold_what_the_rules_say(seed: int, wide: int, at_once: bool) -> None:
    chance = random.Random(seed)
    rules, world = make_rules(chance), World(chance)
    store = Store(rules, wide)
    for _ in range(chance.choice((3, 8, 15))):
        step = world.step()
        if at_once and not any(change.kind is Kind.TRUNCATE for change in step.changes):
            store.change_at_once(step.changes, step.now)
        else:
            store.change(step.changes, step.now)
        must = FromScratch(rules, world.known(), step.now)
        assert store.entries == _kept(must.entries)
        assert store.held == {place: without_at(shown) for place, shown in must.held().items()}


def _kept(entries: set[Entry]) -> set[Entry]:
    """As they are stored: values packed the replicator's way."""
    return {(lookup, key, keys.pack(json.loads(value)), subkey) for lookup, key, value, subkey in entries}


@given(st.floats(0, 1e12), st.floats(0, 1e12))
def test_due_keys_sort_as_times_do(one: float, other: float) -> None:
    assert due_at(due_key(one)) == one
    assert (due_key(one) < due_key(other)) == (one < other)


@pytest.mark.parametrize(
    "value",
    [None, 0, -1, 2**63, -(10**30), 0.5, 1e300, float("inf"), float("-inf"), "", 'a\0é"', b"", b"\x00\xff"],
)
def test_what_is_packed_is_unpacked_the_same(value: int | float | str | bytes | None) -> None:
    assert keys.unpack(keys.pack((value, "next"))) == (value, "next")


def test_more_joins_than_python_nests() -> None:
    where = " AND ".join(f"a IN (SELECT id FROM t1 WHERE b = bucket.x AND a != '{n}')" for n in range(40))
    router = Router(read("SELECT request.user_id() AS x", f"SELECT * FROM t0 WHERE {where}"))
    table = router.compiled(TABLES[0])
    assert table is not None
    row = ("1", "k", None, None, None)
    assert len(table.needs(row)) == 40
    assert table.place_joined(row, 0.0, lambda need: [("u",)]) == [('d["u"]', "t0", 0)]
    assert (
        table.place_joined(row, 0.0, lambda need: [("u",), ("v",)] if need == table.needs(row)[0] else [])
        == []
    )
