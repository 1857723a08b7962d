"""Which jobs of a lane are delivered at once, and which stand for others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from replicator.ehr.client import VersionUid
from replicator.ehr.identity import ChangeId
from replicator.ehr.job import Job, Operation
from replicator.ehr.lanes import Known, State, Task, is_cut, merged, together
from replicator.wal.lsn import Lsn

ATOMIC = {"readings"}


def task(seq: int, lsn: int, record: str | None, mapping: str = "readings", state: State = "waiting") -> Task:
    at = ChangeId(Lsn(lsn), seq)
    operation = Operation.UPDATE if record else Operation.STATUS
    job = Job(operation, mapping, "t", "k", "p", "e", record, "x", at, 0, b"{}", 0, False)
    return Task(seq, job, state, 0)


@pytest.mark.parametrize(
    ("tasks", "expected"),
    [
        ([], []),
        ([task(1, 8, "a"), task(2, 8, "b"), task(3, 16, "c")], [[1, 2], [3]]),
        ([task(1, 8, "a"), task(2, 8, None), task(3, 8, "b")], [[1, 3], [2]]),
        (
            [task(1, 8, "n", "notes"), task(2, 8, "a"), task(3, 8, "m", "notes"), task(4, 8, "b")],
            [[1], [2, 4], [3]],
        ),
        ([task(1, 8, "a"), task(2, 16, "b"), task(3, 8, "c")], [[1], [2], [3]]),  # replayed one by one
        ([task(1, 8, "a"), task(2, 8, "b", "notes"), task(3, 8, "c", "notes")], [[1], [2], [3]]),
        ([task(1, 7, "a"), task(2, 7, "b")], [[1], [2]]),  # rows that were read from a table
    ],
)
def test_the_changes_of_one_transaction_go_together(tasks: list[Task], expected: list[list[int]]) -> None:
    assert [[one.seq for one in each] for each in together(tasks, ATOMIC)] == expected
    assert [[one.seq for one in each] for each in together(tasks, ())] == [[one.seq] for one in tasks]


@pytest.mark.parametrize(
    ("tasks", "expected"),
    [
        ([], False),
        ([task(1, 8, "a")], True),
        ([task(1, 8, "a"), task(2, 8, "n", "notes"), task(3, 8, None)], True),
        ([task(1, 8, "a"), task(2, 16, "n", "notes")], False),
        ([task(1, 7, "a")], False),
    ],
)
def test_a_transaction_may_go_on_if_any_job_at_the_end_is_one_of_those_that_go_together(
    tasks: list[Task], expected: bool
) -> None:
    assert is_cut(tasks, ATOMIC) == expected
    assert not is_cut(tasks, ())


def instead(tasks: Sequence[Task], atomic: set[str]) -> dict[int, int]:
    return {seq: other.seq for seq, other in merged(tasks, atomic).items()}


def test_of_a_transaction_the_last_version_of_a_row_stands_for_the_others_and_for_no_other_transactions() -> (
    None
):
    tasks = [task(1, 8, "a"), task(2, 8, "b"), task(3, 8, "a"), task(4, 16, "a"), task(5, 16, "a")]
    assert instead(tasks, ATOMIC) == {1: 3, 4: 5}
    assert instead(tasks, set()) == {}


def test_what_is_skipped_stands_for_nothing_and_is_in_nobodys_way() -> None:
    tasks = [task(1, 8, "a"), task(2, 8, "a", state="skipping"), task(3, 8, "a")]
    assert instead(tasks, ATOMIC) == {1: 3}


_THERE = VersionUid("a", "sandbox", 1)


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        (None, {1: 2, 3: 4}),
        (Known(_THERE, True, ChangeId(Lsn(1), 1)), {1: 2, 3: 4}),
        (Known(_THERE, False, ChangeId(Lsn(1), 1)), {1: 4, 2: 4, 3: 4}),
    ],
    ids=["nothing was there", "it was deleted", "it was there"],
)
def test_a_deletion_stands_for_nothing_that_may_still_bring_its_composition(
    known: Known | None, expected: dict[int, int]
) -> None:
    tasks = [replace(task(seq, 8 * seq, "a"), known=known) for seq in (1, 2, 3, 4)]
    tasks = [replace(each, job=each.job._replace(coalesce=True)) for each in tasks]
    tasks[1] = replace(tasks[1], attempts=1)
    assert instead(tasks, set()) == {1: 4, 2: 4, 3: 4}
    tasks[3] = replace(tasks[3], job=tasks[3].job._replace(operation=Operation.DELETE))
    assert instead(tasks, set()) == expected
