"""A template and the leaves that are filled → what else it demands. No I/O.

A template says `min 1` of a node below one that is itself optional: it is demanded as soon as the one above
is there. So the question can only be asked of a composition: of all that a mapping may write, before
anything is sent; and of what a row has led to, before that is sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from replicator.ehr.leaves import WRITABLE
from replicator.ehr.webtemplate import ENTRIES, INDEX, Node, WebTemplate

#: The record model's own attributes, which nobody has to map.
SUPPLIED_ABOVE = frozenset({"category", "language", "territory", "composer"})
SUPPLIED_IN_ENTRY = frozenset({"language", "encoding", "subject", "time", "origin"})


class Demands(NamedTuple):
    """What has to stand in a composition besides what is filled."""

    #: Paths nobody fills.
    missing: list[str]
    #: Those that the composer fills by itself.
    supplied: list[tuple[str, Node]]


#: So many answers are kept. Most tables need a few; where groups are of any length there is no end of them.
_KEPT_MOST = 200


class Demanded:
    """What a template demands, found once for all rows that fill the same."""

    def __init__(self, template: WebTemplate) -> None:
        self._template = template
        self._found: dict[tuple[str, ...], Demands] = {}

    def beside(self, filled: tuple[str, ...]) -> Demands:
        if (found := self._found.get(filled)) is None:
            if len(self._found) >= _KEPT_MOST:
                self._found.clear()
            found = self._found[filled] = demands(self._template, filled)
        return found


def demands(template: WebTemplate, filled: Iterable[str]) -> Demands:
    """What the template demands beside these leaves; all paths are with indices."""
    have: set[str] = set()
    # The two that the composer always writes.
    live = {template.root, f"{template.root}/context"}
    for path in filled:
        have.add(_unindexed_end(path))
        for above in _prefixes(path):
            live.add(above)
            have.add(_unindexed_end(above))
    found = Demands([], [])
    for place in sorted(live):
        node = template.node(place)
        if node is not None and not (node.rm_type == "ELEMENT" and node.path != template.root):
            _below(template, place, node, have, live, found)
    return found


def _below(
    template: WebTemplate, place: str, node: Node, have: set[str], live: set[str], found: Demands
) -> None:
    for path in node.children:
        child = template.nodes[path]
        here = f"{place}/{child.id}"
        if child.min < 1 or here in have:
            continue
        instance = f"{here}:0" if child.repeats else here
        if _is_supplied(template, child):
            found.supplied.append((instance, child))
        elif _cannot_be_filled(child):
            continue
        elif child.is_leaf or child.rm_type == "ELEMENT":
            found.missing.append(instance)
        elif here not in live:
            _below(template, instance, child, have, live, found)


def _cannot_be_filled(child: Node) -> bool:
    """Demanded in words only: an empty slot, or a part of something optional that the tree leaves out."""
    is_value = child.rm_type.startswith("DV_") or child.rm_type in WRITABLE
    return child.is_leaf and (not is_value or "/instruction_details/" in child.aql)


def _is_supplied(template: WebTemplate, child: Node) -> bool:
    if child.path in (f"{template.root}/context/start_time", f"{template.root}/context/setting"):
        return True
    if not (child.in_context and child.is_leaf):
        return False
    is_in_entry = any(node.rm_type in ENTRIES for node in template.above(child.path))
    return child.id in (SUPPLIED_IN_ENTRY if is_in_entry else SUPPLIED_ABOVE)


def _prefixes(path: str) -> Iterator[str]:
    end = path.rfind("/")
    while end > 0:
        yield path[:end]
        end = path.rfind("/", 0, end)


def _unindexed_end(path: str) -> str:
    above, slash, last = path.rpartition("/")
    return above + slash + INDEX.sub("", last)


def entry_of(template: WebTemplate, path: str) -> str:
    """The part of a path that leads to its entry; empty if it is in none. Indices stay."""
    parts = path.split("/")
    for end in range(1, len(parts)):
        place = "/".join(parts[:end])
        node = template.node(place)
        if node is not None and node.rm_type in ENTRIES:
            return place
    return ""
