"""What `tail --user` keeps of what it is sent, and when it says that a sum is wrong."""

from __future__ import annotations

from typing import Any

import pytest

from replicator.errors import ProtocolError
from replicator.observe.tail_mirror import Aimed, Came, Expires, Mirror, Unknown, Verdict, lines_in
from replicator.observe.tail_shown import Lines, Table, text

BUCKET = 'mine["u1"]'


def checkpoint(op_id: int, checksum: int, *, priority: int = 3, bucket: str = BUCKET) -> dict[str, Any]:
    told = {"bucket": bucket, "checksum": checksum, "count": 1, "priority": priority}
    return {"checkpoint": {"last_op_id": str(op_id), "write_checkpoint": None, "buckets": [told]}}


def data(*ops: dict[str, Any], bucket: str = BUCKET) -> dict[str, Any]:
    return {"data": {"bucket": bucket, "data": list(ops)}}


def op(op_id: int, kind: str, row: str = "1", checksum: int = 1) -> dict[str, Any]:
    named = {"object_type": "visits", "object_id": row, "subkey": f"7/{row}"}
    said = {"data": '{"note": "angina"}'} if kind == "PUT" else {}
    return {
        "op_id": str(op_id),
        "op": kind,
        "checksum": checksum,
        **(named if kind in "PUT REMOVE" else {}),
        **said,
    }


COMPLETE = {"checkpoint_complete": {"last_op_id": "9"}}


def verdict(mirror: Mirror, line: dict[str, Any] = COMPLETE) -> Verdict:
    told = mirror.take(line)
    assert isinstance(told, Verdict)
    return told


def test_the_sum_is_that_of_all_ops_whether_overtaken_or_not() -> None:
    mirror = Mirror()
    assert mirror.take(checkpoint(9, -(1 << 31))) == Aimed(9, None, 1, 1, False)
    ops = [op(1, "PUT", checksum=5), op(2, "PUT", checksum=1 << 31), op(3, "REMOVE", "2", -5)]
    assert mirror.take(data(*ops)) == Came(BUCKET, 2, 1, 0, 3)
    assert verdict(mirror) == Verdict(9, None, 1, (), {"visits": 1})
    assert mirror.request("c")["buckets"] == [{"name": BUCKET, "after": "9"}]


def test_a_clear_stands_for_everything_before_it() -> None:
    mirror = Mirror()
    mirror.take(checkpoint(9, 7))
    mirror.take(data(op(1, "PUT", checksum=100), op(4, "CLEAR", checksum=3), op(5, "MOVE", checksum=4)))
    assert verdict(mirror).wrong == () and verdict(mirror).rows == {}


def test_a_sum_that_does_not_hold_names_its_bucket() -> None:
    mirror = Mirror()
    mirror.take(checkpoint(9, 6))
    mirror.take(data(op(1, "PUT", checksum=5)))
    assert [tuple(wrong) for wrong in verdict(mirror).wrong] == [(BUCKET, 6, 5)]
    # Its position is not moved on: a client would ask for all of it again.
    assert mirror.request("c")["buckets"] == [{"name": BUCKET, "after": "1"}]


def test_a_partial_compares_the_buckets_of_its_priority_and_before() -> None:
    mirror = Mirror()
    told = checkpoint(9, 0, priority=1, bucket="first[]")["checkpoint"]
    told["buckets"] += checkpoint(9, 8)["checkpoint"]["buckets"]
    mirror.take({"checkpoint": told})
    assert verdict(mirror, {"partial_checkpoint_complete": {"last_op_id": "9", "priority": 1}}).compared == 1
    assert len(verdict(mirror).wrong) == 1


def test_buckets_that_are_not_named_any_more_are_dropped() -> None:
    mirror = Mirror()
    mirror.take(checkpoint(9, 1))
    mirror.take(data(op(1, "PUT")))
    assert verdict(mirror).rows == {"visits": 1}
    diff = {"last_op_id": "12", "write_checkpoint": "3", "updated_buckets": [], "removed_buckets": [BUCKET]}
    assert mirror.take({"checkpoint_diff": diff}) == Aimed(12, 3, 0, 0, True)
    assert verdict(mirror).rows == {} and mirror.kept == {}


def test_a_row_in_two_buckets_is_one_row() -> None:
    mirror = Mirror()
    told = checkpoint(9, 1)["checkpoint"]
    told["buckets"] += checkpoint(9, 1, bucket="other[]")["checkpoint"]["buckets"]
    mirror.take({"checkpoint": told})
    mirror.take(data(op(1, "PUT")))
    mirror.take(data(op(2, "PUT"), bucket="other[]"))
    assert verdict(mirror).rows == {"visits": 1}


@pytest.mark.parametrize(
    "line",
    [
        [],
        {},
        {"checkpoint": {}, "data": {}},
        {"checkpoint": {"last_op_id": "1"}},
        {"checkpoint": None},
        {"data": {"bucket": "none[]", "data": []}},
        data(op(10, "PUT")),
        data(op(2, "PUT"), op(2, "PUT")),
        data(op(3, "TAKE")),
        data({"op_id": "x", "op": "PUT", "data": "angina"}),
    ],
)
def test_what_no_client_could_go_on_from_is_refused(line: object) -> None:
    mirror = Mirror()
    mirror.take(checkpoint(9, 1))
    with pytest.raises(ProtocolError) as error:
        mirror.take(line)
    assert "angina" not in error.value.what


def test_a_difference_to_nothing_is_refused() -> None:
    with pytest.raises(ProtocolError, match="no checkpoint before"):
        Mirror().take(COMPLETE)


def test_unknown_lines_are_passed_over_and_the_token_is_told() -> None:
    assert Mirror().take({"news": 1}) == Unknown("news")
    assert Mirror().take({"token_expires_in": 30}) == Expires(30)


def test_lines_are_put_together_however_they_come() -> None:
    rest, text = bytearray(), b'{"a":1}\n\n{"b":2}\n{"c"'
    found = [line for at in range(len(text)) for line in lines_in([text[at : at + 1]], rest)]
    assert found == [b'{"a":1}', b'{"b":2}'] and rest == b'{"c"'


def test_rows_are_shown_only_when_they_are_asked_for() -> None:
    mirror = Mirror()
    mirror.take(checkpoint(9, 1))
    line = data(op(1, "PUT"))
    came = mirror.take(line)
    for as_json in (False, True):
        said: list[str] = []
        Lines(said.append, as_json=as_json, with_rows=False).tell(came, line)
        assert len(said) == 1 and "angina" not in said[0]
        Lines(said.append, as_json=as_json, with_rows=True).tell(came, line)
        assert "angina" in said[-1]
    assert "1 put" in text(came)


def test_the_table_fills_and_names_no_row(capsys: pytest.CaptureFixture[str]) -> None:
    mirror = Mirror()
    lines = [checkpoint(9, 3), data(op(1, "PUT"), op(2, "PUT", "2", 2)), COMPLETE, {"token_expires_in": 60}]
    with Table() as table:
        for line in lines:
            table.tell(mirror.take(line), line)
    shown = capsys.readouterr().out
    assert "visits" in shown and "1 sum right; visits 2" in shown and "good for 60 s" in shown
    assert "angina" not in shown
