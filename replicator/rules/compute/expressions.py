"""An Expression → Python source that computes it, or its value at once. No I/O.

Rows are many and expressions few, so an expression becomes the source of one function (`value`, `test`) and
no tree is walked for a row. Where operands are plain names, what is asked most is written out, such as a
column equal to a constant; the rest are calls of `functions.py`. `plain` computes the same step by step.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from replicator.rules.compute.code import Code
from replicator.rules.compute.functions import FUNCTIONS, computing
from replicator.rules.compute.jsontext import members
from replicator.rules.compute.scalars import EvaluationError as EvaluationError
from replicator.rules.compute.scalars import truth, type_name
from replicator.rules.expression import Call, Dialect, Expression, Literal, Scalar

Leaf = Callable[[Expression], str]
#: The type of a leaf, if it is known: see `type_of`.
Typing = Callable[[Expression], str | None]

#: What can be written twice without computing it twice.
_SIMPLE: Final = re.compile(r"[A-Za-z_]\w*(\[\d+\])?")
_COMPARISONS: Final = frozenset(("<", "<=", ">", ">="))
_NUMERIC: Final = frozenset(("integer", "real"))


def _unknown(leaf: Expression) -> str | None:
    return None


def value(code: Code, expr: Expression, leaf: Leaf, dialect: Dialect, typing: Typing = _unknown) -> str:
    """Source that computes the expression's value, a Scalar. It may stand wherever an operand can."""
    return _Writer(code, leaf, dialect, typing).value(_folded(expr, dialect))


def test(code: Code, expr: Expression, leaf: Leaf, dialect: Dialect, typing: Typing = _unknown) -> str:
    """Source that is truthy for Python where the expression holds."""
    return _Writer(code, leaf, dialect, typing).test(_folded(expr, dialect))


# Not something pytest should collect wherever it is imported.
test.__test__ = False  # type: ignore[attr-defined]  # an attribute of a function


def _folded(expr: Expression, dialect: Dialect) -> Expression:
    """The same with every part computed that is about nothing but constants."""
    if not isinstance(expr, Call):
        return expr
    made = Call(expr.name, tuple(_folded(arg, dialect) for arg in expr.args))
    if not all(isinstance(arg, Literal) for arg in made.args):
        return made
    try:
        return Literal(plain(made, lambda _: None, dialect))
    except EvaluationError:
        return made  # it fails where it is needed, if it ever is


