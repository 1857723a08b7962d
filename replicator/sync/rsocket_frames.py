"""Bytes of a WebSocket message → an RSocket 1.0 frame, or what is wrong with them; and back. No I/O.

A message is one frame, without a length before it: the id of a stream (0: the connection), six bits of kind,
ten of flags, and what the kind asks for. Frames a server has no use for are Others, of which only the id and
whether they may be passed over is read.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import TypeAlias

#: The largest frame there is: its length would be told in 24 bits.
FRAME_MOST = (1 << 24) - 1
#: Numbers of streams, requests and milliseconds have 31 bits. So many requests mean any number.
NUMBER_MOST = (1 << 31) - 1
TEXT_MOST = 4_096

_HEAD = struct.Struct(">IH")
_NUMBER = struct.Struct(">I")
_SETUP = struct.Struct(">HHII")
_LEASE = struct.Struct(">II")
_POSITION = struct.Struct(">Q")
#: What only some frames have: metadata before the data; more of the same to follow; an end; a next value.
_IGNORE, _METADATA, _FOLLOWS, _COMPLETE, _NEXT = 0x200, 0x100, 0x80, 0x40, 0x20
#: The same bits, of other frames.
_RESPOND, _RESUME, _LEASED = 0x80, 0x80, 0x40


class Kind(IntEnum):
    SETUP = 0x01
    LEASE = 0x02
    KEEPALIVE = 0x03
    REQUEST_RESPONSE = 0x04
    REQUEST_FNF = 0x05
    REQUEST_STREAM = 0x06
    REQUEST_CHANNEL = 0x07
    REQUEST_N = 0x08
    CANCEL = 0x09
    PAYLOAD = 0x0A
    ERROR = 0x0B
    METADATA_PUSH = 0x0C
    RESUME = 0x0D
    RESUME_OK = 0x0E
    EXT = 0x3F


class ErrorCode(IntEnum):
    INVALID_SETUP = 0x001
    UNSUPPORTED_SETUP = 0x002
    REJECTED_SETUP = 0x003
    REJECTED_RESUME = 0x004
    CONNECTION_ERROR = 0x101
    CONNECTION_CLOSE = 0x102
    APPLICATION_ERROR = 0x201
    REJECTED = 0x202
    CANCELED = 0x203
    INVALID = 0x204


@dataclass(frozen=True, slots=True)
class Setup:
    """How a connection begins."""

    keepalive_ms: int
    lifetime_ms: int
    metadata_type: str
    data_type: str
    metadata: bytes | None = None
    data: bytes = b""
    resume_token: bytes | None = None
    is_leased: bool = False
    version: tuple[int, int] = (1, 0)


@dataclass(frozen=True, slots=True)
class Keepalive:
    """A sign of life; one that asks is to be answered with the same data."""

    is_asking: bool
    data: bytes = b""
    position: int = 0


@dataclass(frozen=True, slots=True)
class RequestStream:
    """A request, or the beginning of one, for a stream of at first `n` values."""

    stream: int
    n: int
    metadata: bytes | None = None
    data: bytes = b""
    follows: bool = False


@dataclass(frozen=True, slots=True)
class RequestN:
    """Leave to send so many more values."""

    stream: int
    n: int


@dataclass(frozen=True, slots=True)
class Cancel:
    """The client wants no more of a stream."""

    stream: int


@dataclass(frozen=True, slots=True)
class Payload:
    """A value, a part of one, or of a request; or an end."""

    stream: int
    metadata: bytes | None = None
    data: bytes = b""
    follows: bool = False
    complete: bool = False
    next: bool = True


@dataclass(frozen=True, slots=True)
class Error:
    """The end of a stream, or of the connection."""

    stream: int
    code: int
    text: str


@dataclass(frozen=True, slots=True)
class Lease:
    """Leave to make requests; never asked for."""

    ttl_ms: int
    requests: int
    metadata: bytes | None = None


@dataclass(frozen=True, slots=True)
class Other:
    """A frame of which no more is read; its kind may be one nobody knows."""

    kind: int
    stream: int
    is_ignorable: bool


Frame: TypeAlias = Setup | Keepalive | RequestStream | RequestN | Cancel | Payload | Error | Lease | Other


@dataclass(frozen=True, slots=True)
class Broken:
    """Why bytes are no frame."""

    why: str


class _Wrong(Exception):
    """The bytes are no frame."""


def decode(message: bytes) -> Frame | Broken:
    """The frame that a message is."""
    if len(message) > FRAME_MOST:
        return Broken(f"the frame is longer than {FRAME_MOST:,} bytes")
    try:
        return _Reading(message).frame()
    except _Wrong as wrong:
        return Broken(str(wrong))


class _Reading:
    """Takes a message apart from its front."""

    def __init__(self, message: bytes) -> None:
        self._rest = message

    def frame(self) -> Frame:
        stream, bits = self._numbers(_HEAD)
        kind, flags = bits >> 10, bits & 0x3FF
        if stream > NUMBER_MOST:
            raise _Wrong("the id of the stream has more than 31 bits")
        match kind:
            case Kind.SETUP:
                self._is_of_connection(stream, "SETUP")
                return self._setup(flags)
            case Kind.KEEPALIVE:
                self._is_of_connection(stream, "KEEPALIVE")
                (position,) = self._numbers(_POSITION)
                return Keepalive(bool(flags & _RESPOND), self._rest, position)
            case Kind.LEASE:
                self._is_of_connection(stream, "LEASE")
                ttl_ms, requests = self._numbers(_LEASE)
                has_metadata = flags & _METADATA
                return Lease(
                    ttl_ms & NUMBER_MOST, requests & NUMBER_MOST, self._rest if has_metadata else None
                )
            case Kind.ERROR:
                (code,) = self._numbers(_NUMBER)
                return Error(stream, code, self._rest[:TEXT_MOST].decode(errors="replace"))
            case Kind.REQUEST_STREAM | Kind.REQUEST_N | Kind.CANCEL | Kind.PAYLOAD if stream == 0:
                raise _Wrong(f"{Kind(kind).name} is for a stream, and names none")
            case Kind.REQUEST_STREAM:
                n = self._wanted()
                return RequestStream(stream, n, self._metadata(flags), self._rest, bool(flags & _FOLLOWS))
            case Kind.REQUEST_N:
                return RequestN(stream, self._wanted())
            case Kind.CANCEL:
                return Cancel(stream)
            case Kind.PAYLOAD:
                return self._payload(stream, flags)
        return Other(kind, stream, bool(flags & _IGNORE))

    def _setup(self, flags: int) -> Setup:
        major, minor, keepalive_ms, lifetime_ms = self._numbers(_SETUP)
        token = self._take(int.from_bytes(self._take(2))) if flags & _RESUME else None
        metadata_type, data_type = self._media_type(), self._media_type()
        return Setup(
            keepalive_ms & NUMBER_MOST,
            lifetime_ms & NUMBER_MOST,
            metadata_type,
            data_type,
            self._metadata(flags),
            self._rest,
            token,
            bool(flags & _LEASED),
            (major, minor),
        )

    def _payload(self, stream: int, flags: int) -> Payload:
        metadata = self._metadata(flags)
        return Payload(
            stream,
            metadata,
            self._rest,
            bool(flags & _FOLLOWS),
            bool(flags & _COMPLETE),
            bool(flags & _NEXT),
        )

    def _take(self, size: int) -> bytes:
        if size > len(self._rest):
            raise _Wrong("the frame ends early")
        taken, self._rest = self._rest[:size], self._rest[size:]
        return taken

    def _numbers(self, form: struct.Struct) -> tuple[int, ...]:
        return form.unpack(self._take(form.size))

    def _wanted(self) -> int:
        (n,) = self._numbers(_NUMBER)
        if not n & NUMBER_MOST:
            raise _Wrong("no number of values is asked for")
        return n & NUMBER_MOST

    def _metadata(self, flags: int) -> bytes | None:
        return self._take(int.from_bytes(self._take(3))) if flags & _METADATA else None

    def _media_type(self) -> str:
        written = self._take(self._take(1)[0])
        if not written.isascii():
            raise _Wrong("a media type is not ASCII")
        return written.decode("ascii")

    @staticmethod
    def _is_of_connection(stream: int, name: str) -> None:
        if stream:
            raise _Wrong(f"{name} is for the connection, and names a stream")


def encode(frame: Frame) -> bytes:
    """The message that a frame is."""
    match frame:
        case Setup():
            return _encoded_setup(frame)
        case Keepalive(is_asking, data, position):
            return _head(0, Kind.KEEPALIVE, _RESPOND * is_asking) + _POSITION.pack(position) + data
        case RequestStream(stream, n, metadata, data, follows):
            flags = _FOLLOWS * follows | _METADATA * (metadata is not None)
            return b"".join(
                (_head(stream, Kind.REQUEST_STREAM, flags), _NUMBER.pack(n), _sized(metadata), data)
            )
        case RequestN(stream, n):
            return _head(stream, Kind.REQUEST_N) + _NUMBER.pack(n)
        case Cancel(stream):
            return _head(stream, Kind.CANCEL)
        case Payload(stream, metadata, data, follows, complete, has_next):
            flags = _FOLLOWS * follows | _COMPLETE * complete | _NEXT * has_next
            head = _head(stream, Kind.PAYLOAD, flags | _METADATA * (metadata is not None))
            return b"".join((head, _sized(metadata), data))
        case Error(stream, code, text):
            return _head(stream, Kind.ERROR) + _NUMBER.pack(code) + text.encode(errors="replace")[:TEXT_MOST]
        case Lease(ttl_ms, requests, metadata):
            head = _head(0, Kind.LEASE, _METADATA * (metadata is not None))
            return head + _LEASE.pack(ttl_ms, requests) + (metadata or b"")
        case Other(kind, stream, is_ignorable):
            return _head(stream, kind, _IGNORE * is_ignorable)


def values(stream: int, data: bytes, most: int = FRAME_MOST) -> Iterator[bytes]:
    """The messages that carry one value: as many as it takes for none to be longer than that."""
    room = most - _HEAD.size
    for begin in range(0, len(data) or 1, room):
        follows = begin + room < len(data)
        part = data if begin == 0 and not follows else data[begin : begin + room]
        yield _head(stream, Kind.PAYLOAD, _NEXT | _FOLLOWS * follows) + part


def _head(stream: int, kind: int, flags: int = 0) -> bytes:
    return _HEAD.pack(stream, kind << 10 | flags)


def _sized(metadata: bytes | None) -> bytes:
    return b"" if metadata is None else len(metadata).to_bytes(3) + metadata


def _encoded_setup(setup: Setup) -> bytes:
    flags = _METADATA * (setup.metadata is not None) | _LEASED * setup.is_leased
    token = b""
    if setup.resume_token is not None:
        flags |= _RESUME
        token = len(setup.resume_token).to_bytes(2) + setup.resume_token
    types = (media_type.encode("ascii") for media_type in (setup.metadata_type, setup.data_type))
    head = _head(0, Kind.SETUP, flags)
    numbers = _SETUP.pack(*setup.version, setup.keepalive_ms, setup.lifetime_ms)
    named = b"".join(len(media_type).to_bytes(1) + media_type for media_type in types)
    return b"".join((head, numbers, token, named, _sized(setup.metadata), setup.data))
