"""A composition in the FLAT format × its template → the same in canonical JSON. No I/O.

A contribution takes compositions in no other form. FLAT names leaves; what stands between them, histories,
trees and elements, is found by the archetype path that the web template has for each node, and is what the
operational template says it is.

    pulse_encounter/pulse/any_event:1/rate|magnitude: 72
    /content[…pulse.v1]/data[at0001]/events[at0002]/data[at0003]/items[at0004]/value
     └ OBSERVATION     └ HISTORY    └ POINT_EVENT  └ ITEM_TREE  └ ELEMENT
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from replicator.ehr.about import LABEL_OF_SETTING
from replicator.ehr.bind import Plan
from replicator.ehr.leaves import Json, Parts
from replicator.ehr.shape import Part, Shape, Step, steps_of
from replicator.ehr.values import Made, code_phrase, null_flavour, text, value_of
from replicator.ehr.webtemplate import ENTRIES, Node, WebTemplate
from replicator.errors import ReplicatorError

#: Attributes that hold several; every other holds one.
_MANY: Final = frozenset({"content", "items", "events", "activities"})
#: What stands at the root, whatever its template says of it.
_OF_ROOT: Final = {
    "category": "DV_CODED_TEXT",
    "language": "CODE_PHRASE",
    "territory": "CODE_PHRASE",
    "composer": "PARTY_PROXY",
    "context/start_time": "DV_DATE_TIME",
    "context/setting": "DV_CODED_TEXT",
}
_ITEM: Final = re.compile(r"_feeder_audit/originating_system_item_id:(\d+)\|(\w+)")
_AUDIT: Final = "_feeder_audit/originating_system_audit|"
_FACILITY: Final = "_health_care_facility|name"
#: Types of which only the kinds occur → the one that is meant where nothing says so.
_KINDS: Final = {"EVENT": "POINT_EVENT"}
_RM_VERSION: Final = "1.0.4"


class NotCanonical(ReplicatorError):
    """A template of which the server does not tell what canonical JSON needs."""

    def __init__(self, path: str, what: str) -> None:
        super().__init__(
            f"{path}: {what}", "Without `atomic`, compositions are sent in the FLAT format, which needs less."
        )


def canonical(flat: Mapping[str, Json], template: WebTemplate, shape: Shape) -> dict[str, Any]:
    """The composition that these paths and values are."""
    growing = _Growing(template, shape)
    for path, parts in _by_leaf(flat).items():
        growing.add(path, parts)
    return growing.finished()


def misfit(plan: Plan, shape: Shape) -> str | None:
    """Why what a plan fills cannot be written in canonical form, whatever a row holds."""
    growing = _Growing(plan.template, shape)
    try:
        for slot in (*plan.slots, *plan.marked, *(slot for group in plan.groups for slot in group.slots)):
            growing.holder(slot.path.replace(":#", ":0"))
    except NotCanonical as error:
        return error.what
    return None


def _by_leaf(flat: Mapping[str, Json]) -> dict[str, Parts]:
    """Path → what stands there, by suffix; what begins with `_` belongs to the node above it."""
    found: dict[str, Parts] = {}
    for key, value in flat.items():
        at = key.find("/_")
        path, part = (key[:at], key[at + 1 :]) if at >= 0 else key.partition("|")[::2]
        found.setdefault(path, {})[part] = value
    return found


class _Growing:
    """A composition as far as it has come."""

    def __init__(self, template: WebTemplate, shape: Shape) -> None:
        self.template, self.shape = template, shape
        root = shape.root
        self.root = _object(root.rm_type, root)
        self.root["archetype_details"]["template_id"] = {"_type": "TEMPLATE_ID", "value": template.id}
        #: The node at each path, with its indices.
        self._nodes: dict[str, Made] = {template.root: self.root}
        #: What stands between nodes, by what it is below and how; and where in the archetype everything is.
        self._between: dict[tuple[int, str], Made] = {}
        self._paths: dict[int, str] = {id(self.root): ""}

    def add(self, path: str, parts: Parts) -> None:
        """Something at a leaf, or at the root itself."""
        below = path.removeprefix(self.template.root).removeprefix("/")
        if not below:
            self._add_origin(parts)
        elif below.startswith("ctx/"):
            self._add_of_ctx(below.removeprefix("ctx/"), parts)
        elif below == "context" or below in _OF_ROOT:
            self._add_of_root(below, parts)
        else:
            self._add_leaf(path, parts)

    def finished(self) -> dict[str, Any]:
        """With what its types demand, and rows say nothing about."""
        _complete(
            self.root, self.root["context"]["start_time"] if "context" in self.root else None, self.root
        )
        return self.root

    # What is said of the whole.

    def _add_origin(self, parts: Parts) -> None:
        items: dict[str, Made] = {}
        for name, value in parts.items():
            if found := _ITEM.fullmatch(name):
                items.setdefault(found[1], {"_type": "DV_IDENTIFIER"})[found[2]] = value
        audit = {name.removeprefix(_AUDIT): value for name, value in parts.items() if name.startswith(_AUDIT)}
        self.root["feeder_audit"] = {
            "_type": "FEEDER_AUDIT",
            "originating_system_item_ids": [items[number] for number in sorted(items, key=int)],
            "originating_system_audit": {"_type": "FEEDER_AUDIT_DETAILS", **audit},
        }
        if "_uid" in parts:
            self.root["uid"] = {"_type": "OBJECT_VERSION_ID", "value": parts["_uid"]}

    def _add_of_root(self, below: str, parts: Parts) -> None:
        above, _, name = below.rpartition("/")
        there = self._context() if above or name == "context" else self.root
        if name == "context":
            there["health_care_facility"] = {"_type": "PARTY_IDENTIFIED", "name": parts[_FACILITY]}
        else:
            there[name] = value_of(_OF_ROOT[below], parts)

    def _add_of_ctx(self, name: str, parts: Parts) -> None:
        """The context of a template that says nothing of one."""
        match name:
            case "time":
                self._add_of_root("context/start_time", parts)
            case "setting":
                code = str(parts[""])
                setting: Parts = {"code": code, "value": LABEL_OF_SETTING[code], "terminology": "openehr"}
                self._add_of_root("context/setting", setting)
            case "health_care_facility":
                self._add_of_root("context", {_FACILITY: parts["name"]})

    def _context(self) -> Made:
        made: Made = self.root.setdefault("context", {"_type": "EVENT_CONTEXT"})
        self._paths[id(made)] = "/context"
        return made

    # Leaves, and what is above them.

    def _add_leaf(self, path: str, parts: Parts) -> None:
        there, attribute = self.holder(path)
        if (flavour := null_flavour(parts)) is not None:
            there["null_flavour"] = flavour
        else:
            there[attribute] = value_of(self._node(path).rm_type, parts)

    def holder(self, path: str) -> tuple[Made, str]:
        """What holds a leaf's value, and as which of its attributes."""
        above, steps = self._below(path)
        *way, last = steps
        # An element is of its leaf alone; whatever else leads there, its siblings share.
        return self._go(above, way, path if last.attribute == "value" else ""), last.attribute

    def _place(self, path: str) -> Made:
        """The node at a path, made if it is not there yet."""
        if path == f"{self.template.root}/context":
            return self._context()
        if (found := self._nodes.get(path)) is None:
            above, steps = self._below(path)
            found = self._nodes[path] = self._go(above, steps, path)
        return found

    def _node(self, path: str) -> Node:
        if (node := self.template.node(path)) is None:
            raise NotCanonical(path, "the template has no such path")
        return node

    def _below(self, path: str) -> tuple[Made, Sequence[Step]]:
        """What stands above a path, and the steps from there."""
        above = path.rpartition("/")[0]
        steps, known = steps_of(self._node(path).aql), steps_of(self._node(above).aql)
        if len(steps) <= len(known) or steps[: len(known)] != known:
            raise NotCanonical(path, "the server does not tell its path in the archetype")
        return self._place(above), steps[len(known) :]

    def _go(self, there: Made, steps: Sequence[Step], path: str) -> Made:
        """Down these steps; the last of them leads to what is of this path alone, if there is one."""
        for number, step in enumerate(steps, 1):
            there = self._child(there, step, path if number == len(steps) else "")
        return there

    def _child(self, above: Made, step: Step, path: str) -> Made:
        key = (id(above), f"{step}{step.name} {path}")
        if (found := self._between.get(key)) is not None:
            return found
        at = f"{self._paths[id(above)]}{step}"
        made = self._between[key] = self._made(step, at)
        self._paths[id(made)] = at
        if step.attribute in _MANY:
            above.setdefault(step.attribute, []).append(made)
        else:
            above[step.attribute] = made
        return made

    def _made(self, step: Step, at: str) -> Made:
        if step.attribute == "ism_transition":
            return {
                "_type": "ISM_TRANSITION"
            }  # it has neither a name nor an id, whatever the template calls it
        part = self.shape.part(at, step.name)
        if part is None:
            raise NotCanonical(at, "the operational template has nothing there")
        named = part._replace(name=step.name or part.name)
        return _object(_KINDS.get(part.rm_type, part.rm_type), named)


def _object(rm_type: str, part: Part) -> Made:
    if not part.id:
        return {"_type": rm_type}
    made: Made = {"_type": rm_type, "archetype_node_id": part.id, "name": text(part.name)}
    if part.id.startswith("openEHR-"):
        made["archetype_details"] = {
            "_type": "ARCHETYPED",
            "archetype_id": {"_type": "ARCHETYPE_ID", "value": part.id},
            "rm_version": _RM_VERSION,
        }
    return made


def _complete(made: Made, time: Made | None, root: Made) -> None:
    """What every part of a type has, where nothing has said it."""
    kind = made["_type"]
    if kind in ENTRIES:
        made.setdefault("language", root["language"])
        made.setdefault("encoding", code_phrase("UTF-8", "IANA_character-sets"))
        made.setdefault("subject", {"_type": "PARTY_SELF"})
    if kind in ("POINT_EVENT", "INTERVAL_EVENT", "ACTION"):
        made.setdefault("time", time)
    if kind == "HISTORY":
        made.setdefault("origin", time)
    if kind == "ACTIVITY":
        made.setdefault("action_archetype_id", "/.*/")
    for value in [*made.values()]:
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, dict) and "_type" in child:
                _complete(child, time, root)
