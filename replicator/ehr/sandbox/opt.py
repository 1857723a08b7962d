"""An operational template (OPT 1.4, XML) → a minimal web template: the tree that FLAT paths walk. No I/O.

The rules are those of EHRbase's SDK as far as they shape paths: a node's id is its name in lower case with
anything unusual made `_`; siblings of one id are numbered from the second on; structures (HISTORY, ITEM_TREE)
have no node of their own, nor has an event that is the only one and comes once; an ELEMENT is its value, and
one that may have several types has a child for each.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from replicator.ehr.sandbox.refusals import Refused

_NS = "{http://schemas.openehr.org/v1}"
_XSI_TYPE = "{http://www.w3.org/2001/XMLSchema-instance}type"
_STRUCTURES = frozenset({"HISTORY", "ITEM_TREE", "ITEM_LIST", "ITEM_SINGLE"})
_EVENTS = frozenset({"EVENT", "POINT_EVENT", "INTERVAL_EVENT"})
#: Attributes of a node that hold structure, not values of the reference model's own.
_SKIPPED = frozenset(
    {"name", "category", "language", "territory", "composer", "encoding", "subject", "math_function"}
)
#: Types that are never nodes by themselves.
_VALUES = ("DV_", "CODE_PHRASE", "PARTY_")
#: The reference model's own attributes that are nodes of a web template, whatever the template says of them.
_OF_COMPOSITION = (
    ("category", "DV_CODED_TEXT"),
    ("language", "CODE_PHRASE"),
    ("territory", "CODE_PHRASE"),
    ("composer", "PARTY_PROXY"),
)
_OF_CONTEXT = (("start_time", "DV_DATE_TIME"), ("setting", "DV_CODED_TEXT"))
_OF_ENTRY = (("language", "CODE_PHRASE"), ("encoding", "CODE_PHRASE"), ("subject", "PARTY_PROXY"))
_OF_EVENT = (("time", "DV_DATE_TIME"),)
_ENTRIES = frozenset({"OBSERVATION", "EVALUATION", "INSTRUCTION", "ACTION", "ADMIN_ENTRY"})
#: Nodes that have no name in a template.
_UNNAMED = {"EVENT_CONTEXT": "context", "ISM_TRANSITION": "ism_transition"}
_ODD = re.compile(r"[^a-z0-9._-]")


@dataclass(slots=True)
class _Scope:
    """The terms in force, and the archetype or slot they belong to."""

    terms: dict[str, str] = field(default_factory=dict)


def web_template_of(opt: bytes) -> dict[str, Any]:
    """Raises Refused where it is no template EHRbase would take."""
    root = _root(opt)
    template_id = _text(root, "template_id/value")
    definition = root.find(f"{_NS}definition")
    if template_id is None or definition is None:
        raise Refused(400, "Invalid template input content")
    if any(item.text == "ITEM_TABLE" for item in definition.iter(f"{_NS}rm_type_name")):
        raise Refused(400, "The supplied template is not supported (unsupported types: ITEM_TABLE)")
    language = _text(root, "language/code_string") or "en"
    return {
        "templateId": template_id,
        "concept": _text(root, "concept") or template_id,
        "version": "2.3",
        "defaultLanguage": language,
        "languages": [language],
        "tree": _nodes(definition, _Scope(), "", sole_event=False)[0],
    }


def node_id(name: str) -> str:
    """`Blood pressure (sitting)` → `blood_pressure__sitting_`."""
    plain = _ODD.sub("_", name.lower())
    return f"a{plain}" if plain[:1].isdigit() else plain


def _root(opt: bytes) -> Element:
    if b"<!DOCTYPE" in opt:
        raise Refused(400, "A template has no DOCTYPE")
    try:
        return ElementTree.fromstring(opt)
    except ElementTree.ParseError:
        raise Refused(400, "Invalid template input content") from None


def _nodes(element: Element, scope: _Scope, path: str, *, sole_event: bool) -> list[dict[str, Any]]:
    """The node of a constraint, or its children where it has none of its own; `path` is the archetype's."""
    rm_type = _text(element, "rm_type_name") or ""
    if element.find(f"{_NS}archetype_id") is not None:
        scope = _Scope(_terms(element))
    if rm_type == "ELEMENT":
        return [_element(element, scope, path)]
    if rm_type.startswith(_VALUES) or element.get(_XSI_TYPE) == "ARCHETYPE_SLOT":
        return []
    children = _children(element, scope, path) + own_nodes(rm_type, path)
    if rm_type == "COMPOSITION" and not any(child["id"] == "context" for child in children):
        children.append(_unsaid_context())
    if rm_type in _STRUCTURES or (rm_type in _EVENTS and sole_event):
        return children
    return [_node(element, scope, rm_type, path, {"children": children})]


def own_nodes(rm_type: str, path: str = "") -> list[dict[str, Any]]:
    """The nodes that every node of a type has."""
    names: tuple[tuple[str, str], ...]
    if rm_type in _ENTRIES:
        names = _OF_ENTRY
    elif rm_type in _EVENTS:
        names = _OF_EVENT
    else:
        names = {"COMPOSITION": _OF_COMPOSITION, "EVENT_CONTEXT": _OF_CONTEXT}.get(rm_type, ())
    return [_attribute(name, attribute_type, path) for name, attribute_type in names]


