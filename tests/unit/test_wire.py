"""What real servers said is decoded by value; whatever else comes in is refused with an offset."""

from __future__ import annotations

import copy
import json
import pickle
import random
import re
import struct
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replicator.errors import DecodeError
from replicator.wal import fast
from replicator.wal.fast import decode_all
from replicator.wal.frames import PAYLOAD, Keepalive, XLogData, decode_frame, status_update, wants_reply
from replicator.wal.lsn import Lsn
from replicator.wal.messages import (
    UNCHANGED,
    Begin,
    BeginPrepare,
    Column,
    Commit,
    CommitPrepared,
    Delete,
    Identity,
    Insert,
    Inserts,
    LogicalMessage,
    Message,
    Origin,
    Prepare,
    Relation,
    RollbackPrepared,
    Row,
    StreamAbort,
    StreamCommit,
    StreamPrepare,
    StreamStart,
    StreamStop,
    Truncate,
    Type,
    Unchanged,
    Update,
    Value,
    to_datetime,
)
from replicator.wal.wire import decode

# -- What real servers said ------------------------------------------------------------------------

WIRE = Path(__file__).parents[1] / "recorded" / "wire"
RECORDINGS: dict[str, Any] = {
    path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(WIRE.glob("*.json"))
}
ID = "00000000-0000-4000-8000-00000000000"
LONG = "0123456789" * 300
INT, TEXT = 23, 25


class Session:
    """The frames of one recorded stream, and what SQL said about the transactions in it."""

    def __init__(self, server: str, name: str) -> None:
        self.oids: dict[str, int] = RECORDINGS[server]["oids"]
        recorded = RECORDINGS[server]["sessions"][name]
        self.facts: list[dict[str, Any]] = recorded["transactions"]
        self.frames = [bytes.fromhex(frame) for frame in recorded["frames"]]

    @cached_property
    def messages(self) -> list[Message | Keepalive]:
        return one_by_one(decode_all(self.frames))

    @cached_property
    def bodies(self) -> list[list[Message | Keepalive]]:
        """The messages between each Begin and its Commit."""
        edges = [i for i, message in enumerate(self.messages) if isinstance(message, Begin | Commit)]
        return [self.messages[a + 1 : b] for a, b in zip(edges[::2], edges[1::2], strict=True)]

    def relation(self, name: str, identity: Identity, *columns: Column, xid: int | None = None) -> Relation:
        return Relation(self.oids[name], "public", name, identity, columns, xid)

    def notes(self, xid: int | None = None) -> Relation:
        keys = Column("id", INT, -1, True), Column("note", 1043, 44, True), Column("flag", 16, -1, True)
        return self.relation("notes", "f", *keys, xid=xid)

    def phases(self, xid: int | None = None) -> Relation:
        columns = [Column("id", INT, -1, False), Column("code", TEXT, -1, True)]
        columns += [Column("phase", self.oids["phase"], -1, False)]
        return self.relation("phases", "i", *columns, xid=xid)

    def lines(self, xid: int | None = None) -> Relation:
        return self.relation("lines", "n", Column("line", TEXT, -1, False), xid=xid)


