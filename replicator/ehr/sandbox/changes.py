"""The versions there are × what is asked for → the number of the next version, or a refusal. No I/O.

The statuses are EHRbase's: a stale update is a 412, a stale deletion a 409, and neither is ever a success.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from replicator.ehr.client.versions import VersionUid
from replicator.ehr.sandbox.drafts import Form
from replicator.ehr.sandbox.refusals import Refused, no_such_composition

Kind = Literal["COMPOSITION", "EHR_STATUS"]

CREATION, AMENDMENT, MODIFICATION, DELETION = "249", "250", "251", "523"


@dataclass(frozen=True, slots=True)
class Version:
    """One version as it is stored."""

    object_id: str
    number: int
    ehr_id: str
    kind: Kind
    change: str
    template_id: str | None
    form: Form
    body: dict[str, Any] | None = field(repr=False)
    source_system: str | None
    source_version: str | None
    source_items: Sequence[str]
    source_types: Sequence[str]
    committed_at: datetime

    @property
    def deleted(self) -> bool:
        return self.change == DELETION

    def uid(self, system: str) -> VersionUid:
        return VersionUid(self.object_id, system, self.number)


def wanted_uid(text: str, system: str) -> VersionUid:
    """The uid a new composition asks for."""
    try:
        uid = VersionUid.parse(text)
    except ValueError:
        raise Refused(412, "Provided Id is not a ObjectVersionId") from None
    if uid.system != system:
        raise Refused(412, f"Mismatch of creating_system_id: {uid.system} is not {system}")
    if uid.number != 1:
        raise Refused(412, f"Provided Id {uid} has a invalid Version. Expect Version 1")
    return uid


def refuse_if_taken(uid: VersionUid, versions: Sequence[Version]) -> None:
    """A deleted composition's uid stays its own."""
    if versions:
        raise Refused(412, f"Provided Id {uid.object_id} already exists")


def after_update(
    object_id: str,
    ehr_id: str,
    if_match: str | None,
    versions: Sequence[Version],
    system: str,
    template_id: str | None,
) -> int:
    """The number of the version that an update of a composition makes."""
    preceding = if_matched(if_match)
    latest = _latest(versions, ehr_id)
    if preceding.object_id != object_id:
        raise Refused(412, "If-Match version_uid does not match uid")
    if preceding.system != system:
        raise Refused(412, "If-Match version_uid does not match system id")
    if preceding.number != latest.number:
        raise Refused(412, "If-Match version_uid does not match latest version")
    before = next(version.template_id for version in reversed(versions) if not version.deleted)
    if template_id != before:
        raise Refused(400, f"Can't update composition to have different template. Previous: {before}")
    return latest.number + 1


def after_deletion(preceding: VersionUid, ehr_id: str, versions: Sequence[Version], system: str) -> Version:
    """The version that is deleted."""
    latest = _latest(versions, ehr_id)
    if latest.deleted:
        raise no_such_composition()
    if (preceding.system, preceding.number) != (system, latest.number):
        raise Refused(409, "Version is not the latest", {"ETag": f'"{latest.uid(system)}"'})
    return latest


def if_matched(header: str | None) -> VersionUid:
    """The version of an If-Match header, which EHRbase reads without quotes only."""
    if header is None:
        raise Refused(400, "Required request header 'If-Match' is not present")
    if '"' in header:
        raise Refused(400, "str string too large")
    try:
        return VersionUid.parse(header)
    except ValueError:
        raise Refused(400, "If-Match is not the uid of a version") from None


def _latest(versions: Sequence[Version], ehr_id: str) -> Version:
    if not versions or versions[-1].ehr_id != ehr_id or versions[-1].kind != "COMPOSITION":
        raise no_such_composition()
    return versions[-1]
