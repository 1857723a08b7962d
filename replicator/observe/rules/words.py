"""What rules are made of → the words by which a person knows it. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from replicator.rules.expression import (
    Call,
    Column,
    Expression,
    Found,
    Literal,
    Metadata,
    Now,
    Request,
    Scalar,
)
from replicator.rules.model import Each, Find, ForEach, Key, Lookup, Predicate, Step, When, Window
from replicator.wal.names import quote

#: What stands for an expression that is no Call and no Literal.
Leaf = Callable[[Expression], str]

_INFIX = frozenset("= != < <= > >= + - * / % || -> ->> && and or like ilike in".split())
_TIGHT = frozenset("-> ->>".split())
_OPERATORS = frozenset("and or not like ilike in between neg case".split())
_AFTER = {
    "is null": "IS NULL",
    "is not null": "IS NOT NULL",
    "is true": "IS TRUE",
    "is false": "IS FALSE",
    "is not true": "IS NOT TRUE",
    "is not false": "IS NOT FALSE",
}
_BETWEEN = {"is distinct": "IS DISTINCT FROM", "is not distinct": "IS NOT DISTINCT FROM"}
#: What is known of a request → what it is called, and a member of it.
_REQUESTS = {
    "user_id": ("the token's subject", ""),
    "jwt": ("the token", "the token's {}"),
    "token_parameters": ("the token's parameters", "the token's parameter {}"),
    "parameters": ("the client's parameters", "the client's parameter {}"),
    "subscription": ("the subscription's parameters", "the subscription's parameter {}"),
}
_SPANS = ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))


def words(expr: Expression, leaf: Leaf) -> str:
    """An expression as SQL would have it, but for what the token or the client says."""
    if (member := _member(expr)) is not None:
        return member
    match expr:
        case Literal(value):
            return literal(value)
        case Request(what):
            return _REQUESTS[what][0]
        case Now():
            return "now()"
        case Call("not", (Call("in list" | "like" | "ilike" | "between" as name, args),)):
            return words(Call(f"not {name}", args), leaf)
        case Call(name, args):
            return _call(name, args, leaf)
    return leaf(expr)


def _call(name: str, args: Sequence[Expression], leaf: Leaf) -> str:
    parts = [_part(name, arg, leaf) for arg in args]
    negated, bare = ("NOT ", name.removeprefix("not ")) if name.startswith("not ") else ("", name)
    if name in _AFTER:
        return f"{parts[0]} {_AFTER[name]}"
    if name in _BETWEEN:
        return f"{parts[0]} {_BETWEEN[name]} {parts[1]}"
    if name.startswith("cast "):
        return f"{parts[0]}::{name.removeprefix('cast ')}"
    if name == "neg":
        return f"-{parts[0]}"
    if name == "not":
        return f"NOT ({words(args[0], leaf)})"
    if bare == "in list":
        return f"{parts[0]} {negated}IN ({', '.join(parts[1:])})"
    if bare == "between":
        return f"{parts[0]} {negated}BETWEEN {parts[1]} AND {parts[2]}"
    if bare in _INFIX and len(parts) >= 2:
        word = bare if bare in ("and", "or") else bare.upper()
        return f" {negated}{word} ".join(parts)
    if name == "case":
        parts = [words(arg, leaf) for arg in args]
        pairs = " ".join(
            f"WHEN {when} THEN {then}" for when, then in zip(parts[:-1:2], parts[1:-1:2], strict=True)
        )
        return f"CASE {pairs} ELSE {parts[-1]} END"
    return f"{name}({', '.join(words(arg, leaf) for arg in args)})"


def _part(name: str, arg: Expression, leaf: Leaf) -> str:
    """An operand, in parentheses where it could be misread without."""
    text = words(arg, leaf)
    if not isinstance(arg, Call) or _member(arg) is not None:
        return text
    is_function = arg.name.isidentifier() and arg.name not in _OPERATORS
    is_alone = arg.name in _TIGHT or arg.name.startswith("cast ") or is_function
    is_joined = name in ("and", "or") and arg.name not in ("and", "or")
    return text if is_alone or is_joined else f"({text})"


def _member(expr: Expression) -> str | None:
    """`request.jwt() -> 'app' ->> 'region'` as `the token's app.region`."""
    path: list[str] = []
    while isinstance(expr, Call) and expr.name in _TIGHT and isinstance(key := expr.args[1], Literal):
        path.append(str(key.value))
        expr = expr.args[0]
    if not path or not isinstance(expr, Request) or not (form := _REQUESTS[expr.what][1]):
        return None
    return form.format(".".join(reversed(path)))


def literal(value: Scalar) -> str:
    """A value as SQL writes it."""
    match value:
        case None:
            return "NULL"
        case str():
            return "'" + value.replace("'", "''") + "'"
        case bytes():
            return f"'\\x{value.hex()}'"
    return str(value)


def of_row(expr: Expression) -> str:
    """A leaf of an expression about one row."""
    match expr:
        case Column(name):
            return quote(name)
        case Metadata(what):
            return f"the {what.replace('_', ' ')}"
    raise AssertionError(f"{type(expr).__name__} in a row's expression")


def of_table(table: str) -> Leaf:
    """A leaf of an expression about a row of this table, said with the table's name."""

    def leaf(expr: Expression) -> str:
        return f"{table}.{of_row(expr)}" if isinstance(expr, Column) else f"{of_row(expr)} of {table}"

    return leaf


