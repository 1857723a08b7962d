"""Messages become transactions, however the stream is cut; what cannot stand where it stands is refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.errors import ProtocolError
from replicator.wal.fast import decode_all
from replicator.wal.frames import Keepalive
from replicator.wal.lsn import Lsn
from replicator.wal.messages import (
    UNCHANGED,
    Begin,
    BeginPrepare,
    Column,
    Commit,
    CommitPrepared,
    Delete,
    Insert,
    Inserts,
    LogicalMessage,
    Message,
    Origin,
    Prepare,
    Relation,
    RollbackPrepared,
    StreamAbort,
    StreamCommit,
    StreamPrepare,
    StreamStart,
    StreamStop,
    Truncate,
    Type,
    Update,
)
from replicator.wal.transactions import Assembler, Change, Kind, Transaction, relations_of

Said: TypeAlias = Message | Inserts | Keepalive

COLUMNS = (Column("id", 23, -1, True), Column("note", 25, -1, False))
PATIENTS = Relation(1, "public", "patients", "d", COLUMNS)
VISITS = Relation(2, "public", "visits", "f", COLUMNS)
OPS = Relation(9, "replicator", "ops", "d", COLUMNS)
BEGIN, COMMIT = Begin(Lsn(100), 7, 5), Commit(Lsn(100), Lsn(120), 7)
ROW = ("1", "a")


def patient(number: int) -> Insert:
    return Insert(1, (str(number), "a"))


def keepalive(lsn: int) -> Keepalive:
    return Keepalive(Lsn(lsn), 0, False)


def message(content: bytes = b"", *, transactional: bool = True) -> LogicalMessage:
    return LogicalMessage(transactional, Lsn(90), "prefix", content)


def only(*messages: Said) -> Transaction:
    """The one transaction that these messages amount to."""
    (transaction,) = Assembler(own_schema="replicator").assemble(messages).transactions
    return transaction


# -- Transactions and their pieces -----------------------------------------------------------------


def test_a_transaction_has_the_positions_of_its_begin_and_its_commit() -> None:
    found = only(BEGIN, PATIENTS, patient(1), COMMIT)
    assert (found.xid, found.commit_lsn, found.committed_at, found.end_lsn) == (5, 100, 7, 120)
    assert found.changes == [Change(Kind.INSERT, PATIENTS, None, ROW, 0)]
    assert found.relations == [PATIENTS]


def test_pieces_of_a_large_transaction_count_on() -> None:
    assembler = Assembler()
    drains: list[list[Said]] = [[BEGIN, PATIENTS, patient(1), patient(2)], [patient(3)], [patient(4), COMMIT]]
    pieces = [piece for drain in drains for piece in assembler.assemble(drain).transactions]
    assert [[change.ordinal for change in piece.changes] for piece in pieces] == [[0, 1], [2], [3]]
    assert [piece.end_lsn for piece in pieces] == [None, None, 120]
    assert {(piece.xid, piece.commit_lsn, piece.committed_at) for piece in pieces} == {(5, 100, 7)}


def test_a_drain_that_brings_nothing_of_the_open_transaction_makes_no_piece() -> None:
    assembler = Assembler()
    assembler.assemble([BEGIN, PATIENTS, patient(1)])
    assert assembler.assemble([keepalive(110)]).transactions == []
    assert assembler.in_transaction


def test_a_commit_alone_still_ends_the_transaction_whose_pieces_went_before() -> None:
    assembler = Assembler()
    assembler.assemble([BEGIN, PATIENTS, patient(1)])
    (last,) = assembler.assemble([COMMIT]).transactions
    assert last.changes == [] and last.end_lsn == 120
    assert not assembler.in_transaction


def test_a_piece_does_not_change_after_it_was_handed_on() -> None:
    assembler = Assembler()
    (piece,) = assembler.assemble([BEGIN, PATIENTS, patient(1), message()]).transactions
    assembler.assemble([VISITS, patient(2), message(), COMMIT])
    assert (len(piece.changes), piece.messages, piece.relations) == (1, [message()], [PATIENTS])
    assert piece.end_lsn is None


def test_ordinals_begin_again_with_each_transaction() -> None:
    second = Begin(Lsn(200), 8, 6), Commit(Lsn(200), Lsn(220), 8)
    messages: list[Said] = [BEGIN, PATIENTS, patient(1), patient(2), COMMIT, second[0], patient(3), second[1]]
    found = Assembler().assemble(messages).transactions
    assert [[change.ordinal for change in one.changes] for one in found] == [[0, 1], [0]]


def test_a_relation_is_remembered_until_it_is_described_anew() -> None:
    wider = PATIENTS._replace(columns=(*COLUMNS, Column("more", 25, -1, False)))
    said: list[Said] = [BEGIN, PATIENTS, patient(1), wider, Insert(1, ("2", "b", "c")), COMMIT]
    pieces = Assembler().assemble(said).transactions
    # What describes it anew is met after what was written before, and before what is written after.
    assert [piece.relations for piece in pieces] == [[PATIENTS], [wider]]
    assert [[change.relation for change in piece.changes] for piece in pieces] == [[PATIENTS], [wider]]
    assert [[change.ordinal for change in piece.changes] for piece in pieces] == [[0], [1]]
    assert [piece.end_lsn for piece in pieces] == [None, 120]


def test_a_relation_described_again_as_it_was_makes_no_piece() -> None:
    found = only(BEGIN, PATIENTS, patient(1), PATIENTS, patient(2), COMMIT)
    assert len(found.changes) == 2


def test_relations_and_logical_messages_are_in_the_piece_they_came_with() -> None:
    assembler = Assembler()
    (first,) = assembler.assemble([BEGIN, PATIENTS, patient(1), message(b"low")]).transactions
    (last,) = assembler.assemble([VISITS, Insert(2, ROW), message(b"high"), COMMIT]).transactions
    assert (first.relations, first.messages) == ([PATIENTS], [message(b"low")])
    assert (last.relations, last.messages) == ([VISITS], [message(b"high")])


def test_a_relation_that_comes_alone_waits_for_the_change_it_belongs_to() -> None:
    assembler = Assembler()
    assert assembler.assemble([BEGIN, PATIENTS]).transactions == []
    (piece,) = assembler.assemble([patient(1)]).transactions
    assert piece.relations == [PATIENTS]


def test_logical_messages_alone_make_a_transaction() -> None:
    found = only(BEGIN, message(b"low"), COMMIT)
    assert (found.changes, found.messages, found.end_lsn) == ([], [message(b"low")], 120)


def test_a_message_that_is_not_transactional_is_left_out() -> None:
    outside = message(transactional=False)
    found = only(outside, BEGIN, outside, PATIENTS, patient(1), COMMIT, outside)
    assert found.messages == []


# -- Rows ------------------------------------------------------------------------------------------


def test_an_update_with_a_whole_old_row_is_filled_from_it() -> None:
    update = Update(2, ("1", "long"), "O", ("2", UNCHANGED))
    (change,) = only(BEGIN, VISITS, update, COMMIT).changes
    assert change == Change(Kind.UPDATE, VISITS, ("1", "long"), ("2", "long"), 0, True)


def test_an_update_with_a_key_or_nothing_keeps_what_is_unchanged_unknown() -> None:
    with_key = Update(1, ("1", None), "K", ("2", UNCHANGED))
    without = Update(1, None, None, ("2", UNCHANGED))
    changes = only(BEGIN, PATIENTS, with_key, without, COMMIT).changes
    assert [(c.old, c.new, c.old_is_whole) for c in changes] == [
        (("1", None), ("2", UNCHANGED), False),
        (None, ("2", UNCHANGED), False),
    ]


@pytest.mark.parametrize(("kind", "is_whole"), [("O", True), ("K", False)])
def test_a_delete_says_whether_its_row_is_whole(kind: Any, is_whole: bool) -> None:
    (change,) = only(BEGIN, VISITS, Delete(2, ROW, kind), COMMIT).changes
    assert change == Change(Kind.DELETE, VISITS, ROW, None, 0, is_whole)


def test_a_truncate_of_several_is_a_change_of_each() -> None:
    truncate = Truncate((2, 1), False, False)
    changes = only(BEGIN, PATIENTS, VISITS, patient(1), truncate, patient(2), COMMIT).changes
    assert [(c.kind, c.relation.name, c.ordinal) for c in changes] == [
        (Kind.INSERT, "patients", 0),
        (Kind.TRUNCATE, "visits", 1),
        (Kind.TRUNCATE, "patients", 2),
        (Kind.INSERT, "patients", 3),
    ]


# -- What is our own -------------------------------------------------------------------------------


def test_changes_of_our_own_schema_are_dropped_and_do_not_count() -> None:
    own: list[Said] = [
        OPS,
        Insert(9, ROW),
        Update(9, None, None, ROW),
        Delete(9, ROW, "K"),
        Truncate((9,), False, False),
    ]
    found = only(BEGIN, *own, PATIENTS, patient(1), Truncate((9, 1), False, False), COMMIT)
    assert [(c.kind, c.relation, c.ordinal) for c in found.changes] == [
        (Kind.INSERT, PATIENTS, 0),
        (Kind.TRUNCATE, PATIENTS, 1),
    ]
    assert found.relations == [PATIENTS]


def test_a_transaction_of_our_own_only_tells_the_position() -> None:
    found = Assembler("replicator").assemble([BEGIN, OPS, Insert(9, ROW), COMMIT])
    assert found == ([], 120)


def test_a_schema_of_the_same_name_is_anybody_s_when_storage_is_elsewhere() -> None:
    (found,) = Assembler().assemble([BEGIN, OPS, Insert(9, ROW), COMMIT]).transactions
    assert len(found.changes) == 1


def test_rows_that_nobody_asked_for_are_passed_over_and_their_tables_are_told() -> None:
    assembler = Assembler("replicator", {("public", "patients")})
    said: list[Said] = [
        BEGIN,
        PATIENTS,
        patient(1),
        VISITS,
        Insert(2, ROW),
        Truncate((2,), False, False),
        COMMIT,
    ]
    (found,) = assembler.assemble(said).transactions
    assert [change.relation for change in found.changes] == [PATIENTS]
    assert found.relations == [PATIENTS, VISITS]
    assert assembler.assemble([BEGIN, Insert(2, ROW), COMMIT]) == ([], 120)
    renamed = VISITS._replace(name="patients")
    (found,) = assembler.assemble([BEGIN, renamed, Insert(2, ROW), COMMIT]).transactions
    assert [change.relation for change in found.changes] == [renamed]


def test_rows_of_several_tables_keep_their_order_and_their_relations() -> None:
    assembler = Assembler("replicator", {("public", "patients"), ("public", "visits")})
    wider = PATIENTS._replace(columns=(*COLUMNS, Column("more", 25, -1, False)))
    others = PATIENTS._replace(oid=3, name="others")
    said: list[Said] = [
        *(
            BEGIN,
            PATIENTS,
            VISITS,
            others,
            patient(1),
            patient(2),
            Insert(3, ROW),
            Insert(3, ROW),
            patient(3),
        ),
        *(Insert(2, ROW), Insert(2, ROW), patient(4), Update(1, None, None, ROW), patient(5), keepalive(9)),
        *(patient(6), wider, Insert(1, (*ROW, "b")), Insert(1, (*ROW, "c")), COMMIT),
        *(BEGIN, Insert(1, (*ROW, "d")), COMMIT),
    ]
    first, second, third = assembler.assemble(said).transactions
    kept = [message for message in said if isinstance(message, Insert | Update) and message.relation != 3]
    changes = [*first.changes, *second.changes, *third.changes]
    assert [change.new for change in changes] == [message.new for message in kept]
    assert [change.ordinal for change in changes] == [*range(len(kept) - 1), 0]
    assert [change.relation for change in first.changes] == [
        PATIENTS if message.relation == 1 else VISITS for message in kept[:9]
    ]
    assert [change.relation for change in changes[9:]] == [wider] * 3
    assert relations_of(first.changes) == [PATIENTS, VISITS, PATIENTS]
    assert relations_of([]) == []


def test_a_table_that_is_asked_for_is_heard_though_its_schema_is_called_as_ours() -> None:
    assembler = Assembler("public", {("public", "patients")})
    (found,) = assembler.assemble([BEGIN, VISITS, Insert(2, ROW), PATIENTS, patient(1), COMMIT]).transactions
    assert [change.relation for change in found.changes] == [PATIENTS]


def test_a_table_that_leaves_our_schema_is_heard_from_then_on() -> None:
    moved = OPS._replace(namespace="public")
    found = only(BEGIN, OPS, Insert(9, ROW), moved, Insert(9, ROW), COMMIT)
    assert [change.relation for change in found.changes] == [moved]


# -- Quiet positions -------------------------------------------------------------------------------


def test_an_empty_transaction_only_tells_the_position() -> None:
    assert Assembler().assemble([BEGIN, COMMIT]) == ([], 120)


def test_a_keepalive_outside_a_transaction_is_quiet() -> None:
    assert Assembler().assemble([keepalive(80), keepalive(90)]) == ([], 90)


@pytest.mark.parametrize("before", [[BEGIN], [BEGIN, PATIENTS, patient(1)]])
def test_a_keepalive_inside_a_transaction_does_not_count_as_quiet(before: list[Said]) -> None:
    assembler = Assembler()
    assert assembler.assemble([*before, keepalive(110)]).quiet_lsn is None
    assert assembler.assemble([keepalive(115)]).quiet_lsn is None
    assembler.assemble([COMMIT])
    assert assembler.assemble([keepalive(130)]).quiet_lsn == 130


def test_the_last_of_several_quiet_positions_counts() -> None:
    later: list[Said] = [Begin(Lsn(200), 8, 6), Commit(Lsn(200), Lsn(220), 8)]
    assert Assembler().assemble([keepalive(90), BEGIN, COMMIT]).quiet_lsn == 120
    assert Assembler().assemble([BEGIN, COMMIT, keepalive(150), *later]).quiet_lsn == 220
    assert Assembler().assemble([BEGIN, COMMIT, keepalive(150)]).quiet_lsn == 150


# -- Out of order ----------------------------------------------------------------------------------

OUTSIDE: list[Message] = [COMMIT, patient(1), Update(1, None, None, ROW), Delete(1, ROW, "K")]
OUTSIDE += [Truncate((1,), False, False), message()]
INSIDE: list[Message] = [BEGIN, Commit(Lsn(99), Lsn(120), 7), Insert(3, ROW), Truncate((1, 3), False, False)]
NOWHERE: list[Message] = [
    StreamStart(5, True),
    StreamStop(),
    StreamCommit(5, Lsn(1), Lsn(2), 7),
    StreamAbort(5, 6),
    BeginPrepare(Lsn(1), Lsn(2), 7, 5, "gid"),
    Prepare(Lsn(1), Lsn(2), 7, 5, "gid"),
    CommitPrepared(Lsn(1), Lsn(2), 7, 5, "gid"),
    RollbackPrepared(Lsn(1), Lsn(2), 7, 7, 5, "gid"),
    StreamPrepare(Lsn(1), Lsn(2), 7, 5, "gid"),
]


def kind_of(message: Message) -> str:
    return type(message).__name__


@pytest.mark.parametrize("message", OUTSIDE + NOWHERE, ids=kind_of)
def test_what_cannot_stand_outside_a_transaction_is_refused(message: Message) -> None:
    assembler = Assembler()
    assembler.assemble([PATIENTS])
    with pytest.raises(ProtocolError, match=f"{kind_of(message)} outside a transaction"):
        assembler.assemble([message])


@pytest.mark.parametrize("message", INSIDE + NOWHERE, ids=kind_of)
def test_what_cannot_stand_inside_a_transaction_is_refused(message: Message) -> None:
    with pytest.raises(ProtocolError, match=kind_of(message)) as caught:
        Assembler().assemble([BEGIN, PATIENTS, message])
    assert "report" in caught.value.hint


def test_a_commit_of_another_transaction_is_said_to_be_inside_this_one() -> None:
    with pytest.raises(ProtocolError, match="Commit in transaction 5"):
        Assembler().assemble([BEGIN, Commit(Lsn(99), Lsn(120), 7)])


def test_a_refusal_repeats_no_value() -> None:
    with pytest.raises(ProtocolError) as caught:
        Assembler().assemble([BEGIN, Insert(3, ("4711", "secret"))])
    assert not {"4711", "secret"} & set(f"{caught.value.what} {caught.value.hint}".split())
    assert caught.value.__cause__ is None and caught.value.__suppress_context__


def test_origins_and_types_may_come_anywhere_and_mean_nothing() -> None:
    aside: list[Said] = [Origin(Lsn(1), "elsewhere"), Type(1, "public", "phase")]
    found = only(*aside, BEGIN, *aside, PATIENTS, patient(1), COMMIT, *aside)
    assert len(found.changes) == 1


# -- However it is cut -----------------------------------------------------------------------------

WIRE = Path(__file__).parents[1] / "recorded" / "wire"
#: Every session of protocol 1: what the replicator asks for.
SESSIONS: dict[str, list[Said]] = {
    f"{path.stem} {name}": decode_all([bytes.fromhex(frame) for frame in session["frames"]])
    for path in sorted(WIRE.glob("*.json"))
    for name, session in json.loads(path.read_text(encoding="utf-8"))["sessions"].items()
    if session["options"]["proto_version"] == "1"
}


def merged(drains: Sequence[Sequence[Said]]) -> list[Transaction]:
    """The transactions these drains amount to, their pieces put together again."""
    assembler, whole = Assembler(), list[Transaction]()
    for drain in drains:
        for piece in assembler.assemble(drain).transactions:
            if whole and whole[-1].end_lsn is None:
                last = whole[-1]
                assert (last.xid, last.commit_lsn, last.committed_at) == (
                    piece.xid,
                    piece.commit_lsn,
                    piece.committed_at,
                )
                last.changes += piece.changes
                last.messages += piece.messages
                last.relations += piece.relations
                last.end_lsn = piece.end_lsn
            else:
                whole.append(piece)
    assert not assembler.in_transaction
    return whole


def test_the_recordings_hold_every_kind_of_change() -> None:
    changes = [change for said in SESSIONS.values() for one in merged([said]) for change in one.changes]
    assert {change.kind for change in changes} == set(Kind)
    assert any(change.old_is_whole for change in changes)
    assert any(UNCHANGED in (change.new or ()) for change in changes)
    assert any(one.messages for said in SESSIONS.values() for one in merged([said]))


@pytest.mark.parametrize("name", SESSIONS)
def test_ordinals_have_no_gaps(name: str) -> None:
    for transaction in merged([SESSIONS[name]]):
        assert [change.ordinal for change in transaction.changes] == list(range(len(transaction.changes)))


@given(st.sampled_from(sorted(SESSIONS)), st.data())
def test_however_frames_fall_into_drains_the_same_comes_out(name: str, data: st.DataObject) -> None:
    said = SESSIONS[name]
    cuts = data.draw(st.sets(st.integers(0, len(said))))
    drains = [said[a:b] for a, b in pairwise(sorted({0, *cuts, len(said)}))]
    assert merged(drains) == merged([said])


@pytest.mark.parametrize("name", SESSIONS)
def test_frames_that_come_one_by_one_make_the_same_transactions(name: str) -> None:
    said = SESSIONS[name]
    assert merged([[one] for one in said]) == merged([said])
