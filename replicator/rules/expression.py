"""The words of expressions: what a SQL expression of the rules means, names resolved. No I/O.

Two expressions are equal if they mean the same by construction: where they stood in the file is not part of
them. Everything that is computed is a Call, operators and functions alike, by one name each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

#: What expressions are about: nothing, a whole number, a real one, text, bytes. Booleans are 1 and 0.
Scalar = None | int | float | str | bytes


@dataclass(frozen=True, slots=True)
class Literal:
    """A value written in the rules."""

    value: Scalar


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a row, by its name; `table` tells apart the tables of one query, in order of appearance."""

    name: str
    table: int = 0


@dataclass(frozen=True, slots=True)
class Request:
    """What is known of who asks: one of the names below."""

    #: `user_id`: the token's subject. `jwt`: its payload as JSON text. `token_parameters`: the payload's
    #: `parameters`, with the subject as `user_id`, as JSON text. Unverified, because the client sends them:
    #: `parameters`: those of the connection, as JSON text; `subscription`: those of one subscription.
    what: str


@dataclass(frozen=True, slots=True)
class BucketParameter:
    """`bucket.x`: what all rows of one bucket have in common, by the place of x among the parameters."""

    at: int


@dataclass(frozen=True, slots=True)
class Found:
    """A value that an earlier step of a parameter query brought: see `model.Step`."""

    step: int
    at: int


@dataclass(frozen=True, slots=True)
class Metadata:
    """`schema`, `table_name` or `table_suffix`: what the row's own table is called."""

    what: str
    table: int = 0


@dataclass(frozen=True, slots=True)
class Now:
    """The time, which is an input: seconds since 1970."""


@dataclass(frozen=True, slots=True)
class Call:
    """Something computed of something. `functions.py` lists every name."""

    name: str
    args: tuple[Expression, ...]


Expression = Literal | Column | Request | BucketParameter | Found | Metadata | Now | Call


class Dialect(NamedTuple):
    """What the top of a rules file decides about the meaning of what follows."""

    edition: int = 1
    timestamps_iso8601: bool = False
    fixed_json_extract: bool = False
    custom_postgres_types: bool = False
    versioned_bucket_ids: bool = False
    #: Digits of a second's fraction in timestamps, or None: as the edition has them.
    fraction_digits: int | None = None


EDITION_1 = Dialect()
EDITION_2 = Dialect(2, True, True, True, True)
EDITION_3 = EDITION_2._replace(edition=3)
