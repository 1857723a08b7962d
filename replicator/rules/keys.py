"""Values → the text by which buckets and lookups are named and found. No I/O.

Both sides of every comparison in the rules meet in this text: a row's value and a request's value are equal
if they are written the same. A whole number is one number however it was come by: 5.0 is written 5. Text is
never equal to a number. What is nothing is equal to nothing, and has no text here at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256
from math import isfinite
from sys import float_info

import orjson

from replicator.rules.columns.values import quote
from replicator.rules.compute.scalars import LONGEST, real_text
from replicator.rules.compute.scalars import as_text as printed
from replicator.rules.expression import Scalar

#: What is part of an index has to stay far below a page, also in the longest characters: a bucket's name, and
#: a lookup's key together with the row that it is there for.
MOST_IN_A_NAME = 600
MOST_IN_A_KEY = 300
MOST_REAL = int(float_info.max)


def short(text: str) -> str:
    """The text itself, or what stands for it in an index if it is long; no two texts have the same."""
    if len(text) <= MOST_IN_A_KEY and text[:1] != "#":
        return text
    return "#" + sha256(text.encode()).hexdigest()


def word(value: Scalar) -> str:
    """One value, which is not None, as JSON text."""
    kind = type(value)
    if kind is str:
        return quote(value)  # type: ignore[arg-type]  # its type has just been looked at
    if kind is int:
        return str(value) if -LONGEST <= value < LONGEST else _long(value)  # type: ignore[operator,arg-type]  # as above
    if kind is bool:
        return "1" if value else "0"
    if kind is bytes:
        return f'["{value.hex()}"]'  # type: ignore[union-attr]  # as above; a list, which no other value is
    return real_text(value)  # type: ignore[arg-type]  # nothing else is left


def _long(value: int) -> str:
    """A whole number beyond 64 bits: as the real number that it is, or with all its digits."""
    is_real = abs(value) < MOST_REAL and int(float(value)) == value
    return real_text(float(value)) if is_real else str(value)


def as_text(value: Scalar) -> Scalar:
    """The value as text, for parameters that are compared as text; whole numbers without a fraction."""
    if value is None or type(value) is str:
        return value
    if type(value) is bytes:
        try:
            return value.decode()
        except UnicodeDecodeError:
            return "\\x" + value.hex()  # what is no text must not become equal to what is another
    return printed(value)


def key(values: Iterable[Scalar]) -> str | None:
    """Several values as one key; None if one of them is nothing, for then it equals no key."""
    words = []
    for value in values:
        if value is None:
            return None
        words.append(word(value))
    return "[" + ",".join(words) + "]"


def pack(values: Sequence[Scalar]) -> str:
    """Several values, any of which may be nothing, as text that `unpack` reads."""
    return "[" + ",".join(map(_packed, values)) + "]"


def unpack(text: str) -> tuple[Scalar, ...]:
    return tuple([_unpacked(value) if type(value) is list else value for value in orjson.loads(text)])


def _packed(value: Scalar) -> str:
    if value is None:
        return "null"
    if type(value) is float and not isfinite(value):
        return f'["{value!r}",0]'
    if type(value) is int and not -LONGEST <= value < LONGEST:
        return f'["{value}",0]'
    return word(value)


def _unpacked(parts: list[str]) -> Scalar:
    """What JSON has no word for: bytes, and numbers that it, or who reads it, does not hold."""
    if len(parts) == 1:
        return bytes.fromhex(parts[0])
    return float(parts[0]) if parts[0].lstrip("-")[0].isalpha() else int(parts[0])
