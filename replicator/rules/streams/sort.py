"""A branch → what each origin must fulfil by itself, and which expressions are equal. No I/O.

Equality is carried on: of a = b and b = c follows a = c, so that a table is asked for what is already
known, and not for everything it has.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from replicator.rules.expression import Call, Expression, Literal
from replicator.rules.model import Predicate
from replicator.rules.streams.branches import Branch
from replicator.rules.streams.scoped import Condition, Members, Origin, Refusal, Table, origins_of, parties

#: What is known of the request, and constants, are at home here; no origin has this number.
REQUEST = -1
_MIXED = "only = can stand between two tables, or a table and the request, with each side about one of them"


@dataclass(slots=True)
class Equal:
    """Expressions that must all have the same value."""

    members: list[Expression]
    #: One of the conditions that say so.
    text: str

    def of(self, at: int) -> list[Expression]:
        """Those about one origin."""
        return [member for member in self.members if at in origins_of(member)]

    def predicate(self, test: Expression) -> Predicate:
        return Predicate(test, self.text)


@dataclass(slots=True)
class Sorted:
    """A branch, sorted."""

    origins: tuple[Origin, ...]
    #: By origin; under REQUEST what only the request decides.
    filters: dict[int, list[Condition]] = field(default_factory=dict)
    equals: list[Equal] = field(default_factory=list)

    def tables(self) -> list[Table]:
        return [origin for origin in self.origins if isinstance(origin, Table)]

    def members(self) -> list[Members]:
        return [origin for origin in self.origins if isinstance(origin, Members)]

    def home(self, expr: Expression) -> int:
        """The table, through however many json_each, or REQUEST."""
        for at in origins_of(expr):
            origin = next(origin for origin in self.origins if origin.at == at)
            return self.home(origin.of) if isinstance(origin, Members) else at
        return REQUEST

    def homes(self, equal: Equal) -> set[int]:
        return {self.home(member) for member in equal.members}

    def is_used_by_value(self, members: Members) -> bool:
        """Whether all that is demanded of the members is that the value of one equals something."""
        uses = [expr for equal in self.equals for expr in equal.of(members.at)]
        nested = any(members.at in origins_of(other.of) for other in self.members())
        return uses == [members.value] and members.at not in self.filters and not nested


def sort(branch: Branch) -> Sorted:
    """Refusal for what is about several things and no equality, and for what nothing ties to the rest."""
    done = Sorted(branch.origins)
    for condition in branch.conditions:
        _place(done, condition)
    for members in done.members():
        if parties(members.of) > 1:
            raise Refusal("json_each is of one table's column, or of the request", members.place)
    return done


def _place(done: Sorted, condition: Condition) -> None:
    sides = condition.sides
    if sides and sides[0] == sides[1]:  # holds unless it is NULL
        condition = replace(condition, test=Call("is not null", sides[:1]), is_tie=False)
        sides = None
    members = {origin.at for origin in done.members()}
    is_of_member = sides is not None and any(isinstance(side, Literal) for side in sides)
    about = origins_of(condition.test)
    is_of_member = is_of_member and bool(about) and about <= members and parties(condition.test) == 1
    if sides and (condition.is_tie or parties(condition.test) > 1 or is_of_member):
        if max(parties(side) for side in sides) > 1:
            raise Refusal(_MIXED, condition.place)
        _unite(done.equals, sides, condition.text)
        return
    if parties(condition.test) > 1:
        raise Refusal(_MIXED, condition.place)
    if isinstance(condition.test, Literal) and condition.test.value in (1, True):
        return
    at = next(iter(origins_of(condition.test)), REQUEST)
    if condition.window and at in members | {REQUEST}:
        raise Refusal("now() is compared with a column of a table", condition.place)
    known = done.filters.setdefault(at, [])
    if all(other.test != condition.test or other.window != condition.window for other in known):
        known.append(condition)


def _unite(equals: list[Equal], sides: Sequence[Expression], text: str) -> None:
    touched = [equal for equal in equals if not set(equal.members).isdisjoint(sides)]
    if not touched:
        equals.append(Equal(list(dict.fromkeys(sides)), text))
        return
    first, *others = touched
    more = [member for other in others for member in other.members]
    first.members = list(dict.fromkeys([*first.members, *more, *sides]))
    for other in others:
        equals.remove(other)


def distances(done: Sorted, start: int) -> dict[int, int]:
    """How many equalities away from there each home is, as far as it can be reached."""
    found = {start: 0}
    edge = [start]
    while edge:
        here = edge.pop(0)
        for equal in done.equals:
            homes = done.homes(equal)
            for home in sorted(homes - found.keys()) if here in homes else ():
                found[home] = found[here] + 1
                edge.append(home)
    return found


def check_ties(done: Sorted, primary: Table) -> None:
    """Refusal if something stands by itself: its rows would multiply everything."""
    near = distances(done, primary.at).keys() | distances(done, REQUEST).keys()
    for table in done.tables():
        if table.at not in near:
            what = f"nothing ties {table} to the other tables or to the request"
            raise Refusal(f"{what}: a condition such as {table}.x = … is missing", table.place)
    for members in done.members():
        is_used = any(equal.of(members.at) for equal in done.equals) or members.at in done.filters
        if not is_used and not any(members.at in origins_of(other.of) for other in done.members()):
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