class _Writer:
    def __init__(self, code: Code, leaf: Leaf, dialect: Dialect, typing: Typing) -> None:
        self._code = code
        self._leaf = leaf
        self._dialect = dialect
        self._typing = typing

    def value(self, expr: Expression) -> str:
        match expr:
            case Literal(known):
                return self._code.constant(known)
            case Call("and" | "or" | "not"):
                return f"(1 if {self.test(expr)} else 0)"
            case Call("case", args):
                return self._case(args)
            case Call("is null" | "is not null"):
                return f"(+{self.test(expr)})"
            case Call("=", (Literal() as known, y)) if not isinstance(y, Literal):
                return self.value(Call("=", (y, known)))
            case Call("=" | "in" | "in list", (x, *_)) if (source := self._name(x)) and (
                held := self._holds(expr, source)
            ):
                return f"(None if {source} is None else +{held})"
            case Call("coalesce" | "ifnull", (x, y)) if (first := self._name(x)) and (
                second := self._simple(y)
            ):
                return f"({first} if {first} is not None else {second})"
            case Call(name, args):
                return self._call(name, args)
        return self._leaf(expr)

    def test(self, expr: Expression) -> str:
        match expr:
            case Call("and" | "or" as word, args):
                return f"({f' {word} '.join(self.test(arg) for arg in args)})"
            case Call("not", (x,)):
                return f"(not {self.test(x)})"
            case Call("is null" | "is not null" as name, (Literal(known),)):
                return str((known is None) == (name == "is null"))
            case Call("is null" | "is not null" as name, (x,)):
                return f"({self.value(x)} {name.replace('null', 'None')})"
            case Call("=", (Literal() as known, y)) if not isinstance(y, Literal):
                return self.test(Call("=", (y, known)))
            case Call("=" | "in" | "in list", (x, *_)) if held := self._holds(expr, self.value(x)):
                return held
            case Call("!=", (x, Literal(known))) if known is not None and self._dialect.edition >= 3:
                return f"({self.value(x)} != {self._code.constant(known)})"
            case Call("!=", (x, Literal(known))) if known is not None and (source := self._name(x)):
                return f"({source} is not None and {source} != {self._code.constant(known)})"
            case Call(name, (x, y)) if name in _COMPARISONS and (held := self._ordered(name, x, y)):
                return held
            case Call("between", (x, low, high)) if held := self._ordered("<=", low, x, high):
                return held
        source = self.value(expr)
        return source if type_of(expr, self._typing) == "integer" else f"{self._code.name(truth)}({source})"

    def _holds(self, expr: Call, source: str) -> str | None:
        """Source for what can be decided by one look at `source`, also if that is None: then not."""
        match expr:
            case Call("=", (_, Literal(known))) if known is not None:
                return f"({source} == {self._code.constant(known)})"
            case Call("in", (_, Literal(known))) if (found := _constants(known)) is not None:
                return f"({source} in {self._code.name(found)})"
            case Call("in list", (_, *rest)) if all(type(part) is Literal for part in rest):
                found = frozenset(part.value for part in rest if isinstance(part, Literal))
                # A list with NULL in it does not say no but NULL; both count as false, but are two values.
                return None if None in found else f"({source} in {self._code.name(found)})"
        return None

    def _name(self, expr: Expression) -> str | None:
        """The source of a leaf that can be written twice."""
        if isinstance(expr, Call | Literal):
            return None
        source = self._leaf(expr)
        return source if _SIMPLE.fullmatch(source) else None

    def _simple(self, expr: Expression) -> str | None:
        """The same of a leaf or a constant."""
        if isinstance(expr, Literal) and expr.value is not None:
            return self._code.constant(expr.value)
        return self._name(expr)

    def _ordered(self, operator: str, *operands: Expression) -> str | None:
        """Source for a chain of comparisons, if the operands are surely text, or surely numbers."""
        kinds = {type_of(operand, self._typing) for operand in operands}
        sources = [source for operand in operands if (source := self._simple(operand))]
        if len(sources) < len(operands) or not (kinds == {"text"} or kinds <= _NUMERIC):
            return None
        known = "".join(f"{source} is not None and " for source in sources if _SIMPLE.fullmatch(source))
        return f"({known}{f' {operator} '.join(sources)})"

    def _case(self, args: tuple[Expression, ...]) -> str:
        pairs = zip(args[:-1:2], args[1::2], strict=True)
        whens = "".join(f"{self.value(then)} if {self.test(when)} else " for when, then in pairs)
        return f"({whens}{self.value(args[-1])})"

    def _call(self, name: str, args: tuple[Expression, ...]) -> str:
        compute = self._code.name(computing(name, self._dialect), "f")
        return f"{compute}({', '.join(self.value(arg) for arg in args)})"


def _constants(array: Scalar) -> frozenset[Scalar] | None:
    """The members of a JSON array written in the rules, without null; None if it is not such an array."""
    try:
        return frozenset(members(array)) - {None}
    except EvaluationError:
        return None


def plain(expr: Expression, leaf_value: Callable[[Expression], Scalar], dialect: Dialect) -> Scalar:
    """The expression's value, computed by walking it."""

    def of(part: Expression) -> Scalar:
        match part:
            case Literal(known):
                return known
            case Call("and", args):
                return +all(truth(of(arg)) for arg in args)
            case Call("or", args):
                return +any(truth(of(arg)) for arg in args)
            case Call("case", args):
                for when, then in zip(args[:-1:2], args[1::2], strict=True):
                    if truth(of(when)):
                        return of(then)
                return of(args[-1])
            case Call(name, args):
                return computing(name, dialect)(*[of(arg) for arg in args])
        return leaf_value(part)

    return of(expr)


def type_of(expr: Expression, column_type: Typing) -> str | None:
    """`integer`, `real`, `text` or `blob` if the value is always that, or NULL; `null`; None if unknown."""
    match expr:
        case Literal(known):
            return type_name(known)
        case Call("and" | "or"):
            return "integer"
        case Call("case", args):
            return _common([*args[1::2], args[-1]], column_type)
        case Call("coalesce" | "ifnull", args):
            return _common(list(args), column_type)
        case Call("nullif", args):
            return type_of(args[0], column_type)
        case Call(name):
            return FUNCTIONS[name].type
    return column_type(expr)


def _common(parts: list[Expression], column_type: Typing) -> str | None:
    kinds = {type_of(part, column_type) for part in parts} - {"null"}
    return kinds.pop() if len(kinds) == 1 else None if kinds else "null"
