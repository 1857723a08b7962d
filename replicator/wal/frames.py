"""Bytes of the replication stream ↔ frames: WAL data, keepalives, status updates. No I/O.

A frame is one CopyData payload of the stream: WAL data, which carries one pgoutput message, or a keepalive.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple, TypeAlias

from replicator.errors import DecodeError
from replicator.wal.lsn import Lsn

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
