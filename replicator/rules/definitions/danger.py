"""A parameter query → whether the verified token decides which rows it leads to. No I/O.

A client can send anything, and everybody's token names somebody. So where what a client sends decides, a
token that is merely mentioned protects nothing: `coalesce(request.parameter('x'), request.user_id())` is what
the client wants it to be, and `request.user_id() IS NOT NULL` holds for everybody. What protects is an
equality, or a membership, between a value that comes of the token alone and a row's: a key under which a
lookup is asked, or a value of the bucket's name, which the rows in it must have.

A comparison of the token with a constant (`request.jwt() ->> 'role' = 'admin'`) is a gate. It says who may
ask, and not which rows they may have: whoever is let in gets what they ask for.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum

from replicator.rules.definitions.gates import ORDERED, apart, is_claim, is_of_every_token, says, within
from replicator.rules.definitions.requests import VERIFIED
from replicator.rules.expression import Call, Expression, Found, Literal, Request
from replicator.rules.model import Each, Find, ForEach, Key, ParameterQuery, When
from replicator.rules.sql.reader import dependencies

CLIENT = frozenset({"parameters", "subscription"})

#: What these answer says little of what they were asked about, and often the same of everybody.
_LOSSY = frozenset(
    {"=", "!=", "<", "<=", ">", ">=", "in", "in list", "between", "like", "ilike", "&&", "and", "or", "not"}
    | {"is null", "is not null", "is true", "is false", "is not true", "is not false", "is distinct"}
    | {"is not distinct", "typeof", "length", "instr", "json_valid", "json_array_length", "json_keys"}
)


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


def bond_of(query: ParameterQuery) -> Bond:
    """How the buckets of this query depend on the token."""
    parts = list(_parts(query))
    asked = frozenset().union(*(dependencies(part).requests for part in parts))
    if not asked & CLIENT:
        return Bond.BOUND
    known = _Known(query)
    if any(known.of(value) is _TOKEN for value in query.values):
        return Bond.BOUND
    if known.has_gate:
        return Bond.GATED if any(known.of(value) is _CLIENT for value in query.values) else Bond.BOUND
    return Bond.MENTIONED if asked & VERIFIED else Bond.OPEN


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
    TOKEN = 1
    CLIENT = 2


_NOBODY, _TOKEN, _CLIENT = _From


class _Known:
    """What is known of the values of a query, as all its conditions hold."""

    def __init__(self, query: ParameterQuery) -> None:
        self._steps = query.steps
        #: What must equal a value of the token, and so is as good as one.
        self._same: set[Expression] = set()
        #: The lookups that have been asked for rows with a value of the token.
        self._bound: set[int] = set()
        self._tests = [test for step in query.steps if isinstance(step, When) for test in _all(step)]
        while self._learn():
            pass

    @property
    def has_gate(self) -> bool:
        """Whether the token decides who may ask: by a constant, or by rows."""
        return bool(self._bound) or any(self._is_gate(test) for test in self._tests)

    def _learn(self) -> bool:
        """Whether something more has become known."""
        before = len(self._same), len(self._bound)
        for test in self._tests:
            self._take(test)
        for at, step in enumerate(self._steps):
            if not isinstance(step, Find):
                continue
            if at in self._bound or any(self.of(_of(key)) is _TOKEN for key in step.keys):
                self._bound.add(at)
                # A row that is the token's has these values; of an array, it has some member.
                for key in step.keys:
                    self._equate(key)
        return before != (len(self._same), len(self._bound))

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
            if self.of(other) is _TOKEN:
                self._equate(one)

    def _equate(self, key: Key) -> None:
        """This equals a value of the token; of a row that was looked up, so it is the token's."""
        if isinstance(key, Each | Literal):
            return
        self._same.add(key)
        if isinstance(key, Found) and isinstance(self._steps[key.step], Find):
            self._bound.add(key.step)

    def of(self, expr: Expression) -> _From:
        """What decides about the value of an expression."""
        if expr in self._same:
            return _TOKEN
        match expr:
            case Request(what):
                return _CLIENT if what in CLIENT else _TOKEN
            case Found(step, _):
                return self._of_step(step)
            case Call(name, args):
                found = [self.of(arg) for arg in args]
                if _CLIENT in found:
                    return _CLIENT
                if name == "case":
                    found = [*found[1:-1:2], found[-1]]
                return _TOKEN if _TOKEN in found and name not in _LOSSY else _NOBODY
        return _NOBODY

    def _of_step(self, at: int) -> _From:
        step = self._steps[at]
        if at in self._bound:
            return _TOKEN
        match step:
            case ForEach(of):
                return self.of(of)
            case Find(_, keys) if any(self.of(_of(key)) is _CLIENT for key in keys):
                return _CLIENT
        return _NOBODY

    def _is_gate(self, test: Expression) -> bool:
        """Whether a condition lets in only those of whom a token says something that it need not say."""
        match test:
            case Call("or", args):
                return all(self._is_gate(arg) for arg in args)
            case Call("and", args):
                return any(self._is_gate(arg) for arg in args)
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
        return self.of(value) is _TOKEN and not is_default and not is_of_every_token(value)


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
