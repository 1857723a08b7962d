"""A Change × the mapping → Jobs: what is created, updated, deleted, and what is nothing at all."""

from __future__ import annotations

import uuid
from collections.abc import Iterable

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.ehr.identity import (
    SPACE,
    ChangeId,
    composition_id,
    composition_named,
    compositions_begin,
    ehr_id,
    joined,
    uuid5,
)
from replicator.ehr.job import Incomplete, Job, Jobs, Operation
from replicator.ehr.model import Row
from replicator.wal.lsn import Lsn
from replicator.wal.messages import UNCHANGED, Column, Relation, Value
from replicator.wal.transactions import Change, Kind
from tests.unit.ehr.forms import everything, mapping

COMMIT = Lsn.parse("16/B374D848")
NAMES = ("id", "patient_id", "a", "status", "deleted_at", "synced", "at", "stay")
BASE = {"id": "7", "patient_id": "p1", "a": "x", "status": "final", "synced": None, "at": "2026-01-02"}


def relation(name: str = "t", names: Iterable[str] = NAMES) -> Relation:
    return Relation(1, "public", name, "f", tuple(Column(each, 25, -1, each == "id") for each in names))


def values(given: Row | None, names: Iterable[str]) -> tuple[Value, ...] | None:
    return None if given is None else tuple(given.get(name) for name in names)


def change(old: Row | None, new: Row | None, table: str = "t", names: Iterable[str] = NAMES) -> Change:
    names = tuple(names)
    kind = Kind.INSERT if old is None else Kind.DELETE if new is None else Kind.UPDATE
    whole = old is not None
    return Change(kind, relation(table, names), values(old, names), values(new, names), 3, whole)


def maker(more: str = "") -> Jobs:
    return Jobs(everything("every_type/observed/text: a", more), lambda *asked: None, {})


def done(jobs: Jobs, old: Row | None, new: Row | None) -> list[tuple[str, str | None]]:
    """The operations of a change and whose they are."""
    return [(job.operation.value, job.patient) for job in jobs.of(change(old, new), COMMIT)]


def test_a_job_says_all_that_delivery_needs() -> None:
    (job,) = maker("priority: 7").of(change(None, BASE), COMMIT)
    assert job == Job(
        operation=Operation.CREATE,
        mapping="t",
        table="public.t",
        key="7",
        patient="p1",
        ehr=ehr_id("clinic", "p1"),
        composition=composition_id("clinic", "t", "p1", ("7",)),
        template="every type.v1",
        change=ChangeId(COMMIT, 3),
        part=0,
        snapshot=orjson.dumps({name: BASE.get(name) for name in NAMES}),
        priority=7,
        coalesce=True,
        begun="composition/clinic/t",
    )
    assert (job.lane, job.idempotency_key) == ("patient/p1", "16/B374D848:3:0:t/7")


def test_a_table_that_is_not_mapped_makes_no_job() -> None:
    assert list(maker().of(change(None, BASE, "other"), COMMIT)) == []


MARK = "delete: mark\nmarked: {every_type/observed/closed: {constant: at0001}}"


