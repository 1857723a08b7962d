"""What a request is asked to go through costs no more than it is long, and has an end."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from replicator.rules import ask as asking
from replicator.rules.ask import Answer, Asked, ask
from replicator.rules.compute import jsontext
from replicator.rules.parse import parse_rules

EACH = "SELECT value AS x FROM json_each(request.jwt() -> 'grants')"


def answered(query: str, jwt: Mapping[str, Any]) -> Answer:
    """What becomes of a request without lookups."""
    definition = {"parameters": query, "data": ["SELECT * FROM t WHERE a = bucket.x"]}
    rules = parse_rules(json.dumps({"config": {"edition": 2}, "bucket_definitions": {"s": definition}}), "f")
    try:
        next(ask(rules.definitions, Asked("u", jwt), rules.dialect))
    except StopIteration as end:
        answer: Answer = end.value
        return answer
    raise AssertionError("this asks lookups")


@pytest.mark.parametrize(
    "condition",
    [
        "key = request.jwt() ->> 'role'",
        "key = request.jwt() -> 'deep' ->> 'role'",
        "key IN request.jwt() -> 'roles'",
        "upper(key) = upper(request.jwt() ->> 'role') AND value != request.user_id()",
    ],
)
def test_what_is_of_the_request_alone_is_computed_once(
    condition: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many members are held against it."""
    parsed: list[str] = []
    real = jsontext.parsed

    def counted(text: str) -> Any:
        parsed.append(text)
        return real(text)

    monkeypatch.setattr(jsontext, "parsed", counted)
    grants = {f"k{i}": f"v{i}" for i in range(500)}
    jwt = {"grants": grants, "role": "k17", "deep": {"role": "k17"}, "roles": ["k17", *map(str, range(500))]}
    answer = answered(f"{EACH} WHERE {condition}", jwt)
    assert [one.bucket for one in answer.granted] == ['s["v17"]']
    assert 0 < len(parsed) < 10


def test_a_member_of_an_array_is_one_as_before() -> None:
    jwt = {"grants": {"a": 1, "b": 2.0, "c": "3", "d": None, "e": 5}, "roles": [1, 2, "3", None, 4]}
    answer = answered(f"{EACH} WHERE value IN request.jwt() -> 'roles'", jwt)
    assert {one.bucket for one in answer.granted} == {"s[1]", "s[2]", 's["3"]'}
    assert answered(f"{EACH} WHERE value IN request.jwt() -> 'none'", jwt).granted == []
    assert answered(f"{EACH} WHERE value IN request.jwt() -> 'grants'", jwt).failed.keys() == {"s"}


def test_members_without_end_grant_nothing_and_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "MOST_WAYS", 10)
    assert len(answered(EACH, {"grants": list(range(10))}).granted) == 10
    answer = answered(EACH, {"grants": list(range(11))})
    assert answer.granted == [] and answer.failed == {"s": "more than 10 members of arrays"}
