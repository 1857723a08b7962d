"""Scalars → how they compare, count and turn into each other. No I/O.

The rules compute as SQLite does, with the departures that existing rules rely on: AND, OR and NOT know only
true and false, with NULL as false; types are ordered null < number < text < blob and never converted to be
compared, so that 1 = '1' is false; text counts as the number it begins with.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from decimal import Context, Decimal
from typing import Final

from replicator.rules.expression import Scalar

Number = int | float

_TRUE_TEXT: Final = re.compile(r"\s*[+-]?(?:0*[1-9]|0[xX]0*[1-9a-fA-F])")
_NUMBER: Final = re.compile(r"\s*([+-]?(?:[0-9]+(\.[0-9]*)?|(\.[0-9]+))([eE][+-]?[0-9]+)?)")
_INTEGER: Final = re.compile(r"\s*([+-]?[0-9]+)")
#: Of digits, for 15 before the point and 30 behind it.
_ENOUGH: Final = Context(prec=50)
#: From here on, 64 bits do not hold a whole number.
LONGEST = 1 << 63
_MOST, _LEAST = LONGEST - 1, -LONGEST
#: No real number is as large as a whole number of more digits than this may be.
_MOST_DIGITS = 300


class EvaluationError(Exception):
    """An expression has no value for this row or request. Says why, never which values."""


def reason(error: Exception) -> str:
    """Why something could not be computed. What nobody foresaw may repeat a value: of that, its kind."""
    return str(error) if isinstance(error, EvaluationError) else type(error).__name__


def truth(value: Scalar) -> bool:
    """Whether a value counts as true: text by the whole number it begins with, NULL and blobs never."""
    if isinstance(value, str):
        return _TRUE_TEXT.match(value) is not None
    return bool(value) and not isinstance(value, bytes) and value == value


# Types


def type_name(value: Scalar) -> str:
    """What `typeof` says."""
    match value:
        case None:
            return "null"
        case int():
            return "integer"
        case float():
            return "real"
        case str():
            return "text"
        case bytes():
            return "blob"


def as_text(value: Scalar) -> str | None:
    """A whole real is printed without a fraction, as existing buckets and ids have it."""
    if type(value) is str:
        return value  # nearly always
    match value:
        case None | str():
            return value
        case bytes():
            return value.decode(errors="replace")
        case int():
            return str(value)
        case float():
            return real_text(value)


def real_text(value: float) -> str:
    """The shortest digits that mean this number, with an exponent where JavaScript writes one."""
    if not math.isfinite(value):
        return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"
    if value == 0 or 1e-6 <= abs(value) < 1e21:
        return str(int(value)) if value.is_integer() else format(Decimal(repr(value)), "f")
    digits, _, exponent = repr(value).partition("e")
    return f"{digits}e{int(exponent):+d}"


def as_blob(value: Scalar) -> bytes | None:
    if value is None or isinstance(value, bytes):
        return value
    return (as_text(value) or "").encode(errors="replace")


def as_number(value: Scalar) -> Number | None:
    """The number a value is or begins with; 0 if there is none."""
    if isinstance(value, bytes):
        value = as_text(value)
    if not isinstance(value, str):
        return value
    match = _NUMBER.match(value)
    if match is None:
        return 0
    if match[2] or match[3] or match[4] or len(match[1]) > _MOST_DIGITS:
        return float(match[1])
    return fitted(int(match[1]))


def fitted(value: Number) -> Number:
    """A whole number that no 64 bits hold becomes a real one."""
    return _real(value) if isinstance(value, int) and not _LEAST <= value <= _MOST else value


def _real(value: Number) -> float:
    """The nearest real number; infinity, as of text, where none is so large."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def as_integer(value: Scalar) -> int | None:
    if isinstance(value, bytes):
        value = as_text(value)
    if isinstance(value, str):
        match = _INTEGER.match(value)
        if match is None:
            return 0
        value = int(match[1]) if len(match[1]) <= _MOST_DIGITS else float(match[1])
    if isinstance(value, float):
        if value != value:
            return None
        value = int(value) if math.isfinite(value) else _MOST if value > 0 else _LEAST
    return None if value is None else max(_LEAST, min(_MOST, value))


def as_real(value: Scalar) -> float | None:
    number = as_number(value)
    return None if number is None else _real(number)


