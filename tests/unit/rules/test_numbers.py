"""Numbers are written in one way wherever they are compared, and no two of them are written the same."""

from __future__ import annotations

import json
import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.rules import keys
from replicator.rules.columns.types import BUILT_IN
from replicator.rules.columns.values import text_id
from replicator.rules.compile import compile_rules
from replicator.rules.compute import jsontext, scalars, texts
from replicator.rules.compute.scalars import EvaluationError, as_text
from replicator.rules.expression import EDITION_2
from replicator.rules.parse import parse_rules
from replicator.wal.messages import Column, Relation

reals = st.floats(allow_nan=False, allow_infinity=False)
wholes = st.one_of(
    st.integers(), st.integers(-(2**70), 2**70), st.sampled_from([2**63, -(2**63), 2**64, 10**21])
)
numbers = st.one_of(reals, wholes, wholes.map(float))


@given(reals)
def test_a_real_is_the_same_text_everywhere(value: float) -> None:
    assert keys.as_text(value) == as_text(value) == text_id(value)
    assert float(as_text(value) or "") == value


@given(numbers, numbers)
def test_two_numbers_are_written_the_same_if_they_are_the_same(one: int | float, other: int | float) -> None:
    assert (keys.word(one) == keys.word(other)) is (Fraction(one) == Fraction(other))
    assert (keys.key([one]) == keys.key([other])) is (Fraction(one) == Fraction(other))


@given(numbers)
def test_a_number_is_read_back(value: int | float) -> None:
    assert keys.unpack(keys.pack((value,))) == (value,)
    assert Fraction(json.loads(keys.word(value))) == Fraction(value)


@given(wholes)
def test_json_keeps_every_digit(value: int) -> None:
    text = json.dumps({"id": value, "all": [value, {"id": value}]})
    for operator in ("->>", "->"):
        found = jsontext.extractor(operator, EDITION_2)(text, "id")
        assert found == (value if operator == "->>" else str(value))
    assert jsontext.extractor("->", EDITION_2)(text, "all") == json.dumps(
        [value, {"id": value}], separators=(",", ":")
    )
    assert jsontext.printed({"id": value}) == f'{{"id":{value}}}'


def buckets(
    type_oid: int, value: str, where: str, parameters: str = "SELECT request.jwt() ->> 'x' AS x"
) -> list[str]:
    """The buckets that hold a row with this value in the column `v`."""
    definition = {"parameters": parameters, "data": [f"SELECT id FROM t WHERE {where}"]}
    rules = parse_rules(json.dumps({"config": {"edition": 2}, "bucket_definitions": {"d": definition}}), "f")
    columns = (Column("id", 25, -1, True), Column("v", type_oid, -1, False))
    compiled = compile_rules(rules, Relation(1, "public", "t", "d", columns), BUILT_IN, (0,), lambda *_: None)
    assert compiled is not None
    return [bucket for bucket, _, _ in compiled.place(("1", value), 0.0)]


@pytest.mark.parametrize("where", ["v ->> 'id' = bucket.x", "bucket.x IN v", "v ->> 'id' = bucket.x::text"])
def test_neighbours_beyond_64_bits_have_buckets_of_their_own(where: str) -> None:
    first, second = 18446744073709551617, 18446744073709551618
    shape = "[{}]" if " IN " in where else '{{"id": {}}}'
    one, other = (buckets(3802, shape.format(each), where) for each in (first, second))
    assert len(one) == len(other) == 1
    assert one != other


def test_a_small_real_is_found_by_its_text() -> None:
    """`bucket.x::text` compares what both sides print."""
    [bucket] = buckets(701, "1e-07", "v = bucket.x::text")
    assert bucket == 'd["1e-7"]'
    assert keys.as_text(1e-7) == "1e-7"


TOO_LONG = (
    lambda text: texts.replace(text, "a", text),
    lambda text: texts.joined(text * 200, text * 200),
    lambda text: texts.concat(*[text * 100] * 4),
    lambda text: texts.hexadecimal(text * 200),
    lambda text: texts.base64(text * 300),
)


@pytest.mark.parametrize("compute", TOO_LONG)
def test_a_computed_text_has_a_greatest_size(compute: object) -> None:
    with pytest.raises(EvaluationError, match="a computed text is too long"):
        compute("a" * 100_000)  # type: ignore[operator]  # one of the above


def test_what_is_replaced_by_less_is_never_too_long() -> None:
    text = "ab" * texts.MOST_CHARACTERS
    assert texts.replace(text, "ab", "") == ""


def test_a_row_that_asks_for_gigabytes_is_left_out() -> None:
    failures: list[str] = []
    nested = "v"
    for _ in range(6):
        nested = f"replace({nested}, 'a', v)"
    rules = parse_rules(
        json.dumps({"bucket_definitions": {"d": {"data": [f"SELECT id FROM t WHERE {nested} = 'b'"]}}}), "f"
    )
    columns = (Column("id", 25, -1, True), Column("v", 25, -1, False))
    compiled = compile_rules(
        rules,
        Relation(1, "public", "t", "d", columns),
        BUILT_IN,
        (0,),
        lambda rule, table, row, why: failures.append(why),
    )
    assert compiled is not None
    assert compiled.place(("1", "a" * 1000), 0.0) == []
    assert failures == ["a computed text is too long"]


@pytest.mark.parametrize("long", [10**400, -(10**400)], ids=["most", "least"])
def test_a_whole_number_that_no_real_one_reaches_is_infinite(long: int) -> None:
    infinite = math.inf if long > 0 else -math.inf
    assert scalars.fitted(long) == scalars.as_real(long) == infinite
    assert scalars.negative(long) == -infinite
    assert scalars.absolute(long) == math.inf
    assert scalars.add(long, 1) == scalars.add(long, 0.5) == scalars.multiply(long, 1.5) == infinite
    assert scalars.subtract(0.5, long) == scalars.divide(long, -0.5) == -infinite
    assert scalars.remainder(long, 0.5) is None
    assert scalars.remainder(0.5, long) == 0.5
