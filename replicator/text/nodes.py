"""YAML text → nodes with positions; duplicates and surprises refused. No I/O.

What is read is the part of YAML a person means: one document of mappings, lists and text. Left out is what
turns into something else behind the writer's back: `no` for false, 012 for ten, a key given twice, an
anchor, a tag. Whoever walks the tree adds what they find wrong to the same list, and the reader of the
message gets all of it at once:

    document = parse(text, "rules.yaml")
    for entry in document.entries(document.root):
        if entry.name not in KNOWN:
            document.refuse(entry.key, entry.name, f"unknown key{nearest(entry.name, KNOWN)}")
    document.settle()

Nothing here repeats a value: what stands in a configuration may be a password.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import yaml
from yaml import MappingNode, Node, ScalarNode, SequenceNode

from replicator.errors import ConfigError
from replicator.text.offsets import origin, place
from replicator.text.words import UNPRINTABLE, surprise, syntax

#: The parser in C is ten times faster; every wheel of PyYAML has it.
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
MOST_CHARACTERS = 1 << 20
MOST_LEVELS = 32
MOST_SHOWN = 100
#: Everything YAML calls unprintable, and every line break an editor would not count as one.
FORBIDDEN = re.compile(
    "[^\t\n\r\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]|\r(?!\n)"
)
NAME = re.compile(r"[^\W\d][\w.-]{0,62}")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing to correct in a file."""

    file: str
    #: Counted from 1; 0 if the problem is not in a file's text.
    line: int
    column: int
    #: `source.slot`, `sync.keys[0].kty`; empty if it is about the text as a whole.
    key: str
    what: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        return ": ".join(part for part in (where, self.key, self.what) if part)


class Problems(ConfigError):
    """Everything to correct, in the order of the file; one line each, and one for each place and key."""

    def __init__(self, problems: Iterable[Problem], hint: str = "") -> None:
        first: dict[tuple[int, int, str], Problem] = {}
        for problem in problems:
            first.setdefault((problem.line, problem.column, problem.key), problem)
        self.problems = tuple(first[place] for place in sorted(first))
        lines = [str(problem) for problem in self.problems[:MOST_SHOWN]]
        if len(self.problems) > MOST_SHOWN:
            lines.append(f"… and {len(self.problems) - MOST_SHOWN} more")
        super().__init__("\n".join(lines), hint)


class Entry(NamedTuple):
    """One `name: value` of a mapping."""

    name: str
    key: ScalarNode
    value: Node


class Document:
    """A file's tree, and what is known to be wrong with it."""

    def __init__(self, text: str, file: str) -> None:
        self.text = text
        self.file = file
        self.root = MappingNode("tag:yaml.org,2002:map", [])
        self.problems: list[Problem] = []

    def refuse(self, node: Node | yaml.Event | None, key: str, what: str, offset: int | None = None) -> None:
        """Note a problem at a node, or at the character at `offset` of a scalar's value."""
        line, column = self.place_of(node, offset)
        self.problems.append(Problem(self.file, line, column, key, what))

    def place_of(self, node: Node | yaml.Event | None, offset: int | None = None) -> tuple[int, int]:
        """Line and column of a node, or of the character at `offset` of a scalar's value."""
        if offset is not None and isinstance(node, ScalarNode):
            return place(self.text, origin(self.text, node, offset))
        return _place(node) if node is not None else (1, 1)

    def refuse_at(self, index: int, what: str) -> None:
        """Note a problem of the text itself, at its character `index`."""
        self.problems.append(Problem(self.file, *place(self.text, index), "", what))

    def settle(self, hint: str = "") -> None:
        """Raise what has been noted, if anything."""
        if self.problems:
            raise Problems(self.problems, hint)

    def entries(self, node: MappingNode) -> Iterator[Entry]:
        """The mapping's entries, without those `parse` has refused."""
        seen: set[str] = set()
        for key, value in node.value:
            if _fault(node, key, value) is None and key.value not in seen:
                seen.add(key.value)
                yield Entry(key.value, key, value)


def parse(text: str, file: str, tags: Container[str] = ()) -> Document:
    """The tree of one file. Problems if there is no tree; otherwise what is wrong stands in the document.

    `tags` are those that somebody will look for; every other one is refused.
    """
    document = Document(text, file)
    if forbidden := FORBIDDEN.search(text):
        what = f"the character U+{ord(forbidden.group()):04X} cannot stand in YAML"
        document.refuse_at(forbidden.start(), f'{what}; inside "…" it can be an escape')
        document.settle()
    if len(text) > MOST_CHARACTERS:
        document.refuse_at(0, f"longer than {MOST_CHARACTERS} characters")
        document.settle()
    try:
        _survey(document, tags)
        root = yaml.compose(text, LOADER)
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        # The last two: an escape that is no character, in the parser written in Python.
        document.refuse_at(*syntax(text, error))
        raise Problems(document.problems) from None
    if isinstance(root, MappingNode):
        document.root = root
        _inspect(document, root, "")
    elif root is not None and not is_null(root):
        document.refuse(root, "", "a mapping is expected here: lines of the form `key: value`")
        document.settle()
    return document


