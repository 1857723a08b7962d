"""What has gone wrong between clinics and their records, each as it must not happen again here."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from replicator.ehr.bind import validate
from replicator.ehr.compose import NotComposed, Stamp, compose
from replicator.ehr.identity import ChangeId
from replicator.ehr.job import Jobs, Operation
from replicator.ehr.mapping import load_mapping, parse_mapping
from replicator.ehr.model import Row
from replicator.ehr.retry import Again, Conflict, Done, Found, Hold, Park, settle, verdict
from replicator.wal.lsn import Lsn
from tests.unit.ehr.clinic_columns import COLUMNS
from tests.unit.ehr.forms import CONFIG, everything, mapping, plan_of, template, templates
from tests.unit.ehr.test_job import change
from tests.unit.ehr.test_retry import EXISTS, NOT_LATEST, VERSION, said

SHIPPED = load_mapping(CONFIG / "ehr.yaml")
COMMIT = Lsn(77)
STAMP = Stamp("k", ChangeId(COMMIT, 0))
VITALS: Row = {name: None for name in COLUMNS["public.vital_signs"]} | {
    "id": "1b4e28ba-2fa1-11d2-883f-0016d3cca427",
    "patient_id": "p1",
    "recorded_at": "2026-01-02 03:04:05+00",
    "heart_rate_bpm": "72",
}


def jobs_of(
    old: Row | None, new: Row | None, table: str = "vital_signs"
) -> list[tuple[Operation, str | None]]:
    jobs = Jobs(SHIPPED, lambda *_: None, {})
    found = jobs.of(change(old, new, table, COLUMNS[f"public.{table}"]), COMMIT)
    return [(job.operation, job.composition) for job in found]


def test_writing_back_that_a_row_was_delivered_is_not_delivered() -> None:
    """Each delivery wrote to its row, which queued the row again: an endless echo."""
    written_back = {
        "composition_id": "x",
        "ehrbase_synced": "t",
        "ehrbase_synced_at": "2026-01-02",
        "ehrbase_sync_error": "none",
        "ehrbase_retry_count": "1",
    }
    assert jobs_of(VITALS, {**VITALS, **written_back}) == []


def test_an_update_is_a_version_of_the_same_composition() -> None:
    """Every correction became a second composition beside the wrong one."""
    ((_, first),) = jobs_of(None, VITALS)
    ((operation, second),) = jobs_of(VITALS, {**VITALS, "heart_rate_bpm": "73"})
    assert (operation, second) == (Operation.UPDATE, first)
    earlier = Found(VERSION, False, ChangeId(Lsn(1), 0))
    assert settle(Operation.UPDATE, ChangeId(COMMIT, 0), earlier) == Again(Operation.UPDATE, VERSION)


def test_a_deleted_row_does_not_stay_in_the_record() -> None:
    """Nothing listened to deletions at all."""
    ((operation, _),) = jobs_of(VITALS, None)
    assert operation is Operation.DELETE


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("systolic_bp", "blood_pressure_systolic"),
        ("heart_rate", "heart_rate_bpm"),
        ("temperature", "temperature_celsius"),
    ],
)
def test_a_column_of_another_name_is_an_error_and_not_silence(wrong: str, right: str) -> None:
    """Blood pressure, pulse and temperature were dropped for a year: the columns had other names."""
    text = (CONFIG / "ehr.yaml").read_text()
    assert f"column: {right}," in text
    changed = parse_mapping(text.replace(f"column: {right},", f"column: {wrong},"), "ehr.yaml")
    found = [
        problem for problem in validate(changed, templates(), COLUMNS) if "no such column" in problem.what
    ]
    assert len(found) == 1 and found[0].line > 1 and right in found[0].what


def test_a_row_that_says_nothing_is_refused_and_not_sent_empty() -> None:
    """Templates that no builder knew got compositions without content."""
    with pytest.raises(NotComposed, match="every mapped column is empty"):
        compose(plan_of(SHIPPED, "vital_signs"), {**VITALS, "heart_rate_bpm": None}, STAMP)


def test_a_mapping_without_content_is_refused_before_anything_is_sent() -> None:
    record = everything("every_type/observed/text: {constant: x}")
    assert ["no column is written" in problem.what for problem in validate(record, templates())] == [True]


def test_a_template_the_server_lacks_is_told_before_anything_is_sent() -> None:
    """Five template ids existed nowhere; each row of theirs failed, one by one."""
    known = {name: each for name, each in templates().items() if name != "IDCR - Problem List.v1"}
    (problem,) = validate(SHIPPED, known, COLUMNS)
    assert problem.key == "tables.problems.template" and "upload it" in problem.what


def test_an_invented_path_is_told_before_anything_is_sent() -> None:
    """Archetypes were made up that were in no template: nothing was ever stored."""
    found = validate(everything("every_type/vital_signs/systolic: a"), templates())
    assert ["no such path in the template" in problem.what for problem in found] == [True]


@pytest.mark.parametrize("key", ["1b4e28ba-2fa1-11d2-883f-0016d3cca427", "42", "ordre/7 à", ""])
def test_keys_of_any_type_are_text(key: str) -> None:
    """uuid here and text there: a cast failed, and with it the clinic's own INSERT."""
    ((operation, composition),) = jobs_of(None, {**VITALS, "id": key})
    assert operation is Operation.CREATE and composition is not None


