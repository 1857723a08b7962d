"""Contributions → several versions in one transaction: all of them, or none."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from starlette.requests import Request

from replicator.ehr.client.versions import VersionUid
from replicator.ehr.sandbox import compositions
from replicator.ehr.sandbox.changes import AMENDMENT, CREATION, DELETION, MODIFICATION, Version, after_update
from replicator.ehr.sandbox.drafts import canonical, parsed
from replicator.ehr.sandbox.ehrs import refuse_if_not_modifiable
from replicator.ehr.sandbox.refusals import GENERIC, Refused, uuid_of
from replicator.ehr.sandbox.reply import Reply, Room, stored


async def commit(room: Room, request: Request) -> Reply:
    ehr_id = uuid_of(request.path_params["ehr_id"], 404, "ehr_id")
    await room.store.ehr(ehr_id, lock=True)
    await refuse_if_not_modifiable(room, ehr_id)
    body = parsed(await request.body())
    given = body.get("versions")
    if not isinstance(given, list) or not given:
        raise Refused(400, "Invalid Contribution, must have at least one Version object.")
    contribution_id = await _id(room, ehr_id, body)
    audit = body.get("audit")
    if not isinstance(audit, dict):
        raise Refused(400, "Contribution lacks audit")
    _refuse_time(audit)
    await room.store.add_contribution(contribution_id, ehr_id, audit, room.now)
    for one in given:
        # One after the other: a later one of the same composition sees the earlier.
        await room.store.add(await _version(room, ehr_id, one), contribution_id)
    shown = await _shown(room, ehr_id, contribution_id)
    return stored(room, request, 201, f"ehr/{ehr_id}/contribution/{contribution_id}", contribution_id, shown)


async def read(room: Room, request: Request) -> Reply:
    ehr_id = uuid_of(request.path_params["ehr_id"], 404, "ehr_id")
    await room.store.ehr(ehr_id)
    contribution_id = uuid_of(request.path_params["uid"], 404, "contribution_uid")
    return Reply(200, await _shown(room, ehr_id, contribution_id), {"ETag": f'"{contribution_id}"'})


async def _id(room: Room, ehr_id: str, body: dict[str, Any]) -> str:
    """The one it asks for; asking twice is an internal error, as it is in EHRbase."""
    uid = body.get("uid")
    if not isinstance(uid, dict):
        return str(uuid4())
    contribution_id = uuid_of(str(uid.get("value")), 400, "Contribution's uid")
    try:
        await room.store.contribution(ehr_id, contribution_id)
    except Refused:
        return contribution_id
    raise Refused(500, GENERIC)


async def _version(room: Room, ehr_id: str, given: Any) -> Version:
    if not isinstance(given, dict) or not isinstance(given.get("commit_audit"), dict):
        raise Refused(400, "A version lacks its commit_audit")
    _refuse_time(given["commit_audit"])
    change = _change(given["commit_audit"])
    preceding = _preceding(given)
    if change == DELETION:
        if preceding is None:
            raise Refused(400, "A deletion needs preceding_version_uid")
        return await compositions.deletion(room, ehr_id, preceding)
    if not isinstance(given.get("data"), dict):
        raise Refused(400, "A version lacks its data")
    try:
        draft = await compositions.checked(room, canonical(given["data"]))
    except Refused as refused:
        # What is a 422 by itself is a 400 here.
        raise Refused(400 if refused.status == 422 else refused.status, refused.message) from None
    if change == CREATION:
        if preceding is not None:
            raise Refused(400, "Invalid version. Change type CREATION, but also set 'preceding_version_uid'.")
        return await compositions.new_version(room, ehr_id, draft)
    if preceding is None:
        raise Refused(400, "Invalid version. Change type MODIFICATION, but no 'preceding_version_uid'.")
    versions = await room.store.versions(preceding.object_id)
    number = after_update(
        preceding.object_id, ehr_id, str(preceding), versions, room.system, draft.template_id
    )
    return compositions.made(room, ehr_id, preceding._replace(number=number), draft, change)


def _change(audit: dict[str, Any]) -> str:
    try:
        code = str(audit["change_type"]["defining_code"]["code_string"])
    except (KeyError, TypeError):
        raise Refused(400, "A version's commit_audit lacks its change_type") from None
    if code not in (CREATION, AMENDMENT, MODIFICATION, DELETION):
        raise Refused(500, GENERIC)
    return code


def _preceding(given: dict[str, Any]) -> VersionUid | None:
    uid = given.get("preceding_version_uid")
    if uid is None:
        return None
    try:
        return VersionUid.parse(str(uid["value"]))
    except (KeyError, TypeError, ValueError):
        raise Refused(400, "preceding_version_uid is not the uid of a version") from None


def _refuse_time(audit: dict[str, Any]) -> None:
    if "time_committed" in audit:
        raise Refused(400, "time_committed is the server's to say")


async def _shown(room: Room, ehr_id: str, contribution_id: str) -> dict[str, Any]:
    audit, versions = await room.store.contribution(ehr_id, contribution_id)
    references = [
        {
            "_type": "OBJECT_REF",
            "namespace": "local",
            "type": kind,
            "id": {
                "_type": "OBJECT_VERSION_ID",
                "value": str(VersionUid(object_id, room.system, number)),
            },
        }
        for object_id, number, kind in versions
    ]
    uid = {"_type": "HIER_OBJECT_ID", "value": str(contribution_id)}
    return {"uid": uid, "versions": references, "audit": audit}
