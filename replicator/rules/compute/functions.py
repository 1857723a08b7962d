"""The name of an operator or function → what computes it. No I/O.

`FUNCTIONS` is every name that a Call may have, apart from the few that do not need all their arguments and
are therefore part of `expressions.py`: and, or, case.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Final, NamedTuple

from replicator.rules.compute import geometry, jsontext, moments, scalars, texts
from replicator.rules.compute.scalars import as_blob, as_integer, as_text, truth
from replicator.rules.expression import Dialect, Scalar

Compute = Callable[..., Scalar]


def coalesce(*values: Scalar) -> Scalar:
    return next((value for value in values if value is not None), None)


def nullif(value: Scalar, other: Scalar) -> Scalar:
    return None if scalars.equal(value, other) else value


def negated(value: Scalar) -> int:
    """NOT NULL is true: what is not true is false, and its opposite holds."""
    return +(not truth(value))


class Function(NamedTuple):
    """One name, and what stands behind it."""

    #: What computes it, by the edition.
    made: Callable[[Dialect], Compute]
    least: int
    #: None: any number of arguments.
    most: int | None
    #: The type of what it computes, if it is always this one or NULL.
    type: str | None
    #: Whether rules write it `name(…)`; else it is an operator, or has a syntax of its own.
    is_called: bool = False

    def takes(self, count: int) -> bool:
        return self.least <= count and (self.most is None or count <= self.most)


def _always(compute: Compute, least: int, most: int | None, type: str | None) -> Function:
    return Function(lambda _: compute, least, most, type)


def _different(dialect: Dialect) -> Compute:
    return scalars.not_equal if dialect.edition >= 3 else scalars.different


def _operators() -> dict[str, Function]:
    two: dict[str, tuple[Compute, str | None]] = {
        "=": (scalars.equal, "integer"),
        "<": (scalars.less, "integer"),
        "<=": (scalars.less_or_equal, "integer"),
        ">": (scalars.more, "integer"),
        ">=": (scalars.more_or_equal, "integer"),
        "is distinct": (scalars.distinct, "integer"),
        "is not distinct": (scalars.not_distinct, "integer"),
        "in": (jsontext.is_member, "integer"),
        "&&": (jsontext.overlaps, "integer"),
        "like": (texts.like, "integer"),
        "ilike": (texts.ilike, "integer"),
        "+": (scalars.add, None),
        "-": (scalars.subtract, None),
        "*": (scalars.multiply, None),
        "/": (scalars.divide, None),
        "%": (scalars.remainder, None),
        "||": (texts.joined, "text"),
    }
    one: dict[str, tuple[Compute, str | None]] = {
        "not": (negated, "integer"),
        "neg": (scalars.negative, None),
        "is null": (lambda value: +(value is None), "integer"),
        "is not null": (lambda value: +(value is not None), "integer"),
        # Held against 1 and 0 themselves, as existing rules have it.
        "is true": (lambda value: +(value == 1), "integer"),
        "is false": (lambda value: +(value == 0), "integer"),
        "is not true": (lambda value: +(value != 1), "integer"),
        "is not false": (lambda value: +(value != 0), "integer"),
        "cast text": (as_text, "text"),
        "cast numeric": (scalars.as_number, None),
        "cast integer": (as_integer, "integer"),
        "cast real": (scalars.as_real, "real"),
        "cast blob": (as_blob, "blob"),
        "moment": (moments.moment, None),
    }
    return {
        **{name: _always(compute, 2, 2, type) for name, (compute, type) in two.items()},
        **{name: _always(compute, 1, 1, type) for name, (compute, type) in one.items()},
        "!=": Function(_different, 2, 2, "integer"),
        "->": Function(lambda dialect: jsontext.extractor("->", dialect), 2, 2, "text"),
        "->>": Function(lambda dialect: jsontext.extractor("->>", dialect), 2, 2, None),
        "between": _always(scalars.between, 3, 3, "integer"),
        "in list": _always(scalars.in_list, 1, None, "integer"),
    }


def _called() -> dict[str, Function]:
    always: dict[str, tuple[Compute, int, int | None, str | None]] = {
        "upper": (texts.upper, 1, 1, "text"),
        "lower": (texts.lower, 1, 1, "text"),
        "substring": (texts.substring, 2, 3, "text"),
        "hex": (texts.hexadecimal, 1, 1, "text"),
        "base64": (texts.base64, 1, 1, "text"),
        "length": (texts.length, 1, 1, "integer"),
        "typeof": (scalars.type_name, 1, 1, "text"),
        "ifnull": (coalesce, 2, None, None),
        "coalesce": (coalesce, 1, None, None),
        "nullif": (nullif, 2, 2, None),
        "instr": (texts.instr, 2, 2, "integer"),
        "concat": (texts.concat, 1, None, "text"),
        "replace": (texts.replace, 3, 3, "text"),
        "trim": (texts.trim, 1, 2, "text"),
        "ltrim": (texts.ltrim, 1, 2, "text"),
        "rtrim": (texts.rtrim, 1, 2, "text"),
        "round": (scalars.rounded, 1, 2, None),
        "abs": (scalars.absolute, 1, 1, None),
        "json_keys": (jsontext.json_keys, 1, 1, "text"),
        "json_valid": (jsontext.json_valid, 1, 1, "integer"),
        "uuid_blob": (texts.uuid_blob, 1, 1, "blob"),
        "unixepoch": (moments.unixepoch, 1, 3, None),
        "datetime": (moments.datetime, 1, 3, "text"),
        "st_asgeojson": (geometry.st_asgeojson, 1, 1, "text"),
        "st_astext": (geometry.st_astext, 1, 1, "text"),
        "st_x": (geometry.st_x, 1, 1, "real"),
        "st_y": (geometry.st_y, 1, 1, "real"),
    }
    functions = {name: _always(*what) for name, what in always.items()}
    functions["json_extract"] = Function(lambda d: jsontext.extractor("json_extract", d), 2, 2, None)
    functions["json_array_length"] = Function(jsontext.array_length, 1, 2, "integer")
    return {name: function._replace(is_called=True) for name, function in functions.items()}


FUNCTIONS: Final[dict[str, Function]] = _operators() | _called()


@lru_cache(1024)
def computing(name: str, dialect: Dialect) -> Compute:
    """What computes the function of this name, in this edition."""
    return FUNCTIONS[name].made(dialect)