@pytest.fixture(params=RECORDINGS)
def server(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def assert_same(got: list[Any], expected: list[Any]) -> None:
    """Equal also in type: as tuples, a Commit may equal an Update, and an int a bool.

    What says some as one has said each of them.
    """
    assert [repr(message) for message in one_by_one(got)] == [repr(message) for message in expected]


def one_by_one(messages: Iterable[Any]) -> list[Any]:
    said: list[Any] = []
    for message in messages:
        is_some = isinstance(message, Inserts)
        said += [Insert(message.relation, row) for row in message.rows] if is_some else [message]
    return said


def test_there_is_a_recording_before_and_after_protocol_4() -> None:
    versions = {recording["server_version"] // 10000 for recording in RECORDINGS.values()}
    assert min(versions) < 16 <= max(versions)


def test_rows_as_the_server_wrote_them(server: str) -> None:
    recorded = Session(server, "rows")
    vitals, notes, phases = (recorded.oids[name] for name in ("vitals", "notes", "phases"))
    first = (f"{ID}1", "72", "36.6", "Ruhe, früh – 🙂", "2026-11-21 02:33:10.123456+00")
    odd = 'Größe "x" y'
    odd_oid = recorded.oids['"Größe ""x"" y"']
    assert_same(
        recorded.bodies[0],
        [
            recorded.relation(
                "vitals",
                "d",
                Column("id", 2950, -1, True),
                Column("pulse", INT, -1, False),
                Column("temperature", 1700, (4 << 16 | 1) + 4, False),
                Column("note", TEXT, -1, False),
                Column("taken_at", 1184, -1, False),
            ),
            Insert(vitals, first),
            Insert(vitals, (f"{ID}2", None, None, "", None)),
            Update(vitals, None, None, (first[0], "75", *first[2:])),
            Update(vitals, (f"{ID}2", None, None, None, None), "K", (f"{ID}3", None, None, "", None)),
            Delete(vitals, (f"{ID}3", None, None, None, None), "K"),
            recorded.notes(),
            Insert(notes, ("1", "before", "t")),
            Update(notes, ("1", "before", "t"), "O", ("1", None, "f")),
            Delete(notes, ("1", None, "f"), "O"),
            Type(recorded.oids["phase"], "public", "phase"),
            recorded.phases(),
            Insert(phases, ("7", "a", "rest")),
            Update(phases, (None, "a", None), "K", ("7", "b", "effort")),
            recorded.lines(),
            Insert(recorded.oids["lines"], ("only ever inserted",)),
            recorded.relation("empty", "d"),
            Insert(recorded.oids["empty"], ()),
            Relation(odd_oid, "public", odd, "d", (Column("µg/l", INT, -1, True),)),
            Insert(odd_oid, ("1",)),
        ],
    )


def test_a_long_value_is_unchanged_in_the_new_row_and_whole_in_a_full_old_row(server: str) -> None:
    recorded = Session(server, "rows")
    documents = recorded.oids["documents"]
    columns = [("id", INT, True), ("title", TEXT, False), ("body", TEXT, False)]
    assert_same(
        recorded.bodies[1],
        [
            recorded.relation("documents", "d", *(Column(n, t, -1, key) for n, t, key in columns)),
            Insert(documents, ("1", "old", LONG)),
            Update(documents, None, None, ("1", "new", UNCHANGED)),
            recorded.relation("documents", "f", *(Column(n, t, -1, True) for n, t, _ in columns)),
            Update(documents, ("1", "new", LONG), "O", ("1", "newer", UNCHANGED)),
        ],
    )


def test_truncates_name_all_relations_and_their_options(server: str) -> None:
    recorded = Session(server, "rows")
    truncates = [message for message in recorded.bodies[2] if isinstance(message, Truncate)]
    together = tuple(recorded.oids[name] for name in ("wards", "notes", "visits"))
    assert_same(
        truncates,
        [Truncate((recorded.oids["lines"],), False, False), Truncate(together, True, True)],
    )


def test_a_plain_logical_message_arrives_before_the_transaction_that_wrote_it(server: str) -> None:
    recorded = Session(server, "rows")
    said = [
        (message, Lsn(decode_frame(frame)[0]))
        for message, frame in zip(recorded.messages, recorded.frames, strict=True)
        if isinstance(message, LogicalMessage)
    ]
    assert_same(
        [message for message, _ in said],
        [
            LogicalMessage(kind, start, "watermark", b"\x00\xff\n")
            for kind, (_, start) in zip((False, True), said, strict=True)
        ],
    )
    assert isinstance(recorded.messages[-3], Begin)
    assert recorded.messages[-4] is said[0][0]
    assert recorded.messages[-2] is said[1][0]
    fact = recorded.facts[-1]
    for _, start in said:
        assert Lsn.parse(fact["lsn_before"]) <= start < Lsn.parse(fact["lsn_after"])


@pytest.mark.parametrize("name", ["rows", "binary", "origin"])
def test_begin_and_commit_agree_with_sql(server: str, name: str) -> None:
    recorded = Session(server, name)
    begins = [message for message in recorded.messages if isinstance(message, Begin)]
    commits = [message for message in recorded.messages if isinstance(message, Commit)]
    for begin, commit, fact in zip(begins, commits, recorded.facts, strict=True):
        assert_same(
            [begin, commit],
            [
                Begin(Lsn(commit.commit_lsn), fact["commit_time"], fact["xid"]),
                Commit(Lsn(commit.commit_lsn), Lsn(commit.end_lsn), fact["commit_time"]),
            ],
        )
        before, after = Lsn.parse(fact["lsn_before"]), Lsn.parse(fact["lsn_after"])
        assert before < commit.commit_lsn < commit.end_lsn <= after


def test_binary_values_are_bytes(server: str) -> None:
    recorded = Session(server, "binary")
    notes, one = recorded.oids["notes"], b"\0\0\0\1"
    assert_same(
        recorded.bodies[0],
        [
            recorded.notes(),
            Insert(notes, (one, b"before", b"\1")),
            Update(notes, (one, b"before", b"\1"), "O", (one, None, b"\0")),
        ],
    )


def test_a_transaction_from_elsewhere_says_so(server: str) -> None:
    recorded = Session(server, "origin")
    assert_same(
        recorded.bodies[0],
        [
            Origin(Lsn.parse("A/BC"), "elsewhere"),
            recorded.lines(),
            Insert(recorded.oids["lines"], ("only ever inserted",)),
        ],
    )


def test_keepalives_say_where_the_server_stands_and_whether_it_wants_an_answer(server: str) -> None:
    recorded = Session(server, "keepalives")
    heard = [message for message in recorded.messages if isinstance(message, Keepalive)]
    assert [keepalive.reply_requested for keepalive in heard] == [False] * (len(heard) - 1) + [True]
    assert [wants_reply(frame) for frame in recorded.frames] == [h.reply_requested for h in heard]
    for earlier, later in pairwise(heard):
        assert earlier.wal_end <= later.wal_end
        assert earlier.send_time < later.send_time


def whole(messages: list[Message | Keepalive]) -> list[Message | Keepalive]:
    """Without the edges between the blocks of one transaction: how many there are is chance."""
    kept: list[Message | Keepalive] = []
    for message in messages:
        if isinstance(message, StreamStart) and not message.first and isinstance(kept[-1], StreamStop):
            kept.pop()
        else:
            kept.append(message)
    return kept


STREAMED = [
    (server, name)
    for server, recording in RECORDINGS.items()
    for name in ("streamed", "parallel")
    if name in recording["sessions"]
]


@pytest.mark.parametrize(("server", "name"), STREAMED)
def test_an_unfinished_transaction_is_streamed_with_its_xid(server: str, name: str) -> None:
    recorded = Session(server, name)
    notes, phases, lines = (recorded.oids[table] for table in ("notes", "phases", "lines"))
    fact = recorded.facts[0]
    xid = fact["xid"]
    messages = whole(recorded.messages)
    said, commit = messages[8], messages[12]
    assert isinstance(said, LogicalMessage)
    assert isinstance(commit, StreamCommit)
    assert_same(
        messages[:13],
        [
            StreamStart(xid, True),
            recorded.notes(xid),
            Insert(notes, ("1", "before", "t"), xid),
            Update(notes, ("1", "before", "t"), "O", ("1", None, "f"), xid),
            Delete(notes, ("1", None, "f"), "O", xid),
            Type(recorded.oids["phase"], "public", "phase", xid),
            recorded.phases(xid),
            Insert(phases, ("7", "a", "rest"), xid),
            LogicalMessage(True, said.lsn, "watermark", b"\x00\xff\n", xid),
            recorded.lines(xid),
            Truncate((lines,), False, False, xid),
            StreamStop(),
            StreamCommit(xid, commit.commit_lsn, commit.end_lsn, fact["commit_time"]),
        ],
    )
    assert Lsn.parse(fact["lsn_before"]) <= said.lsn < commit.commit_lsn < commit.end_lsn
    assert commit.end_lsn <= Lsn.parse(fact["lsn_after"])


@pytest.mark.parametrize(("server", "name"), STREAMED)
def test_what_is_rolled_back_after_streaming_is_aborted_by_xid(server: str, name: str) -> None:
    recorded = Session(server, name)
    line = "only ever inserted"
    inner, outer = recorded.facts[1]["xid"], recorded.facts[2]["xid"]
    messages = whole(recorded.messages)[13:]
    savepoint, rollback = (message for message in messages if isinstance(message, StreamAbort))
    commit = next(message for message in messages if isinstance(message, StreamCommit))
    assert savepoint.subxid > inner
    assert_same(
        messages,
        [
            StreamStart(inner, True),
            recorded.lines(inner),
            Insert(recorded.oids["lines"], (line,), inner),
            StreamStop(),
            StreamAbort(inner, savepoint.subxid, *savepoint[2:]),
            StreamStart(inner, False),
            StreamStop(),
            StreamCommit(inner, *commit[1:3], recorded.facts[1]["commit_time"]),
            StreamStart(outer, True),
            recorded.lines(outer),
            Insert(recorded.oids["lines"], (line,), outer),
            StreamStop(),
            StreamAbort(outer, outer, *rollback[2:]),
        ],
    )
    for abort, fact in ((savepoint, recorded.facts[1]), (rollback, recorded.facts[2])):
        if name == "parallel":
            assert abort.abort_lsn is not None
            assert Lsn.parse(fact["lsn_before"]) < abort.abort_lsn <= Lsn.parse(fact["lsn_after"])
        else:
            assert abort[2:] == (None, None)
    if savepoint.abort_time is not None:
        assert savepoint.abort_time <= recorded.facts[1]["commit_time"]


def test_two_phase_commits(server: str) -> None:
    recorded = Session(server, "two_phase")
    committed, rolled_back, streamed = recorded.facts
    gid, xid = "gid/1", streamed["xid"]
    insert = Insert(recorded.oids["lines"], ("only ever inserted",))
    messages = whole(recorded.messages)
    prepared: list[Any] = [m for m in messages if isinstance(m, BeginPrepare | StreamPrepare)]
    ends: list[Any] = [m for m in messages if isinstance(m, CommitPrepared | RollbackPrepared)]
    first, second, third = prepared
    assert_same(
        messages,
        [
            first._replace(xid=committed["xid"], gid=gid),
            recorded.lines(),
            insert,
            Prepare(*first),
            ends[0]._replace(commit_time=committed["commit_time"], xid=committed["xid"], gid=gid),
            second._replace(xid=rolled_back["xid"], gid=gid),
            insert,
            Prepare(*second),
            ends[1]._replace(prepare_time=second.prepare_time, xid=rolled_back["xid"], gid=gid),
            StreamStart(xid, True),
            recorded.lines(xid),
            insert._replace(xid=xid),
            StreamStop(),
            third._replace(xid=xid, gid=gid),
            ends[2]._replace(commit_time=streamed["commit_time"], xid=xid, gid=gid),
        ],
    )
    kinds = [BeginPrepare, BeginPrepare, StreamPrepare, CommitPrepared, RollbackPrepared, CommitPrepared]
    assert [type(message) for message in prepared + ends] == kinds
    for prepare, end, fact in zip(prepared, ends, recorded.facts, strict=True):
        before, after = Lsn.parse(fact["lsn_before"]), Lsn.parse(fact["lsn_after"])
        assert before < prepare.prepare_lsn < prepare.end_lsn <= end[0] < end[1] <= after
    assert second.prepare_time <= ends[1].rollback_time


def test_a_batch_may_begin_inside_a_streamed_block(server: str) -> None:
    recorded = Session(server, "streamed")
    inside = False
    each: list[Message | Keepalive] = []
    for frame in recorded.frames:
        each += one_by_one(decode_all([frame], streamed=inside))
        inside = isinstance(each[-1], StreamStart) or (inside and not isinstance(each[-1], StreamStop))
    assert_same(each, recorded.messages)


# -- What had to be made by hand -------------------------------------------------------------------


def string(text: str) -> bytes:
    return text.encode() + b"\0"


def value(value: Value) -> bytes:
    if value is None:
        return b"n"
    if isinstance(value, Unchanged):
        return b"u"
    raw = value.encode() if isinstance(value, str) else value
    return (b"t" if isinstance(value, str) else b"b") + struct.pack(">i", len(raw)) + raw


def row(kind: str, values: Row) -> bytes:
    return kind.encode() + struct.pack(">H", len(values)) + b"".join(map(value, values))


def old_row(kind: str | None, values: Row | None) -> bytes:
    return b"" if kind is None or values is None else row(kind, values)


def column(it: Column) -> bytes:
    return struct.pack(">?", it.key) + string(it.name) + struct.pack(">Ii", it.type_oid, it.typmod)


def encode(message: Message, streamed: bool = False) -> bytes:
    """The bytes that Postgres would send for this message."""
    xid = struct.pack(">I", message[-1]) if streamed and isinstance(message, TELL_XID) else b""
    match message:
        case Begin(lsn, time, begun):
            return b"B" + struct.pack(">QqI", lsn, time, begun)
        case Commit(lsn, end, time):
            return b"C" + struct.pack(">BQQq", 0, lsn, end, time)
        case Origin(lsn, name):
            return b"O" + struct.pack(">Q", lsn) + string(name)
        case Relation(oid, namespace, name, identity, columns):
            head = struct.pack(">I", oid) + string(namespace) + string(name) + identity.encode()
            return b"R" + xid + head + struct.pack(">H", len(columns)) + b"".join(map(column, columns))
        case Type(oid, namespace, name):
            return b"Y" + xid + struct.pack(">I", oid) + string(namespace) + string(name)
        case Insert(oid, new):
            return b"I" + xid + struct.pack(">I", oid) + row("N", new)
        case Update(oid, old, kind, new):
            return b"U" + xid + struct.pack(">I", oid) + old_row(kind, old) + row("N", new)
        case Delete(oid, old, kind):
            return b"D" + xid + struct.pack(">I", oid) + old_row(kind, old)
        case Truncate(oids, cascade, restart):
            head = struct.pack(">IB", len(oids), cascade | restart << 1)
            return b"T" + xid + head + struct.pack(f">{len(oids)}I", *oids)
        case LogicalMessage(transactional, lsn, prefix, content):
            head = struct.pack(">?Q", transactional, lsn) + string(prefix)
            return b"M" + xid + head + struct.pack(">I", len(content)) + content
        case StreamStart(begun, first):
            return b"S" + struct.pack(">I?", begun, first)
        case StreamStop():
            return b"E"
        case StreamCommit(begun, lsn, end, time):
            return b"c" + struct.pack(">IBQQq", begun, 0, lsn, end, time)
        case StreamAbort(begun, sub, lsn, time):
            tail = b"" if lsn is None else struct.pack(">Qq", lsn, time)
            return b"A" + struct.pack(">II", begun, sub) + tail
        case BeginPrepare(lsn, end, time, begun, gid):
            return b"b" + struct.pack(">QQqI", lsn, end, time, begun) + string(gid)
        case Prepare(lsn, end, time, begun, gid):
            return b"P\0" + struct.pack(">QQqI", lsn, end, time, begun) + string(gid)
        case CommitPrepared(lsn, end, time, begun, gid):
            return b"K\0" + struct.pack(">QQqI", lsn, end, time, begun) + string(gid)
        case RollbackPrepared(lsn, end, prepared, time, begun, gid):
            return b"r\0" + struct.pack(">QQqqI", lsn, end, prepared, time, begun) + string(gid)
        case StreamPrepare(lsn, end, time, begun, gid):
            return b"p\0" + struct.pack(">QQqI", lsn, end, time, begun) + string(gid)


TELL_XID = (Relation, Type, Insert, Update, Delete, Truncate, LogicalMessage)


def frame_of(payload: bytes) -> bytes:
    return b"w" + struct.pack(">QQq", 1, 2, 3) + payload


u32, i32, i64 = st.integers(0, 2**32 - 1), st.integers(-(2**31), 2**31 - 1), st.integers(-(2**63), 2**63 - 1)
lsns = st.integers(1, 2**64 - 1).map(Lsn)
ordered = st.tuples(lsns, lsns).map(sorted)
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
values: st.SearchStrategy[Any] = st.one_of(texts, st.none(), st.just(UNCHANGED), st.binary(max_size=300))
rows = st.lists(values, max_size=12).map(tuple)
columns = st.lists(st.builds(Column, texts, u32, i32, st.booleans()), max_size=5).map(tuple)
phases: st.SearchStrategy[Any] = st.tuples(ordered, i64, u32, texts).map(lambda it: (*it[0], *it[1:]))
wire_messages: st.SearchStrategy[Message] = st.one_of(
    st.builds(Begin, lsns, i64, u32),
    st.builds(lambda at, time: Commit(at[0], at[1], time), ordered, i64),
    st.builds(Origin, st.integers(0, 2**64 - 1).map(Lsn), texts),
    st.builds(Relation, u32, texts.filter(len), texts, st.sampled_from("dnfi"), columns),
    st.builds(Type, u32, texts.filter(len), texts),
    st.builds(Insert, u32, rows),
    st.builds(Update, u32, st.none(), st.none(), rows),
    st.builds(Update, u32, rows, st.sampled_from("KO"), rows),
    st.builds(lambda old, new: Update(9, old, "O", new[: len(old)]), rows, rows),
    st.builds(Delete, u32, rows, st.sampled_from("KO")),
    st.builds(Truncate, st.lists(u32).map(tuple), st.booleans(), st.booleans()),
    st.builds(LogicalMessage, st.booleans(), lsns, texts, st.binary()),
    st.builds(StreamStart, u32, st.booleans()),
    st.just(StreamStop()),
    st.builds(lambda xid, at, time: StreamCommit(xid, at[0], at[1], time), u32, ordered, i64),
    st.builds(StreamAbort, u32, u32, st.none(), st.none()),
    st.builds(StreamAbort, u32, u32, lsns, i64),
    phases.map(lambda it: BeginPrepare(*it)),
    phases.map(lambda it: Prepare(*it)),
    phases.map(lambda it: CommitPrepared(*it)),
    phases.map(lambda it: StreamPrepare(*it)),
    st.builds(lambda it, time: RollbackPrepared(*(*it[:3], time, *it[3:])), phases, i64),
)


@settings(max_examples=1500, deadline=None)
@given(message=wire_messages, xid=u32, streamed=st.booleans())
def test_every_message_is_read_back_and_both_ways_agree(message: Message, xid: int, streamed: bool) -> None:
    if isinstance(message, TELL_XID):
        message = message._replace(xid=xid if streamed else None)
    payload = encode(message, streamed)
    assert_same([decode(payload, 0, streamed)], [message])
    # The second time, a row is read with what was learnt from the first.
    assert_same(decode_all([frame_of(payload)] * 2, streamed), [message] * 2)


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    "shape", [Insert(7, ()), Update(7, None, None, ()), Update(7, (), "K", ()), Update(7, (), "O", ()),
              Delete(7, (), "K"), Delete(7, (), "O")], ids=repr
)  # fmt: skip
def test_rows_like_one_seen_before_are_read_without_the_plain_way(
    monkeypatch: pytest.MonkeyPatch, shape: Insert | Update | Delete, streamed: bool
) -> None:
    def with_row(row: Row) -> Any:
        replaced: dict[str, Any] = {
            name: row for name in ("old", "new") if getattr(shape, name, None) is not None
        }
        return shape._replace(xid=5 if streamed else None, **replaced)

    def frames(messages: list[Any]) -> list[bytes]:
        return [frame_of(encode(message, streamed)) for message in messages]

    first = with_row(("one", "two", "three"))
    others = [with_row(row) for row in ((None, "", None), ("ä" * 200, UNCHANGED, "x"), ("", "", UNCHANGED))]
    decode_all(frames([first]), streamed)
    monkeypatch.delattr(fast, "_decode_plainly")
    assert_same(decode_all(frames(others), streamed), others)


#: About the sizes at which a value begins otherwise, and what looks like such a beginning.
_sizes = ["", "x", "t", "a" * 115, "t" * 116, "ä" * 64, "z" * 255, "z" * 256]
edgy = st.sampled_from([*_sizes, "\0", "t\0\0\0", "t\0\0\0\1b", None, UNCHANGED])
edgy_rows = st.lists(edgy, min_size=3, max_size=3).map(tuple)
like_others = (
    st.builds(Insert, st.just(7), edgy_rows)
    | st.builds(Update, st.just(7), st.none(), st.none(), edgy_rows)
    | st.builds(Update, st.just(7), edgy_rows, st.sampled_from("KO"), edgy_rows)
    | st.builds(Delete, st.just(7), edgy_rows, st.sampled_from("KO"))
)


@settings(deadline=None)
@given(messages=st.lists(like_others, min_size=2, max_size=30), streamed=st.booleans())
def test_rows_that_are_split_and_rows_that_are_walked_through_say_the_same(
    messages: list[Insert | Update | Delete], streamed: bool
) -> None:
    messages = [message._replace(xid=5 if streamed else None) for message in messages]
    # Each is tried, and some are told plainly first; then those are tried that come after others.
    fast._seen.clear()
    assert_same(decode_all([frame_of(encode(one, streamed)) for one in messages], streamed), messages)
    assert_same(decode_all([frame_of(encode(one, streamed)) for one in messages], streamed), messages)


def test_a_short_row_with_any_byte_changed_is_read_as_the_plain_way_reads_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fast, "_WALKED", 0)  # whatever comes is split if it can be
    monkeypatch.setattr(fast, "_seen", {})
    payload = encode(Update(7, ("one", "t"), "O", ("", "ä")))
    assert outcome(payload, False) == outcome(payload, False)
    for at in range(8, len(payload)):
        for changed in range(256):
            outcome(payload[:at] + bytes([changed]) + payload[at + 1 :], False)


