"""A client gets BSON, and compression, only where it says so."""

from __future__ import annotations

import pytest

from replicator.sync.lines import Encoding
from replicator.sync.lines_accept import Compression, accept_encoding, negotiate

BSON, NDJSON = Encoding.BSON.value, Encoding.NDJSON.value


@pytest.mark.parametrize(
    "accept,expected",
    [
        (None, Encoding.NDJSON),
        ("", Encoding.NDJSON),
        ("*/*", Encoding.NDJSON),
        (f"{BSON};q=0.9,{NDJSON};q=0.8", Encoding.BSON),
        (f"{NDJSON};q=0.8, {BSON}; q=0.9", Encoding.BSON),
        (f"{BSON};q=0.8,{NDJSON};q=0.9", Encoding.NDJSON),
        (f"{BSON},{NDJSON}", Encoding.NDJSON),
        (BSON, Encoding.BSON),
        (BSON.upper(), Encoding.BSON),
        (NDJSON, Encoding.NDJSON),
        (f"{BSON},*/*;q=0.1", Encoding.BSON),
        (f"{BSON};q=0,*/*", Encoding.NDJSON),
        (f"{NDJSON};q=0,application/*;q=0.2", Encoding.BSON),
        ("application/json", Encoding.NDJSON),
        (f"{BSON};q=much", Encoding.NDJSON),
        (f"{BSON};q=nan", Encoding.NDJSON),
        (f"{BSON};charset=utf-8", Encoding.BSON),
        (",;,", Encoding.NDJSON),
    ],
)
def test_bson_only_when_it_wins(accept: str | None, expected: Encoding) -> None:
    assert negotiate(accept) is expected


@pytest.mark.parametrize(
    "header,expected",
    [
        (None, "identity"),
        ("", "identity"),
        ("identity", "identity"),
        ("gzip, deflate, br", "gzip"),
        ("gzip, deflate, br, zstd", "zstd"),
        ("zstd;q=0.5, gzip;q=0.8", "gzip"),
        ("GZIP", "gzip"),
        ("zstd;q=0, gzip", "gzip"),
        ("gzip;q=0", "identity"),
        ("gzip;q=0.5, identity;q=0.9", "identity"),
        ("br, deflate", "identity"),
        ("*", "zstd"),
        ("zstd;q=0, *;q=0.1", "gzip"),
        ("*;q=0", "identity"),
    ],
)
def test_the_compression_wanted_most_and_of_several_the_better(header: str | None, expected: str) -> None:
    assert accept_encoding(header) is Compression(expected)
