"""The same conversations with the sandbox and with EHRbase: what each call answers, and when."""

from __future__ import annotations

from collections.abc import Callable
from uuid import uuid4

import orjson
import pytest

from replicator.ehr.client import (
    Answer,
    Canonical,
    Client,
    Composition,
    Ehr,
    Flat,
    Refusal,
    Subject,
    VersionUid,
)
from replicator.ehr.client.client import status_of
from tests.ehrbase.records import (
    OPT,
    SOURCE,
    TEMPLATE,
    Patient,
    canonical,
    contribution,
    created,
    deleted,
    flat,
    modified,
)

#: `flat` or `canonical`.
Make = Callable[..., Composition]
BOTH_FORMS = pytest.mark.parametrize("make", [flat, canonical])


async def stored(client: Client, someone: Patient, object_id: str | None = None) -> VersionUid:
    uid = someone.first(object_id or str(uuid4()))
    answer = await client.create(someone.ehr_id, flat(), uid)
    assert (answer.status, answer.version) == (204, uid)
    return uid


# ── EHR ──────────────────────────────────────────────────────────────────────────────────────────


async def test_an_ehr_is_made_once_under_the_id_we_choose(client: Client) -> None:
    ehr_id = str(uuid4())
    subject = Subject(f"patient-{ehr_id}", "clinic")
    first = await client.ensure_ehr(ehr_id, subject)
    again = await client.ensure_ehr(ehr_id, subject)
    assert isinstance(first, Ehr) and isinstance(again, Ehr)
    assert (first.id, first.created, again.id, again.created) == (ehr_id, True, ehr_id, False)
    assert first.system == again.system != ""


async def test_a_subject_that_has_an_ehr_keeps_it(client: Client, someone: Patient) -> None:
    subject = Subject(f"patient-{someone.ehr_id}", "clinic")
    refused = await client.create_ehr(str(uuid4()), subject)
    assert (refused.status, refused.refusal) == (409, Refusal.SUBJECT_TAKEN)
    found = await client.ensure_ehr(str(uuid4()), subject)
    assert isinstance(found, Ehr)
    assert (found.id, found.created) == (someone.ehr_id, False)


async def test_an_ehr_of_our_id_that_is_another_subjects_is_not_taken_for_ours(
    client: Client, someone: Patient
) -> None:
    refused = await client.ensure_ehr(someone.ehr_id, Subject(f"other-{someone.ehr_id}", "clinic"))
    assert isinstance(refused, Answer)
    assert (refused.status, refused.refusal) == (409, Refusal.EHR_EXISTS)


async def test_an_unknown_ehr_is_not_found(client: Client) -> None:
    assert (await client.ehr(str(uuid4()))).status == 404
    answer = await client.create(str(uuid4()), canonical())
    assert answer.status == 404


async def test_an_ehr_status_is_replaced_and_can_forbid_changes(client: Client, someone: Patient) -> None:
    before = await client.ehr_status(someone.ehr_id)
    assert before.ok and before.version is not None
    subject = Subject(f"patient-{someone.ehr_id}", "clinic")
    closed = await client.update_ehr_status(
        someone.ehr_id, before.version, status_of(subject, modifiable=False)
    )
    assert closed.ok and closed.version == before.version.next()
    stale = await client.update_ehr_status(someone.ehr_id, before.version, status_of(subject))
    assert (stale.status, stale.refusal) == (412, Refusal.STALE)
    refused = await client.create(someone.ehr_id, flat())
    assert (refused.status, refused.refusal) == (409, Refusal.NOT_MODIFIABLE)


# ── Templates ────────────────────────────────────────────────────────────────────────────────────


async def test_a_template_is_listed_and_cannot_be_uploaded_twice(client: Client, someone: Patient) -> None:
    again = await client.upload_template(OPT)
    assert (again.status, again.refusal) == (409, Refusal.TEMPLATE_EXISTS)
    listed = await client.templates()
    assert isinstance(listed, tuple) and TEMPLATE in listed


async def test_a_web_template_has_the_paths_of_its_template(client: Client, someone: Patient) -> None:
    answer = await client.web_template(TEMPLATE)
    assert answer.ok
    tree = answer.body["tree"]
    assert (answer.body["templateId"], tree["id"]) == (TEMPLATE, "pulse_encounter")
    (pulse,) = [child for child in tree["children"] if child["id"] == "pulse"]
    (event,) = [child for child in pulse["children"] if child["id"] == "any_event"]
    assert {"rate", "comment"} <= {child["id"] for child in event["children"]}


async def test_a_template_that_is_not_there_is_not_found(client: Client) -> None:
    assert (await client.web_template("no such template")).status == 404


async def test_what_is_no_template_is_refused(client: Client) -> None:
    assert (await client.upload_template(b"<template/>")).status == 400


# ── Compositions ─────────────────────────────────────────────────────────────────────────────────