@pytest.mark.parametrize("streamed", [False, True])
def test_where_transactions_begin_and_end_is_read_without_the_plain_way(
    monkeypatch: pytest.MonkeyPatch, streamed: bool
) -> None:
    bounds: list[Any] = [Begin(Lsn(2**64 - 1), -1, 2**32 - 1), Commit(Lsn(1), Lsn(1), 2**63 - 1)]
    monkeypatch.delattr(fast, "_decode_plainly")
    assert_same(decode_all([frame_of(encode(message)) for message in bounds], streamed), bounds)


@settings(deadline=None)
@given(st.sampled_from(b"BCOIkw"), st.sampled_from((21, 26)), st.data())
def test_what_is_as_long_as_a_beginning_or_an_end_is_not_taken_for_one(
    tag: int, size: int, data: st.DataObject
) -> None:
    near_zero = st.lists(st.sampled_from((0, 0, 0, 1, 255)), min_size=size - 1, max_size=size - 1)
    outcome(bytes([tag, *data.draw(near_zero)]), False)


def test_a_very_wide_row_is_read_all_the_same() -> None:
    wide = Update(7, tuple(map(str, range(1600))), "O", (None, UNCHANGED) * 800)
    assert_same(decode_all([frame_of(encode(wide))] * 3), [wide] * 3)