def key_words(key: Key, leaf: Leaf) -> str:
    return f"a member of {words(key.of, leaf)}" if isinstance(key, Each) else words(key, leaf)


def compared(left: Key, left_leaf: Leaf, right: Key, right_leaf: Leaf) -> str:
    """That two things are the same, or one is in the other, or they have something in common."""
    one = words(left.of if isinstance(left, Each) else left, left_leaf)
    other = words(right.of if isinstance(right, Each) else right, right_leaf)
    match left, right:
        case Each(), Each():
            return f"{one} has a member of {other}"
        case Each(), _:
            return f"{one} has the member {other}"
        case _, Each():
            return f"{one} is a member of {other}"
    return f"{one} = {other}"


def window_words(window: Window, leaf: Leaf) -> str:
    """`for 90 days from recorded_at`: how long a row belongs."""
    moment = window.moment
    if isinstance(moment, Call) and moment.name == "unixepoch":
        moment = moment.args[0]
    at, seconds = words(moment, leaf), window.seconds
    if window.is_until:
        if seconds > 0:
            return f"for {span(seconds)} from {at}"
        return f"until {at}" if seconds == 0 else f"until {span(-seconds)} before {at}"
    if seconds == 0:
        return f"from {at} on"
    return f"from {span(abs(seconds))} {'after' if seconds > 0 else 'before'} {at} on"


def span(seconds: float) -> str:
    """A number of seconds in the largest unit that it is a whole number of."""
    for length, name in _SPANS:
        if seconds % length == 0:
            count = int(seconds // length)
            return f"{count} {name}" if count == 1 else f"{count} {name}s"
    return f"{seconds:g} seconds"


def demands(filters: Sequence[Predicate], windows: Sequence[Window], leaf: Leaf) -> list[str]:
    """What must hold of a row, in a phrase each."""
    said = [words(predicate.test, leaf) for predicate in filters]
    return [f"({text})" if " or " in text else text for text in said] + [
        window_words(window, leaf) for window in windows
    ]


class Steps:
    """The words for what the steps of one parameter query demand and bring."""

    def __init__(self, steps: Sequence[Step], lookups: Mapping[str, Lookup]) -> None:
        self._steps, self._lookups = steps, lookups
        self._names: dict[int, str] = {}
        met: dict[str, int] = {}
        # From the last one back: it is the one that is told first.
        for at, step in reversed(list(enumerate(steps))):
            if isinstance(step, Find):
                table = str(lookups[step.lookup].table)
                met[table] = met.get(table, 0) + 1
                # A table that is gone through twice is told apart.
                self._names[at] = table if met[table] == 1 else f"{table}#{met[table]}"

    def leaf(self, expr: Expression, member: str = "that") -> str:
        """What an earlier step has brought."""
        assert isinstance(expr, Found), f"{type(expr).__name__} in what is asked about a request"
        step = self._steps[expr.step]
        if isinstance(step, Find):
            value = self._lookups[step.lookup].values[expr.at]
            return words(value, of_table(self._names[expr.step]))
        assert isinstance(step, ForEach), "a condition brings nothing"
        return f"{member} {'member' if expr.at else 'key'} of {words(step.of, self.leaf)}".lstrip()

    def words(self, expr: Expression) -> str:
        """What is to stand after `one bucket per`."""
        return words(expr, lambda part: self.leaf(part, ""))

    def table(self, at: int) -> str:
        """What the table of a step that finds is called here."""
        return self._names[at]

    def demanded(self, at: int) -> list[str]:
        """What must hold for the way to go on at this step."""
        match self._steps[at]:
            case When(condition):
                return [words(condition.test, self.leaf)]
            case Find(lookup, keys):
                found, row = self._lookups[lookup], of_table(self._names[at])
                same = [
                    compared(mine, row, asked, self.leaf)
                    for mine, asked in zip(found.keys, keys, strict=True)
                ]
                return same + demands(found.filters, found.windows, row)
        return []
