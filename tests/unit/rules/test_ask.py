"""What a request is asked to go through costs no more than it is long, and has an end."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from replicator.rules import ask as asking
from replicator.rules.ask import Answer, ask
from replicator.rules.asked import A_CALL, Asked, Work
from replicator.rules.compute import jsontext
from replicator.rules.model import Rules
from replicator.rules.parse import parse_rules

EACH = "SELECT value AS x FROM json_each(request.jwt() -> 'grants')"


def ruled(query: str) -> Rules:
    definition = {
        "accept_potentially_dangerous_queries": True,
        "parameters": query,
        "data": ["SELECT * FROM t WHERE a = bucket.x"],
    }
    return parse_rules(json.dumps({"config": {"edition": 2}, "bucket_definitions": {"s": definition}}), "f")


def answered(query: str, jwt: Mapping[str, Any], work: Work | None = None, **sent: Any) -> Answer:
    """What becomes of a request without lookups."""
    rules = ruled(query)
    try:
        next(ask(rules.definitions, Asked("u", jwt, sent), rules.dialect, work))
    except StopIteration as end:
        answer: Answer = end.value
        return answer
    raise AssertionError("this asks lookups")


def parsed_of(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How long the JSON texts are that are parsed from now on."""
    parsed: list[int] = []
    real = jsontext.parsed

    def counted(text: str) -> Any:
        parsed.append(len(text))
        return real(text)

    monkeypatch.setattr(jsontext, "parsed", counted)
    return parsed


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
    parsed = parsed_of(monkeypatch)
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


SENT = "SELECT value AS x FROM json_each(request.parameters() -> 'a') WHERE "


@pytest.mark.parametrize(
    "condition",
    [
        "request.parameters() ->> value = 'k'",
        "json_extract(request.parameters(), value) = 'k'",
        "request.parameters() -> 'one' ->> value = 'k'",
        "value IN request.parameters() -> 'b'",
        "value && (request.parameters() -> 'b')",
        "(request.parameters() -> 'a') && (request.parameters() -> 'b')",
    ],
)
def test_what_a_client_sends_is_parsed_once_however_it_is_asked(
    condition: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed = parsed_of(monkeypatch)
    members = [f'["{i}"]' if value_is_array(condition) else f"$.{i}" for i in range(1000)]
    sent: dict[str, Any] = {"a": members, "b": members, "one": {"z": "x" * 10_000}, "z": "x" * 10_000}
    answer = answered(SENT + condition, {}, **sent)
    assert not answer.failed
    assert sum(parsed) < 4 * len(json.dumps(sent))


def value_is_array(condition: str) -> bool:
    return condition.startswith("value &&")


@pytest.mark.parametrize(
    ("condition", "members"),
    [
        ("length(request.parameters() ->> value) = 7", ["z"] * 1000),
        ("(request.parameters() ->> 'z') LIKE value", [f"%{i}%" for i in range(1000)]),
        ("(request.parameters() ->> 'z') ILIKE value", [f"%x_x_x{i}%" for i in range(1000)]),
        ("length(replace(request.parameters() ->> 'z', 'x', value)) = 1", ["yy"] * 1000),
        ("length((request.parameters() ->> 'z') || value) = 1", ["y"] * 1000),
        ("instr(request.parameters() ->> 'z', value) = 1", ["y"] * 1000),
    ],
)
def test_a_long_text_is_not_gone_through_for_each_member(condition: str, members: list[str]) -> None:
    sent: dict[str, Any] = {"a": members, "z": "x" * 10_000}
    answer = answered(SENT + condition, {}, Work(2_000_000), **sent)
    assert answer.granted == []
    assert "this request is more work than 2,000,000 characters" in answer.failed["s"]


def test_a_value_of_every_bucket_is_work_for_each() -> None:
    query = "SELECT value AS x FROM json_each(request.parameters() -> 'a')"
    assert len(answered(query, {}, Work(100_000), a=[*range(100)]).granted) == 100
    assert "more work" in answered(query, {}, Work(100_000), a=[*range(1000)]).failed["s"]
    long = "SELECT request.parameters() ->> 'z' AS x FROM json_each(request.parameters() -> 'a')"
    assert "more work" in answered(long, {}, Work(100_000), a=[*range(100)], z="x" * 10_000).failed["s"]


def test_what_is_there_to_be_found_is_no_work_of_the_request() -> None:
    rules = ruled(
        "SELECT id AS x FROM teams WHERE id IN (SELECT team FROM members WHERE name = request.user_id())"
    )
    rows = 1000
    work = Work(10 * A_CALL)
    asked = ask(rules.definitions, Asked("u"), rules.dialect, work)
    [first] = next(asked)
    second = asked.send({first: [(i,) for i in range(rows)]})
    with pytest.raises(StopIteration) as end:
        asked.send({need: [(at,)] for at, need in enumerate(second)})
    assert len(end.value.value.granted) == rows


def test_subscriptions_of_one_request_share_its_work_and_not_what_they_say(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    query = (
        "SELECT * FROM t WHERE b = auth.user_id() AND a = subscription.parameter('x') "
        "AND connection.parameter('y') = subscription.parameter('y')"
    )
    rules = parse_rules(f'{{config: {{edition: 3}}, streams: {{s: {{query: "{query}"}}}}}}', "f")
    parsed, work, sent = parsed_of(monkeypatch), Work(100_000), {"y": 1, "z": "x" * 1000}
    granted: list[str] = []
    for at in range(100):
        one = Asked("u", {}, sent, {"x": at, "y": at % 2})
        with pytest.raises(StopIteration) as end:
            next(ask(rules.definitions, one, rules.dialect, work))
        assert not end.value.value.failed
        granted += [grant.bucket for grant in end.value.value.granted]
    assert granted == [f's|0[{at},"u"]' for at in range(1, 100, 2)]
    assert sum(size > 1000 for size in parsed) == 1
    few = Work(5_000)
    ends = []
    for at in range(100):
        with pytest.raises(StopIteration) as end:
            next(ask(rules.definitions, Asked("u", {}, sent, {"x": at, "y": 1}), rules.dialect, few))
        ends.append(end.value.value)
    assert ends[0].granted and not ends[0].failed
    assert not ends[-1].granted and ends[-1].failed.keys() == {"s"}