@pytest.mark.parametrize(
    ("more", "old", "new", "expected"),
    [
        ("", None, BASE, [("create", "p1")]),
        ("", BASE, {**BASE, "a": "y"}, [("update", "p1")]),
        ("", BASE, BASE, []),
        ("", BASE, None, [("delete", "p1")]),
        ("delete: keep", BASE, None, []),
        (MARK, BASE, None, [("mark", "p1")]),
        # Another patient, or another key.
        ("", BASE, {**BASE, "patient_id": "p2"}, [("delete", "p1"), ("create", "p2")]),
        ("delete: keep", BASE, {**BASE, "patient_id": "p2"}, [("delete", "p1"), ("create", "p2")]),
        (MARK, BASE, {**BASE, "patient_id": "p2"}, [("mark", "p1"), ("create", "p2")]),
        ("", BASE, {**BASE, "id": "8"}, [("delete", "p1"), ("create", "p1")]),
        # Deleted softly.
        ("soft_delete: deleted_at", BASE, {**BASE, "deleted_at": "2026-01-03"}, [("delete", "p1")]),
        ("soft_delete: deleted_at", {**BASE, "deleted_at": "2026"}, BASE, [("create", "p1")]),
        ("soft_delete: deleted_at", {**BASE, "deleted_at": "2026"}, {**BASE, "deleted_at": "2027"}, []),
        ("soft_delete: deleted_at", {**BASE, "deleted_at": "2026"}, None, []),
        ("soft_delete: deleted_at", None, {**BASE, "deleted_at": "2026"}, []),
        ("soft_delete: deleted_at", BASE, {**BASE, "deleted_at": "f"}, [("update", "p1")]),
        (
            "soft_delete: {column: status, values: [void]}",
            BASE,
            {**BASE, "status": "void"},
            [("delete", "p1")],
        ),
        # A filter.
        ("filter: status = 'final'", None, {**BASE, "status": "draft"}, []),
        ("filter: status = 'final'", {**BASE, "status": "draft"}, BASE, [("create", "p1")]),
        ("filter: status = 'final'", BASE, {**BASE, "status": "draft"}, [("delete", "p1")]),
        ("filter: status = 'final'", {**BASE, "status": "draft"}, None, []),
        # What we, or others, write back.
        ("ignore: [synced]", BASE, {**BASE, "synced": "t"}, []),
        ("ignore: [synced]", BASE, {**BASE, "synced": "t", "a": "y"}, [("update", "p1")]),
        # Episodes, and one composition for all of a patient's rows.
        ("commit: episodic\nepisode: stay", None, {**BASE, "stay": "s1"}, [("create", "p1")]),
        (
            "commit: episodic\nepisode: stay",
            {**BASE, "stay": "s1"},
            {**BASE, "stay": "s2"},
            [("create", "p1")],
        ),
        ("commit: longitudinal", BASE, {**BASE, "id": "8"}, [("update", "p1")]),
        ("commit: longitudinal", BASE, None, []),
    ],
)
def test_what_a_change_means(
    more: str, old: Row | None, new: Row | None, expected: list[tuple[str, str]]
) -> None:
    assert done(maker(more), old, new) == expected


def test_a_move_is_two_jobs_in_two_lanes_in_order() -> None:
    first, second = maker().of(change(BASE, {**BASE, "patient_id": "p2"}), COMMIT)
    assert (first.lane, second.lane) == ("patient/p1", "patient/p2")
    assert (first.part, second.part) == (0, 1)
    assert first.composition != second.composition and first.idempotency_key != second.idempotency_key
    assert first.snapshot is None


def test_rows_of_an_episode_share_a_composition() -> None:
    jobs = maker("commit: episodic\nepisode: stay")
    rows = [
        {**BASE, "id": key, "stay": stay} for key, stay in (("1", "s"), ("2", "s"), ("3", None), ("4", None))
    ]
    found = [job.composition for each in rows for job in jobs.of(change(None, each), COMMIT)]
    assert found[0] == found[1] and len(set(found)) == 3


# Patients.


def test_a_row_without_a_patient_is_not_dropped() -> None:
    (job,) = maker().of(change(None, {**BASE, "patient_id": None}), COMMIT)
    assert (job.patient, job.ehr, job.composition, job.trouble) == (None, None, None, "no patient")
    assert job.lane == "row/t/7" and job.snapshot is not None


def test_a_patient_found_later_gets_the_row_and_nothing_is_deleted() -> None:
    assert done(maker(), {**BASE, "patient_id": None}, BASE) == [("create", "p1")]


def test_a_patient_lost_is_a_deletion_and_a_job_in_trouble() -> None:
    first, second = maker().of(change(BASE, {**BASE, "patient_id": None}), COMMIT)
    assert (first.operation, first.lane) == (Operation.DELETE, "patient/p1")
    assert (second.operation, second.trouble) == (Operation.CREATE, "no patient")


