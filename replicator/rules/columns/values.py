"""A row as Postgres printed it → the JSON text a client stores, and values for expressions. No I/O.

Clients have what SQLite has. Integers stay exact, whatever their size; booleans are 1 and 0; a real keeps a
point or an exponent, so that it is one for clients, too; NaN and infinities are null, for JSON has no words
for them; a bytea is left out; everything else is text. Most of that is as Postgres printed it; dates and
times follow the edition; arrays become JSON, and so do composites and ranges where the rules say
`custom_postgres_types`. A text that does not look like its type stays what it is.

Values must be printed as `wal.source.PRINTING` says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import isfinite
from typing import NamedTuple

import orjson

from replicator.rules.columns import literals, stamps
from replicator.rules.columns.forms import Form, form_of, kind_of
from replicator.rules.columns.literals import BadValue, quote
from replicator.rules.columns.types import BUILT_IN, DATE, PLAIN, TIME, TIMESTAMP, TIMESTAMPTZ, Types
from replicator.rules.compute.code import Code
from replicator.rules.compute.scalars import real_text
from replicator.rules.expression import EDITION_1, Dialect, Scalar
from replicator.wal.messages import UNCHANGED, Column, Row

__all__ = [
    "BadValue",
    "Encoder",
    "Printing",
    "encoder",
    "encoder_of",
    "in_f_string",
    "json_of",
    "kind_of",
    "printed",
    "printing",
    "quote",
    "scalar",
    "text_id",
]

Encoder = Callable[[Row], str]


# -- Rows ------------------------------------------------------------------------------------------
# The function for a relation is generated, for a loop over columns costs three times as much per row. Most
# rows take its short way, where all is one f-string, with the quotes of those values in it that never need
# escapes. Column names enter the source only within the repr of their JSON, so no name can be code.
#
# Measured in CPython 3.11 with the nine columns of a vital sign, as rates: a joined tuple with every text
# quoted by a call 1, with quotes in place where they can be 1.2, one f-string 1.65. To quote a text of 60
# characters takes `quote` half as long again as it takes orjson, which escapes just the same.


class _Piece(NamedTuple):
    """A column in the function's source: its value, by name, before and after."""

    #: What makes the value JSON, to be done first; None where it stays as it is.
    before: str | None
    #: When `short` may be used.
    holds: tuple[str, ...]
    #: Within an f-string.
    short: str
    #: As an expression, whatever the value.
    always: str


class Printing(NamedTuple):
    """How a row is printed as JSON, as source for a function of its own or for one that does more with it."""

    #: What comes first: each of its values has a name then.
    lines: list[str]
    #: When `short` may be used.
    holds: tuple[str, ...]
    #: Within an f-string.
    short: str
    #: As an expression, whatever the row says.
    always: str


#: A column that is shown: its name there, where it stands in a row, and its type.
Shown = tuple[str, int, int]


def encoder(columns: tuple[Column, ...], dialect: Dialect = EDITION_1, types: Types = BUILT_IN) -> Encoder:
    """A function that prints rows of these columns; made once per relation, called once per row."""
    code = Code()
    shown = [(column.name, at, column.type_oid) for at, column in enumerate(columns)]
    return encoder_of(code, printing(code, shown, len(columns), dialect, types))


def encoder_of(code: Code, how: Printing) -> Encoder:
    short, always = [f"return f{how.short!r}"], []
    if how.holds:
        short, always = [f"if {' and '.join(how.holds)}:", "    " + short[0]], [f"return {how.always}"]
    made: Encoder = code.function("row", [*how.lines, *short, *always])
    return made


def printing(code: Code, shown: Sequence[Shown], width: int, dialect: Dialect, types: Types) -> Printing:
    """`width`: of how many columns rows are."""
    lines: list[str] = []
    if [at for _, at, _ in shown] == list(range(width)):
        lines.append(f"({''.join(f'c{i}, ' for i in range(width))}) = row")
    else:
        lines += [f"c{i} = row[{at}]" for i, (_, at, _) in enumerate(shown)]
    holds: list[str] = []
    short, always = "", ""
    for i, (name, _, type_oid) in enumerate(shown):
        piece = _piece(code, f"c{i}", form_of(type_oid, dialect, types), dialect)
        if piece is not None:
            lead = ("," if short else "{") + quote(name) + ":"
            lines += [piece.before] if piece.before else []
            holds += piece.holds
            short += in_f_string(lead) + piece.short
            always += f"{lead!r}, {piece.always}, "
    if not short:
        return Printing([], (), "{{}}", "'{}'")
    return Printing(lines, tuple(holds), short + "}}", f"{code.name(''.join, 'join')}(({always}'}}'))")


def in_f_string(text: str) -> str:
    """What an f-string prints as this text."""
    return text.replace("{", "{{").replace("}", "}}")


def _piece(code: Code, name: str, form: Form, dialect: Dialect) -> _Piece | None:
    value = _json(code, name, form, dialect)
    if value is None:
        return None
    if form.kind == "integer":
        return _Piece(f"if {name} is None: {name} = 'null'", (), f"{{{name}}}", name)
    always = f"'null' if {name} is None else {value}"
    match _quick(code, name, form.oid, dialect):
        case [quick]:
            return _Piece(None, (f"{name} is not None", *quick.holds), f'"{quick.within}"', always)
        case _:
            return _Piece(f"{name} = {always}", (), f"{{{name}}}", name)


