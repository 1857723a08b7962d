"""A mapping and the source's columns → web templates that fit them, for a sandbox without others. No I/O.

They are nobody's models: of each template only the paths that the mapping fills, each with a type that its
field can be read as. A record system has real ones, which know more and allow less.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from replicator.ehr.model import Column, Constant, Field, RecordMapping, TableMapping
from replicator.ehr.sandbox.opt import own_nodes
from replicator.ehr.tables import Columns

#: What stands above a node of these names, and what the node is.
_KNOWN = {"any_event": ("OBSERVATION", "POINT_EVENT"), "ism_transition": ("ACTION", "ISM_TRANSITION")}
_CODED = frozenset({"current_state", "careflow_step", "transition"})
#: The oid of a column's type → the type of the record model that it can be read as; else text.
_TYPES = {16: "DV_BOOLEAN", 20: "DV_COUNT", 21: "DV_COUNT", 23: "DV_COUNT", 1082: "DV_DATE"} | {
    oid: "DV_DATE_TIME" for oid in (1114, 1184)
}


@dataclass(slots=True)
class _Node:
    id: str
    rm_type: str = "CLUSTER"
    repeats: bool = False
    inputs: list[dict[str, Any]] = field(default_factory=list)
    children: dict[str, _Node] = field(default_factory=dict)


def guessed(mapping: RecordMapping, columns: Columns) -> list[dict[str, Any]]:
    """One for each template that the mapping names."""
    roots: dict[str, _Node] = {}
    for table in mapping.tables.values():
        for path, written in _fields(table) if table.template else ():
            assert table.template is not None
            names = path.partition("|")[0].split("/")
            root = roots.setdefault(table.template.id, _Node(names[0], "COMPOSITION"))
            _grow(root, names[1:], path.partition("|")[2], written, columns.get(table.table, {}))
    return [_web_template(id, root) for id, root in roots.items()]


def _fields(table: TableMapping) -> Iterator[tuple[str, Field]]:
    for each in (*table.fields, *table.marked):
        yield each.path, each
    for group in table.groups:
        for each in group.fields:
            rest = each.path.removeprefix(".") if each.path.partition("|")[0] == "." else f"/{each.path}"
            yield f"{group.path}:0{rest}" if ":" not in group.path else f"{group.path}{rest}", each


def _grow(node: _Node, names: list[str], suffix: str, written: Field, types: Mapping[str, int]) -> None:
    above = [node]
    for name in names:
        id, colon, _ = name.partition(":")
        node = node.children.setdefault(id, _Node(id))
        node.repeats = node.repeats or bool(colon)
        above.append(node)
        if id in _KNOWN:
            above[-2].rm_type, node.rm_type = _KNOWN[id]
    if suffix == "formalism":
        node.rm_type, node.inputs = "DV_PARSABLE", [{"type": "TEXT"}]
    elif not suffix and node.rm_type != "DV_PARSABLE":
        node.rm_type, node.inputs = _value(node.id, written, types)
    entries = {kind for kind, _ in _KNOWN.values()} | {"EVALUATION"}
    if len(above) > 2 and not any(each.rm_type in entries for each in above):
        above[-2].rm_type = "EVALUATION"


def _value(id: str, written: Field, types: Mapping[str, int]) -> tuple[str, list[dict[str, Any]]]:
    if written.unit is not None:
        unit = written.unit
        known = [unit.source.text] if isinstance(unit.source, Constant) else []
        return "DV_QUANTITY", [{"suffix": "magnitude", "type": "DECIMAL"}, _codes("unit", known)]
    if written.denominator is not None:
        return "DV_PROPORTION", [{"suffix": name, "type": "DECIMAL"} for name in ("numerator", "denominator")]
    if written.values is not None or written.terminology or id in _CODED:
        known = [code.code for code in (written.values or {}).values()]
        known += [written.source.text] if isinstance(written.source, Constant) else []
        return "DV_CODED_TEXT", [_codes("code", known)]
    oid = types.get(written.source.name, 25) if isinstance(written.source, Column) else 25
    return _TYPES.get(oid, "DV_TEXT"), [{"type": "TEXT"}]


def _codes(suffix: str, known: list[str]) -> dict[str, Any]:
    listed = [{"value": code, "label": code} for code in dict.fromkeys(known)]
    return {"suffix": suffix, "type": "CODED_TEXT", **({"list": listed} if listed else {}), "listOpen": True}


def _web_template(id: str, root: _Node) -> dict[str, Any]:
    tree = _tree(root)
    tree["children"].append(_object("context", "EVENT_CONTEXT") | {"children": own_nodes("EVENT_CONTEXT")})
    return {
        "templateId": id,
        "concept": "made by the sandbox from a mapping: no model of anybody's",
        "version": "2.3",
        "defaultLanguage": "en",
        "languages": ["en"],
        "tree": tree,
    }


def _tree(node: _Node) -> dict[str, Any]:
    made = _object(node.id, node.rm_type) | {"max": -1 if node.repeats else 1}
    if not node.children and node.rm_type != "COMPOSITION":
        return made | {"min": 0, "inputs": node.inputs}
    return made | {
        "min": 1 if node.rm_type == "COMPOSITION" else 0,
        "children": [*map(_tree, node.children.values()), *own_nodes(node.rm_type)],
    }


def _object(id: str, rm_type: str) -> dict[str, Any]:
    return {"id": id, "name": id, "rmType": rm_type, "min": 1, "max": 1}
