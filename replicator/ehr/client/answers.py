"""Status, headers and body of a response → an Answer that may be logged. No I/O.

A server explains a refusal in a sentence that can repeat what it refused, such as a patient's value. Of that
sentence only this is kept: which kind of refusal it is, and the paths it complains about.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import orjson

from replicator.ehr.client.versions import VersionUid, uuid_in, version_in


class Refusal(StrEnum):
    """Why a server did not do it, by what one does about it."""

    #: The uid is taken, also if that composition has been deleted since: perhaps by ourselves.
    ALREADY_EXISTS = "already exists"
    #: The version we changed or deleted is not the latest any more.
    STALE = "stale version"
    #: The uid names another system than the server's own, or another version than the next.
    WRONG_UID = "wrong uid"
    #: The server does not read the If-Match header in the form we sent.
    IF_MATCH_FORM = "If-Match not understood"
    EHR_EXISTS = "EHR exists"
    SUBJECT_TAKEN = "subject has another EHR"
    NOT_MODIFIABLE = "EHR not modifiable"
    UNKNOWN_EHR = "unknown EHR"
    UNKNOWN_TEMPLATE = "unknown template"
    TEMPLATE_EXISTS = "template exists"
    UNKNOWN_PATHS = "unknown paths"
    #: The composition contradicts its template.
    INVALID = "invalid"
    #: Not even readable as what it claims to be.
    MALFORMED = "malformed"
    NOT_FOUND = "not found"
    UNAUTHORISED = "not authorised"
    CONFLICT = "conflict"
    #: The server's own trouble: 5xx, or too busy.
    TROUBLE = "server trouble"
    OTHER = "refused"


#: (status, pattern of the sentence) → kind; the first that fits. No pattern fits every sentence, or none.
_KINDS: tuple[tuple[int, str, Refusal], ...] = (
    (400, r"could not consume parts", Refusal.UNKNOWN_PATHS),
    (400, r"if-match|uuid string too (large|long)", Refusal.IF_MATCH_FORM),
    # Within a contribution: alone it is a 422.
    (400, r"template with template_id|could not retrieve template", Refusal.UNKNOWN_TEMPLATE),
    (400, "", Refusal.MALFORMED),
    (401, "", Refusal.UNAUTHORISED),
    (403, "", Refusal.UNAUTHORISED),
    (404, r"^\W*(the )?ehr with|^no ehr (with this id|found)", Refusal.UNKNOWN_EHR),
    (404, r"template", Refusal.UNKNOWN_TEMPLATE),
    (404, "", Refusal.NOT_FOUND),
    (409, r"partyid", Refusal.SUBJECT_TAKEN),
    (409, r"modif", Refusal.NOT_MODIFIABLE),
    (409, r"ehr\b.*already exist", Refusal.EHR_EXISTS),
    (409, r"template.*already exist", Refusal.TEMPLATE_EXISTS),
    (409, r"^$|version|latest", Refusal.STALE),
    (409, "", Refusal.CONFLICT),
    (412, r"already exists", Refusal.ALREADY_EXISTS),
    (412, r"if-match|latest", Refusal.STALE),
    (412, r"creating_system_id|invalid version|mismatch|objectversionid", Refusal.WRONG_UID),
    (412, "", Refusal.STALE),
    (422, r"template with template_id|could not retrieve template", Refusal.UNKNOWN_TEMPLATE),
    (422, "", Refusal.INVALID),
    (408, "", Refusal.TROUBLE),
    (429, "", Refusal.TROUBLE),
)

#: The archetyped path at the head of an item of a validation error: `/content[…]/data[at0001]: must be …`.
_COMPLAINT = re.compile(r"(?:^|, )(?P<path>(?:/[a-z_0-9]+(?:\[[^\]]*\])?)+):")
_ROOTS = (
    "content",
    "context",
    "composer",
    "category",
    "language",
    "territory",
    "name",
    "feeder_audit",
    "links",
)
#: What may stay of a predicate; the rest of it is a name, which may be anybody's.
_PREDICATE = re.compile(r"\[(?P<id>(?:at|id)[0-9.]+|openEHR-[\w.-]+)?[^\]]*\]")
_PARTS = re.compile(r"could not consume parts \[(?P<parts>[^\]]*)\]", re.IGNORECASE)
_FLAT_PATH = re.compile(r"[a-z][a-z0-9_.:-]*(?:/[a-z_][a-z0-9_.:-]*)+(?:\|[a-z_]+)?")
_PLACES_MAX = 20


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server answered. Its repr holds keys and positions only."""

    status: int
    #: The version the answer is about: the one just made, or read.
    version: VersionUid | None = None
    #: A contribution's id, or an EHR's.
    uid: str | None = None
    refusal: Refusal | None = None
    #: The paths a refusal complains about.
    places: tuple[str, ...] = ()
    retry_after_s: float | None = None
    #: How often the request went out. More than once if a kept connection broke: a refusal may then be
    #: the echo of a success.
    sends: int = 1
    #: JSON, parsed; or text. Health data.
    body: Any = field(default=None, repr=False)

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    @property
    def deleted(self) -> bool:
        """Whether what was asked for has been there, and is deleted. (Only for answers to reading.)"""
        return self.status == 204

    @property
    def summary(self) -> str:
        """One line for a log or a queue's error column: never a value."""
        what = f"{self.status} {self.refusal}" if self.refusal else f"{self.status}"
        return f"{what}: {', '.join(self.places)}" if self.places else what


