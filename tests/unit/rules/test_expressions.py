"""A generated function computes what walking the expression computes, for any expression and any row."""

from __future__ import annotations

import random
import warnings

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from replicator.rules.compute.code import Code
from replicator.rules.compute.expressions import test as source_of_test
from replicator.rules.compute.expressions import type_of, value
from replicator.rules.compute.functions import FUNCTIONS
from replicator.rules.expression import (
    EDITION_1,
    EDITION_2,
    EDITION_3,
    BucketParameter,
    Call,
    Column,
    Expression,
    Found,
    Literal,
    Metadata,
    Now,
    Request,
    Scalar,
)
from replicator.rules.sql.reader import MOST_LEVELS
from tests.unit.rules.at_hand import Failed, computed, expression

TYPES = {
    "i": "integer",
    "j": "integer",
    "r": "real",
    "s": "text",
    "t": "text",
    "b": "blob",
    "x": None,
    "y": None,
}

texts = st.text(max_size=6) | st.sampled_from(
    [
        "1",
        "-2.5x",
        "2023-03-06 15:47:00",
        '["a", 1, null]',
        '{"a": {"b": 1}}',
        "null",
        "%a_",
        "\\",
        "$.a",
        "0101",
    ]
)
integers = st.integers(-5, 5) | st.integers(-(1 << 63), (1 << 63) - 1)
reals = st.floats(allow_nan=False, width=32) | st.sampled_from([0.0, 1.0, -2.5, 1e300])
scalars: st.SearchStrategy[Scalar] = st.none() | integers | reals | texts | st.binary(max_size=4)
rows = st.fixed_dictionaries(
    {
        "i": st.none() | integers,
        "j": st.none() | integers,
        "r": st.none() | reals,
        "s": st.none() | texts,
        "t": st.none() | texts,
        "b": st.none() | st.binary(max_size=4),
        "x": scalars,
        "y": scalars,
    }
)
leaves: st.SearchStrategy[Expression] = st.builds(Literal, scalars) | st.sampled_from(
    [*map(Column, TYPES), Now()]
)


def calls(parts: st.SearchStrategy[Expression]) -> st.SearchStrategy[Expression]:
    def call(name: str) -> st.SearchStrategy[Expression]:
        least, most = FUNCTIONS[name].least, FUNCTIONS[name].most
        args = st.lists(parts, min_size=least, max_size=least + 2 if most is None else most)
        return args.map(lambda found: Call(name, tuple(found)))

    some = st.lists(parts, min_size=2, max_size=3)
    return (
        st.sampled_from(sorted(FUNCTIONS)).flatmap(call)
        | st.builds(lambda word, args: Call(word, tuple(args)), st.sampled_from(["and", "or"]), some)
        | st.builds(
            lambda arms, last: Call("case", (*(part for arm in arms for part in arm), last)),
            st.lists(st.tuples(parts, parts), min_size=1, max_size=2),
            parts,
        )
    )


expressions = st.recursive(leaves, calls, max_leaves=8)


def typing(leaf: Expression) -> str | None:
    return TYPES[leaf.name] if isinstance(leaf, Column) else None


