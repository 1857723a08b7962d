"""Lines are what clients read: exact keys, exact types, one line each, in either encoding."""

from __future__ import annotations

import struct
from typing import Any

import bson
import orjson
import pytest
from bson.int64 import Int64
from hypothesis import given
from hypothesis import strategies as st

from replicator.buckets.model import Op, OpId
from replicator.sync.lines import (
    LINE_BYTES,
    LINE_OPS,
    CheckpointLine,
    CompleteLine,
    DataLine,
    DiffLine,
    Encoding,
    Line,
    Listed,
    PartialLine,
    Reason,
    Stream,
    StreamError,
    TokenLine,
    cut,
    encode,
)
from tests.unit.sync.client import BSON, NDJSON, lines_of

MINE = Listed('3#mine|0["u1"]', 2582165875, 12, 3, (Reason("default", 0), Reason("sub", 1)))
LISTED = {
    "bucket": '3#mine|0["u1"]',
    "checksum": 2582165875 - (1 << 32),
    "count": 12,
    "priority": 3,
    "subscriptions": [{"default": 0}, {"sub": 1}],
}
PUT = Op(OpId(1050), "b", "PUT", "todos", "7", "8c1f", 3086416775, '{"id":"7","title":"x\\n","done":0}')
WRITTEN_PUT = {
    "op_id": "1050",
    "op": "PUT",
    "object_type": "todos",
    "object_id": "7",
    "subkey": "8c1f",
    "checksum": 3086416775,
    "data": '{"id":"7","title":"x\\n","done":0}',
}
#: Each kind of line, and the object it is.
LINES: list[tuple[Line, dict[str, Any]]] = [
    (
        CheckpointLine(
            OpId(1050),
            7,
            [MINE],
            [Stream("mine", True, (StreamError(None, "no claim"), StreamError(2, "no number")))],
        ),
        {
            "checkpoint": {
                "last_op_id": "1050",
                "write_checkpoint": "7",
                "buckets": [LISTED],
                "streams": [
                    {
                        "name": "mine",
                        "is_default": True,
                        "errors": [
                            {"subscription": "default", "message": "no claim"},
                            {"subscription": 2, "message": "no number"},
                        ],
                    }
                ],
            }
        },
    ),
    (
        DiffLine(OpId((1 << 63) - 1), None, [MINE], ["gone[]"]),
        {
            "checkpoint_diff": {
                "last_op_id": "9223372036854775807",
                "write_checkpoint": None,
                "updated_buckets": [LISTED],
                "removed_buckets": ["gone[]"],
            }
        },
    ),
    (
        DataLine("b", OpId(0), OpId(1050), True, [PUT]),
        {
            "data": {
                "bucket": "b",
                "after": "0",
                "next_after": "1050",
                "has_more": True,
                "data": [WRITTEN_PUT],
            }
        },
    ),
    (
        PartialLine(OpId(5), 1),
        {"partial_checkpoint_complete": {"last_op_id": "5", "priority": 1}},
    ),
    (CompleteLine(OpId(5)), {"checkpoint_complete": {"last_op_id": "5"}}),
    (TokenLine(3540), {"token_expires_in": 3540}),
]


def data(encoding: Encoding, *ops: Op, raw_data: bool = True) -> list[dict[str, Any]]:
    line = encode(DataLine("b", OpId(0), OpId(9), False, ops), encoding, raw_data=raw_data)
    [read] = lines_of(line, encoding.value)
    found: list[dict[str, Any]] = read["data"]["data"]
    return found


def op(op_id: int, data: str | None, what: str = "PUT") -> Op:
    return Op(OpId(op_id), "b", what, "t", "1", "k", 1, data)


def test_the_content_types_are_what_clients_compare_with() -> None:
    assert (Encoding.NDJSON.value, Encoding.BSON.value) == (NDJSON, BSON)


@pytest.mark.parametrize("line,expected", LINES, ids=lambda value: type(value).__name__)
def test_a_line_of_json_is_one_object_and_one_newline(line: Line, expected: dict[str, Any]) -> None:
    written = encode(line, Encoding.NDJSON, raw_data=True)
    assert written.endswith(b"\n") and written.count(b"\n") == 1
    assert orjson.loads(written) == expected
    assert len(orjson.loads(written)) == 1


@pytest.mark.parametrize("line,expected", LINES, ids=lambda value: type(value).__name__)
def test_a_line_of_bson_is_the_same_document(line: Line, expected: dict[str, Any]) -> None:
    written = encode(line, Encoding.BSON, raw_data=False)
    assert bson.decode(written) == expected
    assert struct.unpack_from("<i", written) == (len(written),)


def test_no_number_is_ever_a_double() -> None:
    def doubles(value: Any) -> bool:
        if isinstance(value, dict):
            return any(map(doubles, value.values()))
        return any(map(doubles, value)) if isinstance(value, list) else isinstance(value, float)

    assert not any(doubles(bson.decode(encode(line, Encoding.BSON, raw_data=True))) for line, _ in LINES)


