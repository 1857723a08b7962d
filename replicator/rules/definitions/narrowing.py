"""A way into a bucket → which values of the bucket's name tell its rows apart, and which only let in. No I/O.

A value protects rows if it must be what the row says: `owner = bucket.user`. Held against a constant
(`bucket.role = 'admin'`) it says who may ask, as if that stood among the conditions on the request; and so it
does where a subquery is asked about a constant (`1 IN (SELECT active FROM users WHERE id = bucket.user)`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from replicator.rules.definitions.telling import tells_apart
from replicator.rules.expression import Call, Column, Expression, Metadata
from replicator.rules.model import Brought, DataQuery, Each, Key, Lookup, Term

#: What these answer says little of what they were asked about, and often the same of everybody.
LOSSY = frozenset(
    {"=", "!=", "<", "<=", ">", ">=", "in", "in list", "between", "like", "ilike", "&&", "and", "or", "not"}
    | {"is null", "is not null", "is true", "is false", "is not true", "is not false", "is distinct"}
    | {"is not distinct", "typeof", "length", "instr", "json_valid", "json_array_length", "json_keys"}
)


class Constant(NamedTuple):
    """What the value at this place must be, whatever the row."""

    at: int
    key: Key

    def test(self, value: Expression) -> Expression:
        """The same as a condition."""
        if isinstance(self.key, Each):
            return Call("in", (value, self.key.of))
        return Call("=", (value, self.key))


class Held(NamedTuple):
    """What the values of a bucket's name are held against, by their places."""

    #: They must be what the row says.
    narrowing: frozenset[int]
    constants: tuple[Constant, ...] = ()
    #: There must be rows elsewhere that say the same; this row has no part in it.
    elsewhere: frozenset[int] = frozenset()


def held(data: Iterable[DataQuery], lookups: Mapping[str, Lookup]) -> Iterator[Held]:
    """What each way into a bucket holds the values against."""
    for query in data:
        for term in query.terms:
            yield _held(term, lookups, query.table.is_wildcard)


def results_of(call: Call) -> tuple[Expression, ...]:
    """What the value of a call may be made of: of CASE, not its conditions."""
    return (*call.args[1:-1:2], call.args[-1]) if call.name == "case" else call.args


def _held(term: Term, lookups: Mapping[str, Lookup], is_wildcard: bool) -> Held:
    narrowing: set[int] = set()
    constants: list[Constant] = []
    elsewhere: set[int] = set()
    for at, place in (*enumerate(term.values), *term.same):
        key: Key = _brought(term, place, lookups) if isinstance(place, Brought) else place
        if not tells_rows_apart(key, is_wildcard):
            constants.append(Constant(at, key))
        elif isinstance(place, Brought) and not _joins_rows(term, place, lookups, is_wildcard):
            elsewhere.add(at)
        else:
            narrowing.add(at)
    return Held(frozenset(narrowing), tuple(constants), frozenset(elsewhere))


def _brought(term: Term, place: Brought, lookups: Mapping[str, Lookup]) -> Expression:
    return lookups[term.joins[place.join].lookup].values[place.at]


def _joins_rows(term: Term, place: Brought, lookups: Mapping[str, Lookup], is_wildcard: bool) -> bool:
    """Whether it depends on the row which rows of the other table are asked."""
    join = term.joins[place.join]
    keys = lookups[join.lookup].keys
    return tells_rows_apart(join.key, is_wildcard) and all(tells_rows_apart(key, True) for key in keys)


def tells_rows_apart(key: Key, is_wildcard: bool) -> bool:
    """Whether rows have different ones; what the table is called tells them apart if there may be several."""
    match key:
        case Each(of):
            return tells_rows_apart(of, is_wildcard)
        case Column():
            return True
        case Metadata():
            return is_wildcard
        case Call(name):
            parts = any(tells_rows_apart(part, is_wildcard) for part in results_of(key))
            return parts and name not in LOSSY and tells_apart(key)
    return False
