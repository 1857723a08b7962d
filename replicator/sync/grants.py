"""Rules × a user's request → the buckets the user is granted, and the streams that lead to them. No I/O.

Whoever drives it answers its questions from the lookups as they stand at one checkpoint:

    asking = grants(rules, user, request)
    needs = next(asking)                      # keys of lookups
    needs = asking.send(answers)              # the values each leads to
    …
    except StopIteration as end: end.value    # Grants

What was asked says on what the answer depends: while none of it changes, the answer does not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from replicator.errors import ReplicatorError
from replicator.rules.ask import Answer, Answers, Asking, ask
from replicator.rules.asked import Asked, Work
from replicator.rules.compile import Need
from replicator.rules.expression import Scalar
from replicator.rules.model import Definition, Rules
from replicator.sync.auth import User
from replicator.sync.lines import Reason, Stream, StreamError
from replicator.sync.request import Request, Subscription
from replicator.sync.session_offer import Grant


class Most(NamedTuple):
    """What one connection may come to, unless the configuration says otherwise."""

    buckets: int = 1000
    #: Values that lookups bring, on whatever way to them.
    results: int = 1000


MOST = Most()


class TooMany(ReplicatorError):
    """A user is granted more buckets than one connection may have, or comes to them by more values."""

    code = "PSYNC_S2305"


@dataclass(frozen=True, slots=True)
class Grants:
    """What a request leads to at a checkpoint, and on which keys of lookups that depends."""

    granted: tuple[Grant, ...]
    streams: tuple[Stream, ...]
    needs: frozenset[Need]


class _Asked(NamedTuple):
    """One way to buckets: a definition the client has by default, or a subscription of its own."""

    definition: Definition
    reason: Reason
    subscription: Subscription | None
    asking: Asking


Granting: TypeAlias = Generator[set[Need], Answers, Grants]


def grants(rules: Rules, user: User, request: Request, *, most: Most = MOST) -> Granting:
    """Which buckets the user has, by default and by each subscription, and why."""
    ways, streams = _ways(rules, user, request)
    running: list[tuple[_Asked, set[Need]]] = []
    ended: list[tuple[_Asked, Answer]] = []
    asked: set[Need] = set()
    results: dict[str, set[tuple[str, tuple[Scalar, ...]]]] = {}
    for way in ways:
        _go_on(way, None, running, ended)
    while running:
        needs = set().union(*(needs for _, needs in running))
        asked |= needs
        answers = yield needs
        waiting, running = running, []
        for way, wanted in waiting:
            brought = results.setdefault(way.definition.name, set())
            brought.update((need[0], value) for need in wanted for value in answers[need])
        _check_results(results, most.results)
        for way, _ in waiting:
            _go_on(way, answers, running, ended)
    granted = [grant for way, answer in ended for grant in _granted(way, answer)]
    _check(granted, most.buckets)
    return Grants(tuple(granted), _with_errors(streams, ended), frozenset(asked))


def _ways(rules: Rules, user: User, request: Request) -> tuple[list[_Asked], list[Stream]]:
    by_name = {definition.name: definition for definition in rules.definitions}
    mine = [one for one in request.subscriptions if one.stream in by_name and by_name[one.stream].is_stream]
    #: Who subscribes to a stream without parameters has what it would have by default.
    instead = {one.stream for one in mine if not one.parameters}
    by_default = [
        definition
        for definition in rules.definitions
        if request.include_defaults and definition.auto_subscribe and definition.name not in instead
    ]
    # All of it is one request: what the rules compute of it counts together.
    work = Work()
    names = [*(definition.name for definition in by_default), *(one.stream for one in mine)]
    streams = [Stream(name, by_name[name].auto_subscribe) for name in dict.fromkeys(names)]
    at = {stream.name: number for number, stream in enumerate(streams)}
    ways = [
        _Asked(one, Reason("default", at[one.name]), None, _asking(rules, one, user, request, None, work))
        for one in by_default
    ]
    for subscription in mine:
        definition = by_name[subscription.stream]
        asking = _asking(rules, definition, user, request, subscription, work)
        ways.append(_Asked(definition, Reason("sub", subscription.at), subscription, asking))
    return ways, streams


def _asking(
    rules: Rules,
    definition: Definition,
    user: User,
    request: Request,
    subscription: Subscription | None,
    work: Work,
) -> Asking:
    parameters = subscription.parameters if subscription is not None else {}
    asked = Asked(user.sub, user.claims, request.parameters, parameters)
    return ask([definition], asked, rules.dialect, work)


def _go_on(
    way: _Asked,
    answers: Answers | None,
    running: list[tuple[_Asked, set[Need]]],
    ended: list[tuple[_Asked, Answer]],
) -> None:
    try:
        needs = next(way.asking) if answers is None else way.asking.send(answers)
        running.append((way, needs))
    except StopIteration as end:
        ended.append((way, end.value))


def _granted(way: _Asked, answer: Answer) -> list[Grant]:
    override = way.subscription.override_priority if way.subscription is not None else None
    return [
        Grant(one.bucket, one.priority if override is None else override, (way.reason,))
        for one in answer.granted
    ]


def _with_errors(streams: Sequence[Stream], ended: Sequence[tuple[_Asked, Answer]]) -> tuple[Stream, ...]:
    errors: dict[str, list[StreamError]] = {}
    for way, answer in ended:
        at = way.subscription.at if way.subscription is not None else None
        for said in answer.failed.values():
            errors.setdefault(way.definition.name, []).append(StreamError(at, said))
    return tuple(stream._replace(errors=tuple(errors.get(stream.name, ()))) for stream in streams)


def _check(granted: Sequence[Grant], most: int) -> None:
    """Counted once each, however many ways lead there."""
    buckets = {grant.bucket for grant in granted}
    if len(buckets) <= most:
        return
    by_definition = Counter(bucket.partition("[")[0].partition("|")[0] for bucket in buckets)
    raise TooMany(
        f"a user is granted {len(buckets):,} buckets; one connection may have {most:,} "
        f"({_listed(by_definition)})",
        "Let the rules put more into each bucket, or raise sync.max_buckets.",
    )


def _check_results(results: Mapping[str, set[tuple[str, tuple[Scalar, ...]]]], most: int) -> None:
    """Counted once each, whatever they were looked up by."""
    found = set().union(*results.values())
    if len(found) <= most:
        return
    by_definition = Counter({name: len(brought) for name, brought in results.items()})
    raise TooMany(
        f"lookups bring {len(found):,} values for a user; one connection may have {most:,} "
        f"({_listed(by_definition)})",
        "Let the rules lead to fewer rows on the way, or raise sync.max_results.",
    )


def _listed(counts: Counter[str]) -> str:
    most = sorted(counts.items(), key=lambda one: (-one[1], one[0]))
    return ", ".join(f"{name}: {count:,}" for name, count in most[:10])
