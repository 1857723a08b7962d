"""Where null in JSON equals null in JSON, because edition 1 reads text of both."""

from __future__ import annotations

import pytest

from replicator.rules.parse import parse_rules
from tests.unit.rules.plans import warned

JWT = "request.jwt() ->> 'org'"
EQUAL = {
    f"SELECT id AS x FROM t WHERE data ->> 'org' = {JWT}": "SELECT * FROM t WHERE id = bucket.x",
    f"SELECT id AS x FROM t WHERE json_extract(data, '$.org') = {JWT}": "SELECT * FROM t WHERE id = bucket.x",
    "SELECT id AS x FROM t WHERE lower(data ->> 'org') = token_parameters.org": (
        "SELECT * FROM t WHERE id = bucket.x"
    ),
    f"SELECT {JWT} AS x": "SELECT * FROM t WHERE data ->> 'org' = bucket.x",
    f"SELECT {JWT} AS x WHERE {JWT} IS NOT NULL": "SELECT * FROM t WHERE data ->> 'org' = bucket.x::text",
    "SELECT data ->> 'a' AS x FROM u WHERE b = request.user_id()": (
        "SELECT * FROM t WHERE a IN (SELECT c FROM d WHERE e ->> 'f' = bucket.x)"
    ),
}
OTHERS = {
    f"SELECT id AS x FROM t WHERE org = {JWT}": "SELECT * FROM t WHERE id = bucket.x",
    "SELECT id AS x FROM t WHERE data ->> 'org' = request.user_id()": "SELECT * FROM t WHERE id = bucket.x",
    f"SELECT {JWT} AS x": "SELECT * FROM t WHERE org = bucket.x",
    "SELECT request.user_id() AS x": "SELECT * FROM t WHERE data ->> 'org' = bucket.x",
    "SELECT value AS x FROM json_each(request.jwt() -> 'orgs')": "SELECT * FROM t WHERE bucket.x IN data",
}


@pytest.mark.parametrize("parameters", EQUAL)
def test_two_nulls_that_are_equal_are_told(parameters: str) -> None:
    [told] = warned(parameters, EQUAL[parameters])
    assert "edition 1 reads the text null on both sides" in told
    assert warned(parameters, EQUAL[parameters], top="config: {edition: 2}") == []


@pytest.mark.parametrize("parameters", OTHERS)
def test_one_side_that_is_no_json_is_quiet(parameters: str) -> None:
    assert warned(parameters, OTHERS[parameters]) == []


def test_streams_of_edition_1_are_told_of_it_too() -> None:
    text = "streams: {s: {query: SELECT id FROM t WHERE data ->> 'org' = auth.parameter('org')}}"
    _, told = parse_rules(text, "f").warnings
    assert "edition 1 reads the text null on both sides" in told.what