def test_the_patient_may_stand_in_another_table() -> None:
    asked: list[tuple[str, str, str, str]] = []

    def find(table: str, column: str, value: str, wanted: str) -> str | None:
        asked.append((table, column, value, wanted))
        return {"c1": "p9"}.get(value)

    text = "t:\n  key: id\n  patient: {column: a, through: cases, key: id, patient: person}\n  template: x\n"
    jobs = Jobs(mapping(text + "  ctx: {time: at}\n  fields: {x/y: b}\n"), find, {})
    (known,) = jobs.of(change(None, {**BASE, "a": "c1"}), COMMIT)
    (unknown,) = jobs.of(change(None, {**BASE, "a": "c2"}), COMMIT)
    assert asked[0] == ("public.cases", "id", "c1", "person")
    assert (known.patient, unknown.trouble) == ("p9", "no patient")


def test_a_filter_that_fails_lets_nothing_through_and_loses_nothing() -> None:
    (job,) = maker("filter: a_column_that_is_gone = 'x'").of(change(None, BASE), COMMIT)
    assert job.trouble == "the filter cannot be computed for this row"


def test_a_filter_follows_a_column_that_changes_its_type() -> None:
    jobs = maker("filter: a < 10")

    def made(oid: int) -> list[Job]:
        columns = tuple(Column(name, oid if name == "a" else 25, -1, name == "id") for name in NAMES)
        row = values({**BASE, "a": "9"}, NAMES)
        told = Change(Kind.INSERT, Relation(1, "public", "t", "f", columns), None, row, 3)
        return list(jobs.of(told, COMMIT))

    integer, text = 23, 25
    assert len(made(integer)) == 1
    assert made(text) == []  # as text it is more than any number
    assert len(made(integer)) == 1


# Several mappings, statuses, child rows, TRUNCATE.


def test_a_row_that_changes_its_kind_moves_from_one_template_to_the_other() -> None:
    one = "  table: t\n  key: id\n  patient: patient_id\n  ctx: {time: at}\n  fields: {x/y: a}\n"
    text = f"draft:\n{one}  template: d\n  filter: status = 'draft'\n"
    text += f"final:\n{one}  template: f\n  filter: status = 'final'\n"
    made = Jobs(mapping(text), lambda *_: None, {})
    jobs = list(made.of(change({**BASE, "status": "draft"}, BASE), COMMIT))
    assert [(job.operation.value, job.template, job.part) for job in jobs] == [
        ("delete", "d", 0),
        ("create", "f", 1),
    ]
    assert len({job.composition for job in jobs}) == 2


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (None, {"id": "p1", "name": "N", "active": "t"}, 1),
        ({"id": "p1", "name": "N", "active": "t"}, {"id": "p1", "name": "M", "active": "t"}, 0),
        ({"id": "p1", "name": "N", "active": "t"}, {"id": "p1", "name": "N", "active": "f"}, 1),
        ({"id": "p1", "name": "N", "active": "t"}, None, 0),
    ],
)
def test_a_patients_row_is_a_status(old: Row | None, new: Row | None, expected: int) -> None:
    jobs = Jobs(mapping("users: {key: id, patient: id, status: {modifiable: active}}"), lambda *_: None, {})
    found = list(jobs.of(change(old, new, "users", ("id", "name", "active")), COMMIT))
    assert len(found) == expected
    for job in found:
        assert (job.operation, job.lane, job.composition) == (Operation.STATUS, "patient/p1", None)


