"""Bytes of one pgoutput message → the Message, plainly: a table of what the manual says. No I/O.

Inside a streamed block (protocol 2 and up, between Stream Start and Stream Stop) some messages say first
which transaction they belong to; `streamed` tells the decoder to expect that, and `xid` holds it.

Whatever the bytes are, decoding gives a message or raises DecodeError with the offset of the trouble.
No error repeats bytes of a row: a length read from the wrong place is a piece of somebody's data too.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, Final, NoReturn

from replicator.errors import DecodeError
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
    Update,
    Value,
)


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
