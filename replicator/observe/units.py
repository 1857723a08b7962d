"""A number of bytes, or of seconds → words for a person. No I/O."""

from __future__ import annotations

_SIZES = ("bytes", "kB", "MB", "GB", "TB")
_SPANS = ((86400, "days"), (3600, "hours"), (60, "minutes"))


def size(count: float) -> str:
    """`12 kB`, `3.4 GB`: as Postgres counts, by 1024."""
    number, unit = float(count), 0
    while abs(number) >= 1024 and unit < len(_SIZES) - 1:
        number, unit = number / 1024, unit + 1
    return f"{number:.1f} {_SIZES[unit]}" if unit and abs(number) < 10 else f"{number:.0f} {_SIZES[unit]}"


def span(seconds: float) -> str:
    """`40 seconds`, `37 hours`, `5 days`."""
    for length, name in _SPANS:
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {name}"
    return "1 second" if round(seconds) == 1 else f"{seconds:.0f} seconds"
