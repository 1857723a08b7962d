"""RSocket frames ↔ bytes: what is written is read, what is no frame is told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.sync.rsocket_frames import (
    FRAME_MOST,
    NUMBER_MOST,
    TEXT_MOST,
    Broken,
    Cancel,
    Error,
    ErrorCode,
    Frame,
    Keepalive,
    Kind,
    Lease,
    Other,
    Payload,
    RequestN,
    RequestStream,
    Setup,
    decode,
    encode,
    values,
)

NUMBERS = st.integers(0, NUMBER_MOST)
STREAMS, WANTED = st.integers(1, NUMBER_MOST), st.integers(1, NUMBER_MOST)
METADATA, DATA, FLAG = st.none() | st.binary(max_size=300), st.binary(max_size=300), st.booleans()
MEDIA_TYPES = st.text(st.characters(max_codepoint=127), max_size=255)
UNREAD = sorted(set(range(64)) - {kind for kind in Kind if kind not in (4, 5, 7, 12, 13, 14, 63)})
FRAMES: st.SearchStrategy[Frame] = st.one_of(
    st.builds(
        Setup,
        NUMBERS,
        NUMBERS,
        MEDIA_TYPES,
        MEDIA_TYPES,
        METADATA,
        DATA,
        METADATA,
        FLAG,
        st.tuples(st.integers(0, 65535), st.integers(0, 65535)),
    ),
    st.builds(Keepalive, FLAG, DATA, st.integers(0, (1 << 64) - 1)),
    st.builds(RequestStream, STREAMS, WANTED, METADATA, DATA, FLAG),
    st.builds(RequestN, STREAMS, WANTED),
    st.builds(Cancel, STREAMS),
    st.builds(Payload, STREAMS, METADATA, DATA, FLAG, FLAG, FLAG),
    st.builds(Error, NUMBERS, st.integers(0, (1 << 32) - 1), st.text(max_size=99)),
    st.builds(Lease, NUMBERS, NUMBERS, METADATA),
    st.builds(Other, st.sampled_from(UNREAD), NUMBERS, FLAG),
)


def well_formed(text: str) -> bool:
    return text.encode(errors="replace").decode() == text


@given(FRAMES)
def test_what_is_written_is_read(frame: Frame) -> None:
    if isinstance(frame, Error) and not well_formed(frame.text):
        return
    assert decode(encode(frame)) == frame


@given(st.binary(max_size=80))
def test_any_bytes_are_a_frame_or_broken(message: bytes) -> None:
    assert isinstance(decode(message), Frame | Broken)


@given(FRAMES, st.data())
def test_a_damaged_frame_is_a_frame_or_broken(frame: Frame, data: st.DataObject) -> None:
    message = bytearray(encode(frame))
    at = data.draw(st.integers(0, len(message) - 1))
    message[at] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(message)))
    assert isinstance(decode(bytes(message[:cut])), Frame | Broken)


@pytest.mark.parametrize(
    "frame",
    [
        Setup(20_000, 90_000, "application/json", "application/json", b"{}", resume_token=b"token"),
        RequestStream(1, 10, b"{}"),
        RequestN(1, 10),
        Keepalive(True),
        Lease(1, 1),
    ],
    ids=lambda frame: type(frame).__name__,
)
def test_a_frame_cut_short_is_broken(frame: Frame) -> None:
    message = encode(frame)
    for size in range(len(message)):
        assert isinstance(decode(message[:size]), Broken), size


def test_the_bytes_of_a_request_are_those_of_the_specification() -> None:
    message = bytes.fromhex("00000001 1900 0000000a 000002 7b7d 5b5d")
    assert decode(message) == RequestStream(1, 10, b"{}", b"[]")
    assert encode(RequestStream(1, 10, b"{}", b"[]")) == message


def test_the_bytes_of_a_setup_are_those_of_the_specification() -> None:
    message = bytes.fromhex("00000000 0500 0001 0000 00004e20 00015f90 0161 0162 000001 6d 64")
    setup = Setup(20_000, 90_000, "a", "b", b"m", b"d")
    assert decode(message) == setup
    assert encode(setup) == message


def test_the_bytes_of_a_value_an_end_and_a_keepalive_are_those_of_the_specification() -> None:
    assert encode(Payload(3, data=b"x")).hex(" ") == "00 00 00 03 28 20 78"
    assert encode(Payload(3, complete=True, next=False)).hex(" ") == "00 00 00 03 28 40"
    assert encode(Keepalive(True)).hex(" ") == "00 00 00 00 0c 80 00 00 00 00 00 00 00 00"
    assert encode(Error(0, ErrorCode.REJECTED_SETUP, "no")).hex(" ") == "00 00 00 00 2c 00 00 00 00 03 6e 6f"


@pytest.mark.parametrize("n", [0, 1 << 31])
def test_a_request_for_no_values_is_broken(n: int) -> None:
    assert isinstance(decode(bytes.fromhex("00000001 2000") + n.to_bytes(4)), Broken)


def test_a_request_for_more_values_than_there_are_numbers_is_for_any_number() -> None:
    assert decode(bytes.fromhex("00000001 2000 ffffffff")) == RequestN(1, NUMBER_MOST)


@pytest.mark.parametrize("kind", [Kind.REQUEST_STREAM, Kind.REQUEST_N, Kind.CANCEL, Kind.PAYLOAD])
def test_a_frame_for_a_stream_must_name_one(kind: Kind) -> None:
    assert isinstance(decode(bytes(4) + (kind << 10).to_bytes(2) + b"\0\0\0\1"), Broken)


@pytest.mark.parametrize("kind", [Kind.SETUP, Kind.KEEPALIVE, Kind.LEASE])
def test_a_frame_for_the_connection_must_not_name_a_stream(kind: Kind) -> None:
    assert isinstance(decode(b"\0\0\0\1" + (kind << 10).to_bytes(2) + bytes(40)), Broken)


def test_a_frame_longer_than_there_are_is_broken() -> None:
    head = encode(Payload(1))
    assert isinstance(decode(head + bytes(FRAME_MOST - len(head))), Payload)
    assert isinstance(decode(head + bytes(FRAME_MOST - len(head) + 1)), Broken)


def test_the_text_of_an_error_has_an_end() -> None:
    assert len(encode(Error(1, ErrorCode.INVALID, "€" * 9_000))) <= 10 + TEXT_MOST
    read = decode(encode(Error(1, ErrorCode.INVALID, "")) + b"\xff" * 9_000)
    assert isinstance(read, Error) and len(read.text) == TEXT_MOST


@given(st.binary(max_size=200), st.integers(7, 60))
def test_a_value_goes_in_as_many_frames_as_it_takes(data: bytes, most: int) -> None:
    messages = list(values(5, data, most))
    parts = [decode(message) for message in messages]
    assert max(map(len, messages)) <= most
    assert b"".join(part.data for part in parts if isinstance(part, Payload)) == data
    assert [isinstance(part, Payload) and part.follows for part in parts] == [True] * (len(parts) - 1) + [
        False
    ]
    assert all(isinstance(part, Payload) and part.next and not part.complete for part in parts)
    assert len(messages) == max(1, -(-len(data) // (most - 6)))
