"""Every op is one row of a binary COPY, and is read back as what it was; ids count without a gap."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from zlib import crc32

from hypothesis import example, given
from hypothesis import strategies as st

from replicator.buckets.encode import number_ops
from replicator.rules.model import Put, Remove
from replicator.rules.printed import print_all, put_again


def read(block: bytes) -> list[list[bytes | None]]:
    """Rows of a binary COPY as the manual says that they are read."""
    rows: list[list[bytes | None]] = []
    at = 0
    while at < len(block):
        (count,) = struct.unpack_from(">h", block, at)
        at += 2
        rows.append([])
        for _ in range(count):
            (size,) = struct.unpack_from(">i", block, at)
            at += 4
            rows[-1].append(None if size < 0 else block[at : at + size])
            at += max(size, 0)
    assert at == len(block)
    return rows


def number(column: bytes | None) -> int:
    assert column is not None
    return int.from_bytes(column, signed=True)


#: What Postgres can hold: anything but NUL, and halves of characters.
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=6)
odd = st.text(st.sampled_from("\\\t\n\r\v\x01\x85\u2028Nä.a"), max_size=4) | texts
rows = st.dictionaries(odd, odd | st.none() | st.integers()).flatmap(
    lambda row: st.sampled_from([json.dumps(row), json.dumps(row, ensure_ascii=False)])
)
intents = st.builds(Put, odd, odd, odd, odd, rows) | st.builds(Remove, odd, odd, odd, odd)


@given(st.lists(intents, max_size=4), st.integers(0, 2**62))
@example([Put("u", kind, "1", "7/1", "{}") for kind in ("a\tb", "a\tb", "ab", "ab", "a\\b")], 0)
@example([Put("u", "ab", "x" * size, "y" * (size + 1), "z" * (size + 2)) for size in (2046, 2047, 2048)], 0)
def test_ops_are_read_back_as_they_were(intents: Sequence[Put | Remove], after: int) -> None:
    printed = print_all(intents)
    assert print_all(printed) == printed
    buckets = list(range(5, 5 + len(intents)))
    found = read(number_ops(printed, after, buckets))
    assert len(found) == len(intents)
    for count, (intent, line, row) in enumerate(zip(intents, found, printed, strict=True)):
        op_id, bucket, checksum, *said = line
        assert op_id is not None and len(op_id) == 8 and number(op_id) == after + 1 + count
        assert bucket is not None and len(bucket) == 4 and number(bucket) == 5 + count
        assert checksum is not None and len(checksum) == 4 and number(checksum) & 0xFFFFFFFF == crc32(row)
        op, data = ("PUT", intent.data.encode()) if isinstance(intent, Put) else ("REMOVE", None)
        assert said == [op.encode(), *[one.encode() for one in intent[1:4]], data]


def test_the_same_row_has_the_same_checksum_wherever_it_is_put() -> None:
    def checksums(*intents: Put | Remove) -> list[int]:
        ops = read(number_ops(print_all(intents), 7, [1, 2]))
        return [number(columns[2]) for columns in ops]

    one, other = checksums(*[Put(bucket, "visits", "1", "5/1", "{}") for bucket in ("a[]", "b[]")])
    changed, gone = checksums(Put("a[]", "visits", "1", "5/1", "[]"), Remove("a[]", "visits", "1", "5/1"))
    assert one == other
    assert len({one, changed, gone}) == 3


@given(st.lists(st.builds(Put, odd, odd, odd, odd, rows), max_size=3))
def test_a_put_that_was_printed_is_read_back_as_it_was(puts: Sequence[Put]) -> None:
    assert list(map(put_again, print_all(puts))) == [put._replace(bucket="") for put in puts]


def test_a_remove_that_was_printed_is_no_put() -> None:
    assert put_again(print_all([Remove("u", "t", "1", "7/1")])[0]) is None
