"""What the record system answered → what becomes of the job; and whether to send at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.ehr.circuit import FAILURES_MAX, PAUSE_MAX_S, PAUSE_S, Circuit, broken, hear
from replicator.ehr.client.answers import Answer, Refusal, answer_from
from replicator.ehr.client.faults import Fault, Unreached
from replicator.ehr.client.versions import VersionUid
from replicator.ehr.deliver_content import TYPE, content_in, signed
from replicator.ehr.identity import ChangeId
from replicator.ehr.job import Operation
from replicator.ehr.retry import (
    CAP_S,
    INTERNAL_ERRORS_MAX,
    MEANING,
    Again,
    Conflict,
    Done,
    Found,
    Hold,
    Park,
    Retry,
    Verdict,
    delay_s,
    overtaken_by,
    settle,
    tired,
    verdict,
)
from replicator.wal.lsn import Lsn

CREATE, UPDATE, DELETE, MARK = Operation.CREATE, Operation.UPDATE, Operation.DELETE, Operation.MARK
VERSION = VersionUid.parse("00000000-0000-5000-8000-000000000007::record::2")


def said(status: int, message: str = "", **headers: str) -> Answer:
    """An answer as a server would send it."""
    body = b'{"error": "x", "message": "%s"}' % message.encode() if message else b""
    return answer_from(status, headers, body)


def judged(operation: Operation, answer: Answer | Unreached, tries: int = 0, known: bool = True) -> Verdict:
    return verdict(operation, answer, tries=tries, template_is_known=known)


EXISTS = "Provided Id 0c7e1b4e-0000-5000-8000-000000000000 already exists"
NOT_LATEST = "If-Match version_uid does not match latest version"
NO_TEMPLATE = "Template with template_id 'x' does not exist"


@pytest.mark.parametrize(
    ("operation", "answer", "expected"),
    [
        (CREATE, said(201, ETag=f'"{VERSION}"'), Done(VERSION)),
        (CREATE, said(204, ETag=f'"{VERSION}"'), Done(VERSION)),
        (UPDATE, said(200), Done()),
        (UPDATE, said(204), Done()),
        (DELETE, said(204), Done()),
        (DELETE, said(404, "not found"), Done(note="it was not there any more")),
        (UPDATE, said(404, "not found"), Conflict("the server does not find it")),
        (CREATE, said(404, "not found"), Hold("ehr", "the server has no such EHR")),
        (CREATE, said(404, "EHR with id x does not exist"), Hold("ehr", "the server has no such EHR")),
        (CREATE, said(412, EXISTS), Conflict("a composition of this uid is there, or was")),
        (UPDATE, said(412, NOT_LATEST), Conflict("another version is the latest")),
        (DELETE, said(409, "not the latest version"), Conflict("another version is the latest")),
        (DELETE, said(409), Conflict("another version is the latest")),
        (UPDATE, said(409, "EHR with id x does not allow modification"), MEANING[Refusal.NOT_MODIFIABLE]),
        (CREATE, said(412, "Mismatch of creating_system_id"), MEANING[Refusal.WRONG_UID]),
        (UPDATE, said(400, "UUID string too large"), MEANING[Refusal.IF_MATCH_FORM]),
        (CREATE, said(400, "cannot parse"), Park("the server cannot read the composition")),
        (
            CREATE,
            said(400, "Could not consume Parts [x/y/z|magnitude]"),
            Park("the server's template does not have these paths", ("x/y/z|magnitude",)),
        ),
        (
            CREATE,
            said(422, "/content[at0001]/data: The value must be one of"),
            Park("the composition contradicts its template", ("/content[at0001]/data",)),
        ),
        (CREATE, said(422, NO_TEMPLATE), Hold("template", "the server has no such template")),
        (CREATE, said(401), MEANING[Refusal.UNAUTHORISED]),
        (CREATE, said(403), MEANING[Refusal.UNAUTHORISED]),
        (CREATE, said(302), Hold("server", "the server refuses our requests: check ehr.url and ehr.auth")),
        (CREATE, said(406), Hold("server", "the server refuses our requests: check ehr.url and ehr.auth")),
        (CREATE, said(415), Hold("server", "the server refuses our requests: check ehr.url and ehr.auth")),
        (CREATE, said(418), Park("the server refuses it")),
        (CREATE, said(408), Retry("the server is in trouble", True, None, True)),
        (CREATE, said(429, **{"Retry-After": "7"}), Retry("the server is in trouble", True, 7.0, True)),
        (CREATE, said(502), Retry("the server is in trouble", True, None, True)),
        (CREATE, said(503), Retry("the server is in trouble", True, None, True)),
        (CREATE, said(504), Retry("the server is in trouble", True, None, True)),
    ],
)
def test_what_an_answer_means(operation: Operation, answer: Answer, expected: Verdict) -> None:
    assert judged(operation, answer) == expected


def test_every_refusal_has_a_meaning() -> None:
    assert set(MEANING) == set(Refusal)


@pytest.mark.parametrize("fault", list(Fault))
def test_no_answer_is_tried_again_and_looked_after_if_it_may_have_been_obeyed(fault: Fault) -> None:
    found = judged(CREATE, Unreached(fault, "create"))
    sent = fault in (Fault.SILENT, Fault.LOST, Fault.GARBLED, Fault.TOO_LARGE)
    assert found == Retry(str(fault), look_first=sent, is_outage=True)


def test_an_internal_error_is_tried_a_few_times_and_is_no_outage() -> None:
    assert judged(CREATE, said(500)) == Retry("the server had an internal error", look_first=True)
    assert isinstance(judged(CREATE, said(500), INTERNAL_ERRORS_MAX - 1), Retry)
    assert isinstance(judged(CREATE, said(500), INTERNAL_ERRORS_MAX), Park)


def test_an_internal_error_without_a_known_template_holds_the_template() -> None:
    found = judged(CREATE, said(500), known=False)
    assert isinstance(found, Hold) and found.scope == "template"


# What is there.


OURS, EARLIER, LATER = (ChangeId(Lsn(5), ordinal) for ordinal in (3, 2, 4))


def there(change: ChangeId | None, is_deleted: bool = False) -> Found:
    return Found(VERSION, is_deleted, change)


@pytest.mark.parametrize(
    ("operation", "found", "expected"),
    [
        (CREATE, None, Again(CREATE, None)),
        (UPDATE, None, Again(CREATE, None)),
        (CREATE, there(OURS), Done(VERSION, "it was there")),
        (UPDATE, there(OURS), Done(VERSION, "it was there")),
        (UPDATE, there(LATER), overtaken_by(VERSION, LATER)),
        (CREATE, there(EARLIER), Again(UPDATE, VERSION)),
        (UPDATE, there(EARLIER), Again(UPDATE, VERSION)),
        (MARK, there(EARLIER), Again(MARK, VERSION)),
        (CREATE, there(None, is_deleted=True), Again(UPDATE, VERSION)),
        (MARK, there(None, is_deleted=True), Again(MARK, VERSION)),
        (UPDATE, there(None), Park("somebody else has written the latest version: it would be overwritten")),
        (DELETE, None, Done(None, "it was not there any more")),
        (DELETE, there(None, is_deleted=True), Done(VERSION, "it was not there any more")),
        (DELETE, there(EARLIER), Again(DELETE, VERSION)),
        (DELETE, there(OURS), Again(DELETE, VERSION)),
        (DELETE, there(LATER), overtaken_by(VERSION, LATER)),
        (DELETE, there(None), Park("somebody else has written the latest version: it would be overwritten")),
    ],
)
def test_what_is_still_to_be_done(operation: Operation, found: Found | None, expected: object) -> None:
    assert settle(operation, OURS, found) == expected


@given(st.lists(st.integers(0, 9), min_size=1, max_size=12), st.lists(st.integers(0, 30), max_size=20))
def test_delivered_in_any_repetition_the_latest_change_stays(changes: list[int], again: list[int]) -> None:
    """Jobs in order, each perhaps delivered again later: the record ends at the last change."""
    order = sorted(set(changes))
    record: Found | None = None

    def deliver(ordinal: int) -> None:
        nonlocal record
        ours = ChangeId(Lsn(1), ordinal)
        match settle(UPDATE, ours, record):
            case Again(_, preceding):
                number = preceding.number + 1 if preceding else 1
                record = Found(VERSION._replace(number=number), False, ours)
            case Done():
                pass
            case other:
                raise AssertionError(other)

    for done, ordinal in enumerate(order):
        deliver(ordinal)
        for repeated in again:
            deliver(order[repeated % (done + 1)])
    assert record is not None
    assert (record.change, record.version.number) == (ChangeId(Lsn(1), order[-1]), len(order))


# When.


@given(st.integers(0, 10_000), st.floats(0, 1, exclude_max=True))
def test_delays_grow_to_a_bound(tries: int, luck: float) -> None:
    assert 0 <= delay_s(tries, luck) <= CAP_S
    assert delay_s(tries, luck) <= delay_s(tries + 1, luck)


# The same again.


def test_what_is_to_be_created_is_not_said_again_where_it_stands() -> None:
    older, ours = ChangeId(Lsn(1), 1), ChangeId(Lsn(2), 1)
    there = Found(VersionUid("u", "s", 3), False, older, "digest")
    assert settle(Operation.CREATE, ours, there, "digest") == Done(there.version, "it says so already")
    assert settle(Operation.CREATE, ours, there, "other") == Again(Operation.UPDATE, there.version)
    assert settle(Operation.CREATE, ours, there, None) == Again(Operation.UPDATE, there.version)
    # Each change of a row is a version, also one that says the same.
    assert settle(Operation.UPDATE, ours, there, "digest") == Again(Operation.UPDATE, there.version)
    gone = there._replace(is_deleted=True)
    assert settle(Operation.CREATE, ours, gone, "digest") == Again(Operation.UPDATE, gone.version)


def test_a_digest_is_of_what_is_said_and_not_of_where_it_is_from() -> None:
    change, digest = (
        "root/_feeder_audit/originating_system_audit|version_id",
        "originating_system_item_id:1|id",
    )
    _, one = signed({"root/a": 1, change: "1"}, "root", "s")
    fields, same = signed({"root/a": 1, change: "2"}, "root", "s")
    _, other = signed({"root/a": 2, change: "1"}, "root", "s")
    assert one == same == fields[f"root/_feeder_audit/{digest}"] != other
    items = [{"id": "k1", "type": "public.t"}, {"id": same, "type": TYPE}]
    assert content_in({"feeder_audit": {"originating_system_item_ids": items}}) == same
    assert content_in({"feeder_audit": {"originating_system_item_ids": items[:1]}}) is None


# One job that meets what others do not.


def test_a_job_that_alone_finds_the_server_closed_is_parked_in_the_end() -> None:
    held = Hold("server", "it says 415")
    assert tired(held, INTERNAL_ERRORS_MAX - 1, others_pass=True) is held
    assert isinstance(tired(held, INTERNAL_ERRORS_MAX, others_pass=True), Park)
    assert tired(held, 10_000, others_pass=False) is held


@pytest.mark.parametrize("others_pass", [True, False])
def test_what_the_replicator_itself_fails_at_is_parked_in_the_end(others_pass: bool) -> None:
    ours = Retry("ValueError in compose.py:1", is_ours=True)
    assert tired(ours, 0, others_pass=others_pass) is ours
    assert isinstance(tired(ours, INTERNAL_ERRORS_MAX, others_pass=others_pass), Park)


@pytest.mark.parametrize("end", [Retry("nobody listens", is_outage=True), Hold("template", "none"), Done()])
def test_what_is_not_the_jobs_own_never_parks_it(end: Retry | Hold | Done) -> None:
    assert tired(end, 10_000, others_pass=True) is end


# The circuit.


def after(circuit: Circuit, *outages: bool) -> Circuit:
    for is_outage in outages:
        circuit = hear(circuit, is_outage=is_outage)
    return circuit


def test_failures_in_a_row_break_it_and_one_success_forgets_them() -> None:
    nearly = after(Circuit(), *[True] * (FAILURES_MAX - 1))
    assert not nearly.is_broken and after(nearly, True).is_broken
    assert after(nearly, False) == Circuit()


def test_after_an_outage_one_lane_goes_first_and_its_failure_is_the_next_outage() -> None:
    first = broken(after(Circuit(), *[True] * FAILURES_MAX))
    assert (first.lanes(16), first.is_broken) == (1, False)
    assert after(first, True).is_broken
    assert after(first, False).lanes(16) == 16


@given(st.integers(1, 10_000))
def test_pauses_grow_and_are_never_long(outages: int) -> None:
    now, later = Circuit(0, outages).pause_s, Circuit(0, outages + 1).pause_s
    assert PAUSE_S <= now <= later <= PAUSE_MAX_S
    assert later in (2 * now, PAUSE_MAX_S)
