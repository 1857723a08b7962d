"""A body is read as its client means it, or refused with every place that cannot be meant."""

from __future__ import annotations

import datetime
import json
from typing import Any

import bson
import pytest
from bson.int64 import Int64
from hypothesis import given
from hypothesis import strategies as st

from replicator.buckets.model import OpId
from replicator.sync import request
from replicator.sync.request import Refused, Request, Subscription, read, understood


def accepted(body: Any) -> Request:
    found = understood(body)
    assert isinstance(found, Request), found
    return found


def refused(body: Any) -> list[str]:
    found = understood(body)
    assert isinstance(found, Refused)
    return list(found.messages)


def test_what_a_client_sends() -> None:
    body = {
        "buckets": [{"name": '3#mine|0["u1"]', "after": "1042"}, {"name": "empty[]", "after": "0"}],
        "include_checksum": True,
        "raw_data": True,
        "binary_data": True,
        "client_id": "5c0c",
        "parameters": {"page": 2},
        "streams": {
            "include_defaults": False,
            "subscriptions": [
                {"stream": "todos", "parameters": {"list": "L1"}, "override_priority": None},
                {"stream": "todos", "parameters": None, "override_priority": 1},
            ],
        },
        "app_metadata": {"version": "1.2"},
    }
    found = read(json.dumps(body).encode())
    assert found == Request(
        buckets={'3#mine|0["u1"]': OpId(1042), "empty[]": OpId(0)},
        client_id="5c0c",
        raw_data=True,
        include_defaults=False,
        subscriptions=(
            Subscription(0, "todos", {"list": "L1"}, None),
            Subscription(1, "todos", {}, 1),
        ),
        parameters={"page": 2},
        app_metadata={"version": "1.2"},
    )
    assert read(bson.encode(body), is_bson=True) == found


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"parameters": None, "streams": None, "client_id": None, "raw_data": None, "buckets": None},
        {"streams": {"include_defaults": None, "subscriptions": None}, "app_metadata": None},
        {"streams": {}, "unknown": [1], "only": ["x"]},
    ],
)
def test_what_is_absent_null_or_unknown_asks_for_the_defaults(body: dict[str, Any]) -> None:
    assert accepted(body) == Request()


@pytest.mark.parametrize(
    "after,position",
    [("0", 0), ("007", 7), (7, 7), (7.0, 7), (Int64(7), 7), (None, 0), (str((1 << 63) - 1), (1 << 63) - 1)],
)
def test_a_position_is_read_however_it_is_written(after: Any, position: int) -> None:
    buckets = accepted({"buckets": [{"name": "a", "after": after}]}).buckets
    assert buckets == {"a": position} and type(buckets["a"]) is int


@pytest.mark.parametrize(
    "after", ["", "-1", -1, "1.5", 1.5, " 1", "1_0", "٣", "x", True, [], str(1 << 63), 1 << 63, "9" * 5000]
)
def test_a_position_that_is_none_is_refused(after: Any) -> None:
    [message] = refused({"buckets": [{"name": "a", "after": after}]})
    assert message == "buckets[0].after: must be a decimal string from 0 to 2^63-1"


@pytest.mark.parametrize("after", [float("nan"), float("inf")])
def test_a_double_that_is_no_number_is_no_position(after: float) -> None:
    found = read(bson.encode({"buckets": [{"name": "a", "after": after}]}), is_bson=True)
    assert isinstance(found, Refused)


def test_of_a_bucket_named_twice_the_last_position_counts() -> None:
    buckets = [{"name": "a", "after": "5"}, {"name": "b", "after": "1"}, {"name": "a", "after": "3"}]
    assert accepted({"buckets": buckets}).buckets == {"a": 3, "b": 1}


def test_the_furthest_position_is_how_far_the_client_has_seen() -> None:
    buckets = [{"name": "a", "after": "5"}, {"name": "b", "after": "9"}]
    assert accepted({"buckets": buckets}).furthest == 9
    assert Request().furthest == 0


def test_everything_wrong_is_told_at_once_and_nothing_that_stood_there() -> None:
    secret = "Ada-Example"
    messages = refused(
        {
            "buckets": [secret, {"name": 5, "after": secret}, {"after": "1"}],
            "client_id": ["x"],
            "raw_data": "yes",
            "parameters": secret,
            "streams": {
                "include_defaults": 1,
                "subscriptions": [secret, {"stream": None, "parameters": [secret], "override_priority": "1"}],
            },
            "app_metadata": {"patient": [secret]},
        }
    )
    assert messages == [
        "buckets[0]: must be an object",
        "buckets[1].name: must be a string",
        "buckets[1].after: must be a decimal string from 0 to 2^63-1",
        "buckets[2].name: must be a string",
        "client_id: must be a string",
        "raw_data: must be true or false",
        "streams.include_defaults: must be true or false",
        "streams.subscriptions[0]: must be an object",
        "streams.subscriptions[1].stream: must be a string",
        "streams.subscriptions[1].parameters: must be an object",
        "streams.subscriptions[1].override_priority: must be a number",
        "parameters: must be an object",
        "app_metadata: must have strings as values",
    ]


