"""An inserted row's line says the same whichever way it took."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.ehr.job import Jobs
from replicator.ehr.queue import Lines
from replicator.ehr.queue_inserted import insertion
from replicator.wal.lsn import Lsn
from replicator.wal.messages import Column, Relation
from replicator.wal.transactions import Change, Kind
from tests.unit.ehr.forms import mapping

NAMES = ("id", "patient_id", "a", "at")
PLAIN = "t: {key: id, patient: patient_id, template: x, ctx: {time: at}, fields: {x/y: a}%s}"
RELATION = Relation(1, "public", "t", "f", tuple(Column(name, 25, -1, name == "id") for name in NAMES))
TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)
KEYS = st.one_of(st.none(), TEXTS, st.uuids().map(str), st.integers(0, 10**9).map(str))


@given(key=KEYS.filter(bool), patient=KEYS, value=st.one_of(st.none(), TEXTS), ordinal=st.integers(1, 10**6))
def test_the_short_way_says_what_the_long_way_says(
    key: str | None, patient: str | None, value: str | None, ordinal: int
) -> None:
    record = mapping(PLAIN % "")
    change = Change(Kind.INSERT, RELATION, None, (key, patient, value, "2026-01-01"), ordinal)
    short = insertion(record, "public.t", NAMES)
    assert short is not None and change.new is not None
    line = short(change.new, f"16/B374D848\t{ordinal}")
    is_plain = key is not None and key.isalnum() and patient is not None and patient.isalnum()
    assert line is not None or not is_plain
    if line is None:
        return
    slow, fast = Lines(), Lines()
    (job,) = Jobs(record, lambda *asked: None, {}).of(change, Lsn.parse("16/B374D848"))
    slow.add(job)
    fast.add_line(line, job.priority)
    # Postgres reads a uuid with or without its dashes.
    ids = {str(job.ehr): "ehr", str(job.composition): "composition"}
    bare = {name.replace("-", ""): role for name, role in ids.items()}
    said = [ids.get(part, part) for part in slow.numbered().decode().split("\t")]
    assert [ids.get(part, bare.get(part, part)) for part in fast.numbered().decode().split("\t")] == said
    assert slow.lanes.keys() == fast.lanes.keys()


@pytest.mark.parametrize(
    "more",
    [", filter: a = 1", ", soft_delete: a", ", commit: longitudinal", ", commit: episodic, episode: a"],
)
def test_a_table_of_which_more_is_asked_takes_the_long_way(more: str) -> None:
    assert insertion(mapping(PLAIN % more), "public.t", NAMES) is None
