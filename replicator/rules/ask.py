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
from dataclasses import dataclass, field
from itertools import islice, product
from typing import Any, NamedTuple, TypeAlias

from replicator.rules import keys
from replicator.rules.compile import Need
from replicator.rules.compute import jsontext
from replicator.rules.compute.expressions import plain
from replicator.rules.compute.scalars import EvaluationError, truth
from replicator.rules.expression import Dialect, Expression, Found, Request, Scalar
from replicator.rules.model import Definition, Each, Find, ForEach, Key, ParameterQuery, Variant, When

#: By lookup and key: the values to which it leads.
Answers: TypeAlias = Mapping[Need, Collection[tuple[Scalar, ...]]]
#: Members that a query goes through for one request: a client can send any number.
MOST_WAYS = 250_000
#: What each step of a query has brought, in one of the ways through it.
Way: TypeAlias = tuple[tuple[Scalar, ...], ...]


@dataclass(frozen=True, slots=True)
class Asked:
    """Who asks: what the token says, verified, and what the client says, which is not."""

    user_id: str | None
    jwt: Mapping[str, Any] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    subscription: Mapping[str, Any] = field(default_factory=dict)

    def value(self, request: Request) -> Scalar:
        match request.what:
            case "user_id":
                return self.user_id
            case "jwt":
                return jsontext.printed(dict(self.jwt))
            case "token_parameters":
                claimed = self.jwt.get("parameters")
                claimed = claimed if isinstance(claimed, Mapping) else {}
                return jsontext.printed({**claimed, "user_id": self.user_id})
            case "parameters":
                return jsontext.printed(dict(self.parameters))
            case "subscription":
                return jsontext.printed(dict(self.subscription))
        raise AssertionError(f"a request has no {request.what}")


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


def ask(definitions: Iterable[Definition], asked: Asked, dialect: Dialect) -> Asking:
    """Which buckets of these definitions the request leads to."""
    answer = Answer([], [], {})
    granted: dict[str, Granted] = {}
    running = []
    for definition in definitions:
        for variant in definition.variants:
            for query in variant.queries:
                running.append(_Run(definition, variant, query, asked, dialect))
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
        self, definition: Definition, variant: Variant, query: ParameterQuery, asked: Asked, dialect: Dialect
    ) -> None:
        self._definition, self._variant, self._query = definition, variant, query
        self._asked, self._dialect = asked, dialect
        self._kept: dict[Expression, Scalar | frozenset[Scalar]] = {}
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
        self._step += 1

    def granted(self, answer: Answer) -> list[Granted]:
        """The buckets at the end of every way."""
        made: list[Granted] = []
        try:
            for way in self._ways:
                values = [self._value(expr, way) for expr in self._query.values]
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
                self._ways = [(*way, ()) for way in self._ways if truth(self._value(condition.test, way))]
            case ForEach(of):
                ways = ((*way, member) for way in self._ways for member in _members(self._value(of, way)))
                self._ways = list(islice(ways, MOST_WAYS + 1))
                if len(self._ways) > MOST_WAYS:
                    raise EvaluationError(f"more than {MOST_WAYS:,} members of arrays")
            case Find(lookup, wanted):
                self._waiting = [
                    (way, needs) for way in self._ways if (needs := self._needs(lookup, wanted, way))
                ]
                self._ways = []
                return
        self._step += 1

    def _needs(self, lookup: str, wanted: Sequence[Key], way: Way) -> list[Need]:
        options = [self._options(part, way) for part in wanted]
        found = [keys.key(values) for values in product(*options)]
        return list(dict.fromkeys((lookup, keys.short(key)) for key in found if key is not None))

    def _options(self, part: Key, way: Way) -> list[Scalar]:
        if not isinstance(part, Each):
            return [self._value(part, way)]
        array = self._value(part.of, way)
        return [] if array is None else jsontext.members(array)

    def _value(self, expr: Expression, way: Way) -> Scalar:
        def leaf(part: Expression) -> Scalar:
            if isinstance(part, Request):
                return self._asked.value(part)
            if isinstance(part, Found):
                return way[part.step][part.at]
            raise AssertionError(f"{type(part).__name__} in what is asked about a request")

        return plain(expr, leaf, self._dialect, self._kept)


def _members(text: Scalar) -> list[tuple[Scalar, Scalar]]:
    """Key and value of each member of a JSON array or object; of anything else, itself."""
    if text is None:
        return []
    if not isinstance(text, str):
        raise EvaluationError("json_each needs the text of a JSON array or object")
    value = jsontext.parsed(text)
    if isinstance(value, dict):
        return [(key, jsontext.scalar_of(member)) for key, member in value.items()]
    if isinstance(value, list):
        return [(at, jsontext.scalar_of(member)) for at, member in enumerate(value)]
    return [(None, jsontext.scalar_of(value))]
