"""Scalars → text, and what is found in it, of it or instead of it. No I/O.

Text is counted in UTF-16 units, as clients do: a character beyond the first 65,536 is two.

What is computed has a greatest size, far above what a row holds: `replace` in `replace` would otherwise ask
for more memory than there is, for one row.
"""

from __future__ import annotations

import base64 as codec
import re
from typing import Final

from replicator.rules.compute.patterns import matches
from replicator.rules.compute.scalars import EvaluationError, as_blob, as_integer, as_text
from replicator.rules.expression import Scalar

#: Characters of a computed text: more than clients take in a row, and no burden.
MOST_CHARACTERS: Final = 32 * 1024 * 1024
#: Python looks for each character of a text among those to trim one by one.
_FEW: Final = 16
_UUID: Final = re.compile("[0-9a-fA-F]{8}(-?[0-9a-fA-F]{4}){3}-?[0-9a-fA-F]{12}")


def _check(size: int) -> None:
    if size > MOST_CHARACTERS:
        raise EvaluationError("a computed text is too long")


def upper(value: Scalar) -> str | None:
    text = as_text(value)
    return None if text is None else text.upper()


def lower(value: Scalar) -> str | None:
    text = as_text(value)
    return None if text is None else text.lower()


def joined(a: Scalar, b: Scalar) -> str | None:
    left, right = as_text(a), as_text(b)
    if left is None or right is None:
        return None
    _check(len(left) + len(right))
    return left + right


def concat(*values: Scalar) -> str:
    """Without those that are NULL."""
    texts = [as_text(value) or "" for value in values]
    _check(sum(map(len, texts)))
    return "".join(texts)


def replace(value: Scalar, old: Scalar, new: Scalar) -> str | None:
    text, what, by = as_text(value), as_text(old), as_text(new)
    if text is None or what is None or by is None:
        return None
    if not what:
        return text
    if len(by) > len(what):
        _check(len(text) + text.count(what) * (len(by) - len(what)))
    return text.replace(what, by)


def trim(value: Scalar, characters: Scalar = " ") -> str | None:
    return ltrim(rtrim(value, characters), characters)


def ltrim(value: Scalar, characters: Scalar = " ") -> str | None:
    text, which = as_text(value), as_text(characters)
    if text is None or which is None:
        return None
    if len(which) <= _FEW:
        return text.lstrip(which)
    among = frozenset(which)
    return text[next((at for at, one in enumerate(text) if one not in among), len(text)) :]


def rtrim(value: Scalar, characters: Scalar = " ") -> str | None:
    text, which = as_text(value), as_text(characters)
    if text is None or which is None:
        return None
    if len(which) <= _FEW:
        return text.rstrip(which)
    among = frozenset(which)
    return text[: next((at for at in range(len(text), 0, -1) if text[at - 1] not in among), 0)]


def _units(text: str) -> bytes | None:
    """The text in UTF-16, if a character of it takes two units."""
    return None if text.isascii() or max(text) < "\U00010000" else text.encode("utf-16-le", "replace")


def length(value: Scalar) -> int | None:
    if isinstance(value, bytes):
        return len(value)
    text = as_text(value)
    if text is None:
        return None
    units = _units(text)
    return len(text) if units is None else len(units) // 2


def substring(value: Scalar, start: Scalar, count: Scalar = -1 << 63) -> str | None:
    """From a place counted from 1, or back from the end; a negative count takes what stands before it."""
    text, at, many = as_text(value), as_integer(start), as_integer(count)
    if text is None or at is None or many is None:
        return None
    units = _units(text)
    size = len(text) if units is None else len(units) // 2
    if many == -1 << 63:
        many = size + 1
    if at == 0:
        many -= 1  # the place before the first counts
    begin = max(0, size + at) if at < 0 else max(0, at - 1)
    begin, end = sorted((min(begin, size), min(max(0, begin + many), size)))
    if units is None:
        return text[begin:end]
    return units[begin * 2 : end * 2].decode("utf-16-le", "replace")


def instr(value: Scalar, part: Scalar) -> int | None:
    if value is None or part is None:
        return None
    if isinstance(value, bytes) and isinstance(part, bytes):
        return value.find(part) + 1
    text, what = as_text(value) or "", as_text(part) or ""
    at = text.find(what)
    return (length(text[:at]) or 0) + 1 if at >= 0 else 0


def like(value: Scalar, pattern: Scalar) -> int | None:
    text, form = as_text(value), as_text(pattern)
    if text is None or form is None:
        return None
    return +matches(text, form)


def ilike(value: Scalar, pattern: Scalar) -> int | None:
    return like(lower(value), lower(pattern))


def hexadecimal(value: Scalar) -> str:
    blob = as_blob(value) or b""
    _check(2 * len(blob))
    return blob.hex().upper()


def base64(value: Scalar) -> str:
    blob = as_blob(value) or b""
    _check(len(blob) * 4 // 3)
    return codec.b64encode(blob).decode()


def uuid_blob(value: Scalar) -> bytes | None:
    text = as_text(value)
    if text is None:
        return None
    if not _UUID.fullmatch(text):
        raise EvaluationError("uuid_blob needs the text of a UUID")
    return bytes.fromhex(text.replace("-", ""))
