"""Puts and Removes → what storage takes in of their rows, as columns of a binary COPY. No I/O.

Which number an op has and whose it is stands in columns before these, and is known later. What is here is the
same wherever the row is put, and so its checksum is.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from struct import Struct
from typing import NamedTuple

from replicator.binary_copy import LENGTHS, NULL, column
from replicator.rules.model import Put, Remove

_read_length = Struct(">i").unpack_from


class Intended(NamedTuple):
    """Puts and Removes, in their order; some of them are printed."""

    #: The bucket of each.
    buckets: list[str]
    #: Of each that is printed the columns `op`, `object_type`, `object_id`, `subkey` and `data`.
    ops: list[Put | Remove | bytes]


def print_all(ops: Iterable[Put | Remove | bytes]) -> list[bytes]:
    return [op if type(op) is bytes else _printed(op) for op in ops]  # type: ignore[arg-type]  # nothing else is left


def _printed(intent: Put | Remove) -> bytes:
    if type(intent) is Put:
        _, kind, row_id, subkey, text = intent
        head, data = put_head(kind), column(text.encode())
    else:
        _, kind, row_id, subkey = intent  # type: ignore[misc]  # a Remove, then
        head, data = _remove_head(kind), NULL
    row_id_, subkey_ = row_id.encode(), subkey.encode()
    try:
        return b"".join((head, LENGTHS[len(row_id_)], row_id_, LENGTHS[len(subkey_)], subkey_, data))
    except IndexError:
        return b"".join((head, column(row_id_), column(subkey_), data))


@lru_cache(maxsize=1024)
def put_head(kind: str) -> bytes:
    """What a Put's columns begin with, by what clients call such rows."""
    return column(b"PUT") + column(kind.encode())


@lru_cache(maxsize=1024)
def _remove_head(kind: str) -> bytes:
    return column(b"REMOVE") + column(kind.encode())


def put_again(row: bytes) -> Put | None:
    """A Put that was printed, as it was before, but for its bucket; None if it was a Remove."""
    values, at = [], 0
    while at < len(row) and (size := _read_length(row, at)[0]) >= 0:
        begin, at = at + 4, at + 4 + size
        values.append(row[begin:at].decode())
    op, *said = values
    return Put("", *said) if op == "PUT" else None
