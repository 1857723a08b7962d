"""Whatever stands where a stream should: a plan, or a problem with its place, and never anything else."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.unit.rules.random_queries import question
from tests.unit.rules.told import Read, of_query, read

ROUNDS = 150


def seeds() -> list[str]:
    paragraphs = (Path(__file__).parent / "stream_forms.txt").read_text().split("\n\n")
    return [" ".join(p.splitlines()[1:]).partition("  s|")[0] for p in paragraphs]


QUERIES = seeds()
WORDS = sorted({word for query in QUERIES for word in query.replace("(", " ( ").replace(")", " ) ").split()})
STRAY = (
    "",
    "'",
    '"',
    "(",
    ")",
    "é",
    "\t",
    "--",
    "/*",
    ";",
    "IN",
    "NOT",
    "::",
    "$1",
    "1e999",
    "*",
    ".",
    "%",
    "🦀",
)


def spoiled(query: str, chance: random.Random) -> str:
    words = query.replace("(", " ( ").replace(")", " ) ").split()
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(words))
        match chance.randrange(4):
            case 0:
                words[at] = chance.choice(WORDS)
            case 1:
                words.insert(at, chance.choice((*STRAY, *WORDS)))
            case 2 if len(words) > 1:
                del words[at]
            case _:
                other = chance.choice(QUERIES).split()
                words[at:at] = other[chance.randrange(len(other)) :]
    return " ".join(words)


def check(found: Read, what: str) -> None:
    """Either a stream came of it, or there are problems, and each says where."""
    problems = found.context.document.problems
    assert bool(found.definitions) is not bool(problems), what
    lines = found.context.document.text.splitlines()
    for problem in problems:
        assert problem.what and 1 <= problem.line <= len(lines) + 1, what
        assert 1 <= problem.column <= len(lines[problem.line - 1]) + 1, what
    if found.definitions:
        assert found.told()


@pytest.mark.parametrize("batch", range(10))
def test_no_query_breaks_the_compiler(batch: int) -> None:
    for seed in range(batch * ROUNDS, (batch + 1) * ROUNDS):
        chance = random.Random(seed)
        query = spoiled(chance.choice(QUERIES), chance)
        check(of_query(query, edition=chance.choice((2, 3))), f"seed {seed}: {query}")


def test_a_query_means_the_same_each_time() -> None:
    for seed in range(100):
        [query, *_] = question(seed).queries.values()
        one, other = of_query(query.rules), of_query(query.rules)
        assert (one.told(), one.problems(), one.warnings()) == (
            other.told(),
            other.problems(),
            other.warnings(),
        )
        assert one.context.lookups == other.context.lookups


VALUES = (
    "1",
    "''",
    "[]",
    "{}",
    "true",
    "null",
    "SELECT * FROM t",
    "[SELECT * FROM t]",
    "{a: SELECT x FROM t}",
    "[[1]]",
)
KEYS = ("auto_subscribe", "priority", "accept_potentially_dangerous_queries", "with", "query", "queries", "x")


def test_no_shape_of_a_stream_breaks_the_reader() -> None:
    for seed in range(600):
        chance = random.Random(seed)
        keys = chance.sample(KEYS, chance.randint(0, 4))
        text = "s: {" + ", ".join(f"{key}: {chance.choice(VALUES)}" for key in keys) + "}"
        check(read(text), f"seed {seed}: {text}")
