"""An array, a composite or a range as Postgres printed it → JSON text. No I/O.

Each of the three has its own way to quote. An array marks `"` and `\\` with a backslash; composites and
ranges double them. NULL is the bare word in an array, nothing at all in a composite, and in a range no bound.
What is read here is only what Postgres prints, which is stricter than what it accepts; anything else is a
BadValue, so that what comes out is JSON in any case.
"""

from __future__ import annotations

import json
import json.encoder
import re
from collections.abc import Callable, Sequence
from typing import Final, NoReturn

from replicator.rules.columns.stamps import Stamp

#: A value's text, and how many levels it may still open → its JSON.
Printer = Callable[[str, int], str]

#: A text as a JSON string; what is not text raises TypeError.
quote: Callable[[str], str] = json.encoder.encode_basestring


class BadValue(ValueError):
    """A text that its type would not have been printed as."""

    def __init__(self) -> None:
        # The text is a row's value, and has no place in a message.
        super().__init__("not as Postgres prints this type")


# -- Arrays ----------------------------------------------------------------------------------------

_BOUNDS = re.compile(r"(?:\[-?[0-9]+:-?[0-9]+\])+=")
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


def array(element: Printer, delimiter: str) -> Printer:
    """An array of such elements, of any number of dimensions, wherever it begins to count."""
    apart = re.escape(delimiter)
    # One element: quoted, or bare.
    match = re.compile(rf'"((?:[^"\\]++|\\.)*+)"|([^"\\{{}}{apart}]++)', re.DOTALL).match

    def show(text: str, room: int) -> str:
        if text[:1] == "[" and (bounds := _BOUNDS.match(text)):
            text = text[bounds.end() :]
        if room < 1 or text[:1] != "{" or text[-1] != "}":
            raise BadValue
        inside = text[1:-1]
        if '"' in inside or "{" in inside:
            shown, end = dimension(text, 1, room)
            if end != len(text):
                raise BadValue
            return shown
        if "}" in inside or "\\" in inside:
            raise BadValue
        return f"[{','.join([bare(one, room) for one in inside.split(delimiter)])}]" if inside else "[]"

    def bare(text: str, room: int) -> str:
        if not text:
            raise BadValue
        return "null" if text == "NULL" else element(text, room - 1)

    def dimension(text: str, at: int, room: int) -> tuple[str, int]:
        """What follows a brace, and where it ends."""
        if room < 1:
            raise BadValue
        items: list[str] = []
        while True:
            if text[at : at + 1] == "{":
                item, at = dimension(text, at + 1, room - 1)
            elif found := match(text, at):
                at = found.end()
                quoted = found[1]
                item = bare(found[2], room) if quoted is None else element(_unescaped(quoted), room - 1)
            else:
                raise BadValue
            items.append(item)
            at += 1
            if text[at - 1 : at] == "}":
                return f"[{','.join(items)}]", at
            if text[at - 1 : at] != delimiter:
                raise BadValue

    return show


def _unescaped(text: str) -> str:
    return _ESCAPED.sub(r"\1", text) if "\\" in text else text


# -- Composites ------------------------------------------------------------------------------------

_DOUBLED = r'"((?:[^"\\]++|""|\\\\)*+)"'
_FIELD = re.compile(rf'(?:{_DOUBLED}|([^"\\(),]*+))([,)])')


def composite(fields: Sequence[tuple[str, Printer]]) -> Printer:
    """A row of such fields, as an object with their names."""
    if not fields:
        return _fieldless
    leads = [f"{',' if i else '{'}{quote(name)}:" for i, (name, _) in enumerate(fields)]
    printers = [printer for _, printer in fields]

    def show(text: str, room: int) -> str:
        if room < 1 or text[:1] != "(":
            raise BadValue
        pieces: list[str] = []
        at, end = 1, ","
        for lead, printer in zip(leads, printers, strict=True):
            found = _FIELD.match(text, at)
            if found is None or end != ",":
                raise BadValue
            at, end = found.end(), found[3]
            value = _undoubled(found[1], found[2])
            pieces += (lead, "null" if value is None else printer(value, room - 1))
        if end != ")" or at != len(text):
            raise BadValue
        return "".join(pieces) + "}"

    return show


