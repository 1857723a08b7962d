"""A span of time or a name as the sync section writes it → the value meant, or a ValueError. No I/O."""

from __future__ import annotations

import re
from collections.abc import Callable

from pydantic import SecretStr

from replicator.settings import values
from replicator.text.words import boolean

DURATION = re.compile(r"(0|[1-9][0-9]{0,8})(s|m|h|d)")
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
ADMIN_TOKEN = re.compile(r"[!-~]{16,1024}")
#: `users`, or `public.users`.
TABLE = re.compile(r"[^.\x00]{1,63}(\.[^.\x00]{1,63})?")


def seconds(least: int, most: int) -> Callable[[object], int]:
    """`90s`, `5m`, `8h` or `1d`, within bounds."""

    def duration(value: object) -> int:
        found = value if type(value) is int else _seconds(values.text(value))
        if not least <= found <= most:
            raise ValueError(f"must be from {spelt(least)} to {spelt(most)}")
        return found

    return duration


def _seconds(written: str) -> int:
    found = DURATION.fullmatch(written)
    if found is None:
        raise ValueError("must be a number and a unit: 90s, 5m, 8h or 1d")
    return int(found[1]) * SECONDS[found[2]]


def spelt(duration_s: int) -> str:
    """The same as one would write it."""
    for unit in ("d", "h", "m"):
        if duration_s and duration_s % SECONDS[unit] == 0:
            return f"{duration_s // SECONDS[unit]}{unit}"
    return f"{duration_s}s"


def section_or_flag(value: object) -> object:
    """`false` and nothing are no section, `true` is one with its defaults."""
    if value in (None, ""):
        return None
    if isinstance(value, bool | str):
        is_on = value if isinstance(value, bool) else boolean(values.text(value))
        return {} if is_on else None
    return value


def optional_rate(value: object) -> int | None:
    return None if value in (None, "") else values.number_up_to(100_000)(value)


def optional_secret(value: object) -> SecretStr | None:
    return None if value in (None, "") else values.secret(value)


def admin_token(value: object) -> SecretStr:
    """A secret that is sent as it is in a header, and is too long to be guessed."""
    found = values.secret(value)
    if not ADMIN_TOKEN.fullmatch(found.get_secret_value()):
        raise ValueError("must be 16 to 1024 letters, digits or signs, without spaces")
    return found


def optional_pem(value: object) -> SecretStr | None:
    """A key with its lines; also one whose lines a variable holds as \\n."""
    if value is None or value == "":
        return None
    if isinstance(value, SecretStr):
        return value
    if not isinstance(value, str):
        raise ValueError("must be text")
    return SecretStr(value.replace("\\n", "\n").strip() + "\n")


def table(value: object) -> str:
    if not TABLE.fullmatch(written := values.text(value)):
        raise ValueError("must be a table's name, such as users or public.users")
    return written


def base_url(value: object) -> str:
    """An address that paths are put behind."""
    written = values.url(value)
    if "?" in written or "#" in written:
        raise ValueError("must be an address without ? and #, such as https://host")
    return written.rstrip("/")
