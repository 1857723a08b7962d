"""Values → columns of a binary COPY, and how one begins and ends. No I/O."""

from __future__ import annotations

from struct import Struct

BEGIN, END = b"PGCOPY\n\xff\r\n\0" + bytes(8), b"\xff\xff"
#: A column is its length, and its bytes.
length = Struct(">i").pack
#: The length of most, made once.
LENGTHS = tuple(map(length, range(2048)))
#: A column without a value.
NULL = length(-1)


def column(value: bytes | None) -> bytes:
    return NULL if value is None else length(len(value)) + value