def test_what_is_remembered_about_tables_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast, "_SEEN_MAX", 10)
    monkeypatch.setattr(fast, "_seen", {})
    inserts = [Insert(oid, (str(oid), None)) for oid in range(100)] * 2
    assert_same(decode_all([frame_of(encode(insert)) for insert in inserts]), inserts)
    assert 0 < len(fast._seen) <= 10


def test_keepalives_keep_their_place_between_messages() -> None:
    keepalive = b"k" + struct.pack(">Qq?", 9, 8, True)
    insert = Insert(7, ("a",))
    frames = [frame_of(encode(insert)), keepalive, frame_of(encode(insert))]
    assert_same(decode_all(frames), [insert, Keepalive(Lsn(9), 8, True), insert])


def test_a_frame_of_wal_data_says_where_it_is_from() -> None:
    frame = bytes.fromhex("77" "00000016b374d848" "00000016b374d849" "fffffffffffffffe" "45")  # fmt: skip
    assert_same(
        [decode_frame(frame)],
        [XLogData(Lsn.parse("16/B374D848"), Lsn.parse("16/B374D849"), -2, b"E")],
    )
    assert not wants_reply(frame)


def test_a_status_update_is_what_the_manual_says() -> None:
    said = status_update(Lsn.parse("1/2"), Lsn.parse("0/3"), 4, now_us=5)
    assert said[:1] == b"r"
    assert said[1:33].hex(" ", 8) == "0000000100000002 0000000000000003 0000000000000004 0000000000000005"
    assert said[33:] == b"\0"
    assert status_update(0, 0, 0, 0, reply=True)[-1] == 1


