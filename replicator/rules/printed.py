"""Puts and Removes → what storage takes in of their rows, as columns of a binary COPY. No I/O.

Which number an op has and whose it is stands in columns before these, and is known later. What is here is the
same wherever the row is put, and so its checksum is.
"""

from __future__ import annotations

from collections.abc import Iterable
from struct import Struct
from typing import NamedTuple

from replicator.rules.model import Put, Remove

#: A column is its length, and its bytes.
length = Struct(">i").pack
#: The length of most, made once.
LENGTHS = tuple(map(length, range(2048)))
_read_length = Struct(">i").unpack_from
_NULL = length(-1)


class Printed(NamedTuple):
    """Puts and Removes as they are stored, in their order."""

    #: The bucket of each.
    buckets: list[str]
    #: Of each the columns `op`, `object_type`, `object_id`, `subkey` and `data`.
    rows: list[bytes]


def print_all(intents: Iterable[Put | Remove]) -> Printed:
    printed = Printed([], [])
    buckets, rows = printed.buckets.append, printed.rows.append
    #: What clients call the row before, and what begins with it: the next one's is mostly the same.
    met, put, remove = "", put_head(""), _remove_head("")
    for intent in intents:
        kind, row_id, subkey = intent[1:4]
        if kind is not met:
            met, put, remove = kind, put_head(kind), _remove_head(kind)
        names = column(row_id.encode()) + column(subkey.encode())
        if type(intent) is Put:
            rows(put + names + column(intent[4].encode()))
        else:
            rows(remove + names + _NULL)
        buckets(intent[0])
    return printed


def put_head(kind: str) -> bytes:
    """What a Put's columns begin with, by what clients call such rows."""
    return column(b"PUT") + column(kind.encode())


def _remove_head(kind: str) -> bytes:
    return column(b"REMOVE") + column(kind.encode())


def column(value: bytes) -> bytes:
    size = len(value)
    return (LENGTHS[size] if size < len(LENGTHS) else length(size)) + value


def put_again(bucket: str, row: bytes) -> Put:
    """A Put that was printed, as it was before."""
    values, at = [], 0
    while at < len(row):
        begin = at + 4
        at = begin + _read_length(row, at)[0]
        values.append(row[begin:at].decode())
    return Put(bucket, *values[1:])
