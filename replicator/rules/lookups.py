"""Changes × what other rows say → Puts, Removes, and entries of lookups. No I/O.

Where a data query says `record_id IN (SELECT id FROM vital_signs WHERE patient_id = bucket.user_id)`, a row
of its table (the outer one) is in a bucket because of a row of another (an inner one). Two lookups hold the
sides together: the inner rows' entries lead from `id` to `patient_id`, and the outer rows are entered
under the same key, as they are. So a change on either side finds exactly the rows of the other that it
concerns; one inner row is one reason, and an outer row moves when the first comes or the last one goes.

A View holds the part of the lookups that some changes can touch; changes are applied to it one by one, so
that what happens to both sides in one transaction comes out as if it had happened in its order. However many
rows are the reason for one thing, it knows those of them that change, and whether there are others.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from struct import pack, unpack
from typing import NamedTuple

from replicator.rules import keys
from replicator.rules.compile import Compiled, Need, Placed
from replicator.rules.expression import Scalar
from replicator.rules.route import Enter, Intend, Leave, move
from replicator.wal.messages import Row

#: Outer rows are entered under the lookup that brings them somewhere, with this before its name.
OUTER = "@"
#: Stands for every row that is a reason and does not change while a View is used.
OTHERS = ""
#: Rows whose place depends on the time are entered under the time at which it changes, with this before the
#: name of what it changes in: so that whatever comes and goes beside it, these entries are right.
DUE = "@due "


class Outer(NamedTuple):
    """A row that is where it is because of others."""

    table: Compiled
    row: Row
    #: Of which of two sets of rules the table is.
    part: int = 0


def outer_of(table: Compiled, row: Row, lookup: str) -> Outer | None:
    """A row as it looks something up in this lookup; None if those who would have it do so are over.

    Of two sets of rules, only the one whose lookup it is moves it: the other may not have met it yet.
    """
    for part, one in enumerate(table.parts or (table,)):
        if lookup in one.looks_up:
            return Outer(one, row, part)
    return None


class View:
    """What lookups say, as far as some changes need to know, while they are applied."""

    def __init__(self, changing: Iterable[str] = ()) -> None:
        #: The rows that may become or cease to be a reason.
        self.changing = frozenset(changing)
        #: To which values a key leads, and because of which rows; of those that do not change, as OTHERS.
        self.reasons: dict[Need, dict[str, set[str]]] = {}
        #: Which outer rows look a key up, by subkey.
        self.outer: dict[Need, dict[str, Outer]] = {}
        #: Needs with more outer rows than a View should hold: they stay in storage.
        self.wide: set[Need] = set()
        #: While time moves on: the last row that has been moved on with it, in the order of DUE entries.
        self.moved_on: tuple[str, str] = ("", "")

    def known(self, need: Need) -> list[tuple[Scalar, ...]]:
        """The values to which a key leads."""
        return [keys.unpack(value) for value in self.reasons[need]]

    def time_of(self, subkey: str, outer: Outer, then: float, now: float) -> float:
        """The time at which a row is where it is, while rows move from one time to another one by one."""
        if then == now:
            return now
        turn = outer.table.turn(outer.row, then, now)
        is_to_come = turn is not None and (due_key(turn), subkey) > self.moved_on
        return then if is_to_come else now


class Moved(NamedTuple):
    """What a lookup says of one key has changed, and it has more outer rows than a View holds."""

    need: Need
    #: To what it led; the view says to what it leads now.
    before: list[tuple[Scalar, ...]]
    #: The rows, each with its part, to which this has been told already.
    told: frozenset[tuple[str, int]]


def due_key(at: float) -> str:
    """A time as text that sorts as times do, each apart from the next."""
    return pack(">d", max(0.0, at)).hex()


def due_at(key: str) -> float:
    """The time that such a text says."""
    at: float = unpack(">d", bytes.fromhex(key))[0]
    return at


def entries_of(table: Compiled, row: Row | None, now: float, packed: str) -> set[tuple[str, str, str, str]]:
    """Everything that a row is entered under."""
    if row is None:
        return set()
    subkey = table.subkey(row)
    made = {(*entry, subkey) for entry in table.entries(row, now)}
    made |= {(OUTER + lookup, key, packed, subkey) for lookup, key in table.needs(row)}
    return made | {(DUE + owner, due_key(at), packed, subkey) for owner, at in table.dues(row, now)}


def placed(table: Compiled, row: Row | None, now: float, view: View) -> list[Placed]:
    if row is None:
        return []
    return [*table.place(row, now), *table.place_joined(row, now, view.known)]


class Step(NamedTuple):
    """One change of a row as it is applied: as it was at the time before, and as it is now."""

    table: Compiled
    old: Row | None
    new: Row | None
    then: float
    now: float
    #: The rows as `OUTER` and `DUE` entries hold them.
    old_packed: str = ""
    new_packed: str = ""
    #: Whether everything about the row is said, also what has not changed: it may never have been.
    is_anew: bool = False


def apply(step: Step, view: View, intend: Intend) -> list[Moved]:
    """Route one change. Answers what else has to be told to outer rows that the view does not hold."""
    table, old, new, then, now, old_packed, new_packed, is_anew = step
    before = entries_of(table, old, then, old_packed)
    after = entries_of(table, new, now, new_packed)
    own = {table.subkey(row) for row in (old, new) if row is not None}
    come = after if is_anew else after - before
    turn = _Turn(sorted(before - after), sorted(come), own, view, then, now)
    was = placed(table, old, then, view)
    turn.make(None if new is None else Outer(table, new))
    if then != now and old is not None and (at := table.turn(old, then, now)) is not None:
        view.moved_on = due_key(at), table.subkey(old)
    is_same = old == new and not is_anew
    move(table, old, new, was, placed(table, new, now, view), intend, is_same=is_same)
    return turn.tell(intend)


def withdraw(
    entries: Sequence[tuple[str, str, str, str]], now: float, view: View, intend: Intend
) -> list[Moved]:
    """Route the end of entries whose rows are not there any more, whatever those rows were."""
    turn = _Turn(entries, [], set(), view, now, now)
    turn.make()
    return turn.tell(intend)


class _Turn:
    """Entries that go and come at once: where the rows they concern were before, and where they are after."""

    def __init__(
        self,
        gone: Sequence[tuple[str, str, str, str]],
        come: Sequence[tuple[str, str, str, str]],
        own: set[str],
        view: View,
        then: float,
        now: float,
    ) -> None:
        self._gone, self._come, self._view, self._then, self._now = gone, come, view, then, now
        self._own = frozenset(own)
        needs = dict.fromkeys((entry[0], entry[1]) for entry in (*gone, *come))
        self._said = {need: set(view.reasons[need]) for need in needs if need in view.reasons}
        self._concerned = {
            (subkey, outer.part): outer
            for lookup, key in self._said
            for subkey, outer in view.outer.get((OUTER + lookup, key), {}).items()
            if subkey not in own
        }
        self._were = {place: self._placed(place[0], outer) for place, outer in self._concerned.items()}

    def _placed(self, subkey: str, outer: Outer) -> list[Placed]:
        at = self._view.time_of(subkey, outer, self._then, self._now)
        return placed(outer.table, outer.row, at, self._view)

    def make(self, row: Outer | None = None) -> None:
        """Make it so in the view; `row` is the one that the coming entries are made of."""
        view = self._view
        for lookup, key, value, subkey in self._gone:
            reasons = view.reasons.get((lookup, key), {}).get(value)
            if reasons is not None:
                reasons.discard(subkey)
                if not reasons:
                    del view.reasons[lookup, key][value]
            view.outer.get((lookup, key), {}).pop(subkey, None)
        for lookup, key, value, subkey in self._come:
            if (lookup, key) in view.reasons:
                view.reasons[lookup, key].setdefault(value, set()).add(subkey)
            elif (lookup, key) in view.outer and (lookup, key) not in view.wide and row is not None:
                outer = outer_of(row.table, row.row, lookup.removeprefix(OUTER))
                if outer is not None:
                    view.outer[lookup, key][subkey] = outer

    def tell(self, intend: Intend) -> list[Moved]:
        """Move the rows it concerns; answers what is to be told to rows that the view does not hold."""
        view = self._view
        for place, outer in self._concerned.items():
            was, is_now = self._were[place], self._placed(place[0], outer)
            if was != is_now:
                move(outer.table, outer.row, outer.row, was, is_now, intend, is_same=True)
        for entry in self._gone:
            intend(Leave(*entry))
        for entry in self._come:
            intend(Enter(*entry))
        told = {(subkey, part) for subkey in self._own for part in (0, 1)} | self._concerned.keys()
        return [
            Moved(need, [keys.unpack(value) for value in said], frozenset(told))
            for need, said in self._said.items()
            if (OUTER + need[0], need[1]) in view.wide and said != set(view.reasons[need])
        ]


def shift(
    outer: Outer, at: int, moved: Sequence[Moved], then: float, now: float, view: View, intend: Intend
) -> None:
    """Move one outer row that the view did not hold, because of what has changed under one of some keys.

    They have changed at once and are told one after another: to this row as well, those told before have
    changed already, and those that follow have not.
    """
    table, row, part = outer
    subkey = table.subkey(row)
    if (subkey, part) in moved[at].told:
        return
    time = view.time_of(subkey, outer, then, now)
    was = _placed_before(outer, moved[at:], time, view)
    is_now = _placed_before(outer, moved[at + 1 :], time, view)
    if was != is_now:
        move(table, row, row, was, is_now, intend, is_same=True)


def _placed_before(outer: Outer, moved: Sequence[Moved], time: float, view: View) -> list[Placed]:
    """Where a row is if some keys still lead to what they did."""
    before = {one.need: one.before for one in moved}

    def known(need: Need) -> list[tuple[Scalar, ...]]:
        found = before.get(need)
        return view.known(need) if found is None else found

    return [*outer.table.place(outer.row, time), *outer.table.place_joined(outer.row, time, known)]
