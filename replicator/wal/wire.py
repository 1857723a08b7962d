"""Bytes of the replication stream → Frames and pgoutput Messages, by Postgres's own names. No I/O.

A frame is one CopyData payload of the stream: WAL data, which carries one pgoutput message, or a
keepalive. The messages are those of the manual's chapter "Logical Replication Message Formats",
protocol versions 1 to 4, and their fields have its names. Inside a streamed block (protocol 2 and up,
between Stream Start and Stream Stop) some messages say first which transaction they belong to;
`streamed` tells the decoder to expect that, and `xid` holds it.

Whatever the bytes are, decoding gives a message or raises DecodeError with the offset of the trouble.
No error repeats bytes of a row: a length read from the wrong place is a piece of somebody's data too.

There are two ways to the same messages. `decode` is the plain one, a table of what the manual says.
`decode_all` takes the batches of the pipeline, and reads rows with code unrolled for their number of
columns; wherever that code meets something unusual it gives up, and the plain way says what it is.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, Final, Literal, NamedTuple, NoReturn, TypeAlias, final

from replicator.errors import DecodeError
from replicator.wal.lsn import Lsn

# -- Values ----------------------------------------------------------------------------------------


@final
class Unchanged:
    """A TOASTed value that the update did not touch, so the WAL did not resend it.

    There is one, `UNCHANGED`; compare with `is`. It is neither true nor false, so that `value or default`
    cannot lose a value; and it is no Enum member, so that neither a JSON encoder nor a database driver
    knows a way to write it down.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return "UNCHANGED"

    def __bool__(self) -> NoReturn:
        raise TypeError("UNCHANGED is neither true nor false; ask `value is UNCHANGED`")

    def __reduce__(self) -> str:
        return "UNCHANGED"  # pickled and copied by name: it stays the only one


UNCHANGED: Final = Unchanged()

#: Text format is str, binary format bytes, SQL NULL None.
Value: TypeAlias = str | bytes | Unchanged | None
Row: TypeAlias = tuple[Value, ...]

_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)


def to_datetime(microseconds: int) -> datetime:
    """A timestamp of the stream (microseconds since 2000-01-01 UTC) as a datetime."""
    return _EPOCH + timedelta(microseconds=microseconds)


# -- Frames ----------------------------------------------------------------------------------------

#: The first byte of a frame.
XLOG_DATA: Final = ord("w")
KEEPALIVE: Final = ord("k")
#: Where the pgoutput message begins in a frame of WAL data.
PAYLOAD: Final = 25

_FRAMES = {b"w": struct.Struct(">cQQq"), b"k": struct.Struct(">cQqB")}
_STATUS_UPDATE = struct.Struct(">cQQQq?")


class XLogData(NamedTuple):
    """A piece of WAL: one pgoutput message."""

    wal_start: Lsn
    wal_end: Lsn
    send_time: int
    payload: bytes


class Keepalive(NamedTuple):
    """The server lives, and stands at `wal_end`."""

    wal_end: Lsn
    send_time: int
    reply_requested: bool


Frame: TypeAlias = XLogData | Keepalive


def decode_frame(data: bytes) -> Frame:
    """One CopyData payload, its message still bytes."""
    layout = _FRAMES.get(data[:1])
    if layout is None:
        raise DecodeError("unknown kind of frame" if data else "an empty frame", 0)
    if len(data) < layout.size:
        raise DecodeError("the frame ends early", len(data))
    tag, *fields = layout.unpack_from(data)
    if tag == b"w":
        start, end, sent = fields
        return XLogData(Lsn(start), Lsn(end), sent, data[PAYLOAD:])
    end, sent, reply = fields
    if len(data) > layout.size or reply > 1:
        raise DecodeError("a keepalive that does not end as one", layout.size - 1)
    return Keepalive(Lsn(end), sent, reply == 1)