def test_a_patient_whose_ehr_does_not_exist_yet_has_one_already_by_name() -> None:
    """Rows of patients without an EHR were dropped with a warning."""
    (job,) = Jobs(SHIPPED, lambda *_: None, {}).of(
        change(None, VITALS, "vital_signs", COLUMNS["public.vital_signs"]), COMMIT
    )
    assert job.ehr is not None and job.trouble is None
    missing = verdict(
        Operation.CREATE, said(404, "EHR with id x does not exist"), tries=0, template_is_known=True
    )
    assert isinstance(missing, Hold) and missing.scope == "ehr"


def test_a_row_without_a_patient_waits_where_somebody_sees_it() -> None:
    """`patient_id=eq.undefined`."""
    (job,) = Jobs(SHIPPED, lambda *_: None, {}).of(
        change(None, {**VITALS, "patient_id": None}, "vital_signs", COLUMNS["public.vital_signs"]), COMMIT
    )
    assert job.trouble == "no patient" and job.snapshot is not None


def test_no_number_of_failures_deletes_a_job() -> None:
    """Failed rows were deleted to tidy up."""
    for tries in (0, 5, 1000):
        for status in (400, 401, 404, 409, 412, 422, 500, 503):
            found = verdict(Operation.UPDATE, said(status), tries=tries, template_is_known=True)
            assert not isinstance(found, Done)


def test_two_deliveries_of_one_change_are_one_composition() -> None:
    """Runs that overlapped posted twice."""
    again = verdict(Operation.CREATE, said(412, EXISTS), tries=0, template_is_known=True)
    assert isinstance(again, Conflict)
    ours = ChangeId(COMMIT, 0)
    assert isinstance(settle(Operation.CREATE, ours, Found(VERSION, False, ours)), Done)


def test_a_refused_update_that_was_already_applied_is_done() -> None:
    again = verdict(Operation.UPDATE, said(412, NOT_LATEST), tries=1, template_is_known=True)
    assert isinstance(again, Conflict)
    ours = ChangeId(COMMIT, 0)
    assert isinstance(settle(Operation.UPDATE, ours, Found(VERSION, False, ours)), Done)


def test_a_deletion_refused_as_stale_reads_and_deletes_the_latest() -> None:
    again = verdict(Operation.DELETE, said(409, "not the latest version"), tries=0, template_is_known=True)
    assert isinstance(again, Conflict)
    latest = Found(VERSION, False, ChangeId(Lsn(1), 0))
    assert settle(Operation.DELETE, ChangeId(COMMIT, 0), latest) == Again(Operation.DELETE, VERSION)


def test_an_answer_without_a_body_is_success() -> None:
    """A reply without the expected field was recorded as an unknown error, five times, and given up."""
    assert verdict(Operation.CREATE, said(204), tries=0, template_is_known=True) == Done()


def test_an_internal_error_is_not_tried_for_ever() -> None:
    """A FLAT composition of a template that is not there is a 500, and always will be."""
    unseen = verdict(Operation.CREATE, said(500), tries=0, template_is_known=False)
    assert isinstance(unseen, Hold) and unseen.scope == "template"
    assert isinstance(verdict(Operation.CREATE, said(500), tries=99, template_is_known=True), Park)


def test_a_template_of_another_name_than_its_file_is_noticed() -> None:
    """The id inside a template's file was another than the file's name; one has two blanks in it."""
    table = "t:\n  key: id\n  patient: p\n  ctx: {time: at}\n  template: IDCR -  Adverse Reaction List.v1\n"
    record = mapping(table + "  fields: {x/y: a}\n")
    wanted = record.tables["t"].template
    assert wanted is not None and wanted.id == "IDCR -  Adverse Reaction List.v1"
    found = validate(record, {wanted.id: template("notes")})
    assert found[0].what == "the server answered with another template"


