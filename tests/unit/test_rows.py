"""Changes that carry a part of a row are made whole by what was kept of it, or left out and told."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.buckets.kept import Form, Kept, keeps_state, pack_row, unpack_row
from replicator.buckets.rows import _complete, _places
from replicator.wal.messages import UNCHANGED, Column, Identity, Relation, Row
from replicator.wal.transactions import Change, Kind

TEXT = 25


def relation(*names: str, key: tuple[str, ...] = ("id",), identity: Identity = "d") -> Relation:
    columns = tuple(Column(name, TEXT, -1, name in key) for name in names)
    return Relation(7, "public", "letters", identity, columns)


LETTERS = relation("id", "note", "scan")
Standing = dict[bytes, bytes]


def kept(*rows: Row, of: Relation = LETTERS) -> Kept:
    """These rows are stored, and at hand."""
    states = Kept()
    for row in rows:
        states.learn(Form(of).place(row), Form(of).pack(row))
    return states


def standing(*rows: Row, of: Relation = LETTERS) -> Standing:
    return {Form(of).place(row): Form(of).pack(row) for row in rows}


def stored(states: Kept, before: Standing) -> Standing:
    """What storage comes to hold, when it is told what has changed."""
    changed, after = states.changed, dict(before)
    for place in changed.gone():
        del after[place]
    for place, row in changed.brought():
        assert place not in after
        after[place] = row
    for place, row in changed.replaced():
        assert place in after
        after[place] = row
    return after


def change(kind: Kind, old: Row | None, new: Row | None, of: Relation = LETTERS) -> Change:
    return Change(kind, of, old, new, 3)


def completed(states: Kept, *changes: Change) -> tuple[list[tuple[Any, ...]], list[Any]]:
    """What the changes come to, as (kind, old, new), and the holes; `states` is what is known afterwards."""
    holes: list[Any] = []
    whole: list[Change] = []
    for one in changes:
        _complete(one, Form(one.relation), states, whole, holes)
    assert all(done.ordinal == 3 and (done.old_is_whole or done.kind is Kind.INSERT) for done in whole)
    return [(done.kind, done.old, done.new) for done in whole], holes


# -- Which tables ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("identity", "keeps"), [("d", True), ("i", True), ("f", False), ("n", False)])
def test_rows_are_kept_where_the_log_carries_only_a_key(identity: Identity, keeps: bool) -> None:
    assert keeps_state(relation("id", "note", identity=identity)) is keeps


def test_nothing_is_kept_where_there_is_no_key() -> None:
    assert not keeps_state(relation("id", "note", key=()))


# -- A row's life ----------------------------------------------------------------------------------


def test_an_inserted_row_becomes_known() -> None:
    states = kept()
    row = ("1", "first", "wide")
    assert completed(states, change(Kind.INSERT, None, row)) == ([(Kind.INSERT, None, row)], [])
    assert stored(states, standing()) == standing(row)


def test_an_update_gets_the_row_as_it_was_and_what_the_log_left_out() -> None:
    states = kept(("1", "first", "wide"))
    update = change(Kind.UPDATE, None, ("1", None, UNCHANGED))
    whole, holes = completed(states, update)
    assert whole == [(Kind.UPDATE, ("1", "first", "wide"), ("1", None, "wide"))]
    assert stored(states, standing(("1", "first", "wide"))) == standing(("1", None, "wide")) and not holes


def test_a_row_that_moves_to_another_key_is_known_there_and_nowhere_else() -> None:
    states = kept(("1", "first", "wide"))
    moved = change(Kind.UPDATE, ("1", None, None), ("2", "moved", UNCHANGED))
    whole, _ = completed(states, moved)
    assert whole == [(Kind.UPDATE, ("1", "first", "wide"), ("2", "moved", "wide"))]
    assert stored(states, standing(("1", "first", "wide"))) == standing(("2", "moved", "wide"))


def test_two_rows_that_exchange_their_keys_keep_their_values() -> None:
    states = kept(("1", "one", "wide one"), ("2", "two", "wide two"))
    steps = [("1", "9"), ("2", "1"), ("9", "2")]
    notes = {"1": "one", "2": "two", "9": "one"}
    swaps = [change(Kind.UPDATE, (a, None, None), (b, notes[a], UNCHANGED)) for a, b in steps]
    completed(states, *swaps)
    assert stored(states, standing(("1", "one", "wide one"), ("2", "two", "wide two"))) == standing(
        ("1", "two", "wide two"), ("2", "one", "wide one")
    )


def test_a_deleted_row_is_told_whole_and_forgotten() -> None:
    states = kept(("1", "first", None))
    whole, _ = completed(states, change(Kind.DELETE, ("1", None, None), None))
    assert whole == [(Kind.DELETE, ("1", "first", None), None)]
    assert not stored(states, standing(("1", "first", None)))


def test_the_values_of_a_deleted_row_do_not_return_with_its_key() -> None:
    states = kept(("1", "first", "wide"))
    new = ("1", "second", None)
    completed(states, change(Kind.DELETE, ("1", None, None), None), change(Kind.INSERT, None, new))
    assert stored(states, standing(("1", "first", "wide"))) == standing(new)


# -- While a table is being copied -----------------------------------------------------------------


def test_a_row_that_is_not_known_is_left_out_when_values_are_missing_and_its_key_is_told() -> None:
    of = relation("note", "ward", "id", "scan", key=("id", "ward"))
    states = kept()
    update = change(Kind.UPDATE, None, ("n", "5", "1", UNCHANGED), of)
    assert completed(states, update) == ([], [(7, ("5", "1"))])
    assert not stored(states, standing())


def test_a_row_that_is_not_known_becomes_known_when_nothing_is_missing() -> None:
    states = kept()
    row = ("1", "whole", None)
    assert completed(states, change(Kind.UPDATE, None, row)) == ([(Kind.UPDATE, None, row)], [])
    assert stored(states, standing()) == standing(row)


def test_the_deletion_of_a_row_that_is_not_known_concerns_nobody() -> None:
    assert completed(kept(), change(Kind.DELETE, ("1", None, None), None)) == ([], [])


def test_a_row_that_the_copy_brought_to_the_new_key_already_makes_way() -> None:
    states = kept(("2", "read there", "wide"))
    moved = change(Kind.UPDATE, ("1", None, None), ("2", "moved", UNCHANGED))
    whole, holes = completed(states, moved)
    assert whole == [
        (Kind.DELETE, ("2", "read there", "wide"), None),
        (Kind.UPDATE, None, ("2", "moved", "wide")),
    ]
    assert stored(states, standing(("2", "read there", "wide"))) == standing(("2", "moved", "wide"))
    assert not holes


# -- What is kept ----------------------------------------------------------------------------------


@given(st.lists(st.none() | st.text(st.characters(exclude_categories=["Cs"])), max_size=8))
def test_whatever_is_kept_is_read_back(values: list[str | None]) -> None:
    of = relation(*(f"c{number}" for number in range(len(values))))
    assert unpack_row(pack_row(tuple(values), of), of) == tuple(values)


def test_columns_that_were_added_since_are_null() -> None:
    before = pack_row(("1", "first", "wide"), LETTERS)
    assert unpack_row(before, relation("id", "note", "scan", "more")) == ("1", "first", "wide", None)


@pytest.mark.parametrize(
    "names",
    [("id", "note"), ("id", "scan", "note"), ("id", "note", "picture"), ("id", "more", "note", "scan")],
)
def test_a_row_of_other_columns_is_not_known(names: tuple[str, ...]) -> None:
    assert unpack_row(pack_row(("1", "first", "wide"), LETTERS), relation(*names)) is None


def test_nothing_is_nothing() -> None:
    assert unpack_row(None, LETTERS) is None


def test_a_row_is_found_by_its_key_alone() -> None:
    one, other = ("1", "a", "b"), ("1", "c", UNCHANGED)
    assert Form(LETTERS).place(one) == Form(LETTERS).place(other)
    assert Form(LETTERS).place(one) != Form(LETTERS).place(("2", "a", "b"))
    assert Form(LETTERS).place(one) != Form(LETTERS._replace(oid=8)).place(one)


@given(*[st.tuples(*[st.none() | st.text('",[]\\ab', max_size=3)] * 2)] * 2)
def test_two_keys_stand_in_one_place_only_if_they_are_the_same(one: Row, other: Row) -> None:
    of = relation("ward", "id", key=("ward", "id"))
    assert (Form(of).place(one) == Form(of).place(other)) == (one == other)


def test_a_change_names_the_place_of_its_row_and_the_one_that_is_new_to_it() -> None:
    one, two = (Form(LETTERS).place((key, None, None)) for key in "12")
    moved = change(Kind.UPDATE, ("1", None, None), ("2", "moved", UNCHANGED))
    stays = change(Kind.UPDATE, None, ("1", "stays", UNCHANGED))
    assert _places(moved, Form(LETTERS)) == (one, two)
    assert _places(stays, Form(LETTERS)) == (one, None)
    assert _places(change(Kind.INSERT, None, ("1", "a", "b")), Form(LETTERS)) == (None, one)
    assert _places(change(Kind.DELETE, ("1", None, None), None), Form(LETTERS)) == (one, None)
    assert _places(change(Kind.TRUNCATE, None, None), Form(LETTERS)) == (None, None)
    full = LETTERS._replace(identity="f")
    assert _places(change(Kind.INSERT, None, ("1", "a", "b"), full), Form(full)) == (None, None)
