"""LIKE: the same as the plainest way to do it, and no harder for a pattern that is meant to be hard."""

from __future__ import annotations

import random
from functools import lru_cache

import pytest

from replicator.rules.compute.patterns import MOST_TRIES, matches, work
from replicator.rules.compute.scalars import EvaluationError
from replicator.rules.compute.texts import ilike, ltrim, rtrim, trim
from tests.unit.rules.counted import calls


def plainly(text: str, pattern: str) -> bool:
    @lru_cache(None)
    def is_there(at: int, of: int) -> bool:
        if of == len(pattern):
            return at == len(text)
        match pattern[of]:
            case "%":
                return any(is_there(later, of + 1) for later in range(at, len(text) + 1))
            case "_":
                return at < len(text) and is_there(at + 1, of + 1)
            case "\\":
                return text[at : at + 1] == pattern[of + 1] and is_there(at + 1, of + 2)
        return text[at : at + 1] == pattern[of] and is_there(at + 1, of + 1)

    return is_there(0, 0)


@pytest.mark.parametrize("letters", ["ab%", "aabb%%__", "ab%_\\"])
def test_a_pattern_matches_what_it_says(letters: str) -> None:
    chance, found = random.Random(7), 0
    for _ in range(3000):
        text = "".join(chance.choices("ab%_\\", k=chance.randint(0, 7)))
        pattern = "".join(chance.choices(letters, k=chance.randint(0, 7)))
        if (len(pattern) - len(pattern.rstrip("\\"))) % 2:
            with pytest.raises(EvaluationError):
                matches(text, pattern)
            continue
        assert matches(text, pattern) is plainly(text, pattern), (text, pattern)
        found += plainly(text, pattern)
    assert found > 50


LONG = 200_000


@pytest.mark.parametrize(
    ("text", "pattern", "expected"),
    [
        ("a" * LONG, "%" + "a" * (LONG // 2) + "b%", False),
        ("a" * LONG, "%a" * (LONG // 2), True),
        ("a" * LONG, "%" + "a" * (LONG // 2) + "\\%%", False),
        ("ab" * LONG, "%" + "ab" * (LONG // 2) + "%" + "ab" * (LONG // 2) + "aa%", False),
    ],
)
def test_hard_patterns_come_to_an_end(text: str, pattern: str, expected: bool) -> None:
    assert matches(text, pattern) is expected
    assert ilike(text.upper(), pattern) == expected


def test_a_pattern_of_underscores_is_given_up_after_so_many_tries() -> None:
    text, pattern = "a" * LONG, "%" + "a_" * 1000 + "b%"
    assert work(text, pattern) > MOST_TRIES

    def give_up() -> None:
        with pytest.raises(EvaluationError, match="LIKE pattern with _"):
            matches(text, pattern)

    assert calls(give_up) < 8 * MOST_TRIES
    assert matches("x" * LONG + "a-c", "%a_c%")


def test_many_characters_are_trimmed_as_few_are() -> None:
    among = "".join(map(chr, range(0x4E00, 0x4E00 + 5000)))
    text = among * 50
    assert (trim(text, among), ltrim(text, among), rtrim(text, among)) == ("", "", "")
    assert trim(f"{among}x {among}", among) == "x "
    assert (ltrim("xax", "xyz" * 9), rtrim("xax", "xyz" * 9)) == ("ax", "xa")
