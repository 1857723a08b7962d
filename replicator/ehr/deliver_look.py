"""A composition's id → what the record holds of it, and which change of ours that is."""

from __future__ import annotations

from typing import Any

from replicator.ehr.client import Answer, Client, Refusal
from replicator.ehr.deliver_content import content_in
from replicator.ehr.identity import ChangeId
from replicator.ehr.retry import Found


async def look(client: Client, ehr_id: str, composition: str, system: str) -> Found | Answer | None:
    """The latest version of a composition; None if there never was one. An Answer is a refusal.

    `system` is ours: whatever another source has written there counts as somebody else's.
    """
    answer = await client.composition(ehr_id, composition)
    if answer.refusal is Refusal.NOT_FOUND:
        return None
    if not answer.ok:
        return answer
    if not answer.deleted and answer.version is not None:
        return Found(answer.version, False, change_in(answer.body, system), content_in(answer.body))
    # Of a deletion only the history knows the version.
    versions = await client.versions(ehr_id, composition)
    if isinstance(versions, Answer):
        return versions
    return Found(versions[-1], answer.deleted, change_in(answer.body, system)) if versions else None


def change_in(body: Any, system: str) -> ChangeId | None:
    """The change that a composition says it was made of, if it was made of one of ours."""
    audit = _below(_below(body, "feeder_audit"), "originating_system_audit")
    said = _below(audit, "version_id")
    if _below(audit, "system_id") != system or not isinstance(said, str):
        return None
    try:
        return ChangeId.parse(said)
    except ValueError:
        return None


def _below(body: Any, name: str) -> Any:
    return body.get(name) if isinstance(body, dict) else None
