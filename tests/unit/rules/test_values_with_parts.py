"""A value with parts is JSON that says the same, or the text it was."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.rules.columns import literals
from replicator.rules.columns.literals import BadValue, Printer
from replicator.rules.columns.types import BUILT_IN, NESTING_MAX, Types
from replicator.rules.columns.values import encoder
from replicator.rules.expression import EDITION_1, EDITION_3
from replicator.wal.messages import Column
from replicator.wal.types import Attribute, Type

PAIR, PAIRS, COUNT, SPAN, MOMENTS = range(20_000, 20_005)
TYPES = BUILT_IN.with_types(
    [
        Type(PAIR, "composite", 0, ",", (Attribute("a", 23), Attribute("b", 25))),
        Type(PAIRS, "array", PAIR),
        Type(COUNT, "domain", 23),
        Type(SPAN, "range", PAIRS),
        Type(
            MOMENTS, "composite", 0, ",", (Attribute("at", 1184), Attribute("day", 1082), Attribute("on", 16))
        ),
    ]
)


def data(oid: int, text: str, types: Types = TYPES) -> Any:
    row = json.loads(encoder((Column("v", oid, -1, False),), EDITION_3, types)((text,)))
    return row["v"]


# -- What Postgres does not print ------------------------------------------------------------------


@pytest.mark.parametrize(
    "oid, text",
    [
        *(
            (1007, text)
            for text in ("", "{", "}", "1,2", "{1", "{1,}", "{,1}", "{1,,2}", "{1}}", "{{1}", "{1}{2}")
        ),
        *(
            (1007, text)
            for text in ("{1} ", " {1}", "[1:1]{1}", "[1:1={1}", "[a:b]={1}", "{x}", "{1.5}", '{""}')
        ),
        *(
            (1007, text)
            for text in ("{null}", "{01}", "{١}", "{1_0}", "{+1}", '{"1"', '{"1"2}', "{1\\}", "{{1}2}")
        ),
        *((1022, text) for text in ("{.5}", "{1.}", "{inf}", "{nan}", "{1e}", "{0x1}", "{-}")),
        *((1000, text) for text in ("{true}", "{1}", "{T}")),
        *(
            (199, text)
            for text in ("{{}", "{NaN}", "{Infinity}", "{tru}", '{"[1,"}', '{"\\"\\t\\""x}', "{1 2}")
        ),
        *(
            (PAIR, text)
            for text in ("", "(", ")", "(1)", "(1,2,3)", "(1,2", "1,2)", "(1,2)x", "((1,2)", '(1,"a"', "()")
        ),
        *(
            (PAIR, text)
            for text in ("(x,a)", '(1,a"b)', '(1,"a\\b")', '("1,a)', "[1,a]", "(1,a))", '(1,"a"b)')
        ),
        *((PAIRS, text) for text in ("{(1,a)}", '{"(1,a"}', '{"(x,a)"}', '{"(1,a)",x}')),
        *(
            (3904, text)
            for text in ("", "[1,2", "1,2)", "[1)", "[1,2,3)", "[a,b)", "Empty", "empty ", "[1,2)]", "{1,2}")
        ),
        *(
            (4451, text)
            for text in (
                "",
                "{",
                "{[1,2)",
                "[1,2)",
                "{[1,2),}",
                "{,[1,2)}",
                "{[1,2)[3,4)}",
                "{[1,2)}}",
                "{x}",
            )
        ),
    ],
)
def test_text_that_is_not_as_it_should_be_stays_what_it_is(oid: int, text: str) -> None:
    assert data(oid, text) == text


def test_an_error_does_not_repeat_the_value() -> None:
    with pytest.raises(BadValue) as caught:
        literals.integer("secret", 1)
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_moment_that_cannot_be_is_null_within() -> None:
    assert json.loads(data(MOMENTS, '("0044-03-15 12:00:00+00 BC",infinity,t)')) == {
        "at": None,
        "day": "9999-12-31",
        "on": 1,
    }


_PRINTERS: dict[str, Printer] = {
    "array": literals.array(literals.string, ","),
    "array of integers": literals.array(literals.integer, ","),
    "array of JSON": literals.array(literals.verbatim, ","),
    "array of boxes": literals.array(literals.string, ";"),
    "array of composites": literals.array(literals.composite([("a", literals.string)]), ","),
    "composite": literals.composite([("a", literals.string), ("b", literals.array(literals.real, ","))]),
    "composite of one": literals.composite([("a", literals.span(literals.boolean))]),
    "composite of none": literals.composite([]),
    "range": literals.span(literals.string),
    "multirange": literals.spans(literals.array(literals.string, ",")),
}


@pytest.mark.parametrize("printer", _PRINTERS.values(), ids=_PRINTERS)
@given(text=st.text() | st.text(st.sampled_from('{}()[],;"\\ \n1NULemptyfa=:-.'), max_size=30))
def test_whatever_the_text_it_is_json_or_a_bad_value(printer: Printer, text: str) -> None:
    try:
        shown = printer(text, NESTING_MAX)
    except BadValue:
        return
    json.loads(shown, parse_constant=pytest.fail)


@pytest.mark.parametrize("oid", [1007, 1009, 199, 1020, PAIR, PAIRS, SPAN, 3908, 4451, MOMENTS, 6153])
@given(text=st.text(st.sampled_from('{}()[],;"\\ \n0123456789NULempty:+-tfT'), max_size=40))
def test_whatever_the_text_a_row_is_json(oid: int, text: str) -> None:
    for dialect in (EDITION_1, EDITION_3):
        row = encoder((Column("v", oid, -1, False),), dialect, TYPES)((text,))
        assert isinstance(json.loads(row, parse_constant=pytest.fail)["v"], str)


# -- What we print as Postgres does ----------------------------------------------------------------


def print_array(items: list[Any], delimiter: str = ",") -> str:
    """As array_out does."""

    def element(item: Any) -> str:
        if item is None:
            return "NULL"
        if isinstance(item, list):
            return print_array(item, delimiter)
        if item == "" or item.upper() == "NULL" or set(item) & set('"\\{} \t\n\r\v\f' + delimiter):
            escaped = item.replace("\\", "\\\\").replace('"', '\\"')
            return f'"{escaped}"'
        return f"{item}"

    return "{" + delimiter.join(map(element, items)) + "}"


_ITEMS = st.lists(st.none() | st.text() | st.text(st.sampled_from('{},;"\\ NUL'), max_size=4), max_size=5)


@given(items=_ITEMS, delimiter=st.sampled_from(",;:^]-"), first=st.integers(-9, 9))
def test_an_array_is_read_as_it_was_printed(items: list[str | None], delimiter: str, first: int) -> None:
    show = literals.array(literals.string, delimiter)
    text = print_array(items, delimiter)
    assert json.loads(show(text, 1)) == items
    if items:
        assert json.loads(show(f"[{first}:{first + len(items) - 1}]={text}", 1)) == items
        assert json.loads(show(print_array([items, items], delimiter), 2)) == [items, items]


def test_a_long_array_takes_no_longer_than_it_is_long() -> None:
    items: list[Any] = ['"' + "\\" * 50, None, "a b"] * 20_000
    assert json.loads(data(1009, print_array(items))) == items


# -- How deep --------------------------------------------------------------------------------------


def nested(kind: Callable[[int], Type], depth: int) -> tuple[int, Types]:
    """A type of so many levels around an integer."""
    types = [kind(30_000 + level) for level in range(depth)]
    types[0] = types[0]._replace(
        element=23, attributes=tuple(one._replace(type_oid=23) for one in types[0].attributes)
    )
    return types[-1].oid, BUILT_IN.with_types(types)


def test_ten_levels_are_taken_apart_and_eleven_are_not() -> None:
    def composite(oid: int) -> Type:
        return Type(oid, "composite", 0, ",", (Attribute("a", oid - 1),))

    def text(depth: int) -> str:
        made = "1"
        for _ in range(depth):
            quoted = '"' + made.replace("\\", "\\\\").replace('"', '""') + '"' if "(" in made else made
            made = f"({quoted})"
        return made

    wanted: Any = 1
    for _ in range(NESTING_MAX):
        wanted = {"a": wanted}
    oid, types = nested(composite, NESTING_MAX)
    assert json.loads(data(oid, text(NESTING_MAX), types)) == wanted
    oid, types = nested(composite, NESTING_MAX + 1)
    assert data(oid, text(NESTING_MAX + 1), types) == text(NESTING_MAX + 1)
    # A value that is not as deep as its type could be is taken apart all the same.
    assert json.loads(data(oid, "()", types)) == {"a": None}


def test_a_dimension_is_a_level() -> None:
    show = literals.array(literals.array(literals.integer, ","), ",")
    assert show('{{"{1}"}}', 3) == "[[[1]]]"
    for room in (0, 1, 2):
        with pytest.raises(BadValue):
            show('{{"{1}"}}', room)


def test_a_text_that_is_all_braces_ends_nothing() -> None:
    for text in ("{" * 100_000, "{" * 100_000 + "}" * 100_000, "[" * 100_000, '"' * 100_001):
        assert data(1007, text) == text
    for text in ("(" * 100_000, "(" + '"' * 100_001):
        assert data(PAIR, text) == text
    deep = "[" * 100_000 + "]" * 100_000
    assert data(199, "{" + deep + "}") == "{" + deep + "}"


# -- What is known of types ------------------------------------------------------------------------


def test_types_are_asked_about_once() -> None:
    assert BUILT_IN.unknown([23, 1007, 3904, 4451, PAIR]) == {PAIR}
    assert TYPES.unknown([23, PAIR, 4711]) == {4711}
    assert TYPES.find(4711) == Type(4711, "base")


def test_what_is_described_again_is_as_described_last() -> None:
    more = TYPES.with_types([Type(PAIR, "composite", 0, ",", (Attribute("a", 25),))])
    assert data(PAIR, "(x)", more) == '{"a":"x"}'
    assert data(PAIR, "(1,x)", more) == "(1,x)"
    assert data(PAIR, "(1,x)") == '{"a":1,"b":"x"}'
