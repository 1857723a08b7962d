"""A row that an expression did not foresee → left out and told, and the rows after it routed all the same."""

from __future__ import annotations

import pytest

from replicator.rules import keys
from replicator.rules.model import Put
from replicator.rules.parse import parse_rules
from replicator.rules.route import Router
from replicator.wal.messages import Column, Relation
from replicator.wal.transactions import Change, Kind

DOC = Relation(1, "public", "doc", "d", (Column("id", 25, -1, True), Column("shape", 25, -1, False)))
#: A MultiPoint that holds a MultiPoint that holds a MultiPolygon of nothing; and lines that hold a point.
BROKEN = [
    "010400000001000000010400000001000000010600000000000000",
    "0105000000020000000102000000000000000101000000000000000000f07f0000000000000040",
]


@pytest.mark.parametrize("shown", ["st_asgeojson(shape)", "st_astext(shape)"])
@pytest.mark.parametrize("shape", BROKEN)
def test_a_shape_that_is_none_stops_nothing(shown: str, shape: str) -> None:
    rules = f"bucket_definitions:\n  all:\n    data: ['SELECT id, {shown} AS shape FROM doc']\n"
    router = Router(parse_rules(rules, "rules"))
    changes = [
        Change(Kind.INSERT, DOC, None, row, at)
        for at, row in enumerate([("odd", shape), ("next", "0101000000000000000000F03F0000000000000040")])
    ]
    routed = router.route(changes)
    assert [intent.object_id for intent in routed if isinstance(intent, Put)][-1] == "next"


def test_bytes_that_are_no_text_are_not_equal_to_others() -> None:
    words = [keys.as_text(value) for value in (b"\xff", b"\xfe", "\ufffd", b"\xef\xbf\xbd")]
    assert len(set(words)) == 3, "only the last two are the same text"