def test_a_child_row_updates_the_rows_it_belongs_to() -> None:
    rows = "{rows: {table: items, parent: {t_id: id}, order: id}, fields: {left: name}}"
    record = everything("every_type/observed/text: a", f"groups:\n  every_type/observed/pair: {rows}")
    jobs = Jobs(record, lambda table, column, value, wanted: f"patient of {value}", {})
    old, new = {"id": "1", "t_id": "7", "name": "a"}, {"id": "1", "t_id": "8", "name": "a"}
    found = list(jobs.of(change(old, new, "items", ("id", "t_id", "name")), COMMIT))
    assert [(job.operation, job.table, job.key, job.patient, job.part) for job in found] == [
        (Operation.UPDATE, "public.t", "7", "patient of 7", 0),
        (Operation.UPDATE, "public.t", "8", "patient of 8", 1),
    ]
    assert found[0].composition == composition_id("clinic", "t", "patient of 7", ("7",))
    assert found[0].snapshot is None
    assert list(jobs.of(change(old, old, "items", ("id", "t_id", "name")), COMMIT)) == []


def test_truncate_ends_what_was_fed_as_the_policy_says() -> None:
    def means(more: str, name: str = "t") -> list[tuple[str, Operation]]:
        emptied = Change(Kind.TRUNCATE, relation(name), None, None, 4)
        made = maker(more)
        assert list(made.of(emptied, COMMIT)) == []
        return [(table.name, operation) for table, operation in made.emptied(emptied)]

    assert means("") == [("t", Operation.DELETE)]
    assert means("delete: keep") == []
    assert means(MARK) == [("t", Operation.MARK)]
    rows = "{rows: {table: items, parent: {t_id: id}, order: id}, fields: {left: name}}"
    assert means(f"groups:\n  every_type/observed/pair: {rows}", "items") == [("t", Operation.UPDATE)]


# What cannot be meant.


@pytest.mark.parametrize("kind", [Kind.UPDATE, Kind.DELETE])
def test_a_change_with_half_its_old_row_is_refused(kind: Kind) -> None:
    new = values(BASE, NAMES) if kind is Kind.UPDATE else None
    with pytest.raises(Incomplete, match=r"a change of public\.t came without its old row"):
        maker().of(Change(kind, relation(), values({"id": "7"}, NAMES), new, 3, False), COMMIT)


def test_a_value_that_was_not_sent_is_refused_and_never_null() -> None:
    new = (*(values(BASE, NAMES) or ())[:-1], UNCHANGED)
    with pytest.raises(Incomplete, match="without the value of stay"):
        maker().of(Change(Kind.INSERT, relation(), None, new, 3), COMMIT)


# Ids.

PARTS = st.text(st.sampled_from("a/~01é"), max_size=4)


@given(st.text())
def test_our_uuid5_is_the_uuid5(name: str) -> None:
    name = name.encode(errors="ignore").decode()
    assert uuid5(SPACE, name) == str(uuid.uuid5(uuid.UUID(str(SPACE)), name))


@given(st.lists(st.text(max_size=3), max_size=4), st.lists(st.text(max_size=3), max_size=4))
def test_different_parts_have_different_names(one: list[str], other: list[str]) -> None:
    if one and other:
        assert (joined(one) == joined(other)) == (one == other)


@given(st.lists(PARTS, min_size=3, max_size=3), st.lists(PARTS, min_size=1, max_size=3))
def test_a_composition_is_named_by_all_of_its_name(of: list[str], record: list[str]) -> None:
    """However it is come by: what has been delivered under an id is found under no other."""
    system, mapping, patient = of
    name = joined(("composition", system, mapping, patient, *record))
    expected = str(uuid.uuid5(uuid.UUID(str(SPACE)), name))
    assert composition_id(system, mapping, patient, record) == expected
    assert composition_named(compositions_begin(system, mapping), patient, joined(record)) == expected


@given(st.integers(0, (1 << 64) - 1), st.integers(0, 1 << 40))
def test_change_ids_are_read_as_written(lsn: int, ordinal: int) -> None:
    assert ChangeId.parse(str(ChangeId(Lsn(lsn), ordinal))) == ChangeId(Lsn(lsn), ordinal)


@pytest.mark.parametrize("text", ["", "1", "0/1", "0/1:", "0/1:x", "x:1", "0/1:-1", "0/1:١"])
def test_what_is_no_change_id(text: str) -> None:
    with pytest.raises(ValueError, match="not a"):
        ChangeId.parse(text)
