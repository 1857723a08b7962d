"""What Postgres prints for numbers, times, intervals and arrays → what the record reads. No I/O.

Everything here takes text as the source prints it with `datestyle = ISO` and `intervalstyle = postgres`.
ValueError says what was expected; it never repeats the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta, timezone

NUMBER = re.compile(r"\s*[+-]?(\d{1,300}(\.\d{0,300})?|\.\d{1,300})([eE][+-]?\d{1,3})?\s*", re.ASCII)
WHOLE = re.compile(r"\s*([+-]?\d{1,18})(\.0{1,30})?\s*", re.ASCII)
MOMENT = re.compile(
    r"(?P<date>\d{4}-\d\d-\d\d)"
    r"(?:[ T](?P<time>\d\d:\d\d(?::\d\d(?:\.\d{1,6})?)?)(?P<zone>Z|[+-]\d\d(?::?\d\d)?(?::\d\d)?)?)?",
    re.ASCII,
)
CLOCK = re.compile(r"(?P<time>\d\d:\d\d(?::\d\d(?:\.\d{1,6})?)?)(?P<zone>Z|[+-]\d\d(?::?\d\d)?)?", re.ASCII)
ISO_DURATION = re.compile(
    r"-?P(?=.)(\d+Y)?(\d+M)?(\d+W)?(\d+D)?(T(?=.)(\d+H)?(\d+M)?(\d+([.]\d+)?S)?)?", re.ASCII
)
INTERVAL = re.compile(
    r"(?:(?P<years>-?\d+) years? ?)?(?:(?P<months>-?\d+) mons? ?)?(?:(?P<days>-?\d+) days? ?)?"
    r"(?:(?P<sign>-)?(?P<hours>\d+):(?P<minutes>\d\d):(?P<seconds>\d\d(?:\.\d{1,6})?))?",
    re.ASCII,
)
BOOLEANS = {"t": True, "f": False, "true": True, "false": False}


def is_number(text: str) -> bool:
    return NUMBER.fullmatch(text) is not None


def number(text: str) -> float:
    if not is_number(text) or abs(found := float(text)) == float("inf"):
        raise ValueError("a number is expected")
    return found


def whole(text: str) -> int:
    found = WHOLE.fullmatch(text)
    if found is None:
        raise ValueError("a whole number is expected")
    return int(found[1])


def boolean(text: str) -> bool:
    if text not in BOOLEANS:
        raise ValueError("true or false is expected")
    return BOOLEANS[text]


# Times. `zone` is minutes east of UTC, for what says no zone itself.


def moment(text: str, zone: int) -> datetime:
    """A timestamp, or a date: the first moment of that day."""
    found = MOMENT.fullmatch(text.strip())
    if found is None:
        raise ValueError("a time is expected, of the years 1 to 9999")
    east = _zone(found["zone"], zone)
    day = date.fromisoformat(found["date"])
    return datetime.combine(day, time.fromisoformat(found["time"] or "00:00"), east)


def date_time(text: str, zone: int) -> str:
    return _written(moment(text, zone))


def day(text: str, zone: int) -> str:
    """The date: as it is written, or the day it was in the zone."""
    found = moment(text, zone)
    if len(text.strip()) == 10:
        return found.date().isoformat()
    return _in(found, zone).date().isoformat()


def clock(text: str) -> str:
    found = CLOCK.fullmatch(text.strip())
    if found is None:
        raise ValueError("a time of day is expected")
    written = time.fromisoformat(found["time"]).isoformat()
    if found["zone"] is None:
        return written
    # A zone belongs to a time of some day: any will do.
    return _written(
        datetime.combine(date(2000, 1, 1), time.fromisoformat(found["time"]), _zone(found["zone"], 0))
    )[11:]


def _in(found: datetime, zone: int) -> datetime:
    try:
        return found.astimezone(timezone(timedelta(minutes=zone)))
    except OverflowError:
        raise ValueError("a time is expected, of the years 1 to 9999") from None


def _zone(text: str | None, zone: int) -> timezone:
    if text is None:
        return timezone(timedelta(minutes=zone))
    if text == "Z":
        return UTC
    digits = text[1:].replace(":", "")
    minutes = int(digits[:2]) * 60 + int(digits[2:4] or "0")
    if minutes >= 24 * 60 or digits[4:] not in ("", "00"):
        raise ValueError("a time is expected, in a zone of whole minutes")
    return timezone(timedelta(minutes=-minutes if text[0] == "-" else minutes))


def _written(found: datetime) -> str:
    """ISO 8601, with milliseconds where there are any, and always with its zone."""
    exact = "microseconds" if found.microsecond % 1000 else "milliseconds" if found.microsecond else "seconds"
    return found.isoformat(timespec=exact)


def duration(text: str) -> str:
    """An ISO 8601 duration, or an interval."""
    text = text.strip()
    if ISO_DURATION.fullmatch(text):
        return text
    found = INTERVAL.fullmatch(text)
    if found is None or not text:
        raise ValueError("a duration is expected, such as P1D or 1 day")
    parts = {name: value for name, value in found.groupdict().items() if value is not None}
    if parts.pop("sign", None) or any(value.startswith("-") for value in parts.values()):
        raise ValueError("a duration is expected that is not negative")
    days = "".join(
        f"{int(parts[name])}{name[0].upper()}" for name in ("years", "months", "days") if name in parts
    )
    hours = "".join(
        f"{parts[name].lstrip('0') or '0'}{name[0].upper()}"
        for name in ("hours", "minutes", "seconds")
        if name in parts
    )
    return f"P{days}" + (f"T{hours}".replace("T.", "T0.") if hours else "")


# Arrays.


def elements(text: str) -> list[str | None]:
    """The elements of an array of one dimension."""
    if text.startswith("[") and "={" in text:
        text = text[text.index("={") + 1 :]  # bounds other than 1
    if len(text) < 2 or text[0] != "{" or text[-1] != "}":
        raise ValueError("an array is expected")
    return list(_elements(text[1:-1]))


ELEMENT = re.compile(r'(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<plain>[^",{}\\]+))(?P<comma>,|$)', re.DOTALL)


def _elements(inside: str) -> Iterator[str | None]:
    index = 0
    while index < len(inside):
        found = ELEMENT.match(inside, index)
        if found is None or (found["comma"] and found.end() == len(inside)):
            raise ValueError("an array of one dimension is expected")
        index = found.end()
        if found["quoted"] is not None:
            yield re.sub(r"\\(.)", r"\1", found["quoted"], flags=re.DOTALL)
        else:
            yield None if found["plain"] == "NULL" else found["plain"]