@settings(deadline=None, max_examples=600)
@given(expressions, rows, st.sampled_from([EDITION_1, EDITION_2, EDITION_3]))
@example(Call("=", (Literal(1), Literal(None))), dict.fromkeys(TYPES), EDITION_1)
@example(Call("is null", (Literal("x"),)), dict.fromkeys(TYPES), EDITION_1)
@example(Call("coalesce", (Literal(1), Column("x"))), dict.fromkeys(TYPES), EDITION_1)
@example(Call("<", (Column("s"), Literal("x"))), dict.fromkeys(TYPES), EDITION_1)
@example(Call("!=", (Column("x"), Literal("x"))), dict.fromkeys(TYPES), EDITION_3)
def test_compiled_is_what_is_meant(expr: Expression, row: dict[str, Scalar], dialect: object) -> None:
    assert isinstance(dialect, type(EDITION_1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of the compiler too
        assert computed(expr, row, dialect) == computed(expr, row, dialect, typing)


@settings(deadline=None, max_examples=600)
@given(expressions, rows)
def test_a_type_that_is_known_is_true(expr: Expression, row: dict[str, Scalar]) -> None:
    kind = type_of(expr, typing)
    found = computed(expr, row)
    if kind is not None and isinstance(found, tuple) and found[0] != "NoneType":
        assert {"int": "integer", "float": "real", "str": "text", "bytes": "blob"}[found[0]] == kind


@pytest.mark.parametrize(
    ("sql", "source"),
    [
        ("s = 'x'", "(row[0] == 'x')"),
        ("'x' = s", "(row[0] == 'x')"),
        ("s IS NULL", "(row[0] is None)"),
        ("NOT s = 'x' AND i = 1", "((not (row[0] == 'x')) and (row[1] == 1))"),
        ("s < 'x'", "(row[0] is not None and row[0] < 'x')"),
        ("i BETWEEN 1 AND r", "(row[0] is not None and row[1] is not None and 1 <= row[0] <= row[1])"),
        ("i", "row[0]"),
    ],
)
def test_what_is_asked_most_is_written_out(sql: str, source: str) -> None:
    names: list[Expression] = []

    def leaf(part: Expression) -> str:
        if part not in names:
            names.append(part)
        return f"row[{names.index(part)}]"

    assert source_of_test(Code(), expression(sql), leaf, EDITION_2, typing) == source


def test_a_list_of_constants_is_a_set() -> None:
    made = Code()
    source = source_of_test(made, expression("s IN ('a', 'b')"), lambda _: "s", EDITION_2)
    assert made.function("s", [f"return {source}"])("b") is True
    assert source.startswith("(s in ")


def test_what_is_constant_is_computed_once() -> None:
    source = value(Code(), expression("s = upper('a' || 'b') OR lower(s) IN ('a')"), lambda _: "s", EDITION_2)
    assert "(s == 'AB')" in source and "upper" not in source


def test_a_constant_that_cannot_be_computed_fails_only_where_it_is_needed() -> None:
    expr = expression("CASE WHEN s = 'a' THEN 'no' ->> 'k' ELSE 'else' END")
    assert isinstance(computed(expr, {"s": "a"}), Failed)
    assert computed(expr, {"s": "b"}) == ("str", "else")


def test_every_leaf_is_the_callers() -> None:
    leaves: list[Expression] = [
        Column("a", 2),
        Request("jwt"),
        BucketParameter(1),
        Found(3, 0),
        Metadata("schema"),
        Now(),
    ]
    asked: list[Expression] = []

    def leaf(part: Expression) -> str:
        asked.append(part)
        return f"'{len(asked)}'"

    source = value(Code(), Call("concat", tuple(leaves)), leaf, EDITION_2)
    assert asked == leaves
    assert Code().function("f_0", [f"return {source}"])(lambda *args: args) == ("1", "2", "3", "4", "5", "6")


NESTED = [
    ("-" * 2 + "({})", 2),
    ("({} + 1)", 1),
    ("upper({})", 1),
    ("(NOT {})", 1),
    ("CASE WHEN {} THEN 1 ELSE 2 END", 1),
    ("CASE WHEN 1 THEN {} END", 1),
    ("({} IN (1, 2))", 1),
    ("coalesce({}, 1)", 1),
    ("({} AND x) ", 1),
    ("({} BETWEEN 1 AND 2)", 1),
]


@pytest.mark.parametrize(("form", "levels"), NESTED)
def test_what_can_be_read_can_be_compiled(form: str, levels: int) -> None:
    sql = "x"
    for _ in range((MOST_LEVELS - 1) // levels):
        sql = form.replace(" - -", "-").format(sql) if levels == 1 else f"-(-({sql}))"
    computed(expression(sql), {"x": 1})


def test_any_mixture_of_the_deepest_can_be_compiled(rng: random.Random) -> None:
    forms = [form for form, levels in NESTED if levels == 1]
    for _ in range(20):
        sql = "x"
        for _ in range(MOST_LEVELS - 1):
            sql = rng.choice(forms).format(sql)
        computed(expression(sql), {"x": rng.choice([None, 0, 1])})