def answer_from(status: int, headers: Mapping[str, str], content: bytes, *, sends: int = 1) -> Answer:
    """Read a response."""
    body = _parsed(content)
    refusal = None if status < 400 else _kind(status, _sentence(body))
    location = headers.get("Location", "").rstrip("/").rpartition("/")[2]
    named = headers.get("ETag") or location
    return Answer(
        status=status,
        version=version_in(named) or version_in(location) or _version_of(body),
        uid=uuid_in(named) or uuid_in(location),
        refusal=refusal,
        places=_places(refusal, _sentence(body)),
        retry_after_s=_seconds(headers.get("Retry-After")),
        sends=sends,
        body=body if status < 400 else None,
    )


def _parsed(content: bytes) -> Any:
    if not content:
        return None
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        return content.decode(errors="replace")


def _sentence(body: Any) -> str:
    said = body.get("message") if isinstance(body, dict) else body
    return said if isinstance(said, str) else ""


def _kind(status: int, sentence: str) -> Refusal:
    for known, pattern, kind in _KINDS:
        if known == status and re.search(pattern, sentence, re.IGNORECASE):
            return kind
    return Refusal.TROUBLE if status >= 500 else Refusal.OTHER


def _places(refusal: Refusal | None, sentence: str) -> tuple[str, ...]:
    if refusal is None:
        return ()
    found = [_PREDICATE.sub(_bare, match["path"]) for match in _COMPLAINT.finditer(sentence)]
    paths = [path for path in found if re.match(r"/(\w+)", path)[1] in _ROOTS]  # type: ignore[index]  # it has one
    if parts := _PARTS.search(sentence):
        paths += [part for part in parts["parts"].split(", ") if _FLAT_PATH.fullmatch(part)]
    return tuple(dict.fromkeys(paths))[:_PLACES_MAX]


def _bare(predicate: re.Match[str]) -> str:
    return f"[{predicate['id'] or ''}]"


def _version_of(body: Any) -> VersionUid | None:
    """The uid a composition or a status carries in itself."""
    uid = body.get("uid") if isinstance(body, dict) else None
    value = uid.get("value") if isinstance(uid, dict) else None
    return version_in(value) if isinstance(value, str) else None


def _seconds(text: str | None) -> float | None:
    """Retry-After, where it is a number; a date would need a clock, and nobody here sends one."""
    try:
        return max(0.0, float(text)) if text else None
    except ValueError:
        return None
