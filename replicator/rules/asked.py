"""A request × an expression about it → its value, for as much work as a request may be. No I/O.

A client can send what it likes, and as often as it likes in one request: a long text that is held against
each of many members, an array that is gone through for each member of another, the same again for each of
ten thousand subscriptions. So what is of the request alone is computed once, whoever asks for it; what is
left is counted, and ends with an error for whoever asks on. Nothing that is counted takes longer than it is
counted for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, TypeAlias

from replicator.rules.compute import jsontext, patterns
from replicator.rules.compute.functions import computing
from replicator.rules.compute.scalars import EvaluationError, as_text, truth
from replicator.rules.expression import Call, Dialect, Expression, Found, Literal, Request, Scalar

#: What each step of a query has brought, in one of the ways through it.
Way: TypeAlias = tuple[tuple[Scalar, ...], ...]

#: Of one request, counted in characters that something is computed of: a second or two, and several times
#: what it takes to go through the longest request by what a person writes in rules.
MOST_WORK: Final = 50_000_000
#: Whatever is computed is that much work, beside what its length makes of it.
A_CALL: Final = 100
#: What a lookup has brought is of the rows that there are, and not of what a client sends: so much more work
#: may be done for each.
_A_ROW: Final = 10 * A_CALL
_EXTRACTING: Final = frozenset({"->", "->>", "json_extract"})


@dataclass(frozen=True, slots=True)
class Asked:
    """Who asks: what the token says, verified, and what the client says, which is not."""

    user_id: str | None
    jwt: Mapping[str, Any] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    subscription: Mapping[str, Any] = field(default_factory=dict)

    def value(self, request: Request) -> Scalar:
        match request.what:
            case "user_id":
                return self.user_id
            case "jwt":
                return jsontext.printed(dict(self.jwt))
            case "token_parameters":
                claimed = self.jwt.get("parameters")
                claimed = claimed if isinstance(claimed, Mapping) else {}
                return jsontext.printed({**claimed, "user_id": self.user_id})
            case "parameters":
                return jsontext.printed(dict(self.parameters))
            case "subscription":
                return jsontext.printed(dict(self.subscription))
        raise AssertionError(f"a request has no {request.what}")


class Kept:
    """What has been computed already; and of one text, its parts."""

    def __init__(self) -> None:
        self.values: dict[Expression, Scalar] = {}
        self.members: dict[Expression, list[Scalar]] = {}
        self.sets: dict[Expression, frozenset[Scalar]] = {}
        self.pairs: dict[Expression, list[tuple[Scalar, Scalar]]] = {}
        self.parsed: dict[str, Any] = {}


class Work:
    """What one request has been so far; whatever it asks for shares in it."""

    def __init__(self, most: int = MOST_WORK) -> None:
        self._most = self._left = most
        #: What is of all of its subscriptions alike.
        self.kept = Kept()

    def spend(self, work: int) -> None:
        self._left -= work
        if self._left < 0:
            what = f"this request is more work than {self._most:,} characters and calls"
            raise EvaluationError(f"{what}; send less, or compare less with what is sent")


def size(value: Scalar) -> int:
    return len(value) if isinstance(value, str | bytes) else 0


#: These are done with the shorter of what they hold against each other.
_COMPARING: Final = frozenset(
    {"=", "!=", "<", "<=", ">", ">=", "between", "in list", "is distinct", "is not distinct", "nullif"}
)


class Values:
    """What expressions come to, for one way through a query and the next."""

    def __init__(self, asked: Asked, dialect: Dialect, work: Work) -> None:
        self._asked, self._dialect, self._work = asked, dialect, work
        self._own = Kept()

    def spend(self, work: int) -> None:
        self._work.spend(work)

    def found(self, rows: int) -> None:
        """Lookups have brought so many rows."""
        self.spend(-_A_ROW * rows)

    def of(self, expr: Expression, way: Way) -> Scalar:
        kept = self._kept(expr)
        if kept is None:
            return self._computed(expr, way)
        if expr not in kept.values:
            kept.values[expr] = self._computed(expr, way)
        return kept.values[expr]

    def members(self, array: Expression, way: Way) -> list[Scalar]:
        """The members of a JSON array."""
        text = self.of(array, way)
        if text is None:
            return []
        kept = self._kept(array) or Kept()
        if array not in kept.members:
            self.spend(size(text))
            kept.members[array] = jsontext.members(text)
        return kept.members[array]

    def pairs(self, of: Expression, way: Way) -> list[tuple[Scalar, Scalar]]:
        """Key and value of each member of a JSON array or object."""
        text = self.of(of, way)
        kept = self._kept(of) or Kept()
        if of not in kept.pairs:
            self.spend(size(text))
            kept.pairs[of] = jsontext.pairs(text)
        return kept.pairs[of]

    def _kept(self, expr: Expression) -> Kept | None:
        """Where its value stays; None if it is another for each way, or is not computed at all."""
        about = _about(expr)
        if about is None:
            return None
        return self._own if "subscription" in about else self._work.kept

    def _set(self, array: Expression, way: Way) -> frozenset[Scalar]:
        kept = self._kept(array) or Kept()
        if array not in kept.sets:
            kept.sets[array] = frozenset(self.members(array, way))
        return kept.sets[array]

    def _computed(self, expr: Expression, way: Way) -> Scalar:
        match expr:
            case Literal(known):
                return known
            case Found(step, at):
                return way[step][at]
            case Request():
                value = self._asked.value(expr)
                self.spend(size(value))
                return value
            case Call("and", args):
                return +all(truth(self.of(arg, way)) for arg in args)
            case Call("or", args):
                return +any(truth(self.of(arg, way)) for arg in args)
            case Call("case", args):
                for when, then in zip(args[:-1:2], args[1::2], strict=True):
                    if truth(self.of(when, way)):
                        return self.of(then, way)
                return self.of(args[-1], way)
            case Call("in", (one, array)):
                return self._is_member(one, array, way)
            case Call("&&", (one, other)):
                return self._overlap(one, other, way)
            case Call(name, args):
                return self._called(name, args, way)
        raise AssertionError(f"{type(expr).__name__} in what is asked about a request")

    def _is_member(self, one: Expression, array: Expression, way: Way) -> Scalar:
        """NULL is a member of nothing."""
        value = self.of(one, way)
        self.spend(A_CALL)
        if value is None or self.of(array, way) is None:
            return None
        return +(value in self._set(array, way))

    def _overlap(self, one: Expression, other: Expression, way: Way) -> Scalar:
        self.spend(A_CALL)
        if self.of(one, way) is None or self.of(other, way) is None:
            return None
        few, many = sorted((self._set(one, way), self._set(other, way)), key=len)
        self.spend(len(few))
        return +any(member in many for member in few if member is not None)

    def _called(self, name: str, args: tuple[Expression, ...], way: Way) -> Scalar:
        values = [self.of(arg, way) for arg in args]
        if name in _EXTRACTING and self._kept(args[0]) is not None:
            self.spend(A_CALL + size(values[1]))
            result = jsontext.extractor(name, self._dialect, self._parsed(args[0]))(*values)
        else:
            self.spend(A_CALL + _work(name, values))
            result = computing(name, self._dialect)(*values)
        self.spend(size(result))
        return result

    def _parsed(self, source: Expression) -> Callable[[str], Any]:
        """What parses the text of a request: each once."""
        kept = self._kept(source) or Kept()

        def parsed(text: str) -> Any:
            if text not in kept.parsed:
                self.spend(len(text))
                kept.parsed[text] = jsontext.parsed(text)
            return kept.parsed[text]

        return parsed


def _work(name: str, values: list[Scalar]) -> int:
    """What computing this of these values is, in characters."""
    if name in _COMPARING:
        return sum(min(size(values[0]), size(other)) for other in values[1:])
    whole = sum(map(size, values))
    if name in ("like", "ilike") and None not in values:
        whole += patterns.work(*(as_text(value) or "" for value in values))
    return whole


@lru_cache(1 << 12)
def _about(expr: Expression) -> frozenset[str] | None:
    """What of the request it is about, if about nothing else; None of constants, too."""
    match expr:
        case Request(what):
            return frozenset((what,))
        case Call(_, args):
            about = [_about(arg) for arg in args if not isinstance(arg, Literal)]
            known = [one for one in about if one is not None]
            return frozenset().union(*known) if known and len(known) == len(about) else None
    return None
