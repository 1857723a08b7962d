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

from replicator.rules.definitions.deciding import CHOSEN, GROUP, TOKEN, Known, part_of
from replicator.rules.definitions.narrowing import Held, held
from replicator.rules.definitions.requests import CLIENT, VERIFIED
from replicator.rules.expression import Expression
from replicator.rules.model import DataQuery, Find, ForEach, Lookup, ParameterQuery, Predicate, When
from replicator.rules.sql.reader import dependencies


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
    return min(_bond(query, way, least, lookups or {}) for way in ways)


def _bond(query: ParameterQuery, way: Held, least: Bond, lookups: Mapping[str, Lookup]) -> Bond:
    tests = [constant.test(query.values[constant.at]) for constant in way.constants]
    known = Known((*query.steps, *(When(Predicate(test, "")) for test in tests)), lookups)
    narrowing = {known.of(query.values[at]) for at in way.narrowing}
    if TOKEN in narrowing:
        return Bond.BOUND
    about = narrowing | {known.of(query.values[at]) for at in way.elsewhere}
    if known.has_gate or about & {GROUP, TOKEN}:
        return Bond.GATED if CHOSEN in narrowing else Bond.BOUND
    return least


def _parts(query: ParameterQuery) -> Iterator[Expression]:
    for step in query.steps:
        match step:
            case When(condition):
                yield condition.test
            case ForEach(of):
                yield of
            case Find(_, keys):
                yield from map(part_of, keys)
    yield from query.values
