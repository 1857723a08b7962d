"""Chunks → pressed bytes that real decoders read, whatever the chunks are and wherever they are cut."""

from __future__ import annotations

import gzip
import random
import threading
import zlib
from collections.abc import Callable

import orjson
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from replicator.sync.lines_accept import Compression
from replicator.sync.press import SMALL_BYTES, presser

PRESSED = (Compression.ZSTD, Compression.GZIP)


def repeated(pattern: bytes, size: int) -> bytes:
    return (pattern * (size // len(pattern) + 1))[:size]


def lines(seed: int, size: int) -> bytes:
    """About so many bytes of what is sent in truth."""
    chance = random.Random(seed)
    row = {"op_id": "", "op": "PUT", "object_type": "vital_signs", "checksum": 0, "data": ""}
    parts: list[bytes] = []
    while sum(map(len, parts[-1:])) * len(parts) < size:
        row |= {"op_id": str(chance.getrandbits(40)), "data": chance.choice(("walk", "rest")) * 9}
        parts.append(orjson.dumps(row))
    return b"\n".join(parts)


SIZES = st.one_of(
    st.integers(0, 3),
    st.integers(SMALL_BYTES - 2, SMALL_BYTES + 2),
    st.integers(1, 300_000),
    st.sampled_from(((1 << 17) - 1, 1 << 17, (1 << 17) + 1, 1 << 19, 1 << 20, 3 << 20)),
)
#: Runs and short periods are what recent offsets are made for; noise is what no compressor can press.
CHUNKS = st.one_of(
    st.builds(repeated, st.binary(min_size=1, max_size=9), SIZES),
    st.builds(lines, st.integers(0, 9), SIZES),
    st.builds(lambda seed, size: random.Random(seed).randbytes(size), st.integers(0, 9), SIZES),
    st.binary(max_size=50),
)


class Decoder:
    """What a receiver that reads as it goes has made of the bytes up to now."""

    def __init__(self, compression: Compression) -> None:
        zstd, gzipped = zstandard.ZstdDecompressor().decompressobj(), zlib.decompressobj(16 + zlib.MAX_WBITS)
        self._reads: Callable[[bytes], bytes] = (
            zstd.decompress if compression is Compression.ZSTD else gzipped.decompress
        )
        self._is_over: Callable[[], bool] = (
            (lambda: zstd.eof) if compression is Compression.ZSTD else (lambda: gzipped.eof)
        )

    def read(self, pressed: bytes) -> bytes:
        return self._reads(pressed)

    @property
    def is_over(self) -> bool:
        return self._is_over()


@pytest.mark.parametrize("compression", PRESSED)
@settings(max_examples=60, deadline=None)
@given(chunks=st.lists(CHUNKS, max_size=12))
def test_each_chunk_can_be_read_as_soon_as_it_arrives(compression: Compression, chunks: list[bytes]) -> None:
    stream, decoder = presser(compression), Decoder(compression)
    for chunk in chunks:
        assert decoder.read(stream.press(chunk)) == chunk
        assert not decoder.is_over
    assert decoder.read(stream.end()) == b""
    assert decoder.is_over


@settings(max_examples=30, deadline=None)
@given(chunks=st.lists(CHUNKS, max_size=6))
def test_a_gzip_stream_is_one_member_with_its_sum_and_length(chunks: list[bytes]) -> None:
    stream = presser(Compression.GZIP)
    pressed = b"".join([*map(stream.press, chunks), stream.end()])
    assert gzip.decompress(pressed) == b"".join(chunks)
    once = zlib.decompressobj(16 + zlib.MAX_WBITS)
    once.decompress(pressed)
    assert once.unused_data == b""


@settings(max_examples=30, deadline=None)
@given(chunks=st.lists(CHUNKS, max_size=6))
def test_a_zstd_stream_is_one_frame_of_a_small_window(chunks: list[bytes]) -> None:
    stream = presser(Compression.ZSTD)
    pressed = b"".join([*map(stream.press, chunks), stream.end()])
    once = zstandard.ZstdDecompressor().decompressobj()
    assert once.decompress(pressed) == b"".join(chunks)
    assert once.unused_data == b""
    parameters = zstandard.get_frame_parameters(pressed)
    # Browsers refuse more than 8 MiB.
    assert parameters.window_size == 1 << 19
    assert not parameters.has_checksum


@pytest.mark.parametrize("compression", PRESSED)
def test_lines_are_pressed(compression: Compression) -> None:
    chunk = lines(1, 200_000)
    assert len(presser(compression).press(chunk)) * 3 < len(chunk)


@pytest.mark.parametrize("compression", PRESSED)
def test_lines_are_pressed_as_well_after_a_long_wait(compression: Compression) -> None:
    stream = presser(compression)
    first = len(stream.press(lines(1, 200_000)))
    for _ in range(1_000):
        stream.press(b'{"token_expires_in":3600}\n')
    assert len(stream.press(lines(1, 200_000))) <= first


@pytest.mark.parametrize("compression", PRESSED)
def test_a_small_chunk_costs_a_few_bytes_more_and_no_compressor(compression: Compression) -> None:
    stream, small = presser(compression), b'{"token_expires_in":3600}\n'
    stream.press(small)
    pressed = stream.press(small)
    assert small in pressed and len(pressed) <= len(small) + 5


@pytest.mark.parametrize("compression", PRESSED)
def test_streams_do_not_disturb_one_another(compression: Compression) -> None:
    streams = [(presser(compression), Decoder(compression)) for _ in range(20)]
    for seed in range(3):
        for at, (stream, decoder) in enumerate(streams):
            chunk = lines(seed * 20 + at, 5_000)
            assert decoder.read(stream.press(chunk)) == chunk


def test_streams_may_be_pressed_in_several_threads() -> None:
    wrong: list[int] = []

    def run(seed: int) -> None:
        stream, decoder = presser(Compression.ZSTD), Decoder(Compression.ZSTD)
        for at in range(40):
            chunk = lines(seed * 100 + at, 20_000)
            if decoder.read(stream.press(chunk)) != chunk:
                wrong.append(seed)

    threads = [threading.Thread(target=run, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_identity_is_the_bytes_themselves() -> None:
    stream = presser(Compression.IDENTITY)
    assert stream.press(b"one\n") + stream.press(b"two\n") + stream.end() == b"one\ntwo\n"


@pytest.mark.parametrize("compression", PRESSED)
def test_a_stream_of_nothing_is_whole(compression: Compression) -> None:
    decoder = Decoder(compression)
    assert decoder.read(presser(compression).end()) == b""
    assert decoder.is_over
