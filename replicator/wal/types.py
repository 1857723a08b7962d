"""A source database → what its catalogue says of types, and of the types those are made of.

A relation of the log names the types of its columns by oid only. How a value of a built-in type is printed
is known; of any other, what it is made of has to be asked.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple, TypeAlias

from replicator import queries
from replicator.database import Connection, rows

_q = queries.load("types")

Kind: TypeAlias = Literal["base", "array", "domain", "composite", "enum", "range", "multirange"]


class Attribute(NamedTuple):
    """One field of a composite."""

    name: str
    type_oid: int


class Type(NamedTuple):
    """A type, as far as one must know it to understand how its values are printed."""

    oid: int
    kind: Kind
    #: What an array, a domain, a range or a multirange is made of.
    element: int = 0
    #: What stands between the elements of an array.
    delimiter: str = ","
    #: Of a composite, in the order in which they are printed.
    attributes: tuple[Attribute, ...] = ()


async def read_types(source: Connection, oids: Iterable[int]) -> tuple[Type, ...]:
    """These types, and all they are made of; those that do not exist any more are left out."""
    found = await rows(source, _q.types, oids=sorted(set(oids)))
    return tuple(
        Type(oid, kind, element, delimiter, tuple(map(Attribute, names, types)))
        for oid, kind, element, delimiter, names, types in found
    )
