"""A server's web template → the paths a composition may have, and what may stand at each. No I/O.

The web template is the server's own reading of an operational template: a tree of nodes whose ids, joined by
`/`, are the paths of the FLAT format. A path here has no indices; `Node.max` says whether it takes one.

Nothing of a path is computed from the template's source: two releases of one server have been seen to name
the same node differently, and only the server that will read a composition knows which it wants.
"""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson

from replicator.errors import ReplicatorError

MOST_LEVELS = 100
#: `:0`, or `:#` where the number of an element of a group will stand.
INDEX = re.compile(r":(?:\d+|#)")
ENTRIES = frozenset({"OBSERVATION", "EVALUATION", "INSTRUCTION", "ACTION", "ADMIN_ENTRY", "GENERIC_ENTRY"})
#: How many of the paths that begin like a wrong one are told.
MOST_SHOWN = 6


class NotAWebTemplate(ReplicatorError):
    """What the server sent as a web template is none."""


class Range(NamedTuple):
    """What a number may be; None where it has no end."""

    low: float | None = None
    low_is_in: bool = True
    high: float | None = None
    high_is_in: bool = True

    def holds(self, number: float) -> bool:
        if self.low is not None and not (number > self.low or (self.low_is_in and number == self.low)):
            return False
        return self.high is None or number < self.high or (self.high_is_in and number == self.high)


#: No limits.
ANY = Range()


class Option(NamedTuple):
    """One of the codes, or units, that may stand there."""

    value: str
    label: str
    ordinal: int | None = None
    range: Range = ANY


@dataclass(frozen=True, slots=True)
class Input:
    """One part of a value: `magnitude`, `unit`, `code`, …; the value itself if it has no suffix."""

    suffix: str
    type: str
    options: tuple[Option, ...] = ()
    #: Whether other values than the options may stand there.
    is_open: bool = False
    terminology: str = ""
    range: Range = ANY


@dataclass(frozen=True, slots=True)
class Node:
    """One place of the tree."""

    path: str
    id: str
    rm_type: str
    min: int
    #: None: any number.
    max: int | None
    #: Whether it is one of the record model's own attributes, such as `language` or `time`.
    in_context: bool
    inputs: tuple[Input, ...]
    children: tuple[str, ...]
    #: Where it is in the archetype.
    aql: str = ""

    @property
    def is_leaf(self) -> bool:
        return not self.children

    @property
    def repeats(self) -> bool:
        return self.max is None or self.max > 1

    def input(self, suffix: str) -> Input | None:
        return next((part for part in self.inputs if part.suffix == suffix), None)


@dataclass(frozen=True, slots=True)
class WebTemplate:
    """What one template lets a composition be."""

    id: str
    #: The first segment of every path.
    root: str
    nodes: Mapping[str, Node]
    #: Changes if a path, a type, a unit, a code, its label or an occurrence does.
    hash: str

    def node(self, path: str) -> Node | None:
        """The node at a path, with or without indices."""
        return self.nodes.get(without_indices(path))

    def leaves(self) -> Iterator[Node]:
        return (node for node in self.nodes.values() if node.is_leaf)

    def above(self, path: str) -> Iterator[Node]:
        """The nodes above a path, from the root down."""
        parts = without_indices(path).split("/")
        for end in range(1, len(parts)):
            if (node := self.nodes.get("/".join(parts[:end]))) is not None:
                yield node

    def nearest(self, path: str) -> str:
        """`, did you mean …?`, or what the path could continue with where it leaves the tree."""
        plain = without_indices(path.partition("|")[0])
        leaves = [node.path for node in self.leaves()]
        if close := difflib.get_close_matches(plain, leaves, 1, 0.75):
            return f", did you mean {close[0]}?"
        known = list(self.above(path))
        if not known:
            return f": every path of this template begins with {self.root}/"
        names = [child.rpartition("/")[2] for child in known[-1].children]
        more = ", …" if len(names) > MOST_SHOWN else ""
        return f"; below {known[-1].path} stand {', '.join(names[:MOST_SHOWN])}{more}"


