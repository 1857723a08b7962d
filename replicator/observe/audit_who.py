"""A bucket × rules × stored lookups → who gets it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import NamedTuple

from replicator import queries
from replicator.database import Connection, rows
from replicator.observe.verify_source import Named
from replicator.rules import keys
from replicator.rules.expression import Found, Request
from replicator.rules.model import Find, ParameterQuery, Rules, When

_q = queries.load("audit")

#: More users of one bucket are not listed.
USERS_MAX = 1_000
_ENTRIES_AT_ONCE = 2_000
_USER = Request("user_id")


class Who(NamedTuple):
    """One who gets a bucket, or one way to get it."""

    #: None: not one user, but whoever the words say.
    user: str | None
    words: str
    #: The ops between which a lookup leads this user there; None: for as long as the rules say so.
    since: int | None = None
    until: int | None = None


async def who_gets(connection: Connection, bucket: str, rules: Rules) -> AsyncIterator[Who]:
    """Everybody who gets a bucket, as far as storage says; else in words."""
    named = Named.read(bucket, rules)
    if named is None:
        yield Who(None, "no rule makes this bucket any more")
        return
    if not named.variant.queries:
        yield Who(None, "everybody")
    for query in named.variant.queries:
        async for who in _by(connection, named, query):
            yield who


async def _by(connection: Connection, named: Named, query: ParameterQuery) -> AsyncIterator[Who]:
    conditions = [step.condition.text for step in query.steps if isinstance(step, When)]
    words = f"whoever this leads there: {_text(query)}"
    only = f", if {' and '.join(conditions)}" if conditions else ""
    users = {value for value, one in zip(named.values, query.values, strict=True) if one == _USER}
    if query.values and users and all(value == _USER for value in query.values):
        # The name of the bucket says whose it is.
        if len(users) == 1:
            yield Who(str(keys.as_text(users.pop())), f"its own{only}")
        return
    step = _one_find(query)
    if not query.values:
        yield Who(None, f"everybody{only}" if only or not query.steps else words)
    elif step is None:
        yield Who(None, words)
    else:
        async for who in _through(connection, named, query, step, only):
            yield who


def _text(query: ParameterQuery) -> str:
    return " ".join(query.text.split())


def _one_find(query: ParameterQuery) -> Find | None:
    """The only look-up of a query that looks up the user and nothing else."""
    finds = [step for step in query.steps if not isinstance(step, When)]
    known = all(value == _USER or isinstance(value, Found) for value in query.values)
    match finds:
        case [Find(_, keys=(key,)) as find] if key == _USER and known:
            return find
    return None


async def _through(
    connection: Connection, named: Named, query: ParameterQuery, find: Find, only: str
) -> AsyncIterator[Who]:
    wanted = [
        (one.at if isinstance(one, Found) else None, keys.word(value))
        for one, value in zip(query.values, named.values, strict=True)
        if value is not None
    ]
    count = 0
    async for key, value, since, until in _entries(connection, find.lookup):
        if key.startswith("#"):
            continue
        found, (user,) = keys.unpack(value), keys.unpack(key)
        said = [user if at is None else found[at] for at, _ in wanted]
        if any(one is None or keys.word(one) != word for one, (_, word) in zip(said, wanted, strict=True)):
            continue
        count += 1
        if count > USERS_MAX:
            yield Who(None, f"and more than {USERS_MAX} others")
            return
        yield Who(str(keys.as_text(user)), f"through {_text(query)}{only}", since, until)


async def _entries(connection: Connection, lookup: str) -> AsyncIterator[tuple[str, str, int, int | None]]:
    place = {"key": "", "subkey": "", "at": "(0,0)"}
    while True:
        found = await rows(connection, _q.entries, lookup=lookup, **place, limit=_ENTRIES_AT_ONCE)
        for key, _, _, value, since, until in found:
            yield key, value, since, until
        if len(found) < _ENTRIES_AT_ONCE:
            return
        place = dict(zip(place, found[-1][:3], strict=True))
