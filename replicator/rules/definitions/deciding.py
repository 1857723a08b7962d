"""The steps of a parameter query → whether the token, or the client, decides about a value of it. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
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
from replicator.rules.definitions.narrowing import LOSSY, results_of, tells_rows_apart
from replicator.rules.definitions.requests import CLIENT
from replicator.rules.definitions.scopes import EACH
from replicator.rules.definitions.telling import tells_apart
from replicator.rules.expression import Call, Expression, Found, Literal, Request
from replicator.rules.model import Each, Find, ForEach, Key, Lookup, Step, When


class From(IntEnum):
    """What decides about a value."""

    #: Nobody who asks: it is a constant, or of rows that are the same for all.
    NOBODY = 0
    #: What many tokens say alike.
    GROUP = 1
    TOKEN = 2
    CLIENT = 3


NOBODY, GROUP, TOKEN, CHOSEN = From


class Known:
    """What is known of the values of a query, as all its conditions hold."""

    def __init__(self, steps: tuple[Step, ...], lookups: Mapping[str, Lookup]) -> None:
        self._steps = steps
        self._lookups = lookups
        #: What must equal a value of the token, and so is as good as one.
        self._same: dict[Expression, From] = {}
        #: The lookups that have been asked for rows with a value of the token.
        self._bound: dict[int, From] = {}
        #: What decides about the values of each step, as far as that has been asked.
        self._decided: dict[int, From] = {}
        self._tests = [test for step in steps if isinstance(step, When) for test in _all(step)]
        self._finds = [(at, step) for at, step in enumerate(steps) if isinstance(step, Find)]
        while self._learn():
            pass

    @property
    def has_gate(self) -> bool:
        """Whether the token decides who may ask: by a constant, or by rows."""
        return bool(self._bound) or any(self._is_gate(test) for test in self._tests)

    def _learn(self) -> bool:
        """Whether something more has become known. What a step says goes on to the ones before it, too."""
        before = dict(self._same), dict(self._bound)
        for test in self._tests:
            self._take(test)
        for at, step in (*self._finds, *reversed(self._finds)):
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
            if (whose := self.of(other)) in (GROUP, TOKEN):
                self._equate(one, whose)

    def _look(self, at: int, step: Find) -> None:
        own = [key for place, key in enumerate(step.keys) if self._asks_own(step, place)]
        asked = {self.of(part_of(key)) for key in own} | {self._bound.get(at, NOBODY)}
        if TOKEN in asked:
            self._bind(at, TOKEN)
            # A row that is the token's has these values; of an array, it has some member.
            for key in step.keys:
                self._equate(key, TOKEN if key in own else GROUP)
        elif GROUP in asked:
            self._bind(at, GROUP)

    def _bind(self, at: int, whose: From) -> None:
        """The lookup of this step has been asked for rows with such a value."""
        if self._bound.get(at) is not whose:
            self._bound[at] = whose
            self._forget(at)

    def _forget(self, first: int) -> None:
        """What decides about this step, and so about those after it, has to be found anew."""
        self._decided = {at: whose for at, whose in self._decided.items() if at < first}

    def _asks_own(self, step: Find, place: int) -> bool:
        """Whether what a lookup has there is another for each row."""
        found = self._lookups.get(step.lookup)
        return found is None or tells_rows_apart(found.keys[place], found.table.is_wildcard)

    def _equate(self, key: Key, whose: From) -> None:
        """This equals a value of the token; of a row that was looked up, so it is the token's."""
        if isinstance(key, Each | Literal) or (whose is GROUP and self.of(key) is TOKEN):
            return
        if self._same.get(key) is not whose:
            self._same[key] = whose
            self._forget(key.step if isinstance(key, Found) else 0)
        if isinstance(key, Found) and isinstance(self._steps[key.step], Find):
            self._bind(key.step, max(whose, self._bound.get(key.step, NOBODY)))

    def of(self, expr: Expression) -> From:
        """What decides about the value of an expression."""
        if expr in self._same:
            return self._same[expr]
        if is_of_every_token(expr):
            return NOBODY
        if is_role(expr):
            return GROUP
        match expr:
            case Request(what):
                return CHOSEN if what in CLIENT else TOKEN
            case Found(step, at):
                if step not in self._decided:
                    self._decided[step] = self._of_step(step)
                whose = self._decided[step]
                return whose if whose is CHOSEN or self._brings_own(step, at) else min(whose, GROUP)
            case Call(name, args):
                if any(self.of(arg) is CHOSEN for arg in args):
                    return CHOSEN
                if name in LOSSY or not tells_apart(expr):
                    return NOBODY
                return max(map(self.of, results_of(expr)), default=NOBODY)
        return NOBODY

    def _of_step(self, at: int) -> From:
        """A row that a group's token and a client ask for together is the client's choice."""
        step, bound = self._steps[at], self._bound.get(at, NOBODY)
        if bound is TOKEN:
            return TOKEN
        match step:
            case ForEach(Request("jwt" | "token_parameters")):
                return NOBODY  # every token has an audience, and much else that others have too
            case ForEach(of):
                return self.of(of)
            case Find(_, keys) if any(self.of(part_of(key)) is CHOSEN for key in keys):
                return CHOSEN
        return bound

    def _brings_own(self, at: int, place: int) -> bool:
        """Whether the value of a step is another for each row, or member, that it was found in."""
        match self._steps[at]:
            case Find(lookup, _) if lookup in self._lookups:
                found = self._lookups[lookup]
                return tells_rows_apart(found.values[place], found.table.is_wildcard)
            case ForEach():
                return EACH[place] == "value"  # the keys of an array are 0, 1, 2
        return True

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
        return self.of(value) in (GROUP, TOKEN) and not is_default and not is_of_every_token(value)


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


def part_of(key: Key) -> Expression:
    """The expression of which it is the value, or each member."""
    return key.of if isinstance(key, Each) else key
