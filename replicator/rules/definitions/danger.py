"""A parameter query → whether the verified token decides which rows it leads to. No I/O.

A client can send anything, and everybody's token names somebody. So where what a client sends decides, a
token that is merely mentioned protects nothing: `coalesce(request.parameter('x'), request.user_id())` is what
the client wants it to be, and `request.user_id() IS NOT NULL` holds for everybody. What protects is an
equality, or a membership, between a value that comes of the token alone and a row's: a key under which a
lookup is asked, or a value of the bucket's name, which the rows in it must have.

A comparison of the token with a constant (`request.jwt() ->> 'role' = 'admin'`) is a gate. It says who may
ask, and not which rows they may have: whoever is let in gets what they ask for. It is one wherever it stands,
also as `bucket.role = 'admin'` among the conditions on rows. What many tokens say alike, a role, comes to no
more than that where a row must have it; and what every token says (`aud`) comes to nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from enum import IntEnum

from replicator.rules.compute.jsontext import members
from replicator.rules.compute.scalars import EvaluationError
from replicator.rules.definitions.gates import (
    ORDERED,
    apart,
    is_claim,
    is_of_every_token,
    is_role,
    says,
    within,
)
from replicator.rules.definitions.narrowing import LOSSY, Held, held, results_of
from replicator.rules.definitions.requests import VERIFIED
from replicator.rules.expression import Call, Expression, Found, Literal, Request
from replicator.rules.model import (
    DataQuery,
    Each,
    Find,
    ForEach,
    Key,
    Lookup,
    ParameterQuery,
    Predicate,
    Step,
    When,
)
from replicator.rules.sql.reader import dependencies

CLIENT = frozenset({"parameters", "subscription"})


class Bond(IntEnum):
    """How a query depends on the token; the first two need a word of their own where clients are asked."""

    #: What a client sends decides, and nothing of the token is even mentioned.
    OPEN = 0
    #: The token is mentioned, and decides nothing.
    MENTIONED = 1
    #: The token decides who may ask; what a client sends, which rows there are.
    GATED = 2
    #: The token decides which rows there are, or what a client sends does not.
    BOUND = 3


OPEN = {
    Bond.OPEN: "these buckets depend only on what a client sends, and a client can send anything",
    Bond.MENTIONED: (
        "these buckets depend only on what a client sends, and a client can send anything: the token is "
        "mentioned, and does not decide which rows there are"
    ),
}
GATED = (
    "whoever the token lets in gets whichever of these rows they ask for; if that is not meant, compare a "
    "column of the rows with the token"
)


def bond_of(
    query: ParameterQuery, data: Iterable[DataQuery] = (), lookups: Mapping[str, Lookup] | None = None
) -> Bond:
    """How the buckets of this query depend on the token; each way into them counts.

    Without data queries it is what they could make of it: every value may be what rows must have.
    """
    asked = frozenset().union(*(dependencies(part).requests for part in _parts(query)))
    if not asked & CLIENT:
        return Bond.BOUND
    ways = list(held(data, lookups or {})) or [Held(frozenset(range(len(query.values))))]
    least = Bond.MENTIONED if asked & VERIFIED else Bond.OPEN
    return min(_bond(query, way, least) for way in ways)


def _bond(query: ParameterQuery, way: Held, least: Bond) -> Bond:
    tests = [constant.test(query.values[constant.at]) for constant in way.constants]
    known = _Known((*query.steps, *(When(Predicate(test, "")) for test in tests)))
    narrowing = {known.of(query.values[at]) for at in way.narrowing}
    if _TOKEN in narrowing:
        return Bond.BOUND
    about = narrowing | {known.of(query.values[at]) for at in way.elsewhere}
    if known.has_gate or about & {_GROUP, _TOKEN}:
        return Bond.GATED if _CLIENT in narrowing else Bond.BOUND
    return least


def _parts(query: ParameterQuery) -> Iterator[Expression]:
    for step in query.steps:
        match step:
            case When(condition):
                yield condition.test
            case ForEach(of):
                yield of
            case Find(_, keys):
                yield from map(_of, keys)
    yield from query.values


def _of(key: Key) -> Expression:
    return key.of if isinstance(key, Each) else key


class _From(IntEnum):
    """What decides about a value."""

    #: Nobody who asks: it is a constant, or of rows that are the same for all.
    NOBODY = 0
    #: What many tokens say alike.
    GROUP = 1
    TOKEN = 2
    CLIENT = 3


_NOBODY, _GROUP, _TOKEN, _CLIENT = _From


class _Known:
    """What is known of the values of a query, as all its conditions hold."""

    def __init__(self, steps: tuple[Step, ...]) -> None:
        self._steps = steps
        #: What must equal a value of the token, and so is as good as one.
        self._same: dict[Expression, _From] = {}
        #: The lookups that have been asked for rows with a value of the token.
        self._bound: dict[int, _From] = {}
        self._tests = [test for step in steps if isinstance(step, When) for test in _all(step)]
        while self._learn():
            pass

    @property
    def has_gate(self) -> bool:
        """Whether the token decides who may ask: by a constant, or by rows."""
        return bool(self._bound) or any(self._is_gate(test) for test in self._tests)

    def _learn(self) -> bool:
        """Whether something more has become known."""
        before = dict(self._same), dict(self._bound)
        for test in self._tests:
            self._take(test)
        for at, step in enumerate(self._steps):
            if isinstance(step, Find):
                self._look(at, step)
        return before != (self._same, self._bound)

    def _take(self, test: Expression) -> None:
        match test:
            case Call("=" | "is not distinct", (left, right)):
                pairs = [(left, right), (right, left)]
            case Call("in", (member, array)):
                pairs = [(member, array)]
            case Call("in list", (one, other)):
                pairs = [(one, other), (other, one)]
            case _:
                return
        for one, other in pairs:
            if (whose := self.of(other)) in (_GROUP, _TOKEN):
                self._equate(one, whose)

    def _look(self, at: int, step: Find) -> None:
        asked = {self.of(_of(key)) for key in step.keys} | {self._bound.get(at, _NOBODY)}
        if _TOKEN in asked:
            self._bound[at] = _TOKEN
            # A row that is the token's has these values; of an array, it has some member.
            for key in step.keys:
                self._equate(key, _TOKEN)
        elif _GROUP in asked:
            self._bound[at] = _GROUP

    def _equate(self, key: Key, whose: _From) -> None:
        """This equals a value of the token; of a row that was looked up, so it is the token's."""
        if isinstance(key, Each | Literal) or (whose is _GROUP and self.of(key) is _TOKEN):
            return
        self._same[key] = whose
        if isinstance(key, Found) and isinstance(self._steps[key.step], Find):
            self._bound[key.step] = max(whose, self._bound.get(key.step, _NOBODY))

    def of(self, expr: Expression) -> _From:
        """What decides about the value of an expression."""
        if expr in self._same:
            return self._same[expr]
        if is_of_every_token(expr):
            return _NOBODY
        if is_role(expr):
            return _GROUP
        match expr:
            case Request(what):
                return _CLIENT if what in CLIENT else _TOKEN
            case Found(step, _):
                return self._of_step(step)
            case Call(name, args):
                if any(self.of(arg) is _CLIENT for arg in args):
                    return _CLIENT
                return _NOBODY if name in LOSSY else max(map(self.of, results_of(expr)), default=_NOBODY)
        return _NOBODY

    def _of_step(self, at: int) -> _From:
        """A row that a group's token and a client ask for together is the client's choice."""
        step, bound = self._steps[at], self._bound.get(at, _NOBODY)
        if bound is _TOKEN:
            return _TOKEN
        match step:
            case ForEach(of):
                return self.of(of)
            case Find(_, keys) if any(self.of(_of(key)) is _CLIENT for key in keys):
                return _CLIENT
        return bound

    def _is_gate(self, test: Expression) -> bool:
        """Whether a condition lets in only those of whom a token says something that it need not say."""
        match test:
            case Call("or", args):
                return all(self._is_gate(arg) for arg in args)
            case Call("and", args):
                return any(self._is_gate(arg) for arg in args)
            case Call("in", (one, Literal(str() as array))):
                return self._is_gate(Call("in list", (one, *_members(array))))
            case Call("=" | "is not distinct" | "in" | "in list" | "&&", (one, *others)):
                values, constants = apart((one, *others))
                return bool(values and constants) and all(self._tells(one, constants) for one in values)
            case Call(name, (one, *others)) if name in ORDERED:
                values, constants = apart((one, *others))
                return values == [one] and all(map(says, constants)) and is_claim(one)
            case Call("is true", (one,)):
                return is_claim(one)
        return is_claim(test)

    def _tells(self, value: Expression, constants: list[Literal]) -> bool:
        """Whether some tokens come to these constants, and others do not."""
        is_default = any(part in constants for part in within(value))
        return self.of(value) in (_GROUP, _TOKEN) and not is_default and not is_of_every_token(value)


def _members(array: str) -> list[Literal]:
    try:
        return [Literal(member) for member in members(array)]
    except EvaluationError:
        return []


def _all(step: When) -> list[Expression]:
    """The conditions of a step that must all hold."""
    tests, unseen = [], [step.condition.test]
    while unseen:
        match unseen.pop():
            case Call("and", args):
                unseen += args
            case test:
                tests.append(test)
    return tests
