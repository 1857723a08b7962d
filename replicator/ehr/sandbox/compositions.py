"""Calls about compositions → versions, refused as EHRbase refuses them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import uuid4

from starlette.requests import Request

from replicator.ehr.client.bodies import FLAT_TYPE
from replicator.ehr.client.versions import VersionUid
from replicator.ehr.sandbox.changes import (
    CREATION,
    DELETION,
    MODIFICATION,
    Version,
    after_deletion,
    after_update,
    refuse_if_taken,
    wanted_uid,
)
from replicator.ehr.sandbox.drafts import Draft, canonical, flat, parsed, root_of, skeleton
from replicator.ehr.sandbox.ehrs import refuse_if_not_modifiable
from replicator.ehr.sandbox.paths import invalid_values, unknown_paths
from replicator.ehr.sandbox.refusals import GENERIC, Refused, no_such_composition, uuid_of
from replicator.ehr.sandbox.reply import Reply, Room, moment, stored
from replicator.ehr.sandbox.structure import misplaced, shape_of


async def create(room: Room, request: Request) -> Reply:
    ehr_id = await _ehr(room, request)
    draft = await checked(room, await _draft(request))
    version = await new_version(room, ehr_id, draft)
    await _commit(room, version)
    return _stored(room, request, 201, version)


async def update(room: Room, request: Request) -> Reply:
    ehr_id = await _ehr(room, request)
    object_id = uuid_of(request.path_params["uid"], 400, "versioned_object_uid")
    draft = await checked(room, await _draft(request))
    versions = await room.store.versions(object_id)
    number = after_update(
        object_id, ehr_id, request.headers.get("if-match"), versions, room.system, draft.template_id
    )
    version = made(room, ehr_id, VersionUid(object_id, room.system, number), draft, MODIFICATION)
    await _commit(room, version)
    return _stored(room, request, 200, version)


async def delete(room: Room, request: Request) -> Reply:
    ehr_id = await _ehr(room, request)
    try:
        preceding = VersionUid.parse(request.path_params["uid"])
    except ValueError:
        raise Refused(400, "preceding_version_uid is not the uid of a version") from None
    version = await deletion(room, ehr_id, preceding)
    await _commit(room, version)
    return Reply(204, None, {"ETag": f'"{version.uid(room.system)}"'})


async def read(room: Room, request: Request) -> Reply:
    ehr_id = uuid_of(request.path_params["ehr_id"], 404, "ehr_id")
    await room.store.ehr(ehr_id)
    object_text, _, rest = request.path_params["uid"].partition("::")
    versions = await room.store.versions(uuid_of(object_text, 404, "composition's uid"))
    versions = [version for version in versions if version.ehr_id == ehr_id]
    if rest:
        versions = [version for version in versions if str(version.uid(room.system)).endswith(f"::{rest}")]
    if not versions:
        raise no_such_composition()
    version = versions[-1]
    if version.deleted:
        return Reply(204)
    media_type, body = _shown(room, version, wants_flat=_wants_flat(request, "accept"))
    return Reply(200, body, {"ETag": f'"{version.uid(room.system)}"'}, media_type)


async def history(room: Room, request: Request) -> Reply:
    ehr_id = uuid_of(request.path_params["ehr_id"], 404, "ehr_id")
    await room.store.ehr(ehr_id)
    versions = await room.store.versions(uuid_of(request.path_params["uid"], 404, "versioned_object_uid"))
    if not versions or versions[0].ehr_id != ehr_id:
        raise no_such_composition()
    return Reply(200, [_revision(room, version) for version in versions])


# ── What contributions need, too ─────────────────────────────────────────────────────────────────


async def checked(room: Room, draft: Draft) -> Draft:
    """Its template is there, and has its paths."""
    assert draft.template_id is not None
    found = await room.store.template(draft.template_id)
    if found is None:
        if draft.form == "flat":
            raise Refused(500, GENERIC)
        raise Refused(422, f"Template with template_id '{draft.template_id}' does not exist")
    if draft.form == "canonical" and found[0] is not None:
        if wrong := misplaced(draft.body, shape_of(found[0])):
            raise Refused(422, ", ".join(wrong))
    if draft.form == "flat":
        tree = found[1]["tree"]
        if unknown := unknown_paths(draft.body, tree):
            raise Refused(400, f"Could not consume Parts [{', '.join(unknown)}]")
        if invalid := invalid_values(draft.body, tree):
            raise Refused(422, ", ".join(invalid))
    return draft


async def new_version(room: Room, ehr_id: str, draft: Draft) -> Version:
    """The first version of a new composition, under the uid it asks for."""
    uid = wanted_uid(draft.uid, room.system) if draft.uid else VersionUid(str(uuid4()), room.system, 1)
    refuse_if_taken(uid, await room.store.versions(uid.object_id))
    return made(room, ehr_id, uid, draft, CREATION)


async def deletion(room: Room, ehr_id: str, preceding: VersionUid) -> Version:
    versions = await room.store.versions(preceding.object_id)
    last = after_deletion(preceding, ehr_id, versions, room.system)
    return replace(
        last,
        number=last.number + 1,
        change=DELETION,
        body=None,
        source_system=None,
        source_version=None,
        source_items=(),
        source_types=(),
        committed_at=room.now,
    )


def made(room: Room, ehr_id: str, uid: VersionUid, draft: Draft, change: str) -> Version:
    return Version(
        object_id=uid.object_id,
        number=uid.number,
        ehr_id=ehr_id,
        kind="COMPOSITION",
        change=change,
        template_id=draft.template_id,
        form=draft.form,
        body=draft.body,
        source_system=draft.source_system,
        source_version=draft.source_version,
        source_items=draft.source_items,
        source_types=draft.source_types,
        committed_at=room.now,
    )


# ── How ──────────────────────────────────────────────────────────────────────────────────────────


async def _ehr(room: Room, request: Request) -> str:
    """The EHR that is to change, locked."""
    ehr_id = uuid_of(request.path_params["ehr_id"], 404, "ehr_id")
    await room.store.ehr(ehr_id, lock=True)
    await refuse_if_not_modifiable(room, ehr_id)
    return ehr_id


async def _draft(request: Request) -> Draft:
    body = parsed(await request.body())
    if _wants_flat(request, "content-type"):
        return flat(body, request.query_params.get("templateId"))
    if not request.headers.get("content-type", "").startswith("application/json"):
        raise Refused(415, "The sandbox takes canonical JSON and FLAT")
    return canonical(body)


def _wants_flat(request: Request, header: str) -> bool:
    return FLAT_TYPE in request.headers.get(header, "") or request.query_params.get("format") == "FLAT"


async def _commit(room: Room, version: Version) -> None:
    """A contribution of its own."""
    contribution_id = str(uuid4())
    await room.store.add_contribution(contribution_id, version.ehr_id, {}, room.now)
    await room.store.add(version, contribution_id)


def _stored(room: Room, request: Request, status: int, version: Version) -> Reply:
    uid = version.uid(room.system)
    _, body = _shown(room, version, wants_flat=version.form == "flat")
    return stored(room, request, status, f"ehr/{version.ehr_id}/composition/{uid}", uid, body)


def _shown(room: Room, version: Version, *, wants_flat: bool) -> tuple[str, dict[str, Any]]:
    """The media type, and the body with its uid: as it was stored, or as near as the sandbox comes."""
    assert version.body is not None
    uid = str(version.uid(room.system))
    if version.form == "flat" and wants_flat:
        return FLAT_TYPE, {**version.body, f"{root_of(version.body)}/_uid": uid}
    if version.form == "flat":
        return "application/json", skeleton(flat(version.body, version.template_id), uid)
    if wants_flat:
        raise Refused(406, "The sandbox stores what it is given, and cannot turn canonical into FLAT")
    return "application/json", {**version.body, "uid": {"_type": "OBJECT_VERSION_ID", "value": uid}}


def _revision(room: Room, version: Version) -> dict[str, Any]:
    audit = {
        "_type": "AUDIT_DETAILS",
        "system_id": room.system,
        "time_committed": moment(version.committed_at),
        "change_type": {"_type": "DV_CODED_TEXT", "defining_code": {"code_string": version.change}},
    }
    uid = {"_type": "OBJECT_VERSION_ID", "value": str(version.uid(room.system))}
    return {"version_id": uid, "audits": [audit]}
