"""FLAT paths and values × a web template → paths it does not have, values it does not allow. No I/O.

    vital_signs/pulse:0/any_event:1/rate|magnitude
    └─ root     └─ a child's id, and which of several   └─ a part of the data value

The reference model's own attributes (`_feeder_audit`, `context/start_time`) are not in a template's tree:
they begin with an underscore, or are among the few below.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

#: Attributes that every node of these types has.
_ATTRIBUTES: dict[str, frozenset[str]] = {
    "COMPOSITION": frozenset({"language", "territory", "category", "composer", "context"}),
    "EVENT_CONTEXT": frozenset({"start_time", "setting", "location"}),
    "ENTRY": frozenset({"language", "encoding", "subject", "time", "origin", "narrative", "expiry_time"}),
    "EVENT": frozenset({"time", "width", "math_function", "sample_count"}),
    "ACTIVITY": frozenset({"timing", "action_archetype_id"}),
    "ISM_TRANSITION": frozenset({"current_state", "careflow_step", "transition"}),
}
_ENTRIES = ("OBSERVATION", "EVALUATION", "INSTRUCTION", "ACTION", "ADMIN_ENTRY")
_EVENTS = ("POINT_EVENT", "INTERVAL_EVENT")
_INDEX = re.compile(r":[0-9]+$")


def unknown_paths(body: dict[str, Any], tree: dict[str, Any]) -> list[str]:
    """The paths that lead nowhere."""
    return [path for path in body if not path.startswith("ctx/") and not _leads(path, tree)]


def invalid_values(body: dict[str, Any], tree: dict[str, Any]) -> list[str]:
    """`path: what is wrong`, for values that a template's inputs exclude."""
    return [f"{path}: {wrong}" for path, value in body.items() for wrong in _wrong(path, value, tree)]


def _leads(path: str, tree: dict[str, Any]) -> bool:
    nodes = path.partition("|")[0].split("/")
    if _INDEX.sub("", nodes[0]) != tree["id"]:
        return False
    node = tree
    for name in nodes[1:]:
        name = _INDEX.sub("", name)
        if name.startswith("_"):
            return True
        child = _child(node, name)
        if child is None:
            return _is_attribute(node, name)
        if _is_unsaid(child):
            return False
        node = child
    return True


def _is_unsaid(node: dict[str, Any]) -> bool:
    """A context that is in the tree although its template has none: it is said by `ctx/…` alone."""
    began = _child(node, "start_time") if node["rmType"] == "EVENT_CONTEXT" else None
    return began is not None and not began.get("inContext")


def _child(node: dict[str, Any], name: str) -> dict[str, Any] | None:
    return next((child for child in node.get("children", ()) if child["id"] == name), None)


def _is_attribute(node: dict[str, Any], name: str) -> bool:
    rm_type = node.get("rmType", "")
    kind = "ENTRY" if rm_type in _ENTRIES else "EVENT" if rm_type in _EVENTS else rm_type
    names = _ATTRIBUTES.get(kind, frozenset())
    # The context's own attributes come after it in the path, and the walk has ended at `context`.
    return name in names or (kind == "COMPOSITION" and name == "context")


def _wrong(path: str, value: Any, tree: dict[str, Any]) -> Iterator[str]:
    node, suffix = _leaf(path, tree)
    for given in node.get("inputs", ()) if node else ():
        if given.get("suffix", "") != suffix:
            continue
        if "list" in given and not given.get("listOpen", False):
            if value not in {one["value"] for one in given["list"]}:
                yield "is not among the values of the template"
        if limits := given.get("validation", {}).get("range"):
            if not isinstance(value, int | float) or isinstance(value, bool):
                yield "is not a number"
            elif not _within(value, limits):
                yield "is outside the range of the template"


def _leaf(path: str, tree: dict[str, Any]) -> tuple[dict[str, Any] | None, str]:
    trail, _, suffix = path.partition("|")
    node: dict[str, Any] | None = tree
    for name in trail.split("/")[1:]:
        node = _child(node, _INDEX.sub("", name)) if node else None
    return node, suffix


def _within(value: float, limits: dict[str, Any]) -> bool:
    above = "min" not in limits or (
        value > limits["min"] if limits.get("minOp") == ">" else value >= limits["min"]
    )
    below = "max" not in limits or (
        value < limits["max"] if limits.get("maxOp") == "<" else value <= limits["max"]
    )
    return above and below
