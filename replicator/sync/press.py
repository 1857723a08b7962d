"""Chunks of a stream → the bytes to send, pressed; each chunk can be read as soon as it arrives.

Thousands of streams are open and nearly all of them wait, and a compressor keeps hundreds of kilobytes. So no
stream has one: each chunk is pressed without regard to those before it, as blocks in the one frame (zstd)
or member (gzip) of its stream, the beginning and end of which are written here. What is small goes as a block
of its plain bytes. A stream is never several frames: the decoder in Node, among others, ends with the first.

What that asks of the blocks of a chunk is that they mean the same wherever they stand:

- Deflate has it after a flush: whole bytes, and nothing refers to what a fresh compressor has not seen.
- Zstd carries three recent offsets from each block into the next, so those of a fresh compressor would mean
  something else in the middle of a frame. A compressor of several threads cuts its input into jobs, which
  are pressed without knowledge of one another, and so start without recent offsets, tables or history (the
  overlap is turned off). A flush ends a job. One such compressor serves every stream of the process; its own
  frame begins with a first job that nobody is sent, and never ends.
"""

from __future__ import annotations

import zlib
from functools import cache
from threading import Lock
from typing import Protocol

import zstandard

from replicator.sync.lines_accept import Compression

#: Pressing less than this saves less than it costs.
SMALL_BYTES = 1_024
#: Higher ones press lines hardly more, for twice the work.
_LEVEL = 1
#: What a client must be able to look back on, as a power of two: half of the longest usual line.
_WINDOW_LOG = 19
_ZSTD_BLOCK_BYTES = 1 << 17
_STORED_BYTES = (1 << 16) - 1
#: The magic number; no checksum, size or dictionary; the window.
_ZSTD_BEGIN = bytes.fromhex("28b52ffd00") + bytes(((_WINDOW_LOG - 10) << 3,))
#: An empty block of plain bytes, marked as the last.
_ZSTD_END = b"\x01\x00\x00"
#: Deflate; no name, time or extra fields; made fast, on an unknown system.
_GZIP_BEGIN = bytes.fromhex("1f8b08000000000004ff")
#: An empty block in the fixed code, marked as the last.
_DEFLATE_END = b"\x03\x00"


class Presser(Protocol):
    """One stream's way out."""

    def press(self, chunk: bytes) -> bytes:
        """What to send for this chunk; with it the receiver can read everything up to here."""

    def end(self) -> bytes:
        """What closes the stream; nothing may be pressed after it."""


def presser(compression: Compression) -> Presser:
    """The way out of a new stream."""
    match compression:
        case Compression.ZSTD:
            return Zstd()
        case Compression.GZIP:
            return Gzip()
        case Compression.IDENTITY:
            return Identity()


class Identity:
    """Bytes as they are."""

    __slots__ = ()

    def press(self, chunk: bytes) -> bytes:
        return chunk

    def end(self) -> bytes:
        return b""


class Zstd:
    """One frame."""

    __slots__ = ("_begin",)

    def __init__(self) -> None:
        self._begin = _ZSTD_BEGIN

    def press(self, chunk: bytes) -> bytes:
        begin, self._begin = self._begin, b""
        if not chunk:
            return begin
        if len(chunk) < SMALL_BYTES:
            return begin + _zstd_plain(chunk)
        return begin + _blocks().of(chunk)

    def end(self) -> bytes:
        begin, self._begin = self._begin, b""
        return begin + _ZSTD_END


class Gzip:
    """One member, and the running sum and length that its end repeats."""

    __slots__ = ("_begin", "_crc", "_size")

    def __init__(self) -> None:
        self._begin = _GZIP_BEGIN
        self._crc = zlib.crc32(b"")
        self._size = 0

    def press(self, chunk: bytes) -> bytes:
        begin, self._begin = self._begin, b""
        if not chunk:
            return begin
        self._crc = zlib.crc32(chunk, self._crc)
        self._size += len(chunk)
        if len(chunk) < SMALL_BYTES:
            return begin + _stored(chunk)
        fresh = zlib.compressobj(_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
        return b"".join((begin, fresh.compress(chunk), fresh.flush(zlib.Z_SYNC_FLUSH)))

    def end(self) -> bytes:
        begin, self._begin = self._begin, b""
        size = self._size & 0xFFFFFFFF
        return begin + _DEFLATE_END + self._crc.to_bytes(4, "little") + size.to_bytes(4, "little")


class _Blocks:
    """Makes blocks that may stand in any frame with a window of at least ours."""

    def __init__(self) -> None:
        parameters = zstandard.ZstdCompressionParameters.from_level(
            _LEVEL, window_log=_WINDOW_LOG, threads=1, overlap_log=1, write_checksum=False
        )
        self._jobs = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
        # A job is begun and flushed in two calls, which must not be mixed with those for another chunk.
        self._one_at_a_time = Lock()
        self.of(b"first")

    def of(self, chunk: bytes) -> bytes:
        with self._one_at_a_time:
            return self._jobs.compress(chunk) + self._jobs.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)


@cache
def _blocks() -> _Blocks:
    """Made when it is first wanted: its thread would not outlive a fork."""
    return _Blocks()


def _zstd_plain(chunk: bytes) -> bytes:
    """The bytes as one block, which they must fit into."""
    assert len(chunk) <= _ZSTD_BLOCK_BYTES, "larger than a block"
    return (len(chunk) << 3).to_bytes(3, "little") + chunk


def _stored(chunk: bytes) -> bytes:
    """The bytes as one stored block, which they must fit into; it begins and ends at whole bytes."""
    size = len(chunk)
    assert size <= _STORED_BYTES, "larger than a stored block"
    return b"\x00" + size.to_bytes(2, "little") + (size ^ 0xFFFF).to_bytes(2, "little") + chunk
