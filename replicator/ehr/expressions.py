"""An expression of a mapping, in the language of the rules → a function of a row. No I/O.

It is about one row and nothing else: the same row comes to the same text whenever it is computed, so there
is no time in it and nobody who asks. What it means is decided when the file is read; the types of the
columns decide how their values are read, and are known when the source has said them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from replicator.ehr.model import Expression, Filter, Formula
from replicator.rules.columns.types import BUILT_IN, Types
from replicator.rules.columns.values import kind_of, scalar
from replicator.rules.compute.code import Code
from replicator.rules.compute.expressions import test, type_of, value
from replicator.rules.compute.scalars import real_text
from replicator.rules.expression import EDITION_3, Call, Column, Now, Scalar
from replicator.rules.expression import Expression as Tree
from replicator.rules.sql.quoting import kept_word, texts_in_double_quotes
from replicator.rules.sql.reader import NotUnderstood, read
from replicator.rules.sql.sqltext import SqlError, SqlNode, offset_of, parse_select

#: The newest meaning the language has.
_DIALECT = EDITION_3
_BEFORE = "SELECT "
_TEXT = 25
_COMPARED = frozenset(("=", "!=", "<", "<=", ">", ">=", "between", "in list"))
_NUMBERS = frozenset(("integer", "real"))


class Misread(ValueError):
    """What is wrong with an expression, and at which of its characters."""

    def __init__(self, what: str, offset: int = 0) -> None:
        super().__init__(what)
        self.what, self.offset = what, offset


@dataclass(slots=True)
class _Scope:
    """The columns of one row, as they are named."""

    named: list[tuple[str, int]] = field(default_factory=list)

    def column(self, path: list[str], location: int) -> Column:
        if len(path) > 1:
            raise NotUnderstood("columns stand alone here: there is one row, that of the table", location)
        self.named.append((path[0], location))
        return Column(path[0])

    def function(self, path: list[str], args: list[Any], location: int) -> None:
        return None


def parse(text: str) -> tuple[Tree, list[tuple[str, int]]]:
    """What a text means, and each column that it names with its place in the text; Misread otherwise."""
    whole, scope = _BEFORE + text, _Scope()
    try:
        node = _only(parse_select(whole))
        for location in texts_in_double_quotes(whole, node):
            raise NotUnderstood("in double quotes this is a column; text stands in single quotes", location)
        tree = read(node, scope, _DIALECT)
    except SqlError as error:
        raise Misread(error.what + kept_word(error.what), _within(text, error.offset)) from None
    except NotUnderstood as error:
        raise Misread(error.what, _within(text, offset_of(whole, error.location))) from None
    if any(isinstance(part, Now) for part in _parts(tree)):
        raise Misread("the time is no part of a row: it would come to another text with every try")
    return tree, [(name, _within(text, offset_of(whole, at))) for name, at in scope.named]


def _within(text: str, offset: int) -> int:
    return max(0, min(offset - len(_BEFORE), len(text)))


def _only(select: SqlNode) -> SqlNode:
    """The one thing after SELECT, if there is nothing else."""
    targets = select.get("targetList", [])
    # The grammar notes these of every SELECT.
    if select.keys() - {"targetList", "limitOption", "op"} or len(targets) != 1:
        raise NotUnderstood("one expression is expected here, and nothing else", 0)
    target = targets[0]["ResTarget"]
    if "name" in target:
        raise NotUnderstood("what an expression comes to has no name: leave AS out", target["location"])
    node: SqlNode = target["val"]
    return node


def _parts(tree: Tree) -> Iterator[Tree]:
    yield tree
    for part in tree.args if isinstance(tree, Call) else ():
        yield from _parts(part)


# Compiled.


def formula(expression: Expression, oids: Mapping[str, int], types: Types = BUILT_IN) -> Formula:
    """What computes its text; `oids` are the types of the columns, and a column without one is text."""
    return _function(expression.tree, oids, types, is_test=False)


def condition(expression: Expression, oids: Mapping[str, int], types: Types = BUILT_IN) -> Filter:
    """What tells whether it holds."""
    return _function(expression.tree, oids, types, is_test=True)


def _function(tree: Tree, oids: Mapping[str, int], types: Types, *, is_test: bool) -> Callable[..., Any]:
    code, lines = Code(), list[str]()
    names: dict[str, str] = {}

    def leaf(part: Tree) -> str:
        assert isinstance(part, Column), "it was read in the scope of a row"
        if part.name not in names:
            name = names[part.name] = f"v{len(names)}"
            lines.append(f"{name} = row[{part.name!r}]")
            decoded = scalar(code, oids.get(part.name, _TEXT), name, _DIALECT, types)
            if decoded != name:
                lines.append(f"{name} = {decoded}")
        return names[part.name]

    typing = _typing(oids, types)
    if is_test:
        made = f"True if {test(code, tree, leaf, _DIALECT, typing)} else False"
    else:
        made = f"{code.name(_text, 'text')}({value(code, tree, leaf, _DIALECT, typing)})"
    return code.function("row", [*lines, f"return {made}"])


def _typing(oids: Mapping[str, int], types: Types) -> Callable[[Tree], str | None]:
    def kind(part: Tree) -> str | None:
        if not isinstance(part, Column) or part.name not in oids:
            return None
        return kind_of(oids[part.name], _DIALECT, types)

    return kind


def _text(found: Scalar) -> str | None:
    if found is None or isinstance(found, str):
        return found
    if isinstance(found, bytes):
        raise ValueError("bytes are no text")
    return real_text(found) if isinstance(found, float) else str(int(found))


def mismatch(expression: Expression, oids: Mapping[str, int], types: Types = BUILT_IN) -> str | None:
    """What no row could mean: text is never as large as any number, so such a comparison decides nothing."""
    typing = _typing(oids, types)
    for part in _parts(expression.tree):
        if isinstance(part, Call) and part.name in _COMPARED:
            kinds = {type_of(arg, typing) for arg in part.args}
            if "text" in kinds and kinds & _NUMBERS:
                return "text is compared with a number here (numeric is text, too): write CAST(… AS REAL)"
    return None
