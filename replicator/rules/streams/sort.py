"""A branch → what each origin must fulfil by itself, and which expressions are equal. No I/O.

Equality is carried on: of a = b and b = c follows a = c, so that a table is asked for what is already
known, and not for everything it has.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import count

from replicator.rules.expression import Call, Expression, Literal
from replicator.rules.model import Predicate, Window
from replicator.rules.streams.branches import Branch
from replicator.rules.streams.scoped import Condition, Members, Origin, Refusal, Table, origins_of, parties

#: What is known of the request, and constants, are at home here; no origin has this number.
REQUEST = -1
_MIXED = "only = can stand between two tables, or a table and the request, with each side about one of them"


@dataclass(slots=True, eq=False)
class Equal:
    """Expressions that must all have the same value."""

    members: list[Expression]
    #: One of the conditions that say so.
    text: str
    #: The members about each origin, once all are there.
    _of: dict[int, list[Expression]] = field(default_factory=dict)

    def index(self) -> None:
        """No more members come."""
        for member in self.members:
            for at in origins_of(member):
                self._of.setdefault(at, []).append(member)

    def of(self, at: int) -> list[Expression]:
        """Those about one origin."""
        return self._of.get(at, [])

    def origins(self) -> Iterable[int]:
        return self._of

    def predicate(self, test: Expression) -> Predicate:
        return Predicate(test, self.text)


class Sorted:
    """A branch, sorted. What is asked of it again and again, for every step of a walk, is known by origin."""

    def __init__(self, origins: tuple[Origin, ...]) -> None:
        #: By origin; under REQUEST what only the request decides.
        self.filters: dict[int, list[Condition]] = {}
        self.equals: list[Equal] = []
        self.tables = [origin for origin in origins if isinstance(origin, Table)]
        self.members = [origin for origin in origins if isinstance(origin, Members)]
        #: By json_each: the origins that its array is about.
        self.about = {members.at: origins_of(members.of) for members in self.members}
        self._within = frozenset[int]().union(*self.about.values())
        self._arrays: dict[int, list[Members]] = {}
        self._owners: dict[int, int] = {}
        self._touching: dict[int, list[Equal]] = {}

    def index(self) -> None:
        """No more conditions come."""
        for equal in self.equals:
            equal.index()
            for at in equal.origins():
                self._touching.setdefault(at, []).append(equal)
        for members in self.members:
            if len(self.about[members.at]) == 1 and self.is_used_by_value(members):
                self._owners[members.at] = next(iter(self.about[members.at]))
                self._arrays.setdefault(self._owners[members.at], []).append(members)

    def touching(self, at: int) -> list[Equal]:
        """The equalities that say something about this origin itself."""
        return self._touching.get(at, [])

    def arrays(self, equal: Equal, table: Table) -> list[Members]:
        """The arrays in the table's rows of which the equality demands a member, and nothing else does."""
        return [members for members in self._arrays.get(table.at, ()) if equal.of(members.at)]

    def owner(self, at: int) -> int:
        """The table of which an equality about this origin is one: its own, or that of its array."""
        return self._owners.get(at, at)

    def of_table(self, table: Table) -> list[Equal]:
        """The equalities about the table's rows, or about members of their arrays; in order."""
        arrays = self._arrays.get(table.at)
        if not arrays:
            return self.touching(table.at)
        ats = [table.at, *(members.at for members in arrays)]
        found = {id(equal) for at in ats for equal in self.touching(at)}
        return [equal for equal in self.equals if id(equal) in found]

    def home(self, at: int) -> int:
        """The table, through however many json_each, or REQUEST."""
        while at in self.about:
            at = next(iter(self.about[at]), REQUEST)
        return at

    def homes(self, equal: Equal) -> set[int]:
        homes = {self.home(at) for at in equal.origins()}
        return homes if all(map(origins_of, equal.members)) else homes | {REQUEST}

    def is_used(self, members: Members) -> bool:
        """Whether anything is demanded of the members, or looks into them."""
        return members.at in self._touching or members.at in self.filters or members.at in self._within

    def is_used_by_value(self, members: Members) -> bool:
        """Whether all that is demanded of the members is that the value of one equals something."""
        uses = [expr for equal in self.touching(members.at) for expr in equal.of(members.at)]
        return uses == [members.value] and members.at not in self.filters and members.at not in self._within


def sort(branch: Branch) -> Sorted:
    """Refusal for what is about several things and no equality, and for what nothing ties to the rest."""
    sorting = _Sorting(branch.origins)
    for condition in branch.conditions:
        sorting.place(condition)
    done = sorting.done
    done.equals = list(sorting.equals.values())
    done.index()
    for members in done.members:
        if parties(members.of) > 1:
            raise Refusal("json_each is of one table's column, or of the request", members.place)
    return done


