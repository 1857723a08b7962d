"""JSON text → its parts, as scalars. No I/O.

Whole numbers keep all their digits, since two users may differ in the last one; true and false are 1 and 0;
objects and arrays are JSON text again. A path is `$.a.b.0`; what is not a path is one key, but edition 1
takes every dot for a step.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final

import orjson

from replicator.rules.compute.scalars import LONGEST, EvaluationError, as_text
from replicator.rules.expression import Dialect, Scalar

_STEPS: Final = re.compile(r"\.([^.\[]+)|\[([0-9]+)\]")
#: A whole number that may be more than 64 bits hold.
_LONG: Final = re.compile("[0-9]{19}")
_MISSING: Final = object()


def parsed(text: str) -> Any:
    try:
        found = orjson.loads(text)
        # It makes reals of the longest numbers, and one real of many of them.
        return found if _LONG.search(text) is None else json.loads(text)
    except (ValueError, RecursionError):  # half characters, too
        raise EvaluationError("not valid JSON") from None


def printed(value: Any) -> str:
    """The JSON text of a part of a parsed one."""
    try:
        return orjson.dumps(value).decode()
    except TypeError:
        pass  # more than 64 bits, or nested too deep
    try:
        return orjson.dumps(_with_long(value)).decode()
    except (TypeError, RecursionError):
        raise EvaluationError("JSON nested too deep") from None


def _with_long(value: Any) -> Any:
    """The value, with text for the numbers that are not printed otherwise."""
    if isinstance(value, Mapping):
        return {key: _with_long(member) for key, member in value.items()}
    if isinstance(value, list):
        return [_with_long(member) for member in value]
    return orjson.Fragment(str(value)) if type(value) is int and not -LONGEST <= value < LONGEST else value


def scalar_of(value: Any) -> Scalar:
    """A part of a parsed JSON text, as a scalar."""
    kind = type(value)
    if kind is bool:
        return int(value)
    if kind is dict or kind is list:
        return printed(value)
    plain: Scalar = value
    return plain


@lru_cache(1024)
def steps_of(path: str, is_path: bool, dotted: bool) -> tuple[str, ...] | None:
    """The keys a path goes through; None if it should be one and is none.

    `is_path`: only `$…` will do, as in json_extract. `dotted`: a dot is a step in any case, as in edition 1.
    """
    if path == "$" or path.startswith(("$.", "$[")):
        found = _STEPS.findall(path, 1)
        whole = "".join(f".{key}" if key else f"[{index}]" for key, index in found)
        if whole == path[1:]:
            return tuple(key or index for key, index in found)
        return tuple(path.split(".")[1:])
    if is_path:
        return None
    return tuple(path.split(".")) if dotted else (path,)


def _walk(value: Any, steps: tuple[str, ...], edition_1: bool) -> Any:
    for step in steps:
        if isinstance(value, dict):
            value = value.get(step, _MISSING)
        elif isinstance(value, list) and step.isascii() and step.isdigit() and len(step) < 10:
            value = value[int(step)] if int(step) < len(value) else _MISSING
        elif value is None and edition_1:
            return None  # null has every key, and it is null
        else:
            return _MISSING
    return value


def extractor(
    operator: str, dialect: Dialect, parse: Callable[[str], Any] = parsed
) -> Callable[[Scalar, Scalar], Scalar]:
    """`->`, `->>` or `json_extract`, as this edition understands it."""
    is_path = operator == "json_extract"
    fixed = dialect.fixed_json_extract

    def extract(value: Scalar, path: Scalar) -> Scalar:
        text, way = as_text(value), as_text(path)
        if text is None or way is None:
            return None
        steps = steps_of(way, is_path, not fixed)
        if steps is None:
            raise EvaluationError("a JSON path begins with $.")
        part = _walk(parse(text), steps, not fixed)
        if part is _MISSING:
            return None
        if operator == "->" or (part is None and not fixed):
            return printed(part)
        return scalar_of(part)

    return extract


def array_length(dialect: Dialect) -> Callable[..., int | None]:
    extract = extractor("json_extract", dialect)

    def length(value: Scalar, *path: Scalar) -> int | None:
        text = as_text(extract(value, path[0]) if path else value)
        if text is None:
            return None
        array = parsed(text)
        return len(array) if isinstance(array, list) else 0

    return length


def json_keys(value: Scalar) -> str | None:
    text = as_text(value)
    if text is None:
        return None
    found = parsed(text)
    if not isinstance(found, dict):
        raise EvaluationError("json_keys needs a JSON object")
    return printed(list(found))


def json_valid(value: Scalar) -> int:
    text = as_text(value)
    try:
        return 0 if text is None else +(parsed(text) is not _MISSING)
    except EvaluationError:
        return 0


def array_of(value: Scalar) -> list[Any]:
    """The members of a JSON array, as it is parsed."""
    array = parsed(value) if isinstance(value, str) else None
    if not isinstance(array, list):
        raise EvaluationError("IN and && need the text of a JSON array")
    return array


def members(value: Scalar) -> list[Scalar]:
    """The members of a JSON array, as scalars."""
    return [scalar_of(member) for member in array_of(value)]


def is_member(value: Scalar, array: Scalar) -> int | None:
    """NULL is a member of nothing."""
    if value is None or array is None:
        return None
    return +(value in members(array))


def overlaps(a: Scalar, b: Scalar) -> int | None:
    """Whether two arrays have a member in common that is not null."""
    if a is None or b is None:
        return None
    return +bool((set(members(a)) & set(members(b))) - {None})


def pairs(text: Scalar) -> list[tuple[Scalar, Scalar]]:
    """Key and value of each member of a JSON array or object; of anything else, itself."""
    if text is None:
        return []
    if not isinstance(text, str):
        raise EvaluationError("json_each needs the text of a JSON array or object")
    value = parsed(text)
    if isinstance(value, dict):
        return [(key, scalar_of(member)) for key, member in value.items()]
    if isinstance(value, list):
        return [(at, scalar_of(member)) for at, member in enumerate(value)]
    return [(None, scalar_of(value))]
