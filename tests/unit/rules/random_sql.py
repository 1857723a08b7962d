"""Chance → SQL expressions that mean the same to the rules, to Postgres and to SQLite.

Where the three agree is what is made here: numbers with numbers, text with text, ASCII, and no NULL, except
under coalesce and IS. `i` and `j` are small whole numbers; `s` and `t` are short text; `n` is NULL.
"""

from __future__ import annotations

import random
from typing import NamedTuple

from replicator.rules.expression import Scalar

ROWS: list[tuple[int, int, str, str]] = [
    (0, 1, "", "a"),
    (-7, 3, "Anna", "anna"),
    (9, -9, "  b ", "%"),
    (5, 5, "a_b%c", "a_b"),
    (2, -1, "12", "2"),
    (-1, 8, "Z", "z y"),
]


def named_row(row: tuple[int, int, str, str]) -> dict[str, Scalar]:
    i, j, s, t = row
    return {"i": i, "j": j, "s": s, "t": t, "n": None}


_TEXTS = ["", "a", "A", "nn", "b%", " x ", "_", "12"]
_PATTERNS = ["%", "a%", "%a", "_", "A__a", "%n%", r"%\%%", r"a\_b%", "", "%%_"]


class Random(NamedTuple):
    """Makes expressions of a kind, `depth` levels deep at most."""

    rng: random.Random

    def number(self, depth: int) -> str:
        if depth == 0:
            return self.rng.choice(["i", "j", str(self.rng.randint(-9, 9))])
        a, b = self.number(depth - 1), self.number(depth - 1)
        text, condition = self.text(depth - 1), self.condition(depth - 1)
        return self.rng.choice(
            [
                f"({a} + {b})",
                f"({a} - {b})",
                f"({a} * {b})",
                f"({a} / (abs({b}) + 1))",
                f"({a} % (abs({b}) + 2))",
                f"(- {a})",
                f"abs({a})",
                f"length({text})",
                f"(CASE WHEN {condition} THEN {a} ELSE {b} END)",
                f"(CASE {a} WHEN {b} THEN {b} WHEN 1 THEN 2 ELSE 3 END)",
                f"coalesce(nullif({a}, {b}), {b})",
                f"coalesce(n, {a})",
                f"CAST(CAST({a} AS text) AS integer)",
            ]
        )

    def text(self, depth: int) -> str:
        if depth == 0:
            return self.rng.choice(["s", "t", *(f"'{text}'" for text in _TEXTS)])
        a, b, number = self.text(depth - 1), self.text(depth - 1), self.number(depth - 1)
        start, count = self.rng.randint(0, 4), self.rng.randint(0, 4)
        return self.rng.choice(
            [
                f"({a} || {b})",
                f"upper({a})",
                f"lower({a})",
                f"substring({a}, {start}, {count})",
                f"substring({a}, {start + 1})",
                f"replace({a}, {b}, 'x')",
                f"trim({a})",
                f"ltrim({a}, 'aA ')",
                f"rtrim({a}, 'a')",
                f"(CASE WHEN {self.condition(depth - 1)} THEN {a} ELSE {b} END)",
                f"coalesce(nullif({a}, {b}), {b})",
                f"CAST({number} AS text)",
            ]
        )

    def condition(self, depth: int) -> str:
        if depth == 0:
            return self.rng.choice(["(i = j)", "(s = t)", "(i < 3)", "(n IS NULL)", "(t <> 'a')"])
        a, b, c = (self.number(depth - 1) for _ in range(3))
        s, t = self.text(depth - 1), self.text(depth - 1)
        p, q = self.condition(depth - 1), self.condition(depth - 1)
        compared = self.rng.choice(["=", "<>", "!=", "<", "<=", ">", ">="])
        word = self.rng.choice(["", "NOT "])
        return self.rng.choice(
            [
                f"({a} {compared} {b})",
                f"((s || {s}) {compared} {t})",
                f"({p} AND {q})",
                f"({p} OR {q})",
                f"(NOT {p})",
                f"({a} {word}BETWEEN {b} AND {c})",
                f"({a} {word}IN ({b}, {c}, 1))",
                f"({s} {word}IN ({t}, 'a'))",
                f"({a} IS {word}NULL)",
                f"(nullif({s}, {t}) IS {word}NULL)",
                f"(nullif({a}, {b}) IS {word}DISTINCT FROM {c})",
            ]
        )

    def match(self, depth: int) -> str:
        """LIKE as Postgres has it: SQLite's does not tell cases apart."""
        word = self.rng.choice(["", "NOT "])
        name = self.rng.choice(["LIKE", "ILIKE"])
        return f"({self.text(depth)} {word}{name} '{self.rng.choice(_PATTERNS)}')"
