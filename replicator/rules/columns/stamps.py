"""A date or time as Postgres printed it → as clients see it in each edition. No I/O.

Postgres prints `2026-03-06 15:47:00.5+00`, leaving out trailing zeros. Edition 1 hands that on, with a Z for
the zone. Editions since print ISO 8601 with all digits, `2026-03-06T15:47:00.500000Z`, so that text sorts
as time does. Digits are cut off or filled up, never rounded. What no client could read is None.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime

from replicator.rules.expression import Dialect

Stamp = Callable[[str], str | None]

#: Postgres has microseconds; more digits than these there never are.
_DIGITS = 6
_FORM = re.compile(
    r"([0-9]{4,}-[0-9]{2}-[0-9]{2}) ([0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.([0-9]{1,6}))?"
    r"([+-][0-9]{2}(?::[0-9]{2}){0,2})?"
)
_TIME = re.compile(r"([0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.([0-9]{1,6}))?")
_ENDS = {"infinity": ("9999-12-31", "23:59:59"), "-infinity": ("0000-01-01", "00:00:00")}


def date(text: str) -> str:
    """The end of time is the last day that has four digits."""
    return _ENDS[text][0] if text in _ENDS else text


def digits(dialect: Dialect) -> int:
    """How many digits of a second's fraction ISO 8601 has here."""
    return _DIGITS if dialect.fraction_digits is None else min(dialect.fraction_digits, _DIGITS)


def timestamp(dialect: Dialect) -> Stamp:
    """`timestamp`, in no zone in particular."""
    join = _joining(dialect, "")

    def show(text: str) -> str | None:
        if (
            text[-1:] <= "9" and text[10:11] == " "
        ):  # neither `… BC` nor `infinity`, and a year of four digits
            return join(text[:10], text[11:19], text[20:])
        parts = _FORM.fullmatch(text)
        if parts is None or parts[4]:
            return join(*_ENDS[text], "") if text in _ENDS else None
        return join(parts[1], parts[2], parts[3] or "")

    return show


def timestamptz(dialect: Dialect) -> Stamp:
    """`timestamp with time zone`, in UTC."""
    join = _joining(dialect, "Z")

    def show(text: str) -> str | None:
        if text[-3:] == "+00" and text[10:11] == " ":
            return join(text[:10], text[11:19], text[20:-3])
        parts = _FORM.fullmatch(text)
        if parts is None or not parts[4]:
            return join(*_ENDS[text], "") if text in _ENDS else None
        moment = _utc(f"{parts[1]} {parts[2]}{parts[4]}")
        return None if moment is None else join(moment[:10], moment[11:], parts[3] or "")

    return show


def time(dialect: Dialect) -> Stamp:
    """`time`, in no zone in particular."""
    if not dialect.timestamps_iso8601:
        return lambda text: text
    count = digits(dialect)

    def show(text: str) -> str | None:
        parts = _TIME.fullmatch(text)
        return None if parts is None else parts[1] + _fraction(parts[2] or "", count)

    return show


def _joining(dialect: Dialect, zone: str) -> Callable[[str, str, str], str]:
    """How a day, a time and the digits after it stand together."""
    if dialect.timestamps_iso8601:
        count = digits(dialect)
        return lambda day, time, rest: f"{day}T{time}{_fraction(rest, count)}{zone}"
    return lambda day, time, rest: f"{day} {time}.{rest}{zone}" if rest else f"{day} {time}{zone}"


def _fraction(rest: str, count: int) -> str:
    return "." + rest[:count].ljust(count, "0") if count else ""


def _utc(text: str) -> str | None:
    """Day and time in UTC, if a year of four digits can tell them."""
    try:
        # Years that Python cannot count are those that clients cannot, either.
        moment = datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return moment.replace(tzinfo=None).isoformat(" ")