def wants_reply(frame: bytes) -> bool:
    """Whether the server asks, with this frame, to be answered at once."""
    heard = decode_frame(frame)
    return isinstance(heard, Keepalive) and heard.reply_requested


def status_update(written: int, flushed: int, applied: int, now_us: int, reply: bool = False) -> bytes:
    """The standby status update: what we have, and whether we want an answer to it."""
    return _STATUS_UPDATE.pack(b"r", written, flushed, applied, now_us, reply)


# -- Messages --------------------------------------------------------------------------------------
# Times are microseconds since 2000-01-01 UTC. `relation` is the oid that a Relation message described.
# `xid` is only known inside a streamed block, except where the message itself is about a transaction.

Identity: TypeAlias = Literal["d", "n", "f", "i"]
#: What an old row is: the key only (all other columns None), or whole (REPLICA IDENTITY FULL).
OldKind: TypeAlias = Literal["K", "O"]


class Begin(NamedTuple):
    final_lsn: Lsn
    commit_time: int
    xid: int


class Commit(NamedTuple):
    commit_lsn: Lsn
    end_lsn: Lsn
    commit_time: int


class Origin(NamedTuple):
    commit_lsn: Lsn
    name: str


class Column(NamedTuple):
    name: str
    type_oid: int
    typmod: int
    key: bool


class Relation(NamedTuple):
    oid: int
    namespace: str
    name: str
    identity: Identity
    columns: tuple[Column, ...]
    xid: int | None = None


class Type(NamedTuple):
    oid: int
    namespace: str
    name: str
    xid: int | None = None


class Insert(NamedTuple):
    relation: int
    new: Row
    xid: int | None = None


class Update(NamedTuple):
    relation: int
    old: Row | None
    old_kind: OldKind | None
    new: Row
    xid: int | None = None


class Delete(NamedTuple):
    relation: int
    old: Row
    old_kind: OldKind
    xid: int | None = None


class Truncate(NamedTuple):
    relations: tuple[int, ...]
    cascade: bool
    restart_identity: bool
    xid: int | None = None


class LogicalMessage(NamedTuple):
    """What `pg_logical_emit_message` wrote; the manual calls it just Message."""

    transactional: bool
    lsn: Lsn
    prefix: str
    content: bytes
    xid: int | None = None


class StreamStart(NamedTuple):
    xid: int
    first: bool


class StreamStop(NamedTuple):
    pass


class StreamCommit(NamedTuple):
    xid: int
    commit_lsn: Lsn
    end_lsn: Lsn
    commit_time: int


class StreamAbort(NamedTuple):
    """The position and the time are sent with `streaming 'parallel'` only."""

    xid: int
    subxid: int
    abort_lsn: Lsn | None = None
    abort_time: int | None = None


class BeginPrepare(NamedTuple):
    prepare_lsn: Lsn
    end_lsn: Lsn
    prepare_time: int
    xid: int
    gid: str


class Prepare(NamedTuple):
    prepare_lsn: Lsn
    end_lsn: Lsn
    prepare_time: int
    xid: int
    gid: str


class CommitPrepared(NamedTuple):
    commit_lsn: Lsn
    end_lsn: Lsn
    commit_time: int
    xid: int
    gid: str


class RollbackPrepared(NamedTuple):
    prepare_end_lsn: Lsn
    rollback_end_lsn: Lsn
    prepare_time: int
    rollback_time: int
    xid: int
    gid: str


class StreamPrepare(NamedTuple):
    prepare_lsn: Lsn
    end_lsn: Lsn
    prepare_time: int
    xid: int
    gid: str


Message: TypeAlias = (
    Begin
    | Commit
    | Origin
    | Relation
    | Type
    | Insert
    | Update
    | Delete
    | Truncate
    | LogicalMessage
    | StreamStart
    | StreamStop
    | StreamCommit
    | StreamAbort
    | BeginPrepare
    | Prepare
    | CommitPrepared
    | RollbackPrepared
    | StreamPrepare
)


