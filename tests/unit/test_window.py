"""What is left of a chunk at its high mark is what nobody has changed; never an older version of a row."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replicator.wal import window
from replicator.wal.messages import Column, Relation, Row
from replicator.wal.transactions import Change, Kind
from replicator.wal.window import Chunk, Key, Visibility, Windows, key_of

COLUMNS = (Column("note", 25, -1, False), Column("id", 23, -1, True))
VISITS, OTHERS = (Relation(oid, "public", "visits", "f", COLUMNS) for oid in (7, 8))
KEY_AT = (1,)
#: A reading that saw every transaction there was.
ALL = Visibility(1000, 1000, frozenset())


def chunk(*rows: Row, saw: Visibility = ALL, is_last: bool = True) -> Chunk:
    return Chunk(VISITS, KEY_AT, rows, saw, is_last)


def update(old: Row | None, new: Row | None, of: Relation = VISITS) -> Change:
    return Change(Kind.UPDATE, of, old, new, 0)


def truncate(of: Relation = VISITS) -> Change:
    return Change(Kind.TRUNCATE, of, None, None, 0)


@pytest.fixture
def windows() -> Windows:
    """With one table being copied, and a window about to be opened."""
    windows = Windows()
    windows.watch(VISITS.oid)
    windows.expect("w", VISITS.oid, KEY_AT)
    return windows


def rest(windows: Windows, name: str = "w") -> list[Row | None] | None:
    """The rows that still count at the high mark; None if they are to be read again."""
    merged = windows.high(name)
    assert merged is not None
    assert all(change.kind is Kind.INSERT and change.old is None for change in merged.changes)
    return None if merged.is_stale else [change.new for change in merged.changes]


A, B, C = ("a", "1"), ("b", "2"), ("c", "3")

# -- What was visible ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "xid", "saw"),
    [
        ("10:20:", 9, True),
        ("10:20:10,15", 10, False),
        ("10:20:10,15", 11, True),
        ("10:20:10,15", 15, False),
        ("10:20:10,15", 19, True),
        ("10:20:10,15", 20, False),
        ("10:20:10,15", 21, False),
        # Around the end of 32 bits, half of all ids lie before xmax and half after it.
        ("4294967300:4294967310:4294967301", 4, True),
        ("4294967300:4294967310:4294967301", 5, False),
        ("4294967300:4294967310:4294967301", 14, False),
        ("4294967300:4294967310:4294967301", 4294967290, True),
        ("4294967290:4294967310:4294967292", 4294967292, False),
        ("4294967290:4294967295:", 4294967289, True),
        ("4294967290:4294967295:", 3, False),
        ("4294967290:4294967296:", 0, False),
    ],
)
def test_a_snapshot_says_which_transactions_it_saw(text: str, xid: int, saw: bool) -> None:
    assert Visibility.parse(text).saw(xid) is saw


# -- Between the marks -----------------------------------------------------------------------------


def test_a_chunk_that_nobody_touched_is_merged_whole(windows: Windows) -> None:
    windows.low("w")
    windows.deposit("w", chunk(A, B))
    assert rest(windows) == [A, B]


def test_changes_have_places_of_their_own(windows: Windows) -> None:
    windows.low("w")
    windows.deposit("w", chunk(A, B, C))
    windows.pass_by(5, [update(None, ("new", "1"))])
    merged = windows.high("w")
    assert merged is not None and [change.ordinal for change in merged.changes] == [1, 2]


@pytest.mark.parametrize(
    "change",
    [
        update(None, ("new", "2")),
        update(("b", "2"), None),
        update((None, "2"), ("b", "9")),
        update(("x", "9"), B),
    ],
    ids=["changed", "deleted", "moved away", "moved there"],
)
def test_a_row_that_was_touched_between_the_marks_is_left_out(windows: Windows, change: Change) -> None:
    windows.low("w")
    windows.deposit("w", chunk(A, B, C))
    windows.pass_by(5, [change])
    assert rest(windows) == [A, C]


def test_what_was_touched_before_the_low_mark_counts_as_it_was_read(windows: Windows) -> None:
    windows.pass_by(5, [update(None, B)])
    windows.low("w")
    windows.deposit("w", chunk(A, B))
    assert rest(windows) == [A, B]


def test_a_table_truncated_between_the_marks_leaves_nothing(windows: Windows) -> None:
    windows.low("w")
    windows.deposit("w", chunk(A, B))
    windows.pass_by(5, [truncate(), update(None, ("again", "1"))])
    assert rest(windows) == []


def test_other_tables_are_no_concern(windows: Windows) -> None:
    windows.low("w")
    windows.deposit("w", chunk(A, B))
    windows.pass_by(5, [update(None, ("new", "1"), OTHERS), truncate(OTHERS)])
    assert rest(windows) == [A, B]


def test_two_tables_are_copied_without_minding_each_other(windows: Windows) -> None:
    windows.watch(OTHERS.oid)
    windows.expect("v", OTHERS.oid, KEY_AT)
    windows.low("w")
    windows.low("v")
    windows.deposit("w", chunk(A))
    windows.deposit("v", Chunk(OTHERS, KEY_AT, [A], ALL, True))
    windows.pass_by(5, [update(None, ("new", "1"), OTHERS)])
    assert rest(windows, "v") == [] and rest(windows) == [A]


# -- What the reading could not see ----------------------------------------------------------------


def test_a_transaction_that_passed_before_and_was_not_seen_has_the_chunk_read_again(windows: Windows) -> None:
    windows.pass_by(15, [update(None, B)])
    windows.low("w")
    windows.deposit("w", chunk(A, B, saw=Visibility(15, 20, frozenset({15}))))
    assert rest(windows) is None


def test_one_that_passed_before_the_copy_began_and_was_not_seen_has_it_read_again() -> None:
    windows = Windows()
    windows.pass_by(15, [update(None, B)])
    windows.watch(VISITS.oid)
    windows.expect("w", VISITS.oid, KEY_AT)
    windows.low("w")
    windows.deposit("w", chunk(A, B, saw=Visibility(15, 20, frozenset({15}))))
    assert rest(windows) is None


def test_read_again_it_counts(windows: Windows) -> None:
    test_a_transaction_that_passed_before_and_was_not_seen_has_the_chunk_read_again(windows)
    windows.expect("again", VISITS.oid, KEY_AT)
    windows.low("again")
    windows.deposit("again", chunk(A, B))
    assert rest(windows, "again") == [A, B]


def test_one_that_passes_between_the_marks_need_not_be_seen(windows: Windows) -> None:
    windows.low("w")
    windows.deposit("w", chunk(A, B, saw=Visibility(15, 20, frozenset({15}))))
    windows.pass_by(15, [update(None, ("new", "2"))])
    assert rest(windows) == [A]


def remembered(windows: Windows) -> set[int]:
    return set(windows._tables[VISITS.oid].passed)


def test_what_a_reading_has_seen_need_not_be_remembered(windows: Windows) -> None:
    for xid in (10, 15):
        windows.pass_by(xid, [update(None, B)])
    windows.low("w")
    windows.deposit("w", chunk(A, B, saw=Visibility(15, 20, frozenset({15}))))
    assert rest(windows) is None
    assert remembered(windows) == {15}


def test_of_very_many_transactions_the_oldest_are_forgotten_and_looked_for_in_vain(
    windows: Windows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(window, "REMEMBERED", 3)
    for xid in range(10, 15):
        windows.pass_by(xid, [update(None, B)])
    assert len(remembered(windows)) == 3
    windows.low("w")
    # Of the two that are forgotten, the newer one is held against it.
    windows.deposit("w", chunk(A, B, saw=Visibility(11, 20, frozenset({11}))))
    assert rest(windows) is None
    windows.expect("again", VISITS.oid, KEY_AT)
    windows.low("again")
    windows.deposit("again", chunk(A, B, saw=Visibility(12, 20, frozenset())))
    assert rest(windows, "again") == [A, B]


def test_when_very_much_is_touched_the_same_rows_are_read_again(
    windows: Windows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(window, "TOUCHED_MAX", 2)
    windows.low("w")
    windows.deposit("w", chunk(A))
    windows.pass_by(5, [update(None, ("x", str(number))) for number in (7, 8, 9)])
    assert rest(windows) is None


# -- Marks that are not what they seem -------------------------------------------------------------


def test_marks_of_an_earlier_run_open_nothing(windows: Windows) -> None:
    assert not windows.low("earlier")
    assert windows.high("earlier") is None


def test_a_high_mark_without_a_chunk_brings_nothing(windows: Windows) -> None:
    assert windows.low("w")
    assert windows.high("w") is None


def test_a_high_mark_that_comes_twice_brings_nothing_the_second_time(windows: Windows) -> None:
    windows.low("w")
    windows.deposit("w", chunk(A))
    assert rest(windows) == [A]
    assert windows.high("w") is None


def test_a_table_that_is_forgotten_has_no_windows(windows: Windows) -> None:
    windows.low("w")
    windows.forget(VISITS.oid)
    windows.deposit("w", chunk(A))
    windows.pass_by(5, [update(None, A)])
    assert windows.high("w") is None


def test_a_chunk_knows_where_to_go_on() -> None:
    assert chunk(A, B).last_key == ("2",)
    assert chunk().last_key is None
    assert key_of(("x", None, "3"), (2, 0, 1)) == ("3", "x", None)


# -- Whatever happens in between -------------------------------------------------------------------


class Commit(NamedTuple):
    """A transaction: when it stands in the log, and when others begin to see it."""

    xid: int
    logged_at: int
    seen_at: int
    key: str
    #: Nothing for a row that it deletes.
    value: str | None


@st.composite
def histories(draw: st.DrawFn) -> list[Commit]:
    """Transactions in the order of the log; one waits for a row until the one before it is seen."""
    commits: list[Commit] = []
    free_at: dict[str, int] = {}
    at = 0
    for number in range(draw(st.integers(1, 14))):
        key = draw(st.sampled_from("123"))
        at = max(at, free_at.get(key, 0)) + draw(st.integers(1, 3))
        seen_at = free_at[key] = at + draw(st.integers(0, 9))
        value = draw(st.sampled_from([None, f"v{number}", f"v{number}"]))
        commits.append(Commit(100 + number, at, seen_at, key, value))
    return commits


def state(commits: list[Commit]) -> dict[str, str]:
    rows = {commit.key: commit.value for commit in commits}
    return {key: value for key, value in rows.items() if value is not None}


@settings(max_examples=600, deadline=None)
@given(histories(), st.lists(st.integers(0, 70), min_size=3, max_size=3).map(sorted))
def test_a_merged_chunk_is_what_the_log_holds_at_the_high_mark(
    commits: list[Commit], marks: list[int]
) -> None:
    low, read_at, high = marks
    started = [commit for commit in commits if commit.logged_at <= read_at]
    unseen = frozenset(commit.xid for commit in started if commit.seen_at > read_at)
    xmax = max((commit.xid for commit in started), default=99) + 1
    snapshot = Visibility(min(unseen, default=xmax), xmax, unseen)
    seen = sorted((c for c in started if c.xid not in unseen), key=lambda commit: commit.logged_at)

    windows, held = Windows(), dict[Key, str]()
    windows.watch(VISITS.oid)
    windows.expect("w", VISITS.oid, KEY_AT)
    is_low = False
    for commit in commits:
        if commit.logged_at > low and not is_low:
            is_low = windows.low("w")
        if commit.logged_at > high:
            break
        row = None if commit.value is None else (commit.value, commit.key)
        windows.pass_by(commit.xid, [update(row or (None, commit.key), row)])
        held.pop((commit.key,), None)
        if commit.value is not None:
            held[commit.key,] = commit.value
    if not is_low:
        windows.low("w")
    windows.deposit("w", chunk(*[(value, key) for key, value in state(seen).items()], saw=snapshot))
    merged = windows.high("w")
    assert merged is not None
    before_low = {commit.xid for commit in commits if commit.logged_at <= low}
    assert merged.is_stale == bool(before_low & unseen)
    for change in merged.changes:
        assert change.new is not None
        held[key_of(change.new, KEY_AT)] = str(change.new[0])
    if not merged.is_stale:
        in_log = [commit for commit in commits if commit.logged_at <= high]
        assert held == {(key,): value for key, value in state(in_log).items()}
