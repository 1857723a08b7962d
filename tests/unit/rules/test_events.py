"""Rows that say how far clients' writes have come: what is understood, refused, and made of them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from replicator.observe.needs import needs_of
from replicator.rules.model import Rules, TableName
from replicator.rules.parse import parse_rules
from replicator.rules.route import Router, Written
from replicator.text.nodes import Problems
from replicator.wal.messages import Column, Relation
from replicator.wal.transactions import Change, Kind

QUERY = "SELECT user_id, client_id, checkpoint FROM checkpoints"
TEXT, BIGINT = 25, 20


def rules(*queries: str, name: str = "write_checkpoints", **more: Any) -> Rules:
    file = {
        "bucket_definitions": {"global": {"data": ["SELECT * FROM notices"]}},
        "event_definitions": {name: {"payloads": list(queries), **more}},
    }
    return parse_rules(json.dumps(file), "f")


def refusal(*queries: str, **more: Any) -> str:
    with pytest.raises(Problems) as refused:
        rules(*queries, **more)
    return refused.value.what


def relation(number_type: int = BIGINT) -> Relation:
    columns = (
        Column("user_id", TEXT, -1, True),
        Column("client_id", TEXT, -1, True),
        Column("checkpoint", number_type, -1, True),
    )
    return Relation(7, "public", "checkpoints", "f", columns)


def told(*rows: tuple[str | None, ...], query: str = QUERY, number_type: int = BIGINT) -> list[Written]:
    table = relation(number_type)
    changes = [Change(Kind.INSERT, table, None, row, at) for at, row in enumerate(rows)]
    return Router(rules(query)).written(changes, 0.0)


def test_a_row_says_a_user_a_client_and_a_number() -> None:
    assert told(("u1", "c1", "7"), ("u1", "c2", "9")) == [Written("u1", "c1", 7), Written("u1", "c2", 9)]
    assert told(("u1", None, "7")) == [Written("u1", "", 7)]
    assert told(("u1", "c1", "7"), query="SELECT user_id, checkpoint FROM checkpoints") == [
        Written("u1", "", 7)
    ]


def test_a_number_may_stand_in_a_text() -> None:
    assert told(("u1", "c1", "9223372036854775807"), number_type=TEXT) == [Written("u1", "c1", (1 << 63) - 1)]


@pytest.mark.parametrize(
    "row",
    [
        (None, "c1", "7"),
        ("", "c1", "7"),
        ("u1", "c1", None),
        ("u1", "c1", "0"),
        ("u1", "c1", "-1"),
        ("u1", "c1", "9223372036854775808"),
        ("u1", "c1", "seven"),
        ("u1", "c1", "1.5"),
        ("u1", "c1", "\N{ARABIC-INDIC DIGIT SEVEN}"),
    ],
)
def test_a_row_without_a_user_or_a_number_says_nothing(row: tuple[str | None, ...]) -> None:
    assert told(row, ("u2", "c1", "1"), number_type=TEXT) == [Written("u2", "c1", 1)]


def test_rows_are_filtered_and_computed_of() -> None:
    query = "SELECT upper(user_id) AS user_id, client_id, checkpoint FROM checkpoints WHERE client_id = 'c1'"
    assert told(("u1", "c1", "7"), ("u1", "c2", "9"), query=query) == [Written("U1", "c1", 7)]


def test_a_row_that_goes_says_nothing_and_one_that_changes_does() -> None:
    table, router = relation(), Router(rules(QUERY))
    old, new = ("u1", "c1", "7"), ("u1", "c1", "8")
    changes = [
        Change(Kind.DELETE, table, old, None, 0, True),
        Change(Kind.UPDATE, table, old, new, 1, True),
    ]
    assert router.written(changes, 0.0) == [Written("u1", "c1", 8)]
    assert router.route(changes) == [], "it is in no bucket"


def test_the_table_is_one_that_the_rules_need() -> None:
    found = rules(QUERY)
    assert TableName(None, "checkpoints") in found.table_names()
    needs = {need.name: need.columns for need in needs_of(found)}
    assert needs["checkpoints"] == {"user_id", "client_id", "checkpoint"}


def test_the_newer_name_means_the_same() -> None:
    assert rules(QUERY, name="checkpoint_requests").writes == rules(QUERY).writes
    other = "SELECT user_id, client_id, checkpoint AS checkpoint_request_id FROM checkpoints"
    assert rules(other, name="checkpoint_requests").writes == rules(QUERY).writes


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("SELECT * FROM checkpoints", "what is selected is called user_id, client_id, checkpoint"),
        ("SELECT userid, checkpoint FROM checkpoints", "did you mean user_id"),
        ("SELECT user_id FROM checkpoints", "checkpoint must be selected as well"),
        ("SELECT user_id, checkpoint, checkpoint FROM checkpoints", "selected twice"),
        ("SELECT user_id, checkpoint FROM a, b", "one table is expected"),
        ("SELECT user_id, checkpoint", "one table is expected"),
        ("SELECT request.user_id() AS user_id, checkpoint FROM checkpoints", "request.user_id"),
        ("SELECT bucket.x AS user_id, checkpoint FROM checkpoints", "bucket.x"),
        ("SELECT user_id, checkpoint FROM checkpoints WHERE user_id IN (SELECT id FROM users)", ""),
        ("SELECT user_id, checkpoint FROM checkpoints LIMIT 1", "LIMIT is not part of the rules language"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_place(query: str, said: str) -> None:
    what = refusal(query)
    assert said in what
    assert what.startswith("f:1:") and "event_definitions.write_checkpoints.payloads[0]" in what


def test_what_stands_beside_is_refused() -> None:
    assert "unknown key" in refusal(QUERY, payload=[])
    assert "a list of SELECTs is expected" in refusal()