def _survey(document: Document, tags: Container[str]) -> None:
    """Refuse what a tree of nodes would no longer show, or could not be built from without harm."""
    level = documents = 0
    for event in yaml.parse(document.text, LOADER):
        documents += isinstance(event, yaml.DocumentStartEvent)
        level += isinstance(event, yaml.CollectionStartEvent)
        level -= isinstance(event, yaml.CollectionEndEvent)
        for what in _unwanted(event, tags):
            document.refuse(event, "", what)
        if level > MOST_LEVELS:
            document.refuse(event, "", f"nested deeper than {MOST_LEVELS} levels")
            break  # composing is recursive
        if documents > 1:
            document.refuse(event, "", "a second document begins here: one file is one document")
            break
    document.settle()


def _unwanted(event: yaml.Event, tags: Container[str]) -> Iterator[str]:
    if getattr(event, "anchor", None) is not None:
        yield "anchors and aliases are not read; write it out, or quote text with & or *"
    if (tag := getattr(event, "tag", None)) is not None and tag not in tags:
        yield "tags are not read; quote text that begins with !"


def _inspect(document: Document, node: Node, path: str) -> None:
    """Note duplicate keys, keys that are none, and words YAML takes for something else."""
    if isinstance(node, ScalarNode) and (what := surprise(node)):
        document.refuse(node, path, what)
    if isinstance(node, SequenceNode):
        for number, item in enumerate(node.value):
            _inspect(document, item, dotted(path, number))
    if isinstance(node, MappingNode):
        _inspect_mapping(document, node, path)


def _inspect_mapping(document: Document, node: MappingNode, path: str) -> None:
    first: dict[str, Node] = {}
    for key, value in node.value:
        if fault := _fault(node, key, value):
            document.refuse(key, path, fault)
            continue
        where = dotted(path, key.value)
        earlier = first.setdefault(key.value, key)
        if earlier is not key:
            document.refuse(key, where, "given twice, first at {}:{}".format(*_place(earlier)))
        _inspect(document, value, where)


def _fault(mapping: MappingNode, key: Node, value: Node) -> str | None:
    """Why this cannot be an entry of a mapping."""
    if not isinstance(key, ScalarNode):
        return "a key must be text; quote a value that begins with { or ["
    if key.tag.endswith(":merge"):
        return "merge keys (<<) are not read; write the entries out"
    if not key.value:
        return "a key is missing before the colon"
    if UNPRINTABLE.search(key.value):
        return "a key cannot hold a line break or a control character"
    if mapping.flow_style and isinstance(value, ScalarNode) and _is_absent(value):
        # The rest of a value that holds a comma becomes such a key: it may be half a password.
        return "no value here; put a space after the colon, and quote text that holds a comma"
    return None


def _place(node: Node | yaml.Event) -> tuple[int, int]:
    mark = node.start_mark
    return (1, 1) if mark is None else (mark.line + 1, mark.column + 1)


def _is_absent(node: ScalarNode) -> bool:
    return not node.style and node.start_mark.index == node.end_mark.index


def is_null(node: Node) -> bool:
    """Nothing, `null` or `~`, not in quotes."""
    return isinstance(node, ScalarNode) and bool(node.tag.endswith(":null"))


def shown(name: str) -> str:
    """A key as a message may repeat it: if it is a name, and not a value in the wrong place."""
    return name if NAME.fullmatch(name) else "?"


def dotted(path: str, *names: str | int) -> str:
    """A path and further steps down: `sync` + "keys", 0, "kty" is `sync.keys[0].kty`."""
    for name in names:
        if isinstance(name, int):
            path = f"{path}[{name}]"
        else:
            path = f"{path}.{shown(name)}" if path else shown(name)
    return path


def nearest(name: str, names: Iterable[str]) -> str:
    """`, did you mean publication?` if one of the names is like this one, else what there is."""
    known = sorted(names)
    if close := difflib.get_close_matches(name, known, 1):
        return f", did you mean {close[0]}?"
    return f"; what can stand here: {', '.join(known)}" if known else ""
