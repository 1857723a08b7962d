"""What the conversations are about: a template of our own, and compositions of it in both forms."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from replicator.ehr.client import Canonical, Client, Ehr, Flat, Subject, VersionUid

TEMPLATE = "replicator.pulse.v1"
OPT = (Path(__file__).parent / "pulse.opt").read_bytes()
SOURCE = "clinic.example"
_TIME = "2026-03-01T08:30:00Z"


class Place(NamedTuple):
    """A record system, and how to reach it."""

    name: str
    url: str
    user: str = ""
    password: str = ""


class Patient(NamedTuple):
    """An EHR made for one test."""

    ehr_id: str
    system: str

    def first(self, object_id: str) -> VersionUid:
        return VersionUid(object_id, self.system, 1)


def flat(
    rate: float = 72,
    *,
    table: str = "public.vital_signs",
    item: str = "1",
    version: str = "0/10:1",
    more: Mapping[str, Any] | None = None,
) -> Flat:
    root = "pulse_encounter"
    fields: dict[str, Any] = {
        "ctx/language": "en",
        "ctx/territory": "CM",
        "ctx/composer_name": "clinic",
        "ctx/time": _TIME,
        f"{root}/pulse/any_event:0/rate|magnitude": rate,
        f"{root}/pulse/any_event:0/rate|unit": "/min",
        f"{root}/_feeder_audit/originating_system_audit|system_id": SOURCE,
        f"{root}/_feeder_audit/originating_system_audit|version_id": version,
        f"{root}/_feeder_audit/originating_system_item_id:0|id": item,
        f"{root}/_feeder_audit/originating_system_item_id:0|type": table,
    }
    return Flat(TEMPLATE, {**fields, **{f"{root}/{path}": value for path, value in (more or {}).items()}})


def canonical(
    rate: float = 72,
    *,
    table: str = "public.vital_signs",
    item: str = "1",
    version: str = "0/10:1",
    template: str = TEMPLATE,
) -> Canonical:
    return Canonical(
        {
            "_type": "COMPOSITION",
            "archetype_node_id": "openEHR-EHR-COMPOSITION.replicator_encounter.v1",
            "archetype_details": {
                "_type": "ARCHETYPED",
                "archetype_id": {
                    "_type": "ARCHETYPE_ID",
                    "value": "openEHR-EHR-COMPOSITION.replicator_encounter.v1",
                },
                "template_id": {"_type": "TEMPLATE_ID", "value": template},
                "rm_version": "1.0.4",
            },
            "name": _text("Pulse encounter"),
            "language": _code("ISO_639-1", "en"),
            "territory": _code("ISO_3166-1", "CM"),
            "category": {
                **_text("event"),
                "_type": "DV_CODED_TEXT",
                "defining_code": _code("openehr", "433"),
            },
            "composer": {"_type": "PARTY_IDENTIFIED", "name": "clinic"},
            "context": {
                "_type": "EVENT_CONTEXT",
                "start_time": _time(),
                "setting": {
                    **_text("other care"),
                    "_type": "DV_CODED_TEXT",
                    "defining_code": _code("openehr", "238"),
                },
            },
            "feeder_audit": {
                "_type": "FEEDER_AUDIT",
                "originating_system_audit": {
                    "_type": "FEEDER_AUDIT_DETAILS",
                    "system_id": SOURCE,
                    "version_id": version,
                },
                "originating_system_item_ids": [{"_type": "DV_IDENTIFIER", "id": item, "type": table}],
            },
            "content": [_observation(rate)],
        }
    )


def _observation(rate: float) -> dict[str, Any]:
    quantity = {"_type": "DV_QUANTITY", "magnitude": rate, "units": "/min"}
    element = {"_type": "ELEMENT", "archetype_node_id": "at0004", "name": _text("Rate"), "value": quantity}
    tree = {"_type": "ITEM_TREE", "archetype_node_id": "at0003", "name": _text("Tree"), "items": [element]}
    event = {
        "_type": "POINT_EVENT",
        "archetype_node_id": "at0002",
        "name": _text("Any event"),
        "time": _time(),
        "data": tree,
    }
    history = {
        "_type": "HISTORY",
        "archetype_node_id": "at0001",
        "name": _text("History"),
        "origin": _time(),
        "events": [event],
    }
    archetype = "openEHR-EHR-OBSERVATION.replicator_pulse.v1"
    return {
        "_type": "OBSERVATION",
        "archetype_node_id": archetype,
        "archetype_details": {
            "_type": "ARCHETYPED",
            "archetype_id": {"_type": "ARCHETYPE_ID", "value": archetype},
            "rm_version": "1.0.4",
        },
        "name": _text("Pulse"),
        "language": _code("ISO_639-1", "en"),
        "encoding": _code("IANA_character-sets", "UTF-8"),
        "subject": {"_type": "PARTY_SELF"},
        "data": history,
    }


def contribution(*versions: dict[str, Any]) -> dict[str, Any]:
    return {"_type": "CONTRIBUTION", "versions": list(versions), "audit": _audit("249", "creation")}


def created(uid: VersionUid, composition: Canonical) -> dict[str, Any]:
    data = {**composition.fields, "uid": {"_type": "OBJECT_VERSION_ID", "value": str(uid)}}
    return _version("249", "creation", data=data)


def modified(preceding: VersionUid, composition: Canonical) -> dict[str, Any]:
    return _version("251", "modification", data=composition.fields, **_preceding(preceding))


def deleted(preceding: VersionUid) -> dict[str, Any]:
    return _version("523", "deleted", **_preceding(preceding))


async def patient(client: Client, ehr_id: str) -> Patient:
    """An EHR for a test, and the template the tests need."""
    uploaded = await client.upload_template(OPT)
    assert uploaded.status in (201, 409), uploaded.summary
    ehr = await client.ensure_ehr(ehr_id, Subject(f"patient-{ehr_id}", "clinic"))
    assert isinstance(ehr, Ehr), ehr.summary
    return Patient(ehr.id, ehr.system)


def _preceding(uid: VersionUid) -> dict[str, Any]:
    return {"preceding_version_uid": {"_type": "OBJECT_VERSION_ID", "value": str(uid)}}


def _version(code: str, word: str, **more: Any) -> dict[str, Any]:
    lifecycle = {**_text("complete"), "_type": "DV_CODED_TEXT", "defining_code": _code("openehr", "532")}
    audit = _audit(code, word)
    return {"_type": "ORIGINAL_VERSION", "commit_audit": audit, "lifecycle_state": lifecycle, **more}


def _audit(code: str, word: str) -> dict[str, Any]:
    change = {**_text(word), "_type": "DV_CODED_TEXT", "defining_code": _code("openehr", code)}
    committer = {"_type": "PARTY_IDENTIFIED", "name": "replicator"}
    return {"_type": "AUDIT_DETAILS", "system_id": SOURCE, "change_type": change, "committer": committer}


def _text(value: str) -> dict[str, Any]:
    return {"_type": "DV_TEXT", "value": value}


def _time() -> dict[str, Any]:
    return {"_type": "DV_DATE_TIME", "value": _TIME}


def _code(terminology: str, code: str) -> dict[str, Any]:
    terminology_id = {"_type": "TERMINOLOGY_ID", "value": terminology}
    return {"_type": "CODE_PHRASE", "terminology_id": terminology_id, "code_string": code}
