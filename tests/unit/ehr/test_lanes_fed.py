"""An inserted row becomes the same job whichever way it took."""

from __future__ import annotations

import sys

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.ehr.identity import composition_named
from replicator.ehr.job import Jobs
from replicator.ehr.queue_added import OVERHEAD, Added
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
    short = insertion(record, "public.t", RELATION.columns)
    assert short is not None
    slow, fast = Added(), Added()
    is_written = short(fast)(change, iter(()), Lsn.parse("16/B374D848")) is None
    is_plain = key is not None and key.isalnum() and patient is not None and patient.isalnum()
    assert is_written or not is_plain
    assert len(fast) == is_written
    if not is_written:
        return
    (job,) = Jobs(record, lambda *asked: None, {}).of(change, Lsn.parse("16/B374D848"))
    slow.add(job)
    ((said, manner),), (plain,) = fast.manners.items(), slow.manners.values()
    assert manner.columns is not None and manner.key_at is not None and manner.begun is not None
    assert manner == plain._replace(columns=NAMES, key_at=0, begun=manner.begun)
    texts = [text.encode() for each in (fast, slow) for lane in each.lanes.values() for text in lane.jobs]
    lean, whole = map(orjson.loads, texts)
    assert (lean.pop("manner"), whole.pop("manner")) == (said, plain.id)
    row = lean["row"]
    # What is not said follows from what is.
    id = composition_named(manner.begun, patient or "", row[manner.key_at]).replace("-", "")
    assert lean | {"row": dict(zip(NAMES, row, strict=True)), "key": row[0], "id": id} == whole
    for added in (fast, slow):
        ((text,),) = (lane.jobs for lane in added.lanes.values())
        alone = Added()
        alone.lane("patient/p", "p", None, 50)
        assert 0 <= added.bytes - alone.bytes - sys.getsizeof(text) <= OVERHEAD
    assert slow.lanes.keys() == fast.lanes.keys()
    assert [(each.name, len(each.jobs), each.priority, each.urgent_upto) for each in slow.lanes.values()] == [
        (each.name, len(each.jobs), each.priority, each.urgent_upto) for each in fast.lanes.values()
    ]


def test_rows_are_added_up_to_the_first_that_goes_the_long_way() -> None:
    """Those after it are left to whoever asked."""
    other = RELATION._replace(oid=2)
    odd = [
        Change(Kind.INSERT, RELATION, None, ("a/b", "p", "", ""), 3),
        Change(Kind.INSERT, RELATION, None, (None, "p", "", ""), 3),
        Change(Kind.INSERT, RELATION, None, ("3", None, "", ""), 3),
        Change(Kind.DELETE, RELATION, ("3", "p", "", ""), None, 3, True),
        Change(Kind.INSERT, other, None, ("3", "p", "", ""), 3),
    ]
    record = mapping(PLAIN % "")
    short = insertion(record, "public.t", RELATION.columns)
    assert short is not None
    plain = [Change(Kind.INSERT, RELATION, None, (str(at), "p", None, "x"), at) for at in (1, 2, 4)]
    for one in odd:
        added, after = Added(), iter([plain[1], one, plain[2]])
        assert short(added)(plain[0], after, 8) is one
        assert (len(added), list(after)) == (2, [plain[2]])


@pytest.mark.parametrize(
    "more",
    [", filter: a = 1", ", soft_delete: a", ", commit: longitudinal", ", commit: episodic, episode: a"],
)
def test_a_table_of_which_more_is_asked_takes_the_long_way(more: str) -> None:
    assert insertion(mapping(PLAIN % more), "public.t", RELATION.columns) is None


@given(
    values=st.tuples(
        st.just("1"), st.just("p"), *[st.one_of(st.none(), TEXTS)] * 3, st.none() | st.just("7.50")
    )
)
def test_a_row_is_kept_as_its_texts_and_its_manner_has_their_names(values: tuple[str | None, ...]) -> None:
    names = ("id", "patient_id", "a'b", 'c"{}\\', "é\n", "n")
    columns = tuple(Column(name, 1700 if name == "n" else 25, -1, False) for name in names)
    short = insertion(mapping(PLAIN % ""), "public.t", columns)
    added = Added()
    change = Change(Kind.INSERT, Relation(1, "public", "t", "f", columns), None, values, 1)
    assert short is not None and short(added)(change, iter(()), 1) is None
    assert b',"row":' + orjson.dumps(values) + b"}]" in b"".join(added.counted(0))
    assert [manner.columns for manner in added.manners.values()] == [names]
