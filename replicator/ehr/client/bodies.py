"""A composition and the uid it must get → media type, query and body of a request. No I/O.

A composition that carries a uid of our choosing can be posted twice and exist once: the second is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from replicator.ehr.client.versions import VersionUid

JSON_TYPE = "application/json"
FLAT_TYPE = "application/openehr.wt.flat.schema+json"


@dataclass(frozen=True, slots=True)
class Flat:
    """A composition as paths of its template and their values."""

    template_id: str
    #: `vital_signs/pulse/rate|magnitude` → 72; and `ctx/…`. Health data: kept out of every repr.
    fields: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Canonical:
    """A composition as the reference model's own JSON."""

    fields: Mapping[str, Any] = field(repr=False)


Composition = Flat | Canonical


@dataclass(frozen=True, slots=True)
class Body:
    """What goes over the wire."""

    media_type: str
    query: Mapping[str, str]
    content: bytes = field(repr=False)


def body_of(composition: Composition, uid: VersionUid | None = None) -> Body:
    """The body that asks for this uid; without one, the server chooses (or keeps the object's own)."""
    if isinstance(composition, Canonical):
        given = {"uid": {"_type": "OBJECT_VERSION_ID", "value": str(uid)}} if uid else {}
        return Body(JSON_TYPE, {}, orjson.dumps({**composition.fields, **given}))
    given_flat = {f"{root_of(composition)}/_uid": str(uid)} if uid else {}
    query = {"templateId": composition.template_id}
    return Body(FLAT_TYPE, query, orjson.dumps({**composition.fields, **given_flat}))


def root_of(composition: Flat) -> str:
    """The first word of every path: the template's root node, which is not its id."""
    for path in composition.fields:
        if not path.startswith("ctx/"):
            return path.partition("/")[0]
    raise ValueError("a composition needs one path that is not of its context")