def test_the_label_of_a_code_is_the_templates_own() -> None:
    """'The value X must be Y': labels written from memory."""
    row: dict[str, str | None] = {name: None for name in COLUMNS["public.immunizations"]}
    row |= {"vaccine_name": "BCG", "administration_date": "2026-01-02"}
    flat = compose(plan_of(SHIPPED, "immunizations"), row, STAMP)
    state = "immunisation_summary/immunisation_procedure:0/ism_transition/current_state"
    assert (flat[f"{state}|code"], flat[f"{state}|value"]) == ("245", "active")


def test_the_time_is_the_rows_and_not_the_deliverys() -> None:
    """Every composition began when it was sent."""
    flat = compose(plan_of(SHIPPED, "vital_signs"), VITALS, STAMP)
    assert flat["vital_signs_observations/context/start_time"] == "2026-01-02T03:04:05+00:00"


def test_names_and_addresses_of_patients_make_no_job() -> None:
    """Name, birth date, e-mail and telephone were written into the status of every EHR."""
    users: Row = {name: "x" for name in COLUMNS["public.users"]}
    assert jobs_of(users, {**users, "full_name": "y", "email": "z"}, "users") == []
    ((operation, composition),) = jobs_of(None, users, "users")
    assert (operation, composition) == (Operation.STATUS, None)


def test_a_row_saved_again_without_a_change_is_nothing() -> None:
    """A second signature met a unique key, and the clinic's own UPDATE was undone."""
    assert jobs_of(VITALS, VITALS) == []


# What only a queue at work, or a record system, can show.

ELSEWHERE = {
    "The clinic's own statements failed, because something of the queue's did.": (
        "database/test_queue_composed.py::test_nothing_of_ours_can_fail_a_clinical_write"
    ),
    "Two programs emptied one queue, each waiting for what the other would never say.": (
        "database/test_queue_run.py::test_workers_alone_deliver_together_whatever_their_clocks_say"
    ),
    "What one that died had begun was never taken up again.": (
        "database/test_queue_killed.py::test_killed_at_any_step_it_delivers_each_change_once"
    ),
    "Runs that overlapped posted the same row twice.": (
        "database/test_queue_killed.py::test_one_that_wakes_up_late_changes_nothing"
    ),
    "An answer got lost, and the row was posted again.": (
        "database/test_queue_delivered.py::test_an_answer_that_got_lost_does_not_make_it_twice"
    ),
    "A patient's changes came in any order.": (
        "database/test_queue_killed.py::test_a_later_version_is_not_sent_before_the_earlier_one_is_recorded"
    ),
    "One row that could not be delivered was tried instead of all others.": (
        "database/test_queue_delivered.py::test_a_composition_that_breaks_a_rule_parks_its_lane_and_no_other"
    ),
    "Rows without a snapshot were queued, and nobody could tell what they had said.": (
        "database/test_queue_composed.py::test_all_that_a_mapping_asks_for_is_in_the_record"
    ),
    "Failed rows were deleted to tidy up, and once the whole queue.": (
        "database/test_queue_lanes.py::test_nothing_undelivered_is_ever_forgotten"
    ),
    "What had been lost with the queue could not be had again.": (
        "database/test_queue_verbs.py::test_a_record_that_was_lost_is_rebuilt_from_the_source"
    ),
    "Two EHRs were made for one patient, or one that nobody could find.": (
        "database/test_queue_delivered.py::test_an_ehr_that_somebody_makes_at_the_same_moment_is_used"
    ),
    "Templates came months after the rows that needed them.": (
        "database/test_queue_delivered.py::test_a_missing_template_holds_its_lanes_until_it_is_there"
    ),
    "Templates were uploaded that the server cannot read, and nobody was told.": (
        "ehrbase/test_client_on_both.py::test_what_is_no_template_is_refused"
    ),
    "The record system took longer to start than others had patience.": (
        "database/test_queue_delivered.py::test_a_server_that_starts_later_is_waited_for"
    ),
    "What the reference model demands of every part was found out by trying.": (
        "unit/ehr/test_canonical.py::test_it_is_what_one_would_write_by_hand"
    ),
}


@pytest.mark.parametrize("test", ELSEWHERE.values(), ids=lambda test: test.partition("::")[2])
def test_each_lesson_has_its_test(test: str) -> None:
    file, _, name = test.partition("::")
    found = ast.parse((Path(__file__).parents[2] / file).read_text()).body
    assert name in {node.name for node in found if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
