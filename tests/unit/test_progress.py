"""What is stored may be acknowledged; a quiet position is stored when it pays, or when somebody waits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.wal.lsn import Lsn
from replicator.wal.progress import QUIET_BYTES, Progress

START = Lsn(1000)


def progress() -> Progress:
    return Progress(START, quiet_bytes=100)


def test_nothing_is_due_at_the_start() -> None:
    assert progress().due() is None
    assert progress().stored_lsn == START


def test_what_was_heard_is_not_stored() -> None:
    here = progress()
    here.hear(Lsn(5000))
    assert here.stored_lsn == START


@pytest.mark.parametrize(("ahead", "is_due"), [(0, False), (1, False), (99, False), (100, True), (101, True)])
def test_a_quiet_position_is_due_when_it_is_far_enough_ahead(ahead: int, is_due: bool) -> None:
    here = progress()
    here.hear(Lsn(START + ahead))
    assert here.due() == (START + ahead if is_due else None)


def test_storing_it_settles_it() -> None:
    here = progress()
    here.hear(Lsn(1200))
    here.store(Lsn(1200))
    assert here.stored_lsn == 1200 and here.due() is None


def test_a_commit_past_everything_heard_leaves_nothing_due() -> None:
    here = progress()
    here.hear(Lsn(1200))
    here.store(Lsn(9000))
    assert here.due() is None


def test_an_older_position_does_not_take_back_a_newer_one() -> None:
    here = progress()
    here.hear(Lsn(1200))
    here.hear(Lsn(1100))
    assert here.due() == 1200


def test_what_somebody_waits_for_is_due_as_soon_as_it_was_heard() -> None:
    here = progress()
    here.want(Lsn(1010))
    assert here.due() is None
    here.hear(Lsn(1009))
    assert here.due() is None
    here.hear(Lsn(1011))
    assert here.due() == 1011


def test_who_waits_for_what_is_stored_already_makes_nothing_due() -> None:
    here = progress()
    here.want(START)
    here.hear(Lsn(1010))
    assert here.due() is None


def test_the_furthest_that_is_wanted_counts() -> None:
    here = progress()
    here.want(Lsn(1050))
    here.want(Lsn(1010))
    here.hear(Lsn(1020))
    assert here.due() is None
    here.hear(Lsn(1050))
    assert here.due() == 1050


def test_a_checkpoint_never_goes_back() -> None:
    with pytest.raises(AssertionError, match="never goes back"):
        progress().store(Lsn(START - 1))


def test_storing_a_checkpoint_in_the_source_itself_does_not_make_the_next_one_due() -> None:
    here, written = Progress(START), 20_000  # far more than one checkpoint's commit writes
    here.hear(Lsn(START + QUIET_BYTES))
    stored = 0
    while (lsn := here.due()) is not None:
        here.store(lsn)
        here.hear(Lsn(lsn + written))
        stored += 1
    assert stored == 1


@given(st.lists(st.tuples(st.sampled_from(["hear", "want", "store"]), st.integers(0, 1000)), max_size=30))
def test_what_is_due_was_heard_and_lies_ahead(steps: list[tuple[str, int]]) -> None:
    here, heard = progress(), {int(START)}
    for step, by in steps:
        lsn = Lsn(START + by)
        match step:
            case "hear":
                heard.add(lsn)
                here.hear(lsn)
            case "want":
                here.want(lsn)
            case _:
                here.store(Lsn(max(lsn, here.stored_lsn)))
        due = here.due()
        assert due is None or (due == max(heard) and due > here.stored_lsn)
        if max(heard) - here.stored_lsn >= 100:
            assert due is not None
