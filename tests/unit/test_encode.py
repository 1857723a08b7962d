"""Every op is one line of COPY's text format, and is read back as what it was; ids count without a gap."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from zlib import crc32

from hypothesis import example, given
from hypothesis import strategies as st

from replicator.buckets.encode import encode_ops
from replicator.rules.model import Put, Remove

_SPECIAL = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


def lines_of(block: bytes) -> list[str]:
    """Each with the end that it has; nothing else ends a line of COPY."""
    return [line + "\n" for line in block.decode().split("\n")[:-1]]


def read(line: str) -> list[str | None]:
    """A line as the manual of COPY says that it is read."""
    assert line.endswith("\n") and line.count("\n") == 1 and "\r" not in line
    assert line != "\\.\n"
    return [None if field == "\\N" else _unescaped(field) for field in line[:-1].split("\t")]


def _unescaped(field: str) -> str:
    def meant(match: re.Match[str]) -> str:
        assert not re.match(r"[0-7x]", match[1]), "a number of a byte is never written"
        return _SPECIAL.get(match[1], match[1])

    return re.sub(r"\\(.)", meant, field, flags=re.DOTALL)


#: What Postgres can hold: anything but NUL, and halves of characters.
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=6)
odd = st.text(st.sampled_from("\\\t\n\r\v\x01\x85\u2028Nä.a"), max_size=4) | texts
rows = st.dictionaries(odd, odd | st.none() | st.integers()).flatmap(
    lambda row: st.sampled_from([json.dumps(row), json.dumps(row, ensure_ascii=False)])
)
intents = st.builds(Put, odd, odd, odd, odd, rows) | st.builds(Remove, odd, odd, odd, odd)


@given(st.lists(intents, max_size=4), st.integers(0, 2**62))
@example([Put("u", kind, "1", "7/1", "{}") for kind in ("a\tb", "a\tb", "ab", "ab", "a\\b")], 0)
@example(
    [Put("u", "ab", "\t", "7/1", "{}"), Remove("u", "ab", "1", "7/\n1"), Put("u", "ab", "", "7/", "{}")], 0
)
@example([Put('u["\\N"]', "a\tb", "\n", "\\", '{"a":"\\\\N\\n"}'), Remove("\\N", "\\.", "", "\\N")], 0)
def test_ops_are_read_back_as_they_were(intents: Sequence[Put | Remove], after: int) -> None:
    buckets = list(range(5, 5 + len(intents)))
    lines = lines_of(encode_ops(intents, after, buckets))
    assert len(lines) == len(intents)
    for number, (intent, line) in enumerate(zip(intents, lines, strict=True), after + 1):
        _, kind, row_id, subkey = intent[:4]
        data = intent.data if isinstance(intent, Put) else None
        op = "REMOVE" if data is None else "PUT"
        bucket, checksum = str(number - after + 4), crc32(line.split("\t", 3)[3].encode())
        found = read(line)
        assert int(found.pop(2) or "") & 0xFFFFFFFF == checksum
        assert found == [str(number), bucket, op, kind, row_id, subkey, data]


def test_the_same_row_has_the_same_checksum_wherever_it_is_put() -> None:
    put: list[Put | Remove] = [Put(bucket, "visits", "1", "5/1", "{}") for bucket in ("a[]", "b[]")]
    one, other = lines_of(encode_ops(put, 7, [1, 2]))
    later: list[Put | Remove] = [Put("a[]", "visits", "1", "5/1", "[]"), Remove("a[]", "visits", "1", "5/1")]
    changed, gone = lines_of(encode_ops(later, 7, [1, 1]))
    assert read(one)[2] == read(other)[2]
    assert len({read(line)[2] for line in (one, changed, gone)}) == 3
