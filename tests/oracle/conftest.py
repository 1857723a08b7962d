"""`--rounds N` → so many rounds of `test_oracle`, in parts that have a world each."""

from __future__ import annotations

import pytest

#: Storage beside the source or apart, and servers that are restarted.
_KINDS = 3
_ROUNDS_A_PART = 6
ROUNDS = _KINDS * _ROUNDS_A_PART


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rounds", type=int, default=ROUNDS, help="rounds of the oracle, on each Postgres")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "part" in metafunc.fixturenames:
        rounds: int = metafunc.config.getoption("--rounds", default=ROUNDS)
        # Of few rounds, each kind of part has some.
        size = min(_ROUNDS_A_PART, -(-rounds // _KINDS))
        parts = [(number, min(size, rounds - first)) for number, first in enumerate(range(0, rounds, size))]
        metafunc.parametrize("part", parts, ids=[f"world{number}" for number, _ in parts])