def test_a_checksum_past_31_bits_is_an_int64_in_bson() -> None:
    [written] = data(Encoding.BSON, PUT)
    assert type(written["checksum"]) is Int64 and written["checksum"] == 3086416775


@pytest.mark.parametrize("stored", [-1208550521, 3086416775])
def test_a_checksum_is_written_alike_however_it_is_stored(stored: int) -> None:
    assert data(Encoding.NDJSON, PUT._replace(checksum=stored))[0]["checksum"] == 3086416775


@pytest.mark.parametrize("seconds,written", [(-5, 0), (0, 0), (1 << 40, (1 << 31) - 1)])
def test_the_time_left_to_a_token_fits_what_clients_read(seconds: int, written: int) -> None:
    line = encode(TokenLine(seconds), Encoding.NDJSON, raw_data=True)
    assert orjson.loads(line) == {"token_expires_in": written}


@pytest.mark.parametrize("encoding", Encoding)
def test_a_remove_names_its_row_without_data(encoding: Encoding) -> None:
    [written] = data(encoding, Op(OpId(3), "b", "REMOVE", "todos", "7", "k", 9, None))
    expected = {"op_id": "3", "op": "REMOVE", "object_type": "todos", "object_id": "7", "subkey": "k"}
    assert written == expected | {"checksum": 9}


@pytest.mark.parametrize("encoding", Encoding)
@pytest.mark.parametrize("what", ["MOVE", "CLEAR"])
def test_a_compacted_op_has_its_checksum_only(encoding: Encoding, what: str) -> None:
    [written] = data(encoding, op(3, None, what))
    assert written == {"op_id": "3", "op": what, "checksum": 1}


def test_older_clients_of_json_get_rows_as_objects() -> None:
    [put, remove] = data(Encoding.NDJSON, PUT, op(1051, None, "REMOVE"), raw_data=False)
    assert put["data"] == {"id": "7", "title": "x\n", "done": 0}
    assert "data" not in remove


def test_a_spliced_text_keeps_its_numbers_to_the_digit() -> None:
    text = '{"big":9007199254740993,"fine":0.10,"long":3.14159265358979323846}'
    line = encode(DataLine("b", OpId(0), OpId(9), False, [op(1, text)]), Encoding.NDJSON, raw_data=False)
    assert text.encode() in line


def test_rows_in_bson_are_always_text() -> None:
    assert data(Encoding.BSON, PUT, raw_data=False)[0]["data"] == PUT.data


def test_a_newline_in_a_stored_text_does_not_end_the_line() -> None:
    line = DataLine("b", OpId(0), OpId(9), False, [op(1, '{"a":\n"x\\n"\n}'), op(2, '{"b":1}')])
    written = encode(line, Encoding.NDJSON, raw_data=False)
    assert written.endswith(b"\n") and written.count(b"\n") == 1
    assert [one["data"] for one in orjson.loads(written)["data"]["data"]] == [{"a": "x\n"}, {"b": 1}]


@given(st.text(st.characters(exclude_categories=["Cs"])), st.text(st.characters(exclude_categories=["Cs"])))
def test_any_name_and_any_text_come_through(name: str, text: str) -> None:
    row = orjson.dumps({"v": text}).decode()
    for encoding in Encoding:
        one = Op(OpId(1), name, "PUT", name, name, name, 1, row)
        for raw_data in (True, False):
            written = encode(DataLine(name, OpId(0), OpId(1), False, [one]), encoding, raw_data=raw_data)
            [read] = lines_of(written, encoding.value)
            assert read["data"]["bucket"] == name
            [put] = read["data"]["data"]
            assert put["object_id"] == put["object_type"] == put["subkey"] == name
            assert put["data"] in (row, {"v": text})


def test_ops_are_cut_into_runs_of_so_many() -> None:
    ops = [op(at, "{}") for at in range(2 * LINE_OPS + 1)]
    assert [len(run) for run in cut(ops)] == [LINE_OPS, LINE_OPS, 1]


def test_a_larger_op_goes_alone_and_in_its_place() -> None:
    large = '{"x":"' + "ü" * (LINE_BYTES // 2) + '"}'
    ops = [op(1, "{}"), op(2, large), op(3, "{}"), op(4, "{}")]
    assert [[one.op_id for one in run] for run in cut(ops)] == [[1], [2], [3, 4]]


def test_no_ops_make_no_run() -> None:
    assert list(cut([])) == []


@given(st.lists(st.integers(0, LINE_BYTES), max_size=8))
def test_runs_are_all_ops_in_their_order_and_of_an_acceptable_size(sizes: list[int]) -> None:
    ops = [op(at, "x" * size) for at, size in enumerate(sizes)]
    runs = list(cut(ops))
    assert [one for run in runs for one in run] == ops
    for run in runs:
        assert len(run) == 1 or sum(len(one.data or "") for one in run) <= LINE_BYTES