class _Sorting:
    """Puts each condition where it belongs."""

    def __init__(self, origins: tuple[Origin, ...]) -> None:
        self.done = Sorted(origins)
        #: By number, in order of their beginning.
        self.equals: dict[int, Equal] = {}
        self._numbers = count()
        #: By expression: the equality that it is a member of.
        self._in: dict[Expression, int] = {}
        self._placed: set[tuple[int, Expression, Window | None]] = set()

    def place(self, condition: Condition) -> None:
        sides = condition.sides
        if sides and sides[0] == sides[1]:  # holds unless it is NULL
            condition = replace(condition, test=Call("is not null", sides[:1]), is_tie=False)
            sides = None
        members = self.done.about.keys()
        several = parties(condition.test) > 1
        is_of_member = sides is not None and any(isinstance(side, Literal) for side in sides)
        about = origins_of(condition.test)
        is_of_member = is_of_member and bool(about) and about <= members and not several
        if sides and (condition.is_tie or several or is_of_member):
            if max(parties(side) for side in sides) > 1:
                raise Refusal(_MIXED, condition.place)
            self._unite(sides, condition.text)
            return
        if several:
            raise Refusal(_MIXED, condition.place)
        if isinstance(condition.test, Literal) and condition.test.value in (1, True):
            return
        at = next(iter(about), REQUEST)
        if condition.window and (at in members or at == REQUEST):
            raise Refusal("now() is compared with a column of a table", condition.place)
        if (at, condition.test, condition.window) not in self._placed:
            self._placed.add((at, condition.test, condition.window))
            self.done.filters.setdefault(at, []).append(condition)

    def _unite(self, sides: Sequence[Expression], text: str) -> None:
        touched = sorted({self._in[side] for side in sides if side in self._in})
        if not touched:
            touched = [next(self._numbers)]
            self.equals[touched[0]] = Equal([], text)
        first, *others = touched
        members = self.equals[first].members
        for other in others:
            more = self.equals.pop(other).members
            members += more
            self._in |= dict.fromkeys(more, first)
        for side in sides:
            if side not in self._in:
                members.append(side)
                self._in[side] = first


def distances(done: Sorted, start: int) -> dict[int, int]:
    """How many equalities away from there each home is, as far as it can be reached."""
    neighbours: dict[int, list[set[int]]] = {}
    for equal in done.equals:
        homes = done.homes(equal)
        for home in homes:
            neighbours.setdefault(home, []).append(homes)
    found, edge = {start: 0}, deque([start])
    while edge:
        here = edge.popleft()
        # What an equality leads to is found from the first of its homes, and never again.
        for homes in neighbours.get(here, ()):
            for home in homes:
                if home not in found:
                    found[home] = found[here] + 1
                    edge.append(home)
            homes.clear()
    return found


def check_ties(done: Sorted, primary: Table) -> None:
    """Refusal if something stands by itself: its rows would multiply everything."""
    near = distances(done, primary.at).keys() | distances(done, REQUEST).keys()
    for table in done.tables:
        if table.at not in near:
            what = f"nothing ties {table} to the other tables or to the request"
            raise Refusal(f"{what}: a condition such as {table}.x = … is missing", table.place)
    for members in done.members:
        if not done.is_used(members):
            what = "nothing is demanded of the members of json_each"
            raise Refusal(f"{what}: a condition such as x = value is missing", members.place)


def predicates(conditions: Iterable[Condition]) -> list[Predicate]:
    return [Predicate(condition.test, condition.text) for condition in conditions if not condition.window]


def inner(equal: Equal, at: int, arrays: list[Members]) -> list[Expression]:
    """What the equality demands within one row: of its own expressions, and of these arrays of it."""
    own = equal.of(at)
    tests: list[Expression] = [Call("=", (own[0], other)) for other in own[1:]]
    if own:
        tests += [Call("in", (own[0], array.of)) for array in arrays]
    elif is_within(equal, at, arrays):
        one, other = arrays
        tests.append(Call("&&", (one.of, other.of)))
    return tests


def is_within(equal: Equal, at: int, arrays: list[Members]) -> bool:
    """Whether one row decides all of it: its own expressions, and a member of each of these arrays."""
    own = equal.of(at)
    known = {*own, *(array.value for array in arrays)}
    return known >= set(equal.members) and (bool(own) or len(arrays) == 2)