def _attribute(name: str, rm_type: str, path: str) -> dict[str, Any]:
    head = {"id": name, "name": name, "rmType": rm_type, "min": 1, "max": 1, "inContext": True}
    return {**head, "aqlPath": f"{path}/{name}"}


def _unsaid_context() -> dict[str, Any]:
    """What a web template tells where the operational template tells nothing: optional, and not marked."""
    below = [{**node, "inContext": False} for node in own_nodes("EVENT_CONTEXT", "/context")]
    context = _attribute("context", "EVENT_CONTEXT", "")
    return {**context, "min": 0, "inContext": False, "children": below}


def _children(element: Element, scope: _Scope, path: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for attribute in element.findall(f"{_NS}attributes"):
        name = _text(attribute, "rm_attribute_name")
        if name in _SKIPPED:
            continue
        constraints = attribute.findall(f"{_NS}children")
        if name == "ism_transition":
            constraints = constraints[:1]  # its alternatives are one node
        sole = name == "events" and len(constraints) == 1 and _occurs(constraints[0])[1] == 1
        for constraint in constraints:
            id = _text(constraint, "archetype_id/value") or _text(constraint, "node_id")
            below = f"{path}/{name}[{id}]" if id else f"{path}/{name}"
            found += _nodes(constraint, scope, below, sole_event=sole)
    return _numbered(found)


def _numbered(nodes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    seen: Counter[str] = Counter()
    for node in nodes:
        seen[node["id"]] += 1
        if seen[node["id"]] > 1:
            node["id"] += str(seen[node["id"]])
    return nodes


def _element(element: Element, scope: _Scope, path: str) -> dict[str, Any]:
    values: list[Element] = []
    for attribute in element.findall(f"{_NS}attributes"):
        if _text(attribute, "rm_attribute_name") == "value":
            values += attribute.findall(f"{_NS}children")
    types = [_text(value, "rm_type_name") or "" for value in values]
    # Coded or free text is one node.
    merged = [rm_type for rm_type in types if not (rm_type == "DV_TEXT" and "DV_CODED_TEXT" in types)]
    if len(merged) == 1:
        return _node(element, scope, merged[0], f"{path}/value", _inputs(values[0]))
    choices = [
        {
            "id": f"{rm_type.removeprefix('DV_').lower()}_value",
            "rmType": rm_type,
            "min": 0,
            "max": 1,
            "aqlPath": f"{path}/value",
        }
        for rm_type in merged
    ]
    return _node(element, scope, "ELEMENT", path, {"children": choices})


def _node(element: Element, scope: _Scope, rm_type: str, path: str, more: dict[str, Any]) -> dict[str, Any]:
    code = _text(element, "node_id") or ""
    name = _UNNAMED.get(rm_type) or scope.terms.get(code, code)
    least, most = _occurs(element)
    archetype = _text(element, "archetype_id/value")
    head = {"id": node_id(name), "name": name, "localizedName": name, "rmType": rm_type}
    return {**head, "nodeId": archetype or code, "aqlPath": path, "min": least, "max": most, **more}


def _inputs(value: Element) -> dict[str, Any]:
    """What a quantity may be: its units, and its range where there is one unit."""
    units = value.findall(f"{_NS}list") if value.get(_XSI_TYPE) == "C_DV_QUANTITY" else []
    if not units:
        return {}
    names = [{"value": name, "label": name} for unit in units if (name := _text(unit, "units"))]
    magnitude: dict[str, Any] = {"suffix": "magnitude", "type": "DECIMAL"}
    interval = units[0].find(f"{_NS}magnitude")
    if len(units) == 1 and interval is not None:
        magnitude["validation"] = {"range": _range(interval)}
    return {"inputs": [magnitude, {"suffix": "unit", "type": "CODED_TEXT", "list": names}]}


def _range(interval: Element) -> dict[str, Any]:
    limits: dict[str, Any] = {}
    for end, name, sign in (("lower", "min", ">"), ("upper", "max", "<")):
        if limit := _text(interval, end):
            included = _text(interval, f"{end}_included") == "true"
            limits |= {name: float(limit), f"{name}Op": f"{sign}=" if included else sign}
    return limits


def _terms(element: Element) -> dict[str, str]:
    terms: dict[str, str] = {}
    for definition in element.findall(f"{_NS}term_definitions"):
        for item in definition.findall(f"{_NS}items"):
            if item.get("id") == "text" and item.text:
                terms[definition.get("code", "")] = item.text
    return terms


def _occurs(element: Element) -> tuple[int, int]:
    """How often at least, and at most; -1 for without end."""
    occurrences = element.find(f"{_NS}occurrences")
    if occurrences is None:
        return 0, 1
    unbounded = _text(occurrences, "upper_unbounded") == "true"
    upper = _text(occurrences, "upper")
    return int(_text(occurrences, "lower") or 0), -1 if unbounded or upper is None else int(upper)


def _text(element: Element, path: str) -> str | None:
    found = element.find("/".join(_NS + name for name in path.split("/")))
    return found.text.strip() if found is not None and found.text else None
