"""The body of a request → what it would store: its form, its template, where it says it is from. No I/O."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson

from replicator.ehr.sandbox.refusals import GENERIC, Refused

Form = Literal["canonical", "flat"]

#: Without these EHRbase does not read a composition at all.
_NEEDED = ("name", "language", "category", "composer")
_AUDIT = "_feeder_audit/originating_system_audit|"
_ITEM = re.compile(
    r"_feeder_audit/originating_system_item_id:(?P<index>[0-9]+)\|(?P<what>id|type|issuer|assigner)"
)


@dataclass(frozen=True, slots=True)
class Draft:
    """A composition, or an EHR_STATUS, on its way in."""

    form: Form
    template_id: str | None
    #: The uid it asks for.
    uid: str | None
    body: dict[str, Any] = field(repr=False)
    source_system: str | None = None
    source_version: str | None = None
    source_items: tuple[str, ...] = ()
    source_types: tuple[str, ...] = ()


def parsed(content: bytes) -> dict[str, Any]:
    """The JSON object of a body."""
    try:
        body = orjson.loads(content)
    except orjson.JSONDecodeError:
        raise Refused(400, "The request's body is not JSON") from None
    if not isinstance(body, dict):
        raise Refused(400, "The request's body is not a JSON object")
    return body


def canonical(body: dict[str, Any]) -> Draft:
    """A composition in the reference model's JSON."""
    for name in _NEEDED:
        if not isinstance(body.get(name), dict):
            raise Refused(400, f"COMPOSITION lacks {name}")
    template_id = _at(body, "archetype_details", "template_id", "value")
    if template_id is None:
        raise Refused(422, "Composition missing mandatory attribute: archetype details/template_id")
    audit = body.get("feeder_audit")
    origin = _at(audit, "originating_system_audit", "system_id")
    items = audit.get("originating_system_item_ids") if isinstance(audit, dict) else None
    known = items if isinstance(items, list) else []
    return Draft(
        form="canonical",
        template_id=template_id,
        uid=_at(body, "uid", "value"),
        body=body,
        source_system=origin,
        source_version=_at(audit, "originating_system_audit", "version_id"),
        source_items=tuple(found for item in known if (found := _at(item, "id")) is not None),
        source_types=tuple(found for item in known if (found := _at(item, "type")) is not None),
    )


def flat(body: dict[str, Any], template_id: str | None) -> Draft:
    """A composition as FLAT paths. What lacks a template is an internal error, as it is in EHRbase."""
    if template_id is None:
        raise Refused(500, GENERIC)
    root = root_of(body)
    audit = {name: body.get(f"{root}/{_AUDIT}{name}") for name in ("system_id", "version_id")}
    uid = body.get(f"{root}/_uid")
    return Draft(
        form="flat",
        template_id=template_id,
        uid=uid if isinstance(uid, str) else None,
        body=body,
        source_system=audit["system_id"],
        source_version=audit["version_id"],
        source_items=tuple(item["id"] for item in flat_items(body) if "id" in item),
        source_types=tuple(item["type"] for item in flat_items(body) if "type" in item),
    )


def root_of(body: dict[str, Any]) -> str:
    """The first word of the paths."""
    roots = {path.partition("/")[0] for path in body if not path.startswith("ctx/")}
    if len(roots) != 1:
        raise Refused(400, f"Could not consume Parts [{', '.join(sorted(roots))}]")
    return roots.pop()


def flat_items(body: dict[str, Any]) -> list[dict[str, str]]:
    """The ids under which the source knows what became this composition."""
    root = root_of(body)
    items: dict[int, dict[str, str]] = {}
    for path, value in body.items():
        if found := _ITEM.fullmatch(path.removeprefix(f"{root}/")):
            items.setdefault(int(found["index"]), {})[found["what"]] = str(value)
    return [items[index] for index in sorted(items)]


def audit_in(form: Form, body: dict[str, Any]) -> Any:
    """The feeder audit of a stored composition in canonical form; None where it has none."""
    if form == "canonical":
        return body.get("feeder_audit")
    above = f"{root_of(body)}/{_AUDIT}"
    named = {name: body[above + name] for name in ("system_id", "version_id") if above + name in body}
    if not named:
        return None
    items = [{"_type": "DV_IDENTIFIER", **item} for item in flat_items(body)]
    origin = {"_type": "FEEDER_AUDIT_DETAILS", **named}
    return {
        "_type": "FEEDER_AUDIT",
        "originating_system_item_ids": items,
        "originating_system_audit": origin,
    }


def skeleton(draft: Draft, uid: str) -> dict[str, Any]:
    """What the sandbox can tell of a FLAT composition in canonical form: what it is, and where it is from."""
    audit = audit_in(draft.form, draft.body)
    return {
        "_type": "COMPOSITION",
        "name": {"_type": "DV_TEXT", "value": root_of(draft.body)},
        "uid": {"_type": "OBJECT_VERSION_ID", "value": uid},
        "archetype_details": {"template_id": {"value": draft.template_id}},
        **({"feeder_audit": audit} if audit else {}),
    }


def _at(value: Any, *path: str) -> str | None:
    """The text at a path, if there is one."""
    for name in path:
        if not isinstance(value, dict):
            return None
        value = value.get(name)
    return value if isinstance(value, str) else None
