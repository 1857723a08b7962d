"""A request × Rules → the buckets it leads to, with a question for every lookup on the way. No I/O.

Whoever drives it answers the questions, from the stored lookups at a checkpoint or from the source itself:

    asking = ask(rules.definitions, request, rules.dialect)
    needs = next(asking)                      # keys of lookups
    needs = asking.send(found)                # what each leads to
    …
    except StopIteration as end: end.value    # an Answer

All queries go on side by side, so there are as many questions as the longest of them has steps, however many
queries and users' values there are. A query that cannot be evaluated, because a claim is no JSON, grants
nothing and is told; the others go on.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import NamedTuple, TypeAlias

from replicator.rules import keys
from replicator.rules.asked import A_CALL, Values, Way, Work, size
from replicator.rules.asked import Asked as Asked
from replicator.rules.compile import Need
from replicator.rules.compute.scalars import EvaluationError, truth
from replicator.rules.expression import Dialect, Scalar
from replicator.rules.model import Definition, Each, Find, ForEach, Key, ParameterQuery, Variant, When

#: By lookup and key: the values to which it leads.
Answers: TypeAlias = Mapping[Need, Collection[tuple[Scalar, ...]]]
#: Members that a query goes through, and keys that it looks for at once: a client can send any number.
MOST_WAYS = 250_000


class Granted(NamedTuple):
    """A bucket that the request leads to."""

    bucket: str
    definition: str
    variant: str
    priority: int


class Stopped(NamedTuple):
    """A query that ended without a bucket."""

    definition: str
    query: ParameterQuery


@dataclass(slots=True)
class Answer:
    """The buckets, each once, with the least of its priorities; and why others are not among them."""

    granted: list[Granted]
    stopped: list[Stopped]
    #: By definition, what could not be evaluated.
    failed: dict[str, str]


Asking: TypeAlias = Generator[set[Need], Answers, Answer]


def ask(
    definitions: Iterable[Definition], asked: Asked, dialect: Dialect, work: Work | None = None
) -> Asking:
    """Which buckets of these definitions the request leads to.

    What one request asks by several subscriptions is the same `work`.
    """
    values = Values(asked, dialect, work or Work())
    answer = Answer([], [], {})
    granted: dict[str, Granted] = {}
    running = []
    for definition in definitions:
        for variant in definition.variants:
            for query in variant.queries:
                running.append(_Run(definition, variant, query, values))
    while running:
        running = [run for run in running if not run.is_at_end(answer)]
        needs = {need for run in running for need in run.needs}
        if needs:
            found = yield needs
            for run in running:
                run.take(found)
        for run in [run for run in running if run.is_through]:
            running.remove(run)
            for grant in run.granted(answer):
                known = granted.setdefault(grant.bucket, grant)
                if grant.priority < known.priority:
                    granted[grant.bucket] = grant
    answer.granted = list(granted.values())
    return answer


class _Run:
    """One parameter query on its way through its steps, on all ways at once."""

    def __init__(
        self, definition: Definition, variant: Variant, query: ParameterQuery, values: Values
    ) -> None:
        self._definition, self._variant, self._query = definition, variant, query
        self._values = values
        self._step = 0
        self._ways: list[Way] = [()]
        #: By way, the keys whose values it waits for.
        self._waiting: list[tuple[Way, list[Need]]] = []

    @property
    def needs(self) -> list[Need]:
        return [need for _, needs in self._waiting for need in needs]

    @property
    def is_through(self) -> bool:
        return not self._waiting and self._step == len(self._query.steps)

    def is_at_end(self, answer: Answer) -> bool:
        """Go on to the next question. True if there is nowhere to go, which the answer is told."""
        try:
            while self._step < len(self._query.steps) and not self._waiting:
                self._go()
                if not self._ways and not self._waiting:
                    self._stop(answer)
                    return True
        except EvaluationError as error:
            answer.failed[self._definition.name] = str(error)
            return True
        return False

    def take(self, found: Answers) -> None:
        """Go on with what stands under the keys that were asked about."""
        if not self._waiting:
            return
        ways = ((*way, values) for way, needs in self._waiting for need in needs for values in found[need])
        self._ways, self._waiting = list(dict.fromkeys(ways)), []
        self._values.found(len(self._ways))
        self._step += 1

    def granted(self, answer: Answer) -> list[Granted]:
        """The buckets at the end of every way."""
        made: list[Granted] = []
        try:
            for way in self._ways:
                values = [self._values.of(expr, way) for expr in self._query.values]
                self._values.spend(A_CALL + sum(map(size, values)))
                as_text = self._variant.as_text or (False,) * len(values)
                values = [
                    keys.as_text(value) if is_text else value
                    for value, is_text in zip(values, as_text, strict=True)
                ]
                name = keys.key(values)
                if name is not None:
                    bucket = self._variant.name + name
                    made.append(
                        Granted(bucket, self._definition.name, self._variant.name, self._query.priority)
                    )
        except EvaluationError as error:
            answer.failed[self._definition.name] = str(error)
            return []
        if not made:
            self._stop(answer)
        return made

    def _stop(self, answer: Answer) -> None:
        answer.stopped.append(Stopped(self._definition.name, self._query))

    def _go(self) -> None:
        match self._query.steps[self._step]:
            case When(condition):
                self._ways = [(*way, ()) for way in self._ways if truth(self._values.of(condition.test, way))]
            case ForEach(of):
                ways = [(way, self._values.pairs(of, way)) for way in self._ways]
                many = sum(len(members) for _, members in ways)
                self._check(many)
                self._values.spend(A_CALL * many)
                self._ways = [(*way, member) for way, members in ways for member in members]
            case Find(lookup, wanted):
                options = [(way, [self._options(part, way) for part in wanted]) for way in self._ways]
                if any(isinstance(part, Each) for part in wanted):
                    self._check(sum(prod(map(len, found)) for _, found in options))
                waiting = [(way, self._needs(lookup, found)) for way, found in options]
                self._waiting = [(way, needs) for way, needs in waiting if needs]
                self._ways = []
                return
        self._step += 1

    def _check(self, many: int) -> None:
        """That so many ways are not too many to go."""
        if many > MOST_WAYS:
            raise EvaluationError(f"more than {MOST_WAYS:,} members of arrays")

    def _options(self, part: Key, way: Way) -> Sequence[Scalar]:
        if isinstance(part, Each):
            return self._values.members(part.of, way)
        return [self._values.of(part, way)]

    def _needs(self, lookup: str, options: Iterable[Sequence[Scalar]]) -> list[Need]:
        needs: dict[Need, None] = {}
        for values in product(*options):
            self._values.spend(A_CALL + sum(map(size, values)))
            if (key := keys.key(values)) is not None:
                needs[lookup, keys.short(key)] = None
        return list(needs)