def without_indices(path: str) -> str:
    return INDEX.sub("", path)


def read_web_template(content: object) -> WebTemplate:
    """The web template that a server's answer holds: as JSON, or parsed already."""
    try:
        found = orjson.loads(content) if isinstance(content, bytes | str) else content
    except orjson.JSONDecodeError:
        raise _wrong("it is not JSON") from None
    if not isinstance(found, dict) or not isinstance(tree := found.get("tree"), dict):
        raise _wrong("it has no tree")
    nodes: dict[str, Node] = {}
    root = _read(tree, "", nodes, 0)
    if root.rm_type != "COMPOSITION":
        raise _wrong("its root is no COMPOSITION")
    return WebTemplate(_text(found, "templateId"), root.id, nodes, _hash(_text(found, "templateId"), nodes))


def _wrong(what: str) -> NotAWebTemplate:
    return NotAWebTemplate(
        f"the server's web template cannot be understood: {what}",
        "Is ehr.url the base of an openEHR REST API, and not of something in front of it?",
    )


def _hash(name: str, nodes: Mapping[str, Node]) -> str:
    ordered = [nodes[path] for path in sorted(nodes)]
    return hashlib.sha256(orjson.dumps([name, ordered], default=tuple)).hexdigest()


def _read(tree: Mapping[str, Any], above: str, nodes: dict[str, Node], level: int) -> Node:
    if level > MOST_LEVELS:
        raise _wrong(f"it is nested deeper than {MOST_LEVELS} levels")
    name = _text(tree, "id")
    path = f"{above}/{name}" if above else name
    if not name or path in nodes or INDEX.search(name) or "/" in name or "|" in name:
        raise _wrong("a node's id is missing, is given twice, or is none")
    least, most = tree.get("min", 0), tree.get("max", -1)
    if not isinstance(least, int) or not isinstance(most, int):
        raise _wrong("an occurrence is no number")
    placeholder = Node(path, name, _text(tree, "rmType").strip(), least, None, False, (), ())
    nodes[path] = placeholder  # so that a second node of this path is noticed
    children = tuple(_read(child, path, nodes, level + 1).path for child in _objects(tree, "children"))
    nodes[path] = node = Node(
        path,
        name,
        placeholder.rm_type,
        least,
        most if most >= 0 else None,
        tree.get("inContext") is True,
        tuple(_input(part) for part in _objects(tree, "inputs")),
        children,
        _text(tree, "aqlPath"),
    )
    return node


def _input(part: Mapping[str, Any]) -> Input:
    return Input(
        _text(part, "suffix"),
        _text(part, "type"),
        tuple(_option(option) for option in _objects(part, "list")),
        part.get("listOpen") is True,
        _text(part, "terminology"),
        _range(part),
    )


def _option(option: Mapping[str, Any]) -> Option:
    ordinal = option.get("ordinal")
    value = _text(option, "value")
    label = _text(option, "label") or value
    return Option(value, label, ordinal if isinstance(ordinal, int) else None, _range(option))


def _range(part: Mapping[str, Any]) -> Range:
    validation = part.get("validation")
    found = validation.get("range") if isinstance(validation, dict) else None
    if not isinstance(found, dict):
        return ANY
    low, high = found.get("min"), found.get("max")
    return Range(
        float(low) if isinstance(low, int | float) else None,
        found.get("minOp") != ">",
        float(high) if isinstance(high, int | float) else None,
        found.get("maxOp") != "<",
    )


def _objects(tree: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    found = tree.get(key) or []
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise _wrong(f"{key} is no list of objects")
    return found


def _text(tree: Mapping[str, Any], key: str) -> str:
    found = tree.get(key)
    if found is None:
        return ""
    if not isinstance(found, str):
        raise _wrong(f"{key} is no text")
    return found
