"""Conditions that hold because something is NULL, where in SQL they would be unknown: each is told of."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from itertools import product

import pytest

from replicator.rules.compute.expressions import plain
from replicator.rules.compute.scalars import truth
from replicator.rules.expression import Column, Expression, Scalar
from replicator.rules.model import Rules
from tests.unit.rules.plans import read

TOLD = (
    "NOT (a = 1)",
    "(a = 1 OR b = 1) IS FALSE",
    "(a NOT IN (1, 2)) IS TRUE",
    "NOT ((NOT (a = 1)) IS NOT TRUE)",
    "CASE WHEN a != 1 AND NOT (b = 2) THEN 1 ELSE 0 END = 1",
    "iif(NOT (a = 1), 'yes', 'no') = 'yes'",
    "CASE a WHEN 1 THEN 2 END NOT IN (3, 4)",
    "NOT nullif(a, 1)",
    "NOT coalesce(a, b)",
)
QUIET = (
    "a = 1 AND b = 2",
    "(a = 1) IS FALSE",
    "(a = 1) IS NOT TRUE",
    "NOT coalesce(a = 1, 0)",
    "CASE WHEN a = 1 THEN 0 ELSE 1 END = 1",
    "CASE WHEN a IS NULL THEN 0 WHEN NOT (a = 1) THEN 1 ELSE 0 END = 1",
    "NOT (a = 1) AND a IS NOT NULL",
)
VALUES: tuple[Scalar, ...] = (None, 0, 1, "u")
CONDITIONS = 600


def is_told(condition: str) -> bool:
    rules = read(None, f"SELECT * FROM t WHERE {condition}")
    return any("this also holds where" in one.what for one in rules.warnings)


@pytest.mark.parametrize("condition", TOLD)
def test_what_null_opens_is_told(condition: str) -> None:
    assert is_told(condition)


@pytest.mark.parametrize("condition", QUIET)
def test_what_null_does_not_open_or_is_thought_of_is_not(condition: str) -> None:
    assert not is_told(condition)


def test_many_cases_in_one_another_are_looked_at_once_each() -> None:
    condition = "b = 1"
    for _ in range(25):
        condition = f"CASE WHEN {condition} THEN 1 ELSE 0 END = 1"
    assert not is_told(condition)


def value(rng: random.Random, depth: int) -> str:
    if depth == 0 or rng.random() < 0.4:
        return rng.choice(("a", "b", "1", "'u'"))
    x, y, when = value(rng, depth - 1), value(rng, depth - 1), condition(rng, depth - 1)
    return rng.choice(
        (
            *(f"coalesce({x}, {y})", f"nullif({x}, {y})", f"iif({when}, {x}, {y})"),
            *(f"CASE WHEN {when} THEN {x} END", f"CASE {x} WHEN {y} THEN 1 ELSE {y} END"),
        )
    )


def condition(rng: random.Random, depth: int) -> str:
    """Of comparisons of different things, with nothing in it that asks for NULL."""
    if depth and rng.random() < 0.55:
        one, other = condition(rng, depth - 1), condition(rng, depth - 1)
        word, truth_word = rng.choice(("", "NOT ")), rng.choice(("TRUE", "FALSE"))
        return rng.choice(
            (f"(NOT {one})", f"({one} AND {other})", f"({one} OR {other})", f"({one} IS {word}{truth_word})")
        )
    x, y, z = value(rng, max(0, depth - 1)), rng.choice("ab"), rng.choice(("0", "1", "'u'"))
    operator, word = rng.choice(("=", "!=", "<", ">=")), rng.choice(("", "NOT "))
    return rng.choice(
        (
            *(f"({x} {operator} {z})", f"({y} {operator} {z})"),
            *(f"({x} {word}IN ({y}, {z}))", f"({y} {word}BETWEEN {z} AND {x})"),
        )
    )


def test_what_holds_here_and_is_unknown_in_sql_is_told() -> None:
    opened = 0
    with closing(sqlite3.connect(":memory:")) as sql:
        for seed in range(CONDITIONS):
            rng = random.Random(seed)
            written = condition(rng, rng.choice((1, 2, 2, 3)))
            if _is_odd(written):
                continue
            rules = read(None, f"SELECT * FROM t WHERE {written}")
            if any(holds_by_null(rules, written, a, b, sql) for a, b in product(VALUES, VALUES)):
                opened += 1
                assert is_told(written), f"seed {seed}: {written}"
    assert opened > CONDITIONS // 10


def _is_odd(written: str) -> bool:
    """What nobody writes: `a IN (a, 1)`, which is about NULL alone, and IS TRUE of IS TRUE."""
    return written.count(" IS ") > 1 or any(
        f"{x} {word}{y}" in written
        for x in "ab"
        for word in ("", "NOT ")
        for y in (f"IN ({x}", f"BETWEEN 0 AND {x}", f"BETWEEN 1 AND {x}", f"BETWEEN 'u' AND {x}")
    )


def holds_by_null(rules: Rules, written: str, a: Scalar, b: Scalar, sql: sqlite3.Connection) -> bool:
    """Whether it holds in the rules, and not in SQL, which happens only where one of these is NULL."""
    row = {"a": a, "b": b}

    def leaf(expr: Expression) -> Scalar:
        assert isinstance(expr, Column)
        return row[expr.name]

    [term] = rules.definitions[0].variants[0].data[0].terms
    if not all(truth(plain(one.test, leaf, rules.dialect)) for one in term.filters):
        return False
    [(found,)] = sql.execute(f"SELECT {written} FROM (SELECT ? AS a, ? AS b)", (a, b))
    assert found or None in (a, b), f"{written} for {row}"
    return not found
