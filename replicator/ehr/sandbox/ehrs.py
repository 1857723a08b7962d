"""Calls about EHRs and their status → rows of `ehrs`, and versions of an EHR_STATUS."""

from __future__ import annotations

import re
from typing import Any
from uuid import uuid4

from starlette.requests import Request

from replicator.ehr.sandbox.changes import CREATION, MODIFICATION, Version
from replicator.ehr.sandbox.drafts import parsed
from replicator.ehr.sandbox.refusals import Refused, unknown_ehr, uuid_of
from replicator.ehr.sandbox.reply import Reply, Room, moment
from replicator.ehr.sandbox.store import Record

_NAMESPACE = re.compile(r"[a-zA-Z][a-zA-Z0-9-_:/&+?]*")
_EMPTY: dict[str, Any] = {
    "_type": "EHR_STATUS",
    "archetype_node_id": "openEHR-EHR-EHR_STATUS.generic.v1",
    "name": {"_type": "DV_TEXT", "value": "EHR Status"},
    "subject": {"_type": "PARTY_SELF"},
    "is_modifiable": True,
    "is_queryable": True,
}


async def create(room: Room, request: Request) -> Reply:
    return await _create(room, request, str(uuid4()))


async def create_with_id(room: Room, request: Request) -> Reply:
    return await _create(room, request, uuid_of(request.path_params["ehr_id"], 400, "ehr_id"))


async def read(room: Room, request: Request) -> Reply:
    ehr = await room.store.ehr(uuid_of(request.path_params["ehr_id"], 404, "ehr_id"))
    return Reply(200, await _shown(room, ehr), {"ETag": f'"{ehr.ehr_id}"'})


async def find(room: Room, request: Request) -> Reply:
    subject_id, namespace = (request.query_params.get(f"subject_{name}") for name in ("id", "namespace"))
    if subject_id is None or namespace is None:
        raise Refused(400, "Required request parameters subject_id and subject_namespace")
    ehr = await room.store.ehr_of(subject_id, namespace)
    if ehr is None:
        raise Refused(404, "No EHR with supplied subject parameters found")
    return Reply(200, await _shown(room, ehr), {"ETag": f'"{ehr.ehr_id}"'})


async def status(room: Room, request: Request) -> Reply:
    ehr = await room.store.ehr(uuid_of(request.path_params["ehr_id"], 404, "ehr_id"))
    version = await status_version(room, ehr.ehr_id)
    return _as_status(room, version)


async def update_status(room: Room, request: Request) -> Reply:
    ehr = await room.store.ehr(uuid_of(request.path_params["ehr_id"], 404, "ehr_id"), lock=True)
    before = await status_version(room, ehr.ehr_id)
    # Here, and only here, EHRbase takes the quotes.
    if request.headers.get("if-match", "").strip('"') != str(before.uid(room.system)):
        raise Refused(412, "Given If-Match header does not match latest existing version")
    body = parsed(await request.body())
    subject = subject_of(body)
    holder = await room.store.ehr_of(*subject) if subject else None
    if subject and holder and holder.ehr_id != ehr.ehr_id:
        raise _subject_taken(subject)
    await room.store.move_subject(ehr.ehr_id, subject)
    return _as_status(room, await _add_status(room, ehr.ehr_id, before.object_id, before.number + 1, body))


async def status_version(room: Room, ehr_id: str) -> Version:
    (version,) = await room.store.latest(ehr_id, "EHR_STATUS")
    return version


async def refuse_if_not_modifiable(room: Room, ehr_id: str) -> None:
    body = (await status_version(room, ehr_id)).body
    if body is not None and body.get("is_modifiable") is False:
        raise Refused(409, f"EHR with id {ehr_id} does not allow modification")


def subject_of(body: dict[str, Any]) -> tuple[str, str] | None:
    """Whom a status says the EHR is about."""
    subject = body.get("subject")
    reference = subject.get("external_ref") if isinstance(subject, dict) else None
    if not isinstance(reference, dict):
        return None
    try:
        subject_id, namespace = str(reference["id"]["value"]), str(reference["namespace"])
    except (KeyError, TypeError):
        raise Refused(400, "PARTY_REF lacks id or namespace") from None
    if not _NAMESPACE.fullmatch(namespace):
        raise Refused(400, "Subject's namespace format invalid")
    return subject_id, namespace


async def _create(room: Room, request: Request, ehr_id: str) -> Reply:
    content = await request.body()
    body = parsed(content) if content else dict(_EMPTY)
    subject = subject_of(body)
    if not await room.store.add_ehr(ehr_id, subject, room.now):
        raise await _taken(room, ehr_id, subject)
    await _add_status(room, ehr_id, str(uuid4()), 1, body)
    ehr = await room.store.ehr(ehr_id)
    location = f"{room.root}ehrbase/rest/openehr/v1/ehr/{ehr_id}"
    return Reply(201, await _shown(room, ehr), {"Location": location, "ETag": f'"{ehr_id}"'})


async def _taken(room: Room, ehr_id: str, subject: tuple[str, str] | None) -> Refused:
    try:
        await room.store.ehr(ehr_id)
    except Refused:
        assert subject is not None
        return _subject_taken(subject)
    return Refused(409, f"EHR with id {ehr_id} already exists.")


def _subject_taken(subject: tuple[str, str]) -> Refused:
    return Refused(
        409,
        f"Supplied partyId[{subject[0]}] is used by a different EHR in the same "
        f"partyNamespace[{subject[1]}].",
    )


async def _add_status(room: Room, ehr_id: str, object_id: str, number: int, body: dict[str, Any]) -> Version:
    change = CREATION if number == 1 else MODIFICATION
    version = Version(
        object_id, number, ehr_id, "EHR_STATUS", change, None, "canonical", body, None, None, (), (), room.now
    )
    contribution_id = str(uuid4())
    await room.store.add_contribution(contribution_id, ehr_id, {}, room.now)
    await room.store.add(version, contribution_id)
    return version


async def _shown(room: Room, ehr: Record) -> dict[str, Any]:
    version = await status_version(room, ehr.ehr_id)
    if version.ehr_id != ehr.ehr_id:
        raise unknown_ehr(ehr.ehr_id)
    return {
        "system_id": {"_type": "HIER_OBJECT_ID", "value": room.system},
        "ehr_id": {"_type": "HIER_OBJECT_ID", "value": str(ehr.ehr_id)},
        "ehr_status": {**(version.body or {}), **_uid(room, version)},
        "time_created": moment(ehr.created_at),
    }


def _as_status(room: Room, version: Version) -> Reply:
    uid = version.uid(room.system)
    return Reply(200, {**(version.body or {}), **_uid(room, version)}, {"ETag": f'"{uid}"'})


def _uid(room: Room, version: Version) -> dict[str, Any]:
    return {"uid": {"_type": "OBJECT_VERSION_ID", "value": str(version.uid(room.system))}}
