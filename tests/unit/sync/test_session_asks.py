"""A request leads to the buckets of its streams, each with why, and hears which streams there are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from replicator.rules.compile import Need
from replicator.rules.parse import parse_rules
from replicator.sync.lines import Reason, Stream
from replicator.sync.request import Request, understood
from replicator.sync.session_asks import Led, lead
from replicator.sync.session_offer import Grant

LEGACY = """
bucket_definitions:
  global:
    data: [SELECT * FROM news]
  mine:
    parameters: SELECT request.user_id() AS who, 1 AS _priority
    data: [SELECT * FROM todos WHERE owner = bucket.who]
"""
STREAMS = """
config: {edition: 3}
streams:
  news: {query: SELECT * FROM news, auto_subscribe: true}
  todos:
    query: SELECT * FROM todos WHERE owner = auth.user_id() AND list = subscription.parameter('list')
    priority: 2
  shared:
    query: SELECT * FROM todos WHERE list IN (SELECT list FROM members WHERE who = auth.user_id())
  broken:
    query: SELECT * FROM todos WHERE owner = auth.user_id() AND list IN subscription.parameter('lists')
"""


def led(
    text: str, streams: Any = None, found: Mapping[str, list[str]] | None = None
) -> tuple[Led, list[set[Need]]]:
    """Where it leads, and what was asked; whatever lookup is asked leads to what `found` says of a user."""
    request = understood({"streams": streams})
    assert isinstance(request, Request)
    leading, questions = lead(parse_rules(text, "rules.yaml"), request, "u1", {"sub": "u1"}), []
    try:
        needs = next(leading)
        while True:
            questions.append(needs)
            values = [(value,) for value in (found or {}).get("u1", [])]
            needs = leading.send({need: values for need in needs})
    except StopIteration as end:
        led: Led = end.value
        return led, questions


def subscribed(*subscriptions: dict[str, Any], include_defaults: bool = True) -> dict[str, Any]:
    return {"include_defaults": include_defaults, "subscriptions": list(subscriptions)}


def test_definitions_of_buckets_are_default_streams() -> None:
    found, _ = led(LEGACY)
    assert found.streams == [Stream("global", True), Stream("mine", True)]
    assert found.granted == [
        Grant("global[]", 3, (Reason("default", 0),)),
        Grant('mine["u1"]', 1, (Reason("default", 1),)),
    ]


def test_without_defaults_there_is_only_what_is_subscribed_to() -> None:
    assert led(LEGACY, subscribed(include_defaults=False))[0] == Led([], [])
    found, _ = led(
        STREAMS, subscribed({"stream": "todos", "parameters": {"list": "L1"}}, include_defaults=False)
    )
    assert found.streams == [Stream("todos", False)]
    assert found.granted == [Grant('todos|0["L1","u1"]', 2, (Reason("sub", 0),))]


def test_each_subscription_has_its_parameters_and_its_priority() -> None:
    found, _ = led(
        STREAMS,
        subscribed(
            {"stream": "todos", "parameters": {"list": "L1"}},
            {"stream": "todos", "parameters": {"list": "L2"}, "override_priority": 0},
            {"stream": "todos", "parameters": {"list": "L1"}, "override_priority": 3},
            {"stream": "todos", "parameters": None},
        ),
    )
    assert found.streams == [Stream("news", True), Stream("todos", False)]
    assert found.granted == [
        Grant("news|0[]", 3, (Reason("default", 0),)),
        Grant('todos|0["L1","u1"]', 2, (Reason("sub", 0),)),
        Grant('todos|0["L2","u1"]', 0, (Reason("sub", 1),)),
        Grant('todos|0["L1","u1"]', 3, (Reason("sub", 2),)),
    ]


def test_a_default_stream_that_is_also_subscribed_to_is_reached_on_both_ways() -> None:
    found, _ = led(STREAMS, subscribed({"stream": "news"}))
    assert found.streams == [Stream("news", True)]
    assert [grant.reasons for grant in found.granted] == [(Reason("default", 0),), (Reason("sub", 0),)]
    assert {grant.bucket for grant in found.granted} == {"news|0[]"}


def test_a_stream_that_does_not_exist_is_absent() -> None:
    found, _ = led(STREAMS, subscribed({"stream": "nowhere"}))
    assert found.streams == [Stream("news", True)] and len(found.granted) == 1


def test_all_ways_ask_at_once() -> None:
    found, questions = led(
        STREAMS, subscribed({"stream": "shared"}, {"stream": "shared"}), {"u1": ["L1", "L2"]}
    )
    assert len(questions) == 1
    assert {
        (grant.bucket, grant.reasons[0].at) for grant in found.granted if grant.reasons[0].kind == "sub"
    } == {
        ('shared|0["L1"]', 0),
        ('shared|0["L2"]', 0),
        ('shared|0["L1"]', 1),
        ('shared|0["L2"]', 1),
    }


def test_what_cannot_be_evaluated_is_told_for_its_subscription_alone() -> None:
    found, _ = led(
        STREAMS,
        subscribed(
            {"stream": "broken", "parameters": {"lists": '["L1"]'}},
            {"stream": "broken", "parameters": {"lists": "[["}},
        ),
    )
    assert [(one.name, [error.subscription for error in one.errors]) for one in found.streams] == [
        ("news", []),
        ("broken", [1]),
    ]
    assert [grant.bucket for grant in found.granted] == ["news|0[]", 'broken|0["L1","u1"]']