def test_an_empty_namespace_is_pg_catalog() -> None:
    relation = Relation(1255, "", "pg_proc", "n", ())
    assert_same([decode(encode(relation))], [relation._replace(namespace="pg_catalog")])
    assert_same([decode(encode(Type(25, "", "text")))], [Type(25, "pg_catalog", "text")])


def test_times_count_from_the_year_2000() -> None:
    assert to_datetime(0) == datetime(2000, 1, 1, tzinfo=UTC)
    assert to_datetime(848_543_590_123_456) == datetime(2026, 11, 21, 2, 33, 10, 123456, UTC)
    assert to_datetime(-1) < to_datetime(0)


def test_unchanged_is_one_and_no_truth() -> None:
    assert repr(UNCHANGED) == "UNCHANGED"
    for again in (pickle.loads(pickle.dumps(UNCHANGED)), copy.copy(UNCHANGED), copy.deepcopy([UNCHANGED])[0]):
        assert again is UNCHANGED
    with pytest.raises(TypeError, match="neither true nor false"):
        bool(UNCHANGED)
    with pytest.raises(TypeError):
        json.dumps(UNCHANGED)


# -- What nobody should send -----------------------------------------------------------------------

MALFORMED: list[tuple[bytes, str, int]] = [
    (b"", "no message", 0),
    (b"?", "unknown kind of message", 0),
    (b"B" + struct.pack(">QqI", 0, 0, 1), "Begin: no final position", 1),
    (b"C" + struct.pack(">BQQq", 1, 1, 2, 0), "Commit: unknown flags", 1),
    (b"C" + struct.pack(">BQQq", 0, 2, 1, 0), "Commit: positions that cannot be", 2),
    (b"C" + struct.pack(">BQQq", 0, 0, 1, 0), "Commit: positions that cannot be", 2),
    (b"O" + bytes(8) + b"abc", "Origin: a string without an end", 9),
    (b"R" + bytes(4) + b"s\0r\0x\0\0", "Relation: unknown replica identity", 9),
    (b"R" + bytes(4) + b"s\0r\xff\0d\0\0", "Relation: text that is not UTF-8", 8),
    (b"R" + bytes(4) + b"s\0r\0d\0\1\2", "Relation: unknown flags of a column", 12),
    (b"R" + bytes(4) + b"s\0r\0d\xff\xff", "Relation: the message ends early", 12),
    (b"I" + bytes(4) + b"K\0\0", "Insert: no new row", 5),
    (b"I" + bytes(4) + b"N\xff\xffn", "Insert: the message ends early", 9),
    (b"I" + bytes(4) + b"N\0\1x", "Insert: unknown kind of value", 8),
    (b"I" + bytes(4) + b"N\0\1t\xff\xff\xff\xffabc", "Insert: a negative length", 9),
    (b"I" + bytes(4) + b"N\0\1t\x7f\xff\xff\xffabc", "Insert: a value reaches past the end", 9),
    (b"I" + bytes(4) + b"N\0\1b\0\0\0\4abc", "Insert: a value reaches past the end", 9),
    (b"I" + bytes(4) + b"N\0\1t\0\0\0\3a\xc3b", "Insert: text that is not UTF-8", 14),
    (b"I" + bytes(4) + b"N\0\1nn", "Insert: bytes after the end of the message", 9),
    (b"U" + bytes(4) + b"X\0\0", "Update: neither an old row nor a new one", 5),
    (b"U" + bytes(4) + b"O\0\0O\0\0", "Update: no new row", 8),
    (b"D" + bytes(4) + b"N\0\0", "Delete: no old row", 5),
    (b"T" + struct.pack(">iB", -1, 0), "Truncate: a count of relations that cannot be", 1),
    (b"T" + struct.pack(">iBI", 2**31 - 1, 0, 1), "Truncate: a count of relations that cannot be", 1),
    (b"T" + struct.pack(">iBI", 2, 0, 1), "Truncate: a count of relations that cannot be", 1),
    (b"T" + struct.pack(">iBI", 1, 4, 1), "Truncate: unknown options", 5),
    (b"M" + struct.pack(">BQ", 2, 1) + bytes(5), "Message: unknown flags", 1),
    (b"M" + struct.pack(">BQ", 1, 1) + b"\0\xff\xff\xff\xff", "Message: a negative length", 11),
    (b"S" + bytes(4) + b"\2", "Stream Start: neither the first block nor a later one", 5),
    (b"E\0", "Stream Stop: bytes after the end of the message", 1),
    (b"c" + struct.pack(">IBQQq", 7, 1, 1, 2, 0), "Stream Commit: unknown flags", 5),
    (b"A" + bytes(9), "Stream Abort: the message ends early", 10),
    (b"b" + struct.pack(">QQqI", 2, 1, 0, 7) + b"\0", "Begin Prepare: positions that cannot be", 1),
    (b"P\1", "Prepare: unknown flags", 1),
    (b"K\1", "Commit Prepared: unknown flags", 1),
    (b"r\1", "Rollback Prepared: unknown flags", 1),
    (b"p\1", "Stream Prepare: unknown flags", 1),
]  # fmt: skip