# -- The plain way ---------------------------------------------------------------------------------


class _Reader:
    """A place in a message, and the ways to move on from it."""

    __slots__ = ("at", "data", "name", "xid")

    def __init__(self, data: bytes, at: int, name: str) -> None:
        self.data, self.at, self.name = data, at, name
        self.xid: int | None = None

    def fail(self, what: str, at: int) -> NoReturn:
        raise DecodeError(f"{self.name}: {what}", at)

    def take(self, layout: struct.Struct) -> tuple[Any, ...]:
        at, self.at = self.at, self.at + layout.size
        if self.at > len(self.data):
            self.fail("the message ends early", len(self.data))
        return layout.unpack_from(self.data, at)

    def number(self, layout: struct.Struct) -> int:
        number: int = self.take(layout)[0]
        return number

    def one_of(self, bytes_: bytes, what: str) -> int:
        """A byte that can only be one of these."""
        byte = self.number(_BYTE)
        if byte not in bytes_:
            self.fail(what, self.at - 1)
        return byte

    def slice(self) -> bytes:
        """Bytes after their length."""
        length = self.number(_INT32)
        if length < 0:
            self.fail("a negative length", self.at - 4)
        if self.at + length > len(self.data):
            self.fail("a value reaches past the end", self.at - 4)
        start, self.at = self.at, self.at + length
        return self.data[start : self.at]

    def string(self) -> str:
        """Text up to a zero byte."""
        start, end = self.at, self.data.find(0, self.at)
        if end < 0:
            self.fail("a string without an end", start)
        self.at = end + 1
        return self.text(self.data[start:end], start)

    def text(self, raw: bytes, at: int) -> str:
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            at += error.start
        # Raised out here, so that no traceback has the other error, and with it the bytes, in tow.
        self.fail("text that is not UTF-8", at)

    def end(self) -> None:
        if self.at != len(self.data):
            self.fail("bytes after the end of the message", self.at)


_BYTE, _UINT16 = struct.Struct(">B"), struct.Struct(">H")
_INT32, _UINT32 = struct.Struct(">i"), struct.Struct(">I")
_LSN = struct.Struct(">Q")
_TWO_XIDS = struct.Struct(">II")
_LSN_TIME = struct.Struct(">Qq")
_LSN_TIME_XID = struct.Struct(">QqI")
_COMMIT = struct.Struct(">BQQq")
_LSNS_TIME_XID = struct.Struct(">QQqI")
_LSNS_TIMES_XID = struct.Struct(">QQqqI")
_COLUMN = struct.Struct(">Ii")


def decode(data: bytes, offset: int = 0, streamed: bool = False) -> Message:
    """The message that begins at `offset` and fills the rest of `data`."""
    tag = data[offset : offset + 1]
    if not tag:
        raise DecodeError("no message", offset)
    if tag not in _MESSAGES:
        raise DecodeError("unknown kind of message", offset)
    name, read = _MESSAGES[tag]
    reader = _Reader(data, offset + 1, name)
    if streamed and tag in _TELL_XID:
        reader.xid = reader.number(_UINT32)
    message = read(reader)
    reader.end()
    return message


def _begin(reader: _Reader) -> Begin:
    at = reader.at
    final, time, xid = reader.take(_LSN_TIME_XID)
    if not final:
        reader.fail("no final position", at)
    return Begin(Lsn(final), time, xid)


def _commit(reader: _Reader) -> Commit:
    return Commit(*_ending(reader))


def _ending(reader: _Reader) -> tuple[Lsn, Lsn, int]:
    """What the four endings share: no flags, where the record is, where it ends, and when."""
    at = reader.at
    flags, lsn, end, time = reader.take(_COMMIT)
    if flags:
        reader.fail("unknown flags", at)
    _in_order(reader, lsn, end, at + 1)
    return Lsn(lsn), Lsn(end), time


