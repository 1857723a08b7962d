"""What a server answers → what may be known of it."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.ehr.client.answers import Refusal, answer_from
from replicator.ehr.client.bodies import Canonical, Flat, body_of, root_of
from replicator.ehr.client.versions import VersionUid, version_in

OBJECT = "0c5a7c3e-8f9b-5a4e-9a3b-3f6f7f1f2d10"
UID = VersionUid(OBJECT, "local.ehrbase.org", 3)
PARTS = "could not consume Parts "


def said(message: object) -> bytes:
    return orjson.dumps({"error": "some reason", "message": message})


# ── Uids ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("text", [str(UID), f'"{UID}"', f'W/"{UID}"', f" {UID} "])
def test_a_version_is_read_with_and_without_quotes(text: str) -> None:
    assert version_in(text) == UID


@pytest.mark.parametrize(
    "text", [None, "", str(OBJECT), f"{OBJECT}::a", f"{OBJECT}::a::0", f"{OBJECT}::a::1::2"]
)
def test_what_names_no_version_is_none(text: str | None) -> None:
    assert version_in(text) is None


def test_the_version_after_has_the_next_number() -> None:
    assert str(UID.next()) == f"{OBJECT}::local.ehrbase.org::4"


# ── Answers ──────────────────────────────────────────────────────────────────────────────────────


def test_the_version_is_taken_from_the_etag_then_the_location_then_the_body() -> None:
    body = orjson.dumps({"uid": {"value": str(UID)}})
    place = f"https://here/rest/ehr/{OBJECT}/composition/{UID}"
    assert answer_from(204, {"ETag": f'"{UID}"'}, b"").version == UID
    assert answer_from(204, {"Location": place}, b"").version == UID
    assert answer_from(200, {}, body).version == UID
    assert answer_from(200, {}, b"{}").version is None


def test_a_contributions_id_is_no_version() -> None:
    answer = answer_from(201, {"ETag": f'"{OBJECT}"'}, b"{}")
    assert (answer.uid, answer.version) == (OBJECT, None)


@pytest.mark.parametrize(
    ("status", "message", "kind"),
    [
        (412, "Provided Id 0c5a already exists", Refusal.ALREADY_EXISTS),
        (412, "If-Match version_uid does not match latest version", Refusal.STALE),
        (412, "Mismatch of creating_system_id: a is not b", Refusal.WRONG_UID),
        (409, "EHR with id 0c5a already exists.", Refusal.EHR_EXISTS),
        (
            409,
            "Supplied partyId[7] is used by a different EHR in the same partyNamespace[c]",
            Refusal.SUBJECT_TAKEN,
        ),
        (409, "EHR with id 0c5a does not allow modification", Refusal.NOT_MODIFIABLE),
        (409, "", Refusal.STALE),
        (409, "something else", Refusal.CONFLICT),
        (404, "EHR with id 0c5a not found", Refusal.UNKNOWN_EHR),
        (404, "No EHR with the supplied ehr_id or no COMPOSITION with it", Refusal.NOT_FOUND),
        (400, "UUID string too large", Refusal.IF_MATCH_FORM),
        (400, "Could not consume Parts [a/b]", Refusal.UNKNOWN_PATHS),
        (400, "Unexpected character", Refusal.MALFORMED),
        (400, "Template with template_id 'x' does not exist", Refusal.UNKNOWN_TEMPLATE),
        (422, "Template with template_id 'x' does not exist", Refusal.UNKNOWN_TEMPLATE),
        (422, "Could not retrieve template for template Id: x", Refusal.UNKNOWN_TEMPLATE),
        (422, "/content[at1]: wrong", Refusal.INVALID),
        (401, "", Refusal.UNAUTHORISED),
        (403, "", Refusal.UNAUTHORISED),
        (429, "", Refusal.TROUBLE),
        (500, "An internal error has occurred.", Refusal.TROUBLE),
        (503, "", Refusal.TROUBLE),
        (418, "", Refusal.OTHER),
    ],
)
def test_a_refusal_is_known_by_its_status_and_sentence(status: int, message: str, kind: Refusal) -> None:
    assert answer_from(status, {}, said(message)).refusal is kind


@pytest.mark.parametrize(
    "content", [b"", b"<html>", b"[1]", b'"text"', b"\xff\xfe", said(None), said({"a": 1})]
)
def test_any_body_of_a_refusal_is_survived(content: bytes) -> None:
    assert answer_from(422, {}, content).refusal is Refusal.INVALID


def test_of_a_complaint_only_the_places_are_kept() -> None:
    message = (
        "/content[openEHR-EHR-OBSERVATION.pulse.v1, 'Ngo Awa']/data[at0001]: The value 212 is not allowed, "
        "/context/setting: Ngo Awa must be one of, free text about Ngo Awa: /home/ngo: no"
    )
    answer = answer_from(422, {}, said(message))
    assert answer.places == ("/content[openEHR-EHR-OBSERVATION.pulse.v1]/data[at0001]", "/context/setting")
    assert answer.summary == f"422 invalid: {', '.join(answer.places)}"
    for shown in (repr(answer), answer.summary):
        assert "Ngo" not in shown and "212" not in shown and "home" not in shown


def test_unknown_paths_are_named_and_nothing_that_is_not_a_path() -> None:
    answer = answer_from(400, {}, said(PARTS + "[a/b:0/c|magnitude, Ngo Awa/x, 1/2, d/e]"))
    assert answer.places == ("a/b:0/c|magnitude", "d/e")


@given(st.text(min_size=3, max_size=40).filter(lambda text: text.strip() and text not in repr("<>?")))
def test_free_text_never_comes_through(text: str) -> None:
    marked = f"§{text}§"
    answer = answer_from(422, {}, said(f"/content[at1, '{marked}']: {marked}, {marked}: /x: {marked}"))
    assert "§" not in repr(answer) and "§" not in answer.summary


def test_what_was_read_stays_out_of_the_repr() -> None:
    answer = answer_from(200, {}, orjson.dumps({"name": "Ngo Awa"}))
    assert answer.body == {"name": "Ngo Awa"}
    assert "Ngo" not in repr(answer)


@pytest.mark.parametrize(("text", "seconds"), [("7", 7.0), ("-1", 0.0), ("Wed, 21 Oct", None), ("", None)])
def test_retry_after_is_seconds_or_nothing(text: str, seconds: float | None) -> None:
    assert answer_from(503, {"Retry-After": text}, b"").retry_after_s == seconds


# ── Bodies ───────────────────────────────────────────────────────────────────────────────────────


def test_a_flat_composition_gets_its_uid_under_its_root() -> None:
    body = body_of(Flat("a template", {"ctx/language": "en", "vitals/pulse/rate|magnitude": 72}), UID)
    assert orjson.loads(body.content)["vitals/_uid"] == str(UID)
    assert (body.media_type, dict(body.query)) == (
        "application/openehr.wt.flat.schema+json",
        {"templateId": "a template"},
    )


def test_a_canonical_composition_gets_its_uid_as_an_object() -> None:
    body = body_of(Canonical({"_type": "COMPOSITION"}), UID)
    assert orjson.loads(body.content)["uid"] == {"_type": "OBJECT_VERSION_ID", "value": str(UID)}


def test_without_a_uid_a_composition_goes_as_it_is() -> None:
    fields = {"vitals/pulse/rate|magnitude": 72}
    assert orjson.loads(body_of(Flat("t", fields)).content) == fields


def test_context_alone_has_no_root() -> None:
    with pytest.raises(ValueError, match="not of its context"):
        root_of(Flat("t", {"ctx/language": "en"}))


def test_a_composition_stays_out_of_every_repr() -> None:
    flat = Flat("t", {"a/name": "Ngo Awa"})
    for one in (flat, Canonical({"name": "Ngo Awa"}), body_of(flat)):
        assert "Ngo" not in repr(one)
