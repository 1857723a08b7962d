"""A kind of column → random values to put in, and what a client must hold of them. No I/O.

`shown` is read off the manual of the type mapping, one kind after the other, and shares nothing with the
code under test: it starts from the text that a plain SELECT gives, cast to text.
"""

from __future__ import annotations

import json
import random
import re
import string
from collections.abc import Callable
from enum import Enum


class Kind(Enum):
    """What stands in a column; the value is its SQL type."""

    UUID = "uuid"
    INTEGER = "bigint"
    SMALL = "integer"
    NUMERIC = "numeric"
    REAL = "double precision"
    BOOLEAN = "boolean"
    JSON = "jsonb"
    LIST = "text[]"
    TIME = "timestamptz"
    DAY = "date"
    BYTES = "bytea"
    TEXT = "text"
    #: Text stored out of line and not compressed, so that updates leave it out of the log.
    WIDE = "text "  # the space makes it a member of its own


#: A JSON value as compared here: an integer is not a real, and neither is true or false.
Shown = tuple[str, object]

_PIECES = (
    *("", " ", "'", '"', "\\", "\\N", "\\.", "\t", "\n", "\r\n", "\v", "\x01", "\x7f", "\x85", "\u2028"),
    *("null", "NULL", "{}", "[]", "a", "Zoë", "東京", "🩺", "e\u0301", "%s", "$1", "/", "--", ";", "<b>&"),
)


def odd_text(rng: random.Random) -> str:
    """Text of the kind that breaks what quotes carelessly."""
    return "".join(rng.choices(_PIECES, k=rng.choice((0, 1, 1, 2, 3, 5, 9))))


def wide_text(rng: random.Random) -> str:
    """More than fits into a row: its length is chance, and so is its beginning."""
    head = "".join(rng.choices(string.printable, k=40))
    length = rng.choice((2_100, 2_100, 2_100, 2_500, 2_500, 4_000, 4_000, 20_000))
    return head + odd_text(rng) + rng.choice(string.ascii_letters) * length


def _json(rng: random.Random, depth: int = 0) -> object:
    most = 7 if depth < 3 else 5
    match rng.randrange(most):
        case 0:
            return None
        case 1:
            return rng.choice((True, False))
        case 2:
            return rng.choice((0, -1, 10**20, 1.5, 1e300, -2.0))
        case 3 | 4:
            return odd_text(rng)
        case 5:
            return [_json(rng, depth + 1) for _ in range(rng.randrange(4))]
        case _:
            return {odd_text(rng): _json(rng, depth + 1) for _ in range(rng.randrange(4))}


def _list(rng: random.Random) -> str:
    def quoted(text: str) -> str:
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

    items = [rng.choice((odd_text(rng), None)) for _ in range(rng.randrange(4))]
    return "{" + ",".join("NULL" if item is None else quoted(item) for item in items) + "}"


def _time(rng: random.Random) -> str:
    if not rng.randrange(12):
        return rng.choice(("infinity", "-infinity", "0044-03-15 12:00:00+00 BC", "epoch"))
    fraction = rng.choice(("", ".5", ".123456", ".000001"))
    zone = rng.choice(("Z", "+02", "-11:30"))
    return (
        f"{rng.randrange(1900, 2100)}-{rng.randrange(1, 13):02}-{rng.randrange(1, 29):02} "
        f"{rng.randrange(24):02}:{rng.randrange(60):02}:{rng.randrange(60):02}{fraction}{zone}"
    )


_REALS = (
    "0",
    "1",
    "-2.5",
    "1e300",
    "1e-7",
    "0.1",
    "100000",
    "NaN",
    "Infinity",
    "-Infinity",
    "1.7e15",
    "1e15",
)
_NUMERICS = ("0", "0.00", "-1.50", "1e20", "123456789012345678901234567890.12345", "NaN", "7")
_INTEGERS = (0, 1, -1, 2**53 + 1, 2**63 - 1, -(2**63))

_MADE: dict[Kind, Callable[[random.Random], str]] = {
    Kind.UUID: lambda rng: f"{rng.getrandbits(128):032x}",
    Kind.INTEGER: lambda rng: str(rng.choice((*_INTEGERS, rng.randrange(1000)))),
    Kind.SMALL: lambda rng: str(rng.randrange(-1000, 1000)),
    Kind.NUMERIC: lambda rng: rng.choice((*_NUMERICS, str(rng.randrange(10**6) / 100))),
    Kind.REAL: lambda rng: rng.choice((*_REALS, repr(rng.random()))),
    Kind.BOOLEAN: lambda rng: rng.choice(("true", "false")),
    Kind.JSON: lambda rng: json.dumps(_json(rng), ensure_ascii=rng.random() < 0.5),
    Kind.LIST: _list,
    Kind.TIME: _time,
    Kind.DAY: lambda rng: f"{rng.randrange(1900, 2100)}-02-{rng.randrange(1, 29):02}",
    Kind.BYTES: lambda rng: "\\x" + rng.randbytes(rng.randrange(5)).hex(),
    Kind.TEXT: odd_text,
    Kind.WIDE: lambda rng: wide_text(rng) if rng.random() < 0.85 else odd_text(rng),
}


def make(kind: Kind, rng: random.Random) -> str:
    """A value, as text that Postgres takes for this type."""
    return _MADE[kind](rng)


def shown(kind: Kind, text: str | None) -> Shown | None:
    """What a client must hold of a value that Postgres casts to this text; never asked for BYTES."""
    if text is None:
        return None
    match kind:
        case Kind.INTEGER | Kind.SMALL:
            return ("integer", int(text))
        case Kind.BOOLEAN:
            return ("integer", {"true": 1, "false": 0}[text])
        case Kind.REAL:
            # JSON has no words for what is no number.
            return None if text in ("NaN", "Infinity", "-Infinity") else ("real", float(text))
        case Kind.TIME:
            return ("text", _TIMES[text]) if text in _TIMES else _utc(text)
        case Kind.LIST:
            return ("text", _array(text))
        case _:
            return ("text", text)


#: What no clock shows.
_TIMES = {"infinity": "9999-12-31 23:59:59Z", "-infinity": "0000-01-01 00:00:00Z"}
_ITEM = re.compile(r'"((?:[^"\\]|\\.)*)"|([^",{}]+)', re.DOTALL)


def _utc(text: str) -> Shown | None:
    """A time before our era is none that a client could read."""
    return ("text", text[:-3] + "Z") if text.endswith("+00") else None


def _array(text: str) -> str:
    """A list of texts as JSON, its items as they were written."""
    items = [
        None if bare == "NULL" else bare or re.sub(r"\\(.)", r"\1", quoted, flags=re.DOTALL)
        for quoted, bare in _ITEM.findall(text)
    ]
    return json.dumps(items, ensure_ascii=False, separators=(",", ":"))


def read(data: str) -> dict[str, Shown | None]:
    """A row as a client reads it, told as `shown` tells it."""
    row: dict[str, object] = json.loads(
        data, parse_int=lambda text: ("integer", int(text)), parse_float=lambda text: ("real", float(text))
    )
    return {name: ("text", value) if isinstance(value, str) else value for name, value in row.items()}  # type: ignore[misc]  # numbers are pairs already, by the two functions above