@pytest.mark.parametrize(("payload", "what", "offset"), MALFORMED)
def test_what_is_malformed_is_named_with_its_offset(payload: bytes, what: str, offset: int) -> None:
    for data, at in ((payload, 0), (b"x" * 25 + payload, 25)):
        with pytest.raises(DecodeError, match=re.escape(what)) as caught:
            decode(data, at)
        assert caught.value.offset == at + offset


@pytest.mark.parametrize(
    ("frame", "what", "offset"),
    [
        (b"", "an empty frame", 0),
        (b"z" + bytes(24), "unknown kind of frame", 0),
        (b"w" + bytes(23), "the frame ends early", 24),
        (b"w" + bytes(24), "no message", 25),
        (b"k" + bytes(16), "the frame ends early", 17),
        (b"k" + bytes(16) + b"\2", "a keepalive that does not end as one", 17),
        (b"k" + bytes(18), "a keepalive that does not end as one", 17),
    ],
)
def test_a_malformed_frame_is_named_with_its_offset(frame: bytes, what: str, offset: int) -> None:
    with pytest.raises(DecodeError, match=re.escape(what)) as caught:
        decode_all([frame])
    assert caught.value.offset == offset


def test_only_wal_data_is_read_as_rows() -> None:
    insert = Insert(7, ("a",))
    frame = frame_of(encode(insert))
    assert_same(decode_all([frame] * 2), [insert] * 2)
    with pytest.raises(DecodeError, match="unknown kind of frame"):
        decode_all([b"x" + frame[1:]])


