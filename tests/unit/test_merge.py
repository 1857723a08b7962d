"""Dead ops become MOVEs and a CLEAR that come to the same, and tell any reader what is left of them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from replicator.buckets import merge as merging
from replicator.buckets.merge import Made, Old, merge, pack, told_before, unpack
from tests.oracle.tight import bounded

_CHECKSUMS = st.integers(-(1 << 31), (1 << 31) - 1)


def put(op_id: int, checksum: int, by: int | None = None) -> Old:
    return Old(op_id, "PUT", checksum, by, None)


def remove(op_id: int, checksum: int, by: int | None = None) -> Old:
    return Old(op_id, "REMOVE", checksum, by, None)


def test_a_run_of_dead_ops_becomes_one_move_in_the_place_of_the_last() -> None:
    merged = merge([put(1, 5), put(2, 6, by=9), remove(4, -7, by=8), put(7, 3, by=11), put(8, 1)], after=0)
    assert merged.gone == [2, 4] and merged.next_after == 8
    [made] = merged.made
    assert made[:4] == (7, "MOVE", 2, 11) and made.ops is not None
    assert [list(part) for part in unpack(7, made.ops)] == [[2, 4], [6, -7]]


def test_the_beginning_becomes_a_clear_also_of_what_was_removed_for_good() -> None:
    merged = merge([put(1, 5, by=2), remove(2, 6), put(3, 1, by=4), put(4, 1)], after=0)
    assert merged.made == [Made(3, "CLEAR", 12, 4, None)] and merged.gone == [1, 2]
    # Further on, what was removed for good is the last word about its row.
    merged = merge([put(1, 5, by=2), remove(2, 6), put(3, 1, by=4), put(4, 1)], after=1)
    assert [made.op_id for made in merged.made] == [1, 3] and merged.gone == []


def test_a_run_at_the_end_is_taken_up_again_with_what_follows() -> None:
    merged = merge([put(1, 5), put(2, 6, by=9), put(3, 6, by=9)], after=0)
    assert merged.next_after == 1, "the MOVE at 3 comes again"
    again = merge([Old(3, "MOVE", 12, 9, merged.made[0].ops), put(5, 1, by=8), put(6, 0)], after=1)
    assert again.gone == [3] and again.made[0][:4] == (5, "MOVE", 13, 9)
    assert [list(part) for part in unpack(5, again.made[0].ops or b"")] == [[2, 3], [6, 6]]


def test_what_is_merged_already_is_left_as_it_is() -> None:
    rows = [Old(3, "CLEAR", 1, 4, None), put(4, 2), Old(7, "MOVE", 3, 9, b""), put(8, 1)]
    merged = merge(rows, after=0)
    assert not merged.made and not merged.gone


@given(
    st.lists(st.tuples(st.integers(1, 5000), _CHECKSUMS), min_size=1, max_size=40),
    st.integers(1, 9),
    st.integers(0, 200_000),
)
def test_a_reader_anywhere_is_told_what_is_left(steps: list[tuple[int, int]], most: int, after: int) -> None:
    ops, op_id = [put(1, 1)], 1
    for step, checksum in steps:
        op_id += step
        ops.append(put(op_id, checksum, by=op_id + 1))
    with bounded({f"{merging.__name__}.MERGED_MAX": most}):
        merged = merge(ops, after=0)
    told = sum(
        made.checksum - (told_before(made.op_id, made.ops, after) if made.ops else 0)
        for made in merged.made
        if made.op_id > after
    )
    expected = sum(op.checksum for op in ops[1:] if op.op_id > after)
    assert (told - expected) % (1 << 32) == 0
    assert len(merged.made) == -(-len(steps) // most) and len(merged.gone) == len(steps) - len(merged.made)


def test_nothing_is_kept_beside_one_that_stands_for_itself() -> None:
    assert pack(5, [], []) is None