def _in_order(reader: _Reader, lsn: int, end: int, at: int) -> None:
    if not 0 < lsn <= end:
        reader.fail("positions that cannot be: zero, or an end before its beginning", at)


def _origin(reader: _Reader) -> Origin:
    return Origin(Lsn(reader.number(_LSN)), reader.string())


def _relation(reader: _Reader) -> Relation:
    oid = reader.number(_UINT32)
    namespace, name = reader.string() or "pg_catalog", reader.string()
    identity: Any = chr(reader.one_of(b"dnfi", "unknown replica identity"))
    columns = tuple([_column(reader) for _ in range(reader.number(_UINT16))])
    return Relation(oid, namespace, name, identity, columns, reader.xid)


def _column(reader: _Reader) -> Column:
    key = reader.one_of(b"\0\1", "unknown flags of a column")
    name = reader.string()
    type_oid, typmod = reader.take(_COLUMN)
    return Column(name, type_oid, typmod, key == 1)


def _type(reader: _Reader) -> Type:
    oid = reader.number(_UINT32)
    return Type(oid, reader.string() or "pg_catalog", reader.string(), reader.xid)


def _insert(reader: _Reader) -> Insert:
    relation = reader.number(_UINT32)
    reader.one_of(b"N", "no new row")
    return Insert(relation, _row(reader), reader.xid)


def _update(reader: _Reader) -> Update:
    relation = reader.number(_UINT32)
    kind: Any = chr(reader.one_of(b"KON", "neither an old row nor a new one"))
    if kind == "N":
        return Update(relation, None, None, _row(reader), reader.xid)
    old = _row(reader)
    reader.one_of(b"N", "no new row")
    return Update(relation, old, kind, _row(reader), reader.xid)


def _delete(reader: _Reader) -> Delete:
    relation = reader.number(_UINT32)
    kind: Any = chr(reader.one_of(b"KO", "no old row"))
    return Delete(relation, _row(reader), kind, reader.xid)


def _row(reader: _Reader) -> Row:
    return tuple([_value(reader) for _ in range(reader.number(_UINT16))])


def _value(reader: _Reader) -> Value:
    match reader.one_of(b"tnub", "unknown kind of value"):
        case 0x6E:  # n
            return None
        case 0x75:  # u
            return UNCHANGED
        case 0x62:  # b
            return reader.slice()
        case _:
            raw = reader.slice()
            return reader.text(raw, reader.at - len(raw))


def _truncate(reader: _Reader) -> Truncate:
    at = reader.at
    count = reader.number(_INT32)
    options = reader.one_of(b"\0\1\2\3", "unknown options")
    if not 0 <= count <= (len(reader.data) - reader.at) // 4:
        reader.fail("a count of relations that cannot be", at)
    relations = reader.take(struct.Struct(f">{count}I"))
    return Truncate(relations, bool(options & 1), bool(options & 2), reader.xid)


def _message(reader: _Reader) -> LogicalMessage:
    transactional = reader.one_of(b"\0\1", "unknown flags") == 1
    lsn = Lsn(reader.number(_LSN))
    return LogicalMessage(transactional, lsn, reader.string(), reader.slice(), reader.xid)


def _stream_start(reader: _Reader) -> StreamStart:
    xid = reader.number(_UINT32)
    return StreamStart(xid, reader.one_of(b"\0\1", "neither the first block nor a later one") == 1)


def _stream_stop(reader: _Reader) -> StreamStop:
    return StreamStop()


def _stream_commit(reader: _Reader) -> StreamCommit:
    return StreamCommit(reader.number(_UINT32), *_ending(reader))


def _stream_abort(reader: _Reader) -> StreamAbort:
    xid, subxid = reader.take(_TWO_XIDS)
    if reader.at == len(reader.data):
        return StreamAbort(xid, subxid)
    lsn, time = reader.take(_LSN_TIME)
    return StreamAbort(xid, subxid, Lsn(lsn), time)


