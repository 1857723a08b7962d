"""What a composition says → a digest that goes along in its feeder audit, to know the same again. No I/O.

A record does not give back what it was given: it adds, sorts and rounds. So who wants to know whether it says
already what a row says compares what both were made of.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import orjson

#: What kind of identifier it is.
TYPE = "content sha256"
_AUDIT = "_feeder_audit/"
_ITEM = _AUDIT + "originating_system_item_id:1|"


def signed(fields: Mapping[str, Any], root: str, system: str) -> tuple[dict[str, Any], str]:
    """The same with its digest, and the digest. Where it is from, and of which change, is no part of it."""
    said = {path: value for path, value in fields.items() if not path.startswith(f"{root}/{_AUDIT}")}
    content = hashlib.sha256(orjson.dumps(said, option=orjson.OPT_SORT_KEYS)).hexdigest()
    item = {"id": content, "type": TYPE, "issuer": system, "assigner": system}
    return {**fields, **{f"{root}/{_ITEM}{name}": value for name, value in item.items()}}, content


def content_in(body: Any) -> str | None:
    """The digest that a composition carries, as it was read."""
    audit = body.get("feeder_audit") if isinstance(body, dict) else None
    items = audit.get("originating_system_item_ids") if isinstance(audit, dict) else None
    for item in items if isinstance(items, list) else ():
        if isinstance(item, dict) and item.get("type") == TYPE:
            found = item.get("id")
            return found if isinstance(found, str) else None
    return None