def payloads() -> list[tuple[bytes, bool]]:
    """Every recorded message once, and whether it was inside a streamed block."""
    found: dict[tuple[bytes, bool], None] = {}
    for server, recording in RECORDINGS.items():
        for name in recording["sessions"]:
            recorded, inside = Session(server, name), False
            for frame, message in zip(recorded.frames, recorded.messages, strict=True):
                if isinstance(message, StreamStart | StreamStop):
                    inside = isinstance(message, StreamStart)
                if not isinstance(message, Keepalive):
                    found[frame[PAYLOAD:], inside and isinstance(message, TELL_XID)] = None
    return list(found)


PAYLOADS = payloads()


def outcome(payload: bytes, streamed: bool) -> str:
    """A message, or why there is none; the same by both ways; and never anything else."""
    data = frame_of(payload)
    ends: list[str] = []
    ways: list[Callable[[], object]] = [
        lambda: decode(data, PAYLOAD, streamed),
        lambda: one_by_one(decode_all([data], streamed))[0],
    ]
    for way in ways:
        try:
            ends.append(repr(way()))
        except DecodeError as error:
            ends.append(f"! {error}")
            assert 0 <= error.offset <= len(data)
            # Whatever was misread, the only number in it is the offset, and no other error hangs on it.
            assert re.findall(r"\d+", str(error).replace("UTF-8", "")) == [str(error.offset)]
            assert error.__context__ is None
    assert ends[0] == ends[1]
    return ends[0]