# Comparisons. None stands for NULL: it is neither true nor false, but counts as false.


def _rank(value: Scalar) -> int:
    return 2 if isinstance(value, str) else 3 if isinstance(value, bytes) else 1


def compare(a: Scalar, b: Scalar) -> int:
    """Less than, equal to or more than 0, as a is to b; neither is None."""
    if type(a) is not type(b) and (rank := _rank(a)) != (other := _rank(b)):
        return rank - other
    return (a > b) - (a < b)  # type: ignore[operator]  # of one rank, so of one kind


def equal(a: Scalar, b: Scalar) -> int | None:
    return None if a is None or b is None else +(a == b)


def different(a: Scalar, b: Scalar) -> int | None:
    return None if a is None or b is None else +(a != b)


def not_equal(a: Scalar, b: Scalar) -> int:
    """Edition 3 reads `a != b` as NOT (a = b), which holds if one of them is NULL."""
    return +(a is None or b is None or a != b)


def less(a: Scalar, b: Scalar) -> int | None:
    return None if a is None or b is None else +(compare(a, b) < 0)


def less_or_equal(a: Scalar, b: Scalar) -> int | None:
    return None if a is None or b is None else +(compare(a, b) <= 0)


def more(a: Scalar, b: Scalar) -> int | None:
    return less(b, a)


def more_or_equal(a: Scalar, b: Scalar) -> int | None:
    return less_or_equal(b, a)


def distinct(a: Scalar, b: Scalar) -> int:
    """NULL is distinct from everything but NULL."""
    return +(a != b)


def not_distinct(a: Scalar, b: Scalar) -> int:
    return +(a == b)


def between(value: Scalar, low: Scalar, high: Scalar) -> int | None:
    above, below = less_or_equal(low, value), less_or_equal(value, high)
    if above == 0 or below == 0:
        return 0  # whatever the other bound is
    return None if above is None or below is None else 1


def in_list(value: Scalar, *members: Scalar) -> int | None:
    if value is None:
        return None
    if any(member is not None and value == member for member in members):
        return 1
    return None if None in members else 0


# Arithmetic


def _numbers(of: Callable[[Number, Number], Number | None]) -> Callable[[Scalar, Scalar], Number | None]:
    """An operator on numbers, for any values."""

    def operator(a: Scalar, b: Scalar) -> Number | None:
        left, right = as_number(a), as_number(b)
        if left is None or right is None:
            return None
        try:
            result = of(left, right)
        except OverflowError:  # one is real, and the other too long for it
            result = of(_real(left), _real(right))
        # Not a number is no value.
        return None if result is None or result != result else fitted(result)

    return operator


def _divided(a: Number, b: Number) -> Number | None:
    """Whole numbers give a whole number, cut towards 0; nothing can be divided by 0."""
    if b == 0:
        return None
    if isinstance(a, int) and isinstance(b, int):
        return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
    return a / b


def _remaining(a: Number, b: Number) -> Number | None:
    """What a division leaves has the sign of what is divided."""
    if b == 0 or math.isinf(a):
        return None
    if isinstance(a, int) and isinstance(b, int):
        return abs(a) % abs(b) * (-1 if a < 0 else 1)
    return math.fmod(a, b)


add: Final = _numbers(lambda a, b: a + b)
subtract: Final = _numbers(lambda a, b: a - b)
multiply: Final = _numbers(lambda a, b: a * b)
divide: Final = _numbers(_divided)
remainder: Final = _numbers(_remaining)


def negative(value: Scalar) -> Number | None:
    number = as_number(value)
    return None if number is None else fitted(-number)


def absolute(value: Scalar) -> Number | None:
    number = as_number(value)
    return None if number is None else fitted(abs(number))


def rounded(value: Scalar, digits: Scalar = 0) -> Number | None:
    """Half away from 0, by the digits one sees; a whole number stays as it is."""
    number, places = as_number(value), as_integer(digits)
    if number is None or places is None:
        return None
    if isinstance(number, int) or not abs(number) < 1e15:
        return number
    unit = Decimal(1).scaleb(-max(0, min(places, 30)))
    return float(Decimal(repr(number)).quantize(unit, "ROUND_HALF_UP", _ENOUGH))