def _fieldless(text: str, room: int) -> str:
    """A composite may have lost all its fields."""
    if room < 1 or text != "()":
        raise BadValue
    return "{}"


def _undoubled(quoted: str | None, bare: str) -> str | None:
    if quoted is None:
        return bare or None
    return quoted.replace('""', '"').replace("\\\\", "\\")


# -- Ranges ----------------------------------------------------------------------------------------

#: A range that has no member.
EMPTY: Final = '"empty"'

_BOUND = rf'(?:{_DOUBLED}|([^"\\,()\[\]]*+))'
_RANGE = re.compile(rf"empty|([\[(]){_BOUND},{_BOUND}([\])])")


def span(bound: Printer) -> Printer:
    """A range between two such bounds."""

    def show(text: str, room: int) -> str:
        found = _RANGE.fullmatch(text)
        if found is None:
            raise BadValue
        return _span(found, bound, room)

    return show


def spans(bound: Printer) -> Printer:
    """A multirange: some ranges, none of which is quoted."""

    def show(text: str, room: int) -> str:
        if room < 1 or text[:1] != "{":
            raise BadValue
        if text == "{}":
            return "[]"
        items: list[str] = []
        at = 1
        while found := _RANGE.match(text, at):
            items.append(_span(found, bound, room - 1))
            at = found.end() + 1
            if text[at - 1 : at] != ",":
                break
        if found is None or text[at - 1 :] != "}":
            raise BadValue
        return f"[{','.join(items)}]"

    return show


def _span(found: re.Match[str], bound: Printer, room: int) -> str:
    opening, low, bare_low, high, bare_high, closing = found.groups()
    if opening is None:
        return EMPTY
    if room < 1:
        raise BadValue
    lower, upper = (
        "null" if value is None else bound(value, room - 1)
        for value in (_undoubled(low, bare_low), _undoubled(high, bare_high))
    )
    left, right = int(opening == "("), int(closing == ")")
    return f'{{"lower":{lower},"upper":{upper},"lower_exclusive":{left},"upper_exclusive":{right}}}'


# -- What they are made of -------------------------------------------------------------------------

_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]*+)")
_REAL = re.compile(r"-?(?:0|[1-9][0-9]*+)(\.[0-9]++)?(e[+-]?[0-9]++)?")
#: JSON has no word for these. A null is what clients get for them, because with `NaN` in it they could not
#: read the row at all.
UNREAL: Final = frozenset(("NaN", "Infinity", "-Infinity"))


def integer(text: str, room: int) -> str:
    if not _INTEGER.fullmatch(text):
        raise BadValue
    return text


def real(text: str, room: int) -> str:
    if text in UNREAL:
        return "null"
    found = _REAL.fullmatch(text)
    if found is None:
        raise BadValue
    return text if found[1] or found[2] else text + ".0"


def boolean(text: str, room: int) -> str:
    if text not in ("t", "f"):
        raise BadValue
    return "1" if text == "t" else "0"


def string(text: str, room: int) -> str:
    return quote(text)


def nothing(text: str, room: int) -> str:
    """Bytes do not go to clients."""
    return "null"


def stamp(show: Stamp) -> Printer:
    """A date or time, by what shows it."""

    def print_stamp(text: str, room: int) -> str:
        shown = show(text)
        return "null" if shown is None else quote(shown)

    return print_stamp


def verbatim(text: str, room: int) -> str:
    """JSON, spaces and all; looked at only to be sure that it is JSON."""
    try:
        _JSON.decode(text)
    except (ValueError, RecursionError):
        raise BadValue from None
    return text


def _no_constant(name: str) -> NoReturn:
    raise BadValue


#: Numbers stay text: they may have more digits than Python likes to read.
_JSON = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=_no_constant)