def json_of(
    code: Code, type_oid: int, source: str, dialect: Dialect = EDITION_1, types: Types = BUILT_IN
) -> str | None:
    """Source that prints a value of such a column, which may be None, as JSON; None for what is left out.

    Here and below `source` is a name or a place in a row: it is repeated, also within strings.
    """
    value = _json(code, source, form_of(type_oid, dialect, types), dialect)
    return None if value is None else f"('null' if {source} is None else {value})"


def _json(code: Code, name: str, form: Form, dialect: Dialect) -> str | None:
    """Source that prints a value, which is not None, as JSON."""
    match form.kind:
        case "blob":
            return None
        case "integer":
            return name
        case "real":
            return f"{name} if '.' in {name} or 'e' in {name} else {code.name(_real, 'real')}({name})"
        case "boolean":
            return f"'1' if {name} == 't' else '0'"
    slow = f"{code.name(orjson.dumps, 'dumps')}({name}).decode()"
    if form.shown is not None:
        slow = f"{code.name(_quoted(form.shown), 'shown')}({name})"
    for quick in reversed(_quick(code, name, form.oid, dialect)):
        within = "f" + repr(f'"{quick.within}"')
        slow = f"{within} if {' and '.join(quick.holds)} else {slow}" if quick.holds else within
    return slow


class _Quick(NamedTuple):
    """How to print, within quotes in an f-string, what needs no escapes."""

    #: What must be so.
    holds: tuple[str, ...]
    within: str


def _quick(code: Code, name: str, oid: int, dialect: Dialect) -> list[_Quick]:
    """The quick ways to print a type; values that none of them fits take the slow one."""
    if oid in PLAIN:
        # An f-string prints whatever it is given. What may be missing from the log must not get there.
        missing = (f"{name} is not {code.name(UNCHANGED, 'unchanged')}",) if PLAIN[oid] else ()
        return [_Quick(missing, f"{{{name}}}")]
    if oid == DATE:
        # Neither `infinity` nor `… BC`.
        return [_Quick((f"{name}[-1:] <= '9'",), f"{{{name}}}")]
    if dialect.timestamps_iso8601:
        return _quick_iso8601(name, stamps.digits(dialect)) if oid == TIMESTAMPTZ else []
    if oid == TIME:
        return [_Quick((), f"{{{name}}}")]
    if oid == TIMESTAMP:
        return [_Quick((f"{name}[-1:] <= '9'",), f"{{{name}}}")]
    if oid == TIMESTAMPTZ:
        # In UTC, with a year of four digits.
        return [_Quick((f"{name}[-3:] == '+00'", f"{name}[4:5] == '-'"), f"{{{name}[:-3]}}Z")]
    return []


def _quick_iso8601(name: str, count: int) -> list[_Quick]:
    """A moment with all six digits of its second's fraction, or with none; in UTC, with a year of four."""
    year = f"{name}[10:11] == ' '"
    lead, zeros = f"{{{name}[:10]}}T{{{name}[11:", "." + "0" * count if count else ""
    end = 20 + count if count else 19
    return [
        _Quick((f"{name}[26:] == '+00'", year), f"{lead}{end}]}}Z"),
        _Quick((f"{name}[19:] == '+00'", year), f"{lead}19]}}{zeros}Z"),
    ]


def _quoted(shown: stamps.Stamp) -> Callable[[str], str]:
    def print_shown(text: str) -> str:
        seen = shown(text)
        return "null" if seen is None else quote(seen)

    return print_shown


def _real(text: str) -> str:
    return "null" if text in literals.UNREAL else text + ".0"


# -- Expressions -----------------------------------------------------------------------------------


def scalar(
    code: Code, type_oid: int, source: str, dialect: Dialect = EDITION_1, types: Types = BUILT_IN
) -> str:
    """Source of the Scalar that a value of such a column is in expressions; the value may be None.

    It is what clients see, so that a rule's comparison comes out as the same comparison does with them.
    """
    form = form_of(type_oid, dialect, types)
    match form.kind:
        case "boolean":
            return f"(None if {source} is None else 1 if {source} == 't' else 0)"
        case "text" if form.shown is None:
            return source
    makes = {"integer": int, "real": _number, "blob": _bytes, "text": form.shown}
    return f"(None if {source} is None else {code.name(makes[form.kind], form.kind)}({source}))"


def _number(text: str) -> float | None:
    """A number that clients can have; see `literals.UNREAL`."""
    return None if text in literals.UNREAL else float(text)


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text[2:])


def printed(code: Code, source: str) -> str:
    """Source that prints a Scalar as JSON. Bytes come out as null; better leave such a column out."""
    return f"{code.name(_printed, 'printed')}({source})"


def _printed(value: Scalar) -> str:
    if value is None or isinstance(value, bytes):
        return "null"
    if isinstance(value, str):
        return quote(value)
    if isinstance(value, int):
        return str(int(value))
    # As Python writes it, a float has a point or an exponent.
    return repr(value) if isfinite(value) else "null"


def text_id(value: Scalar) -> str:
    """The id of a row as clients have it, which is always text; empty where there is none."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, float) and isfinite(value):
        return real_text(value)
    return str(int(value)) if isinstance(value, int) else ""
