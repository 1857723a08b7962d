"""A user × rules × the source as it is now → the buckets this user gets, and what is in them."""

from __future__ import annotations

from collections import Counter

from replicator.config import Config
from replicator.errors import ConfigError, ReplicatorError
from replicator.observe.rules.got import Got, Nothing, User
from replicator.observe.rules.held import count_rows
from replicator.observe.rules.reading import Reading, reading
from replicator.observe.rules.why import why
from replicator.rules.ask import Answer, Asked, Granted, ask
from replicator.rules.model import Definition, Rules


async def get(config: Config, rules: Rules, user: User, *, most_buckets: int, most_rows: int) -> Got:
    """The buckets of this user and how many rows are in each; and up to so many of the rows themselves."""
    async with reading(config, rules) as source:
        got = Got(user.user_id, source.now)
        await _ask(source, user, got)
        _refuse_too_many(got, most_buckets)
        await count_rows(source, got, most_rows)
        got.notes += notes_of(source, config)
        return got


async def granted_to(source: Reading, user: User) -> Got:
    """Only the buckets."""
    got = Got(user.user_id, source.now)
    await _ask(source, user, got)
    return got


async def _ask(source: Reading, user: User, got: Got) -> None:
    rules = source.rules
    streams = {one.name for one in rules.definitions if one.is_stream}
    if strangers := [one.name for one in user.subscriptions if one.name not in streams]:
        known = ", ".join(sorted(streams)) or "none"
        raise ConfigError(f"there is no stream {strangers[0]} in these rules", f"Streams: {known}.")
    asked = Asked(user.user_id, user.jwt, user.parameters)
    by_default = [one for one in rules.definitions if not one.is_stream or one.auto_subscribe]
    questions: list[tuple[Asked, list[Definition]]] = [(asked, by_default)]
    for subscription in user.subscriptions:
        mine = Asked(user.user_id, user.jwt, user.parameters, subscription.parameters)
        questions.append((mine, [one for one in rules.definitions if one.name == subscription.name]))
    granted: dict[str, Granted] = {}
    for who, definitions in questions:
        answer = await _drive(source, who, definitions)
        for one in answer.granted:
            known_one = granted.get(one.bucket, one)
            granted[one.bucket] = min(known_one, one, key=lambda each: each.priority)
        for stopped in answer.stopped:
            said = await why(source, who, stopped.query)
            got.nothing.append(Nothing(stopped.definition, " ".join(stopped.query.text.split()), said))
        for name, said in answer.failed.items():
            got.nothing.append(Nothing(name, "", f"this cannot be evaluated: {said}"))
    subscribed = {one.name for one in user.subscriptions}
    got.unasked = [
        one.name for one in rules.definitions if one not in by_default and one.name not in subscribed
    ]
    got.granted = sorted(granted.values(), key=lambda one: (one.priority, one.bucket))


async def _drive(source: Reading, asked: Asked, definitions: list[Definition]) -> Answer:
    asking = ask(definitions, asked, source.rules.dialect)
    try:
        needs = next(asking)
        while True:
            needs = asking.send(await source.answer(needs))
    except StopIteration as end:
        answer: Answer = end.value
        return answer


def _refuse_too_many(got: Got, most: int) -> None:
    if len(got.granted) <= most:
        return
    counts = Counter(one.definition for one in got.granted)
    listed = "\n".join(f"{name}: {count:,}" for name, count in counts.most_common())
    what = f"this user gets {len(got.granted):,} buckets, and more than {most:,} are too many"
    raise ReplicatorError(what, f"{listed}\nLet the rules put more into each; or look with --max-buckets.")


def notes_of(source: Reading, config: Config) -> list[str]:
    """What makes the answer another than replication would give."""
    seen, name = source.seen, config.source.publication
    notes = [f"the source has no table {table}: it is left out" for table in seen.missing]
    notes += [f"{table} is {kind}, and cannot be replicated: it is left out" for table, kind in seen.others]
    notes += [
        f"{table} is not in publication {name}: until it is, none of its changes arrive"
        for table in seen.unpublished
    ]
    notes += [
        f"{rule} could not be evaluated for {count:,} row(s), which are left out: {said}"
        for (rule, said), count in source.failures.items()
    ]
    return notes
