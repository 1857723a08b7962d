"""Arguments that are written in the rules → refused, where no row could make them right. No I/O."""

from __future__ import annotations

from replicator.rules.compute.jsontext import members, steps_of
from replicator.rules.compute.moments import modifiers_are_known, unixepoch
from replicator.rules.compute.scalars import EvaluationError
from replicator.rules.expression import Call, Expression, Literal, Scalar
from replicator.rules.sql import refusals
from replicator.rules.sql.conditions import NotUnderstood

#: An expression of more parts than this is refused: `CASE x WHEN …` repeats x for every WHEN.
MOST_PARTS = 5_000


def check_arguments(name: str, args: tuple[Expression, ...], at: int) -> None:
    """Refuse what no row could make right."""
    if what := refusals.of_arguments(name, len(args)):
        raise NotUnderstood(what, at)
    if name in ("unixepoch", "datetime") and isinstance(args[0], Literal) and _is_no_moment(args[0].value):
        what = "this is no moment; the time is now(), as in `recorded_at > now() - interval '90 days'`"
        raise NotUnderstood(what, at)
    constants = tuple(arg.value for arg in args[1:] if isinstance(arg, Literal))
    if len(constants) + 1 < len(args):
        return
    if name in ("unixepoch", "datetime") and not modifiers_are_known(constants):
        raise NotUnderstood(f"{name} knows no modifiers but 'unixepoch' and 'subsec', in this order", at)
    if name in ("json_extract", "json_array_length") and constants and not _is_path(constants[0]):
        raise NotUnderstood(f"the path of {name} begins with $, as in '$.name'", at)


def check_pattern(pattern: Expression, at: int) -> None:
    text = pattern.value if isinstance(pattern, Literal) else ""
    if isinstance(text, str) and (len(text) - len(text.rstrip("\\"))) % 2:
        raise NotUnderstood("a pattern cannot end with its escape character", at)


def _is_no_moment(value: Scalar) -> bool:
    """Text such as 'now', which SQLite reads and the rules do not: nothing would ever come of it."""
    return isinstance(value, str) and unixepoch(value) is None


def _is_path(path: Scalar) -> bool:
    return path is None or (isinstance(path, str) and steps_of(path, True, False) is not None)


def is_array(value: Scalar) -> bool:
    try:
        return value is None or members(value) is not None
    except EvaluationError:
        return False


def is_too_large(expr: Expression) -> bool:
    unseen, count = [expr], 0
    while unseen and count <= MOST_PARTS:
        count += 1
        part = unseen.pop()
        if isinstance(part, Call):
            unseen += part.args
    return count > MOST_PARTS