@BOTH_FORMS
async def test_a_composition_exists_once_however_often_it_is_created(
    client: Client, someone: Patient, make: Make
) -> None:
    uid = someone.first(str(uuid4()))
    first = await client.create(someone.ehr_id, make(), uid)
    again = await client.create(someone.ehr_id, make(), uid)
    assert (first.status, first.version) == (204, uid)
    assert (again.status, again.refusal) == (412, Refusal.ALREADY_EXISTS)
    assert await client.versions(someone.ehr_id, uid.object_id) == (uid,)


@BOTH_FORMS
async def test_a_composition_without_a_uid_gets_one(client: Client, someone: Patient, make: Make) -> None:
    answer = await client.create(someone.ehr_id, make())
    assert answer.ok and answer.version is not None
    assert (answer.version.system, answer.version.number) == (someone.system, 1)


async def test_a_uid_of_another_system_is_refused(client: Client, someone: Patient) -> None:
    answer = await client.create(someone.ehr_id, flat(), VersionUid(str(uuid4()), "elsewhere.example", 1))
    assert (answer.status, answer.refusal) == (412, Refusal.WRONG_UID)


@BOTH_FORMS
async def test_an_update_makes_the_next_version(client: Client, someone: Patient, make: Make) -> None:
    uid = someone.first(str(uuid4()))
    assert (await client.create(someone.ehr_id, make(72), uid)).ok
    updated = await client.update(someone.ehr_id, uid, make(80))
    assert (updated.status, updated.version) == (204, uid.next())
    assert await client.versions(someone.ehr_id, uid.object_id) == (uid, uid.next())


async def test_an_update_of_a_version_that_is_not_the_latest_is_refused(
    client: Client, someone: Patient
) -> None:
    uid = await stored(client, someone)
    assert (await client.update(someone.ehr_id, uid, flat(80))).ok
    again = await client.update(someone.ehr_id, uid, flat(80))
    assert (again.status, again.refusal) == (412, Refusal.STALE)


async def test_an_update_of_nothing_is_refused(client: Client, someone: Patient) -> None:
    answer = await client.update(someone.ehr_id, someone.first(str(uuid4())), flat())
    assert answer.status == 404


async def test_a_deletion_is_a_version_and_its_uid_is_never_free_again(
    client: Client, someone: Patient
) -> None:
    uid = await stored(client, someone)
    gone = await client.delete(someone.ehr_id, uid)
    assert gone.status == 204
    read = await client.composition(someone.ehr_id, uid.object_id)
    assert (read.status, read.deleted) == (204, True)
    assert (await client.delete(someone.ehr_id, uid)).status == 404
    again = await client.create(someone.ehr_id, flat(), uid)
    assert (again.status, again.refusal) == (412, Refusal.ALREADY_EXISTS)


async def test_a_deletion_of_a_version_that_is_not_the_latest_is_refused(
    client: Client, someone: Patient
) -> None:
    uid = await stored(client, someone)
    assert (await client.update(someone.ehr_id, uid, flat(80))).ok
    answer = await client.delete(someone.ehr_id, uid)
    assert (answer.status, answer.refusal) == (409, Refusal.STALE)


async def test_an_update_brings_back_what_was_deleted(client: Client, someone: Patient) -> None:
    uid = await stored(client, someone)
    assert (await client.delete(someone.ehr_id, uid)).ok
    back = await client.update(someone.ehr_id, uid.next(), flat(90))
    assert (back.status, back.version) == (204, uid.next().next())
    assert (await client.composition(someone.ehr_id, uid.object_id)).status == 200


async def test_what_was_never_there_is_not_found(client: Client, someone: Patient) -> None:
    answer = await client.composition(someone.ehr_id, str(uuid4()))
    assert answer.status == 404


async def test_a_composition_is_read_by_its_uid_with_its_version(client: Client, someone: Patient) -> None:
    uid = await stored(client, someone)
    assert (await client.update(someone.ehr_id, uid, flat(80, version="0/20:1"))).ok
    latest = await client.composition(someone.ehr_id, uid.object_id)
    first = await client.composition(someone.ehr_id, uid)
    assert (latest.version, first.version) == (uid.next(), uid)
    audits = [answer.body["feeder_audit"]["originating_system_audit"] for answer in (latest, first)]
    assert [audit["version_id"] for audit in audits] == ["0/20:1", "0/10:1"]


async def test_flat_values_come_back_as_they_were_given(client: Client, someone: Patient) -> None:
    uid = await stored(client, someone)
    answer = await client.composition(someone.ehr_id, uid, flat=True)
    assert answer.status == 200
    rates = [value for path, value in answer.body.items() if path.endswith("rate|magnitude")]
    assert rates == [72]


# ── What does not fit ────────────────────────────────────────────────────────────────────────────


