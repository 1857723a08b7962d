"""A branch → the steps from a request to its buckets, and what makes a row belong to one. No I/O.

The walk starts with what the request says and goes from table to table along the equalities, each step
looking up what the ones before it brought, until it arrives at the rows that are wanted. What these rows'
expressions must equal there are the bucket's parameters.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from replicator.rules.context import Context
from replicator.rules.expression import Call, Column, Expression, Found, Literal
from replicator.rules.model import Each, Find, ForEach, Key, Predicate, Step, Term, When, Window
from replicator.rules.streams.branches import Branch
from replicator.rules.streams.scoped import (
    MEMBER_COLUMNS,
    Condition,
    Members,
    Refusal,
    Table,
    of_one_row,
    origins_of,
    replaced,
)
from replicator.rules.streams.sort import (
    REQUEST,
    Equal,
    Sorted,
    check_ties,
    distances,
    inner,
    is_within,
    predicates,
    sort,
)


class Walked(NamedTuple):
    """What a branch comes to."""

    steps: tuple[Step, ...]
    #: Of the bucket, as the request comes to them; in the same order as the term's.
    values: tuple[Expression, ...]
    term: Term


def walk(branch: Branch, primary: Table, context: Context) -> Walked:
    """How requests and rows come to the buckets that this branch means."""
    done = sort(branch)
    check_ties(done, primary)
    walk = _Walk(done, primary, context)
    walk.go()
    return walk.arrive()


class _Walk:
    def __init__(self, done: Sorted, primary: Table, context: Context) -> None:
        self._done = done
        self._primary = primary
        self._context = context
        self._steps: list[Step] = []
        #: By json_each: the step that goes through its members.
        self._opened: dict[int, int] = {}
        #: What tables have brought.
        self._brought: dict[Expression, Expression] = {}
        self._values: dict[int, Expression] = {}
        #: Which members of equalities need no further look.
        self._settled: set[Expression] = set()
        self._far = distances(done, primary.at)
        self._tables = {table.at: table for table in done.tables if table is not primary}
        self._members = {m.at: m for m in done.members if done.home(m.at) != primary.at}
        #: The origins that the steps so far have been to.
        self._been: set[int] = set()
        #: The tables that can be asked for what is known.
        self._ready: set[int] = set()

    def go(self) -> None:
        """All steps."""
        asked = sorted(self._done.filters.get(REQUEST, ()), key=lambda condition: repr(condition.test))
        self._steps += [When(predicate) for predicate in predicates(asked)]
        for equal in self._done.equals:
            anywhere = [member for member in equal.members if not origins_of(member)]
            self._settle(equal, sorted(anywhere, key=lambda member: not isinstance(member, Literal)))
        about = self._done.about
        while self._tables or self._members:
            members = next((m for at, m in self._members.items() if about[at] <= self._been), None)
            origin = members or self._next_table()
            if isinstance(origin, Members):
                self._open(origin)
            else:
                self._find(origin)
            self._been.add(origin.at)
            for equal in self._done.touching(origin.at):
                self._settle(equal, equal.of(origin.at))

    def _next_table(self) -> Table:
        """One that is asked for what is known; else the one farthest from the goal, as a whole."""
        for at, table in self._tables.items():
            if at in self._ready:
                return table
        return max(self._tables.values(), key=lambda table: self._far.get(table.at, 0))

    def _value(self, equal: Equal) -> Expression | None:
        return self._values.get(id(equal))

    def _known(self, expr: Expression) -> Expression | None:
        """The expression as it can be computed by now."""
        if expr in self._brought:
            return self._brought[expr]
        if origins_of(expr) <= self._opened.keys():
            return replaced(expr, self._found)
        return None

    def _found(self, expr: Expression) -> Expression | None:
        match expr:
            case Column(name, at):
                return Found(self._opened[at], MEMBER_COLUMNS.index(name))
        return None

    def _settle(self, equal: Equal, members: Iterable[Expression]) -> None:
        """Take note of what has become known: the first of its kind is the value, others must equal it."""
        for member in members:
            known = None if member in self._settled else self._known(member)
            if known is None:
                continue
            self._settled.add(member)
            if id(equal) not in self._values:
                self._values[id(equal)] = known
                self._ready.update(map(self._done.owner, equal.origins()))
            elif (value := self._values[id(equal)]) != known:
                self._steps.append(When(equal.predicate(Call("=", (value, known)))))

    def _open(self, members: Members) -> None:
        of = self._known(members.of)
        assert of is not None
        del self._members[members.at]
        self._opened[members.at] = len(self._steps)
        self._steps.append(ForEach(of))
        for condition in self._done.filters.get(members.at, ()):
            test = replaced(condition.test, self._found)
            self._steps.append(When(Predicate(test, condition.text)))

    def _find(self, table: Table) -> None:
        del self._tables[table.at]
        conditions = self._done.filters.get(table.at, [])
        filters = predicates(conditions)
        keys: list[tuple[Key, Expression]] = []
        values: list[Expression] = []
        for equal in self._done.of_table(table):
            self._ask(equal, table, filters, keys, values)
        about = self._done.about
        values += [members.of for at, members in self._members.items() if about[at] == {table.at}]
        values = sorted(dict.fromkeys(values), key=repr)
        keys = sorted(dict.fromkeys(keys), key=repr)
        self._brought |= {value: Found(len(self._steps), i) for i, value in enumerate(values)}
        lookup = self._context.lookup(
            table.name,
            [Predicate(of_one_row(predicate.test), predicate.text) for predicate in _once(filters)],
            [_row_key(key) for key, _ in keys],
            [of_one_row(value) for value in values],
            _windows(conditions),
        )
        self._steps.append(Find(lookup, tuple(value for _, value in keys)))

    def _ask(
        self,
        equal: Equal,
        table: Table,
        filters: list[Predicate],
        keys: list[tuple[Key, Expression]],
        values: list[Expression],
    ) -> None:
        """What an equality is to a table that is looked up: a key, something to bring, or a filter."""
        own, arrays, value = equal.of(table.at), self._done.arrays(equal, table), self._value(equal)
        self._settled.update(own)
        filters += [equal.predicate(test) for test in inner(equal, table.at, arrays)]
        is_inner = is_within(equal, table.at, arrays)
        if isinstance(value, Literal) and not own:
            filters += [equal.predicate(Call("in", (value, array.of))) for array in arrays]
        elif value is not None:
            keys += [(own[0], value)] if own else [(Each(array.of), value) for array in arrays]
        elif own and not is_inner:
            values.append(own[0])
            self._settled.discard(own[0])  # it is what the others will have to equal
        if own or value is not None or is_inner:
            self._settled.update(array.value for array in arrays)
            for array in arrays:
                self._members.pop(array.at, None)

    def arrive(self) -> Walked:
        """What the walk comes to at the rows that are wanted."""
        primary = self._primary
        conditions = self._done.filters.get(primary.at, [])
        filters = predicates(conditions)
        parameters: list[tuple[Expression, Key]] = []
        self._check_arrays()
        for equal in self._done.of_table(primary):
            own, value = equal.of(primary.at), self._value(equal)
            arrays = self._done.arrays(equal, primary)
            filters += [equal.predicate(test) for test in inner(equal, primary.at, arrays)]
            if value is None and not is_within(equal, primary.at, arrays):
                raise Refusal(
                    "more than two arrays of a row cannot be held against each other", arrays[0].place
                )
            if isinstance(value, Literal):
                filters += [equal.predicate(test) for test in _constant(value, own, arrays)]
            elif value is not None:
                parameters += [(value, own[0])] if own else [(value, Each(array.of)) for array in arrays]
        parameters = sorted(dict.fromkeys(parameters), key=repr)
        term = Term(
            tuple(Predicate(of_one_row(predicate.test), predicate.text) for predicate in _once(filters)),
            tuple(_row_key(key) for _, key in parameters),
            windows=_windows(conditions),
        )
        return Walked(tuple(self._steps), tuple(value for value, _ in parameters), term)

    def _check_arrays(self) -> None:
        """Refuse what cannot be said of arrays in the rows themselves."""
        done, at = self._done, self._primary.at
        for members in done.members:
            if done.home(members.at) != at:
                continue
            if done.about[members.at] != {at} or not done.is_used_by_value(members):
                what = "of json_each over a column of the rows that are sent, only value can be used, with ="
                raise Refusal(what, members.place)


def _constant(value: Literal, own: list[Expression], arrays: list[Members]) -> list[Expression]:
    if own:
        return [Call("=", (own[0], value))]
    return [Call("in", (value, array.of)) for array in arrays]


def _once(filters: list[Predicate]) -> list[Predicate]:
    return list({predicate.test: predicate for predicate in reversed(filters)}.values())[::-1]


def _row_key(key: Key) -> Key:
    return Each(of_one_row(key.of)) if isinstance(key, Each) else of_one_row(key)


def _windows(conditions: list[Condition]) -> tuple[Window, ...]:
    windows = [condition.window for condition in conditions if condition.window]
    return tuple(Window(of_one_row(w.moment), w.seconds, w.is_until, w.text) for w in windows)