def _begin_prepare(reader: _Reader) -> BeginPrepare:
    return BeginPrepare(*_two_phases(reader))


def _prepare(reader: _Reader) -> Prepare:
    reader.one_of(b"\0", "unknown flags")
    return Prepare(*_two_phases(reader))


def _commit_prepared(reader: _Reader) -> CommitPrepared:
    reader.one_of(b"\0", "unknown flags")
    return CommitPrepared(*_two_phases(reader))


def _stream_prepare(reader: _Reader) -> StreamPrepare:
    reader.one_of(b"\0", "unknown flags")
    return StreamPrepare(*_two_phases(reader))


def _two_phases(reader: _Reader) -> tuple[Lsn, Lsn, int, int, str]:
    """What the messages about a prepared transaction share."""
    at = reader.at
    lsn, end, time, xid = reader.take(_LSNS_TIME_XID)
    _in_order(reader, lsn, end, at)
    return Lsn(lsn), Lsn(end), time, xid, reader.string()


def _rollback_prepared(reader: _Reader) -> RollbackPrepared:
    reader.one_of(b"\0", "unknown flags")
    at = reader.at
    prepared, end, prepare_time, time, xid = reader.take(_LSNS_TIMES_XID)
    _in_order(reader, prepared, end, at)
    return RollbackPrepared(Lsn(prepared), Lsn(end), prepare_time, time, xid, reader.string())


_MESSAGES: Final[dict[bytes, tuple[str, Callable[[_Reader], Message]]]] = {
    b"B": ("Begin", _begin),
    b"C": ("Commit", _commit),
    b"O": ("Origin", _origin),
    b"R": ("Relation", _relation),
    b"Y": ("Type", _type),
    b"I": ("Insert", _insert),
    b"U": ("Update", _update),
    b"D": ("Delete", _delete),
    b"T": ("Truncate", _truncate),
    b"M": ("Message", _message),
    b"S": ("Stream Start", _stream_start),
    b"E": ("Stream Stop", _stream_stop),
    b"c": ("Stream Commit", _stream_commit),
    b"A": ("Stream Abort", _stream_abort),
    b"b": ("Begin Prepare", _begin_prepare),
    b"P": ("Prepare", _prepare),
    b"K": ("Commit Prepared", _commit_prepared),
    b"r": ("Rollback Prepared", _rollback_prepared),
    b"p": ("Stream Prepare", _stream_prepare),
}
#: What begins with an xid inside a streamed block.
_TELL_XID: Final = b"RYIUDTM"


# -- The fast way ----------------------------------------------------------------------------------
# All rows of one table begin alike: what happened, the oid, which row follows, the number of columns. Those
# eight bytes, once a plainly decoded message has shown them to be right, lead to a function unrolled for that
# number of columns. It accepts nothing that the plain way refuses, and decides nothing: on any surprise
# it returns None, and the plain way decodes the frame or says what is wrong with it.
#
# Measured in CPython 3.11 with rows of nine columns and 240 bytes, as rates: the plain way 1, one loop over
# the columns 3.2, unrolled 3.7. Decoding the frame once as Latin-1 and cutting values from that text gains
# a tenth more where all is short ASCII, and loses it where a value is long or not ASCII; it is not done.

_ReadRow: TypeAlias = Callable[[bytes, int, int, int | None], Message | None]

#: By the first eight bytes of a row's message (without its xid): how to read it, and its relation.
_seen: Final[dict[bytes, tuple[_ReadRow, int]]] = {}
#: Tables come and go; what is remembered about them has an end.
_SEEN_MAX = 10_000
#: Compiling takes a while; a table wider than this is read plainly.
_COLUMNS_MAX = 400
_ROWS: Final = (Insert, Update, Delete)
_EDGES: Final = (StreamStart, StreamStop)