def test_a_truncated_message_is_never_taken_for_a_whole_one(rng: random.Random) -> None:
    assert len(PAYLOADS) > 100
    for payload, streamed in PAYLOADS:
        lengths = range(len(payload))
        for length in lengths if len(payload) < 300 else rng.sample(lengths, 100):
            # The one message with an optional tail.
            if payload[:1] == b"A" and length == 9:
                continue
            assert outcome(payload[:length], streamed).startswith("! ")


def test_bytes_after_a_message_are_refused() -> None:
    for payload, streamed in PAYLOADS:
        said = outcome(payload + b"\0", streamed)
        if payload[:1] != b"A":
            assert said.endswith(f"bytes after the end of the message at offset {25 + len(payload)}")
        assert said.startswith("! ")


def test_a_changed_byte_gives_a_message_or_a_decode_error(rng: random.Random) -> None:
    for _ in range(20_000):
        payload, streamed = rng.choice(PAYLOADS)
        at = rng.randrange(min(len(payload), 400))
        changed = payload[:at] + bytes([rng.choice((0, 1, 2, 110, 116, 127, 128, 255, rng.randrange(256)))])
        outcome(changed + payload[at + 1 :], streamed)


def test_random_bytes_give_a_message_or_a_decode_error(rng: random.Random) -> None:
    for _ in range(20_000):
        tag = rng.choice(b"BCORYIUDTMSEcAbPKrp\0?")
        plausible = rng.choice(
            (b"", b"\0\0\0\1", b"\0\0\0\1N\0\2", b"\0\0\0\1O\0\1", b"\0\0\0\1\0\0\0\1K\0\1")
        )
        body = bytes(
            rng.choice((0, 0, 0, 1, 2, 98, 110, 116, 117, rng.randrange(256)))
            for _ in range(rng.randrange(40))
        )
        outcome(bytes([tag]) + plausible + body, rng.random() < 0.3)


@settings(deadline=None)
@given(st.binary(max_size=60))
def test_any_frame_is_decoded_or_refused(frame: bytes) -> None:
    refused = 0
    for way in (lambda: decode_all([frame])[0], lambda: decode_frame(frame), lambda: wants_reply(frame)):
        try:
            way()
        except DecodeError as error:
            assert 0 <= error.offset <= len(frame)
            refused += 1
    assert refused == 3 or frame[:1] in (b"w", b"k")


def test_an_error_repeats_nothing_of_the_row(rng: random.Random) -> None:
    secret = "1197828197 Geheim"
    payload = encode(Update(7, (secret, secret), "O", (secret, None, secret)))
    for _ in range(5_000):
        at = rng.randrange(5, len(payload))
        said = outcome(payload[:at] + bytes([rng.randrange(256)]) + payload[at + rng.randrange(3) :], False)
        if said.startswith("! "):
            assert not any(secret[i : i + 4] in said for i in range(len(secret) - 3))
