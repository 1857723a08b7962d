"""The words of a flat query: names are resolved, and subqueries dissolved. No I/O.

A subquery that a row must be IN asks whether rows of other tables exist, and so does a join, because a row
is in a bucket once however often it is found. So a query comes to a flat thing: what it reads (Origins),
and one formula over all of it. Origins are told apart by their number, which is `Column.table`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from replicator.rules.expression import Call, Column, Expression, Metadata, Request
from replicator.rules.model import TableName, Window
from replicator.rules.sql.reader import dependencies
from replicator.rules.sql.statement import Statement


class Place(NamedTuple):
    """Where something stands: at this byte of this statement."""

    statement: Statement
    location: int


class Refusal(Exception):
    """What stands at the place is not part of the language; `what` also names the nearest form that is."""

    def __init__(self, what: str, place: Place) -> None:
        super().__init__(what)
        self.what = what
        self.place = place

    def note(self) -> None:
        """Add it to the problems of the file."""
        self.place.statement.refuse(self.what, self.place.location)


@dataclass(frozen=True, slots=True)
class Table:
    """The rows of a table, as one FROM reads them."""

    at: int
    name: TableName
    alias: str | None
    place: Place

    def __str__(self) -> str:
        return self.alias or self.name.name


@dataclass(frozen=True, slots=True)
class Members:
    """The members of a JSON array or object: `json_each(of)`, with the columns `key` and `value`."""

    at: int
    of: Expression
    place: Place

    @property
    def value(self) -> Column:
        return Column("value", self.at)

    def __str__(self) -> str:
        return "json_each"


Origin = Table | Members

#: The place of `key` and of `value` among what a member brings.
MEMBER_COLUMNS = ("key", "value")


@dataclass(frozen=True, slots=True)
class Condition:
    """Something that must hold."""

    test: Expression
    #: As it is written in the rules.
    text: str
    place: Place
    #: Whether it ties a subquery to what it is asked about: both sides stand for something outside the
    #: other one's rows then, even if one is a constant.
    is_tie: bool = False
    #: If it depends on the time; the test is then only the moment it is about.
    window: Window | None = None

    @property
    def sides(self) -> tuple[Expression, Expression] | None:
        """Both sides, if it is an equality."""
        match self.test:
            case Call("=", (left, right)) if self.window is None:
                return left, right
        return None


@dataclass(frozen=True, slots=True)
class Every:
    """All of these must hold."""

    parts: tuple[Formula, ...]


@dataclass(frozen=True, slots=True)
class Either:
    """One of these must hold."""

    parts: tuple[Formula, ...]


@dataclass(frozen=True, slots=True)
class Some:
    """There must be rows of these origins for which it holds."""

    origins: tuple[Origin, ...]
    formula: Formula


Formula = Condition | Every | Either | Some


class Selected(NamedTuple):
    """One result column."""

    #: Empty if it has no name.
    name: str
    #: None: `*`, of the origins that FROM names so, or of all.
    value: Expression | None
    location: int
    star_of: int | None = None


class Flat(NamedTuple):
    """A SELECT without its subqueries."""

    statement: Statement
    #: What FROM names directly, in order; None for a subquery there.
    named: tuple[Origin | None, ...]
    #: All of what FROM reads.
    origins: tuple[Origin, ...]
    formula: Formula
    columns: tuple[Selected, ...]


@lru_cache(maxsize=1 << 14)
def origins_of(expr: Expression) -> frozenset[int]:
    """The numbers of the origins that it is about."""
    return dependencies(expr).tables


def parties(expr: Expression) -> int:
    """How many things that are unknown to each other it is about: origins, and the request."""
    known = dependencies(expr)
    return len(known.tables) + bool(known.requests)


def replaced(expr: Expression, leaf: Callable[[Expression], Expression | None]) -> Expression:
    """The expression with other leaves, where `leaf` has another one for what stands there."""
    if (other := leaf(expr)) is not None:
        return other
    if isinstance(expr, Call):
        return Call(expr.name, tuple(replaced(arg, leaf) for arg in expr.args))
    return expr


def of_one_row(expr: Expression) -> Expression:
    """The expression as one about a single row, whatever its table's number was among others."""

    def leaf(part: Expression) -> Expression | None:
        match part:
            case Column(name, _):
                return Column(name)
            case Metadata(what, _):
                return Metadata(what)
        return None

    return replaced(expr, leaf)


USER = Request("user_id")
JWT = Request("jwt")
CONNECTION = Request("parameters")
SUBSCRIPTION = Request("subscription")
