"""A canonical composition × its operational template → what stands where it must not. No I/O."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from replicator.ehr.shape import Shape, read_shape

#: What a template calls by one type, and compositions by their own.
_KINDS = {"POINT_EVENT": "EVENT", "INTERVAL_EVENT": "EVENT", "DV_CODED_TEXT": "DV_TEXT"}
#: Nothing of a template's own, or nothing that it says much about.
_FREE = frozenset({"name", "feeder_audit", "archetype_details", "uid", "links", "null_flavour"})
_AT_ROOT = frozenset({"language", "territory", "category", "composer", "context"})

shape_of = lru_cache(maxsize=8)(read_shape)


def misplaced(body: dict[str, Any], shape: Shape) -> list[str]:
    """`path: what is wrong`, as a record system says it."""
    if body.get("archetype_node_id") != shape.root.id:
        return [f"/archetype_node_id: must be {shape.root.id}"]
    attributes = {name: value for name, value in body.items() if name not in _AT_ROOT}
    return [*_wrong_itself(body, ""), *_wrong_below(attributes, "", shape)]


def _wrong_below(made: dict[str, Any], path: str, shape: Shape) -> Iterator[str]:
    for name, value in made.items():
        for child in value if isinstance(value, list) else [value]:
            if name not in _FREE and isinstance(child, dict) and "archetype_node_id" in child:
                yield from _wrong(child, f"{path}/{name}[{child['archetype_node_id']}]", shape)
            elif name == "value" and isinstance(child, dict):
                yield from _wrong_type(child, f"{path}/value", shape)


def _wrong(made: dict[str, Any], path: str, shape: Shape) -> Iterator[str]:
    named = made.get("name", {}).get("value", "")
    part = shape.part(path, named)
    if part is None:
        yield f"{path}: not in the template"
        return
    if part.rm_type not in (made.get("_type"), _KINDS.get(made.get("_type", ""))):
        yield f"{path}: must be a {part.rm_type}"
    if part.name != named:
        yield f"{path}/name: must be {part.name}"
    yield from _wrong_itself(made, path)
    yield from _wrong_below(made, path, shape)


def _wrong_itself(made: dict[str, Any], path: str) -> Iterator[str]:
    if made["archetype_node_id"].startswith("openEHR-") and "archetype_details" not in made:
        yield f"{path}/archetype_details: missing"
    if made.get("_type") == "ELEMENT" and ("value" in made) == ("null_flavour" in made):
        yield f"{path}/value: either a value, or why there is none"
    if made.get("_type") == "HISTORY" and "origin" not in made:
        yield f"{path}/origin: missing"
    if made.get("_type") in ("POINT_EVENT", "ACTION") and "time" not in made:
        yield f"{path}/time: missing"


def _wrong_type(value: dict[str, Any], path: str, shape: Shape) -> Iterator[str]:
    allowed = {part.rm_type for part in shape.parts.get(path, ())}
    given = value.get("_type", "")
    if allowed and not allowed & {given, _KINDS.get(given, given)}:
        yield f"{path}: must be one of {', '.join(sorted(allowed))}"