def decode_all(frames: Sequence[bytes], streamed: bool = False) -> list[Message | Keepalive]:
    """What these frames say, in order: their messages, and the keepalives between them.

    `streamed` says whether the first of them is inside a streamed block; the blocks that begin and end
    among them are noticed.
    """
    messages: list[Message | Keepalive] = []
    append, seen = messages.append, _seen.get
    for frame in frames:
        message: Message | Keepalive | None = None
        if streamed:
            known, at, xid = seen(frame[25:26] + frame[30:37]), 37, int.from_bytes(frame[26:30])
        else:
            known, at, xid = seen(frame[25:33]), 33, None
        if known is not None and frame[0] == XLOG_DATA:
            read, relation = known
            message = read(frame, at, relation, xid)
        if message is None:
            message = _decode_plainly(frame, streamed)
            if isinstance(message, _EDGES):
                streamed = isinstance(message, StreamStart)
        append(message)
    return messages


def _decode_plainly(frame: bytes, streamed: bool) -> Message | Keepalive:
    if frame[:1] != b"w" or len(frame) < PAYLOAD:
        heard = decode_frame(frame)
        assert isinstance(heard, Keepalive)
        return heard
    message = decode(frame, PAYLOAD, streamed)
    if isinstance(message, _ROWS):
        _remember(frame[25:26] + frame[30:37] if streamed else frame[25:33], message.relation)
    return message


def _remember(head: bytes, relation: int) -> None:
    count = int.from_bytes(head[6:])
    if head in _seen or count > _COLUMNS_MAX:
        return
    if len(_seen) >= _SEEN_MAX:
        _seen.clear()
    _seen[head] = _unrolled(chr(head[0]), chr(head[5]), count), relation


# `data` gets four bytes more than the frame, so that a length can be read (and ignored) after a final NULL.
_READ = """
def read(data, at, relation, xid):
    try:
        end = len(data)
        data += b"\\0\\0\\0\\0"
{body}
    except (OutOfBytes, UnicodeDecodeError):
        return None
    return {result} if at == end else None
"""
_READ_VALUE = """
        kind, size = head(data, at)
        if kind == 0x74:
            start = at + 5
            at = start + size
            {name} = data[start:at].decode()
        elif kind == 0x6E:
            {name} = None
            at += 1
        elif kind == 0x75:
            {name} = UNCHANGED
            at += 1
        else:
            return None
"""
_READ_NEXT_ROW = """
        if data[at : at + 3] != {head}:
            return None
        at += 3
"""
#: The tuple is made first and given its type after: half the price of calling the type.
_RESULTS: Final = {
    "I": "make(Insert, (relation, {new}, xid))",
    "U": "make(Update, (relation, {old}, {old_kind}, {new}, xid))",
    "D": "make(Delete, (relation, {old}, {old_kind}, xid))",
}


@cache
def _unrolled(tag: str, first: str, count: int) -> _ReadRow:
    """How to read an I, U or D whose first row is an N, K or O of so many columns."""
    new, old = ([f"{row}{number}" for number in range(count)] for row in ("new", "old"))
    rows = [new] if first == "N" else [old, new] if tag == "U" else [old]
    next_row = _READ_NEXT_ROW.format(head=b"N" + count.to_bytes(2))
    body = next_row.join("".join(_READ_VALUE.format(name=name) for name in row) for row in rows)
    result = _RESULTS[tag].format(
        new=_display(new),
        old="None" if first == "N" else _display(old),
        old_kind=None if first == "N" else repr(first),
    )
    names: dict[str, Any] = {
        "head": struct.Struct(">BI").unpack_from,
        "make": tuple.__new__,
        "OutOfBytes": struct.error,
        "UNCHANGED": UNCHANGED,
        **{kind.__name__: kind for kind in (Insert, Update, Delete)},
    }
    exec(compile(_READ.format(body=body, result=result), f"<{tag}{first}{count}>", "exec"), names)
    read: _ReadRow = names["read"]
    return read


def _display(names: list[str]) -> str:
    return f"({''.join(f'{name}, ' for name in names)})"
