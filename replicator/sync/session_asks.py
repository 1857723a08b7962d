"""A Request × Rules → the buckets to offer and the streams to tell, with questions on the way. No I/O.

Driven like `ask` is: it asks for what stands under keys of lookups, of all the ways at once, and returns a
Led. To be asked again at every checkpoint; the streams and their order depend on the rules and the request
only, so what is told of them once holds for a connection.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias

from replicator.rules.ask import Answer, Answers, Asked, Asking, ask
from replicator.rules.compile import Need
from replicator.rules.model import Definition, Rules
from replicator.sync.lines import Reason, Stream, StreamError
from replicator.sync.request import Request, Subscription
from replicator.sync.session_offer import Grant


class Led(NamedTuple):
    """Where a request leads."""

    #: A bucket stands here once for each way that leads to it.
    granted: list[Grant]
    streams: list[Stream]


Leading: TypeAlias = Generator[set[Need], Answers, Led]


def lead(rules: Rules, request: Request, user_id: str | None, jwt: Mapping[str, Any]) -> Leading:
    """The buckets this request leads to, by default and by what it subscribes to."""
    by_default = [one for one in rules.definitions if request.include_defaults and _is_default(one)]
    wanted = {one.name for one in by_default} | {one.stream for one in request.subscriptions}
    told = [one for one in rules.definitions if one.name in wanted]
    known = {one.name: one for one in told}
    ways: list[tuple[Subscription | None, Asking]] = [
        (None, ask(by_default, Asked(user_id, jwt, request.parameters), rules.dialect))
    ]
    for subscription in request.subscriptions:
        if definition := known.get(subscription.stream):
            asked = Asked(user_id, jwt, request.parameters, subscription.parameters)
            ways.append((subscription, ask([definition], asked, rules.dialect)))
    answers = yield from _together([asking for _, asking in ways])
    answered = [(subscription, answer) for (subscription, _), answer in zip(ways, answers, strict=True)]
    places = {one.name: at for at, one in enumerate(told)}
    grants = [grant for one, answer in answered for grant in _grants(one, answer, places)]
    return Led(grants, [_stream(one, answered) for one in told])


def _together(askings: list[Asking]) -> Generator[set[Need], Answers, list[Answer]]:
    """Ask side by side: as many questions as the longest has, however many there are."""
    answers: dict[int, Answer] = {}
    waiting: dict[int, set[Need]] = {}
    found: Answers | None = None
    while len(answers) < len(askings):
        for at in range(len(askings)) if found is None else tuple(waiting):
            try:
                waiting[at] = next(askings[at]) if found is None else askings[at].send(found)
            except StopIteration as end:
                answers[at] = end.value
                waiting.pop(at, None)
        if waiting:
            found = yield set().union(*waiting.values())
    return [answers[at] for at in range(len(askings))]


def _grants(subscription: Subscription | None, answer: Answer, places: Mapping[str, int]) -> Iterator[Grant]:
    for granted in answer.granted:
        if subscription is None:
            yield Grant(granted.bucket, granted.priority, (Reason("default", places[granted.definition]),))
            continue
        wanted = subscription.override_priority
        priority = granted.priority if wanted is None else wanted
        yield Grant(granted.bucket, priority, (Reason("sub", subscription.at),))


def _stream(definition: Definition, answered: list[tuple[Subscription | None, Answer]]) -> Stream:
    errors = [
        StreamError(None if one is None else one.at, answer.failed[definition.name])
        for one, answer in answered
        if definition.name in answer.failed
    ]
    return Stream(definition.name, _is_default(definition), tuple(errors))


def _is_default(definition: Definition) -> bool:
    return definition.auto_subscribe or not definition.is_stream