@pytest.mark.parametrize("body", [[], "x", 5, None, True])
def test_a_body_that_is_no_object_is_refused(body: Any) -> None:
    assert refused(body) == ["body: must be an object"]


@pytest.mark.parametrize("bytes_", [b"", b"{", b'{"a":NaN}', b"\xff\xfe", b'{"client_id":"\\ud800"}'])
def test_what_is_no_json_is_refused(bytes_: bytes) -> None:
    found = read(bytes_)
    assert isinstance(found, Refused) and found.messages[0].startswith("body: not JSON")


def test_what_the_body_says_is_not_repeated_where_it_is_no_json() -> None:
    found = read(b'{"client_id": Ada-Example}')
    assert isinstance(found, Refused) and "Ada" not in found.messages[0]


@given(st.binary(max_size=60))
def test_any_bytes_are_a_request_or_refused(bytes_: bytes) -> None:
    for is_bson in (False, True):
        assert isinstance(read(bytes_, is_bson=is_bson), Request | Refused)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["buckets", "name", "after", "streams", "subscriptions", "stream", "parameters"]
                ),
                inner,
                max_size=4,
            )
        ),
    )
)
def test_any_value_is_a_request_or_refused(value: Any) -> None:
    assert isinstance(understood(value), Request | Refused)


@pytest.mark.parametrize(
    "body,message",
    [
        ({"buckets": [{"name": "a"}] * (request.BUCKETS_MAX + 1)}, "buckets: must not have more"),
        ({"buckets": [{"name": "a" * (request.BUCKET_NAME_MAX + 1)}]}, "buckets[0].name: must not be longer"),
        ({"client_id": "a" * (request.NAME_MAX + 1)}, "client_id: must not be longer"),
        ({"client_id": "a\0"}, "client_id: must not contain NUL"),
        (
            {"streams": {"subscriptions": [{"stream": "a"}] * (request.SUBSCRIPTIONS_MAX + 1)}},
            "streams.subscriptions: must not have more",
        ),
        ({"app_metadata": {str(at): "" for at in range(200)}}, "app_metadata: must not have more"),
    ],
)
def test_what_is_larger_than_anybody_needs_is_refused(body: dict[str, Any], message: str) -> None:
    [told] = refused(body)
    assert told.startswith(message)


def test_ten_thousand_buckets_are_accepted() -> None:
    buckets = [{"name": f"b[{at}]", "after": str(at)} for at in range(10_000)]
    assert len(accepted({"buckets": buckets}).buckets) == 10_000


def test_problems_are_told_up_to_a_number() -> None:
    assert len(refused({"buckets": [None] * 1000})) == request.PROBLEMS_MAX


@pytest.mark.parametrize(
    "given_,meant", [(0, 0), (3, 3), (2.0, 2), (4, None), (-1, None), (1.5, None), (None, None)]
)
def test_a_priority_there_is_not_leaves_the_streams_own(given_: Any, meant: int | None) -> None:
    body = {"streams": {"subscriptions": [{"stream": "s", "override_priority": given_}]}}
    assert accepted(body).subscriptions[0].override_priority == meant


def test_numbers_of_bson_become_plain_ones() -> None:
    parameters = {"a": Int64(5), "b": [Int64(1 << 40)], "c": {"d": 1.5}}
    found = read(bson.encode({"parameters": parameters}), is_bson=True)
    assert isinstance(found, Request)
    assert found.parameters == {"a": 5, "b": [1 << 40], "c": {"d": 1.5}}
    assert type(found.parameters["a"]) is int and type(found.parameters["b"][0]) is int


@pytest.mark.parametrize("value", [b"x", bson.ObjectId(), datetime.datetime(2026, 1, 1), float("nan")])
def test_what_json_cannot_say_is_no_parameter(value: Any) -> None:
    found = read(bson.encode({"parameters": {"a": [value]}}), is_bson=True)
    assert found == Refused(("parameters: must hold only what JSON can say",))


def test_parameters_nested_too_deep_are_refused() -> None:
    deep: Any = {}
    for _ in range(request.DEPTH_MAX + 1):
        deep = {"a": deep}
    assert refused({"parameters": deep}) == ["parameters: must not be nested deeper than 64"]
    assert isinstance(read(b'{"parameters":' + b"[" * 100_000), Refused)


def test_a_document_nested_without_end_is_refused() -> None:
    document = b"\x05\x00\x00\x00\x00"
    for _ in range(20_000):
        body = b"\x03a\x00" + document + b"\x00"
        document = (len(body) + 4).to_bytes(4, "little") + body
        if len(document) > 200_000:
            break
    assert isinstance(read(document, is_bson=True), Refused)
