"""Timestamps as text, Julian days or seconds → seconds since 1970, and back. No I/O.

Days are counted here, because Postgres has a year 0 and text may name a 30th of February; both have a
place in the calendar, but not in Python's.
"""

from __future__ import annotations

import math
import re
from typing import Final

from replicator.rules.expression import Scalar

_ISO: Final = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})"
    r"(?:[Tt ]([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:\.([0-9]+))?)?)?"
    r" ?([Zz]|[+-][0-9]{2}(?::?[0-9]{2})?)?"
)
_JULIAN: Final = re.compile(r"[0-9]+(?:\.[0-9]*)?")
_JULIAN_1970 = 2440587.5
_DAY = 86_400
#: As far as JavaScript counts, in seconds.
_FAR = 8.64e12
SUBSECONDS: Final = frozenset(("subsec", "subsecond"))
_UNIT: Final = {
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), 1),
    **dict.fromkeys(("min", "mins", "minute", "minutes"), 60),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), 3600),
    **dict.fromkeys(("d", "day", "days"), _DAY),
    **dict.fromkeys(("w", "week", "weeks"), 7 * _DAY),
}
_PIECE: Final = re.compile(r"\s*([+-]?[0-9]{1,9}(?:\.[0-9]{1,9})?)\s*([a-z]+)\s*")


def interval_seconds(text: str) -> int | float | None:
    """`90 days`, `1 week 12 hours` in seconds; None if its length is not fixed, or not understood."""
    at, total, text = 0, 0.0, text.lower()
    while piece := _PIECE.match(text, at):
        if piece[2] not in _UNIT:
            return None
        total += float(piece[1]) * _UNIT[piece[2]]
        at = piece.end()
    if at == 0 or at < len(text):
        return None
    return int(total) if total.is_integer() else total


def modifiers_are_known(modifiers: tuple[Scalar, ...]) -> bool:
    """What may follow the value in unixepoch and datetime: 'unixepoch', then 'subsec'."""
    named = [modifier for modifier in modifiers if modifier is not None]
    if named and named[0] == "unixepoch":
        del named[0]
    return not named or (len(named) == 1 and named[0] in SUBSECONDS)


def unixepoch(value: Scalar, *modifiers: Scalar) -> int | float | None:
    seconds = _seconds(value, modifiers)
    if seconds is None:
        return None
    return float(seconds) if not SUBSECONDS.isdisjoint(modifiers) else math.floor(seconds)


def datetime(value: Scalar, *modifiers: Scalar) -> str | None:
    seconds = _seconds(value, modifiers)
    if seconds is None:
        return None
    milliseconds = math.floor(seconds * 1000 + 0.0005)
    day, rest = divmod(milliseconds, _DAY * 1000)
    year, month, date = _civil(day)
    if not 0 <= year <= 9999:
        return None
    text = (
        f"{year:04}-{month:02}-{date:02} {rest // 3600000:02}:{rest // 60000 % 60:02}:{rest // 1000 % 60:02}"
    )
    return f"{text}.{rest % 1000:03}" if not SUBSECONDS.isdisjoint(modifiers) else text


def moment(value: Scalar) -> int | float | None:
    """A row's timestamp in seconds, to be held against now(): text is read, a number is seconds already."""
    if isinstance(value, str):
        return _read(value, 6)
    return None if isinstance(value, bytes) else value


def _seconds(value: Scalar, modifiers: tuple[Scalar, ...]) -> int | float | None:
    if not modifiers_are_known(modifiers):
        return None
    if isinstance(value, str):
        seconds = _from_julian(float(value)) if _JULIAN.fullmatch(value) else _read(value, 3)
    elif isinstance(value, int | float):
        seconds = value if "unixepoch" in modifiers else _from_julian(value)
    else:
        return None
    return seconds if seconds is not None and abs(seconds) <= _FAR else None


def _from_julian(days: int | float) -> float:
    return round((days - _JULIAN_1970) * _DAY * 1000) / 1000 if abs(days) < 1e9 else math.inf


def _read(text: str, digits: int) -> float | None:
    """The seconds an ISO timestamp stands for; without a zone it is in UTC. Further digits are cut off."""
    match = _ISO.fullmatch(text)
    if match is None:
        return None
    year, month, date, hour, minute, second = (int(match[i] or 0) for i in range(1, 7))
    if not (1 <= month <= 12 and 1 <= date <= 31 and hour < 24 and minute < 60 and second < 60):
        return None
    fraction = int((match[7] or "0")[:digits].ljust(digits, "0"))
    whole = _days(year, month, date) * _DAY + hour * 3600 + minute * 60 + second - _zone(match[8])
    parts = int(10**digits)
    return (whole * parts + fraction) / parts


def _zone(text: str | None) -> int:
    if text is None or text in "Zz":
        return 0
    seconds = int(text[1:3]) * 3600 + int(text[3:].removeprefix(":") or 0) * 60
    return -seconds if text[0] == "-" else seconds


def _days(year: int, month: int, date: int) -> int:
    """Days since 1970-01-01 in the Gregorian calendar; a year is taken to begin in March."""
    year -= month <= 2
    of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + date - 1
    return year * 365 + year // 4 - year // 100 + year // 400 + of_year - 719468


def _civil(days: int) -> tuple[int, int, int]:
    """Year, month and date of a day; the other way round."""
    era, of_era = divmod(days + 719468, 146097)
    in_era = (of_era - of_era // 1460 + of_era // 36524 - of_era // 146096) // 365
    of_year = of_era - (365 * in_era + in_era // 4 - in_era // 100)
    month = (5 * of_year + 2) // 153
    date = of_year - (153 * month + 2) // 5 + 1
    month += 3 if month < 10 else -9
    return era * 400 + in_era + (month <= 2), month, date