async def test_unknown_paths_are_refused_and_named(client: Client, someone: Patient) -> None:
    typo = flat(more={"pulse/any_event:0/rte|magnitude": 72})
    answer = await client.create(someone.ehr_id, typo)
    assert (answer.status, answer.refusal) == (400, Refusal.UNKNOWN_PATHS)
    assert any("rte" in place for place in answer.places)


async def test_an_unknown_template_is_never_taken_for_the_compositions_fault(
    client: Client, someone: Patient
) -> None:
    refused = await client.create(someone.ehr_id, canonical(template="no.such.template"))
    assert (refused.status, refused.refusal) == (422, Refusal.UNKNOWN_TEMPLATE)
    # In FLAT it is an internal error to some releases, and a bad request to others.
    broken = await client.create(someone.ehr_id, Flat("no.such.template", flat().fields))
    assert (broken.status, broken.refusal) in ((500, Refusal.TROUBLE), (400, Refusal.UNKNOWN_TEMPLATE))


async def test_a_value_outside_its_range_is_refused_without_being_repeated(
    client: Client, someone: Patient
) -> None:
    answer = await client.create(someone.ehr_id, flat(123456))
    assert (answer.status, answer.refusal) == (422, Refusal.INVALID)
    assert "123456" not in repr(answer) and "123456" not in answer.summary


async def test_a_composition_without_a_composer_is_malformed(client: Client, someone: Patient) -> None:
    fields = {name: value for name, value in canonical().fields.items() if name != "composer"}
    answer = await client.create(someone.ehr_id, Canonical(fields))
    assert (answer.status, answer.refusal) == (400, Refusal.MALFORMED)


@pytest.mark.parametrize(("written", "instead"), [("at0004", "at0099"), ("DV_QUANTITY", "DV_COUNT")])
async def test_what_stands_where_its_template_has_nothing_of_it_is_not_stored(
    client: Client, someone: Patient, written: str, instead: str
) -> None:
    """EHRbase calls another type of value its own trouble."""
    fields = orjson.loads(orjson.dumps(canonical().fields).replace(written.encode(), instead.encode()))
    uid = someone.first(str(uuid4()))
    answer = await client.create(someone.ehr_id, Canonical(fields), uid)
    assert answer.refusal in (Refusal.INVALID, Refusal.MALFORMED, Refusal.TROUBLE)
    assert (await client.composition(someone.ehr_id, uid.object_id)).status == 404


# ── Contributions ────────────────────────────────────────────────────────────────────────────────


async def test_a_contribution_makes_all_of_its_versions(client: Client, someone: Patient) -> None:
    old, new = await stored(client, someone), someone.first(str(uuid4()))
    doomed = await stored(client, someone)
    answer = await client.contribute(
        someone.ehr_id,
        contribution(modified(old, canonical(75)), created(new, canonical(76)), deleted(doomed)),
    )
    assert answer.status == 201 and answer.uid is not None
    assert await client.versions(someone.ehr_id, old.object_id) == (old, old.next())
    assert await client.versions(someone.ehr_id, new.object_id) == (new,)
    assert (await client.composition(someone.ehr_id, doomed.object_id)).deleted
    read = await client.contribution(someone.ehr_id, answer.uid)
    named = {reference["id"]["value"] for reference in read.body["versions"]}
    assert named == {str(old.next()), str(new), str(doomed.next())}


async def test_a_contribution_with_one_bad_version_makes_none(client: Client, someone: Patient) -> None:
    good = someone.first(str(uuid4()))
    bad = canonical(template="no.such.template")
    answer = await client.contribute(
        someone.ehr_id, contribution(created(good, canonical()), created(someone.first(str(uuid4())), bad))
    )
    assert 400 <= answer.status < 500
    assert (await client.composition(someone.ehr_id, good.object_id)).status == 404


# ── Queries ──────────────────────────────────────────────────────────────────────────────────────


@BOTH_FORMS
async def test_what_a_source_record_became_is_found(client: Client, someone: Patient, make: Make) -> None:
    mine, other, elsewhere = (someone.first(str(uuid4())) for _ in range(3))
    assert (await client.create(someone.ehr_id, make(item="7"), mine)).ok
    assert (await client.create(someone.ehr_id, make(item="8"), other)).ok
    assert (await client.create(someone.ehr_id, make(item="7", table="public.lab_results"), elsewhere)).ok
    assert await client.by_source(someone.ehr_id, SOURCE, "public.vital_signs", "7") == (mine,)
    assert await client.by_source(someone.ehr_id, SOURCE, "public.lab_results", "7") == (elsewhere,)
    assert await client.by_source(someone.ehr_id, "elsewhere", "public.vital_signs", "7") == ()
    assert (await client.delete(someone.ehr_id, mine)).ok
    assert await client.by_source(someone.ehr_id, SOURCE, "public.vital_signs", "7") == ()


async def test_what_is_no_query_is_refused(client: Client) -> None:
    assert (await client.query("SELECT", {})).status == 400
