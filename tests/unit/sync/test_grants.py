"""What one connection may come to: buckets, and values on the way to them, each counted once."""

from __future__ import annotations

import pytest

from replicator.rules.parse import parse_rules
from replicator.sync.auth import User
from replicator.sync.grants import Grants, Most, TooMany, grants
from replicator.sync.request import Request

RULES = parse_rules(
    """
bucket_definitions:
  mine:
    parameters: SELECT ward FROM staff WHERE id = request.user_id()
    data: [SELECT * FROM visits WHERE ward = bucket.ward]
  also:
    parameters: SELECT ward FROM helpers WHERE id = request.user_id()
    data: [SELECT * FROM orders WHERE ward = bucket.ward]
""",
    "rules.yaml",
)
USER = User("ann", {"sub": "ann"}, 2_000_000_000)


def granted(wards: int, most: Most, again: int = 1) -> Grants:
    """What Ann is granted, who has so many wards by each definition, each of them several times over."""
    asking = grants(RULES, USER, Request(), most=most)
    needs = next(asking)
    found = [(f"w{n}",) for n in range(wards)] * again
    try:
        asking.send({need: found for need in needs})
    except StopIteration as end:
        held: Grants = end.value
        return held
    raise AssertionError("there is one lookup to each bucket")


def test_what_is_as_much_as_may_be_is_granted() -> None:
    assert len(granted(5, Most(buckets=10, results=10)).granted) == 10


def test_values_that_come_more_than_once_count_once() -> None:
    assert len({grant.bucket for grant in granted(5, Most(buckets=10, results=10), again=3).granted}) == 10


def test_more_values_than_may_be_are_refused_by_their_definitions() -> None:
    with pytest.raises(TooMany) as refused:
        granted(6, Most(buckets=100, results=10))
    assert refused.value.what == (
        "lookups bring 12 values for a user; one connection may have 10 (also: 6, mine: 6)"
    )
    assert "sync.max_results" in refused.value.hint


def test_more_buckets_than_may_be_are_refused_by_their_definitions() -> None:
    with pytest.raises(TooMany) as refused:
        granted(6, Most(buckets=10, results=100))
    assert refused.value.what == (
        "a user is granted 12 buckets; one connection may have 10 (also: 6, mine: 6)"
    )
