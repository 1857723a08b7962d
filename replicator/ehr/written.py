"""Nodes of a mapping file → texts, numbers, choices; or what is wrong, at its place. No I/O.

Every method takes the place's name for the message, and gives None (or a default) where it has refused: the
reading goes on, so that all there is to correct is told at once.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from yaml import MappingNode, Node, ScalarNode, SequenceNode

from replicator.ehr.expressions import Misread
from replicator.ehr.expressions import parse as parse_expression
from replicator.ehr.model import Column, Constant, Expression, Place, Source
from replicator.text.nodes import Document, Entry, Problem, dotted, is_null, nearest, parse
from replicator.text.words import boolean, whole

PATH = re.compile(r"[^\s/|:]+(?::\d{1,4})?(?:/[^\s/|:]+(?::\d{1,4})?)*(?:\|[a-z_]+)?")
SOURCES = ("column", "constant", "expression")


class Keys(NamedTuple):
    """The entries of a mapping whose keys are known ones."""

    path: str
    node: Node
    entries: Mapping[str, Entry]

    def get(self, name: str) -> Node | None:
        """What stands there; None also for a `null`."""
        entry = self.entries.get(name)
        return None if entry is None or is_null(entry.value) else entry.value

    def at(self, name: str) -> str:
        return dotted(self.path, name)


@dataclass(slots=True)
class Written:
    """One file, while it is read."""

    text: str
    file: str
    document: Document = field(init=False)

    def __post_init__(self) -> None:
        self.document = parse(self.text, self.file)

    def place(self, node: Node) -> Place:
        return Place(*self.document.place_of(node))

    def refuse(self, node: Node | None, path: str, what: str) -> None:
        self.document.refuse(node, path, what)

    def refuse_at(self, place: Place, path: str, what: str) -> None:
        self.document.problems.append(Problem(self.file, *place, path, what))

    # Mappings.

    def entries(self, node: Node | None, path: str, what: str) -> Iterator[Entry]:
        """The entries of a mapping with names of the writer's own."""
        if isinstance(node, MappingNode):
            yield from self.document.entries(node)
        elif node is not None and not is_null(node):
            self.refuse(node, path, what)

    def keys(
        self, node: Node, path: str, known: Collection[str], needed: Collection[str] = ()
    ) -> Keys | None:
        """The entries of a mapping that may have these keys, and must have some."""
        if not isinstance(node, MappingNode):
            what = "a mapping is expected here"
            self.refuse(node, path, f"{what}, with {', '.join(needed)}" if needed else what)
            return None
        found: dict[str, Entry] = {}
        for entry in self.document.entries(node):
            if entry.name in known:
                found[entry.name] = entry
            else:
                what = f"unknown key{nearest(entry.name, known)}"
                self.refuse(entry.key, dotted(path, entry.name), what)
        for name in needed:
            if name not in found or is_null(found[name].value):
                at = found[name].value if name in found else node
                self.refuse(at, path, f"{name} is missing")
        return Keys(path, node, found)

    # Scalars.

    def words(self, node: Node | None, path: str) -> str | None:
        """A text that is not empty."""
        if node is None:
            return None
        if not isinstance(node, ScalarNode) or is_null(node) or not str(node.value).strip():
            self.refuse(node, path, "a text is expected here")
            return None
        return str(node.value)

    def matching(self, node: Node | None, path: str, form: re.Pattern[str], what: str) -> str | None:
        text = self.words(node, path)
        if text is not None and not form.fullmatch(text):
            self.refuse(node, path, what)
            return None
        return text

    def choice(self, node: Node | None, path: str, choices: Collection[str]) -> str | None:
        text = self.words(node, path)
        if text is not None and text not in choices:
            self.refuse(node, path, f"unknown here{nearest(text, choices)}")
            return None
        return text

    def flag(self, node: Node | None, path: str, default: bool) -> bool:
        text = self.words(node, path)
        if text is None:
            return default
        try:
            if isinstance(node, ScalarNode) and not node.style:
                return boolean(text)
        except ValueError:
            pass
        self.refuse(node, path, "must be true or false")
        return default

    def number(self, node: Node | None, path: str, default: int, low: int, high: int) -> int:
        text = self.words(node, path)
        if text is None:
            return default
        try:
            found = whole(text)
        except ValueError:
            found = low - 1
        if not low <= found <= high:
            self.refuse(node, path, f"must be a whole number from {low} to {high}")
            return default
        return found

    # Columns, and other places that values come from.

    def column(self, node: Node | None, path: str) -> Column | None:
        name = self.words(node, path)
        return None if name is None or node is None else Column(name, self.place(node))

    def columns(self, node: Node | None, path: str, *, is_needed: bool = False) -> tuple[Column, ...]:
        """One column, or a list of them, none twice."""
        if is_needed and isinstance(node, SequenceNode) and not node.value:
            self.refuse(node, path, "the name of a column is expected")
        nodes = node.value if isinstance(node, SequenceNode) else [node] if node is not None else []
        found: dict[str, Column] = {}
        for number, item in enumerate(nodes):
            where = dotted(path, number) if isinstance(node, SequenceNode) else path
            if (column := self.column(item, where)) is None:
                continue
            if column.name in found:
                self.refuse(item, where, "named twice")
            found[column.name] = column
        return tuple(found.values())

    def source(self, keys: Keys) -> Source | None:
        """The one of column, constant and expression that is given."""
        given = [name for name in SOURCES if keys.get(name) is not None]
        if len(given) != 1:
            what = "given together: leave all but one out" if given else "one of them is missing"
            self.refuse(keys.node, keys.path, f"{', '.join(given or SOURCES)}: {what}")
            return None
        node = keys.get(given[0])
        text = self.words(node, keys.at(given[0]))
        if text is None or node is None:
            return None
        if given == ["expression"]:
            return self.expression(node, keys.at("expression"))
        return (Column if given == ["column"] else Constant)(text, self.place(node))

    def expression(self, node: Node | None, path: str) -> Expression | None:
        """What is computed of a row."""
        if (text := self.words(node, path)) is None or node is None:
            return None
        try:
            tree, named = parse_expression(text)
        except Misread as error:
            self.document.refuse(node, path, error.what, error.offset)
            return None
        columns: dict[str, Column] = {}
        for name, offset in named:
            columns.setdefault(name, Column(name, Place(*self.document.place_of(node, offset))))
        return Expression(text, self.place(node), tree, tuple(columns.values()))

    def column_or(self, node: Node | None, path: str, more: Collection[str] = ()) -> Column | Constant | None:
        """A text, which stands for itself, or `{column: name}`."""
        if isinstance(node, MappingNode):
            keys = self.keys(node, path, ("column", *more), ("column",))
            return self.column(keys.get("column"), keys.at("column")) if keys else None
        text = self.words(node, path)
        return None if text is None or node is None else Constant(text, self.place(node))

    def flat_path(self, entry: Entry, path: str) -> str | None:
        """A key that is a FLAT path."""
        if not PATH.fullmatch(entry.name):
            what = "not a path: names joined by /, a repeated one with :0, and at the end perhaps |suffix"
            self.refuse(entry.key, path, what)
            return None
        return entry.name
