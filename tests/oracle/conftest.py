"""`--rounds N` → so many rounds of `test_oracle`, in parts that have a world each."""

from __future__ import annotations

import pytest

#: Three parts: storage beside the source or apart, and servers that are restarted.
ROUNDS = 18
_ROUNDS_A_PART = 6


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rounds", type=int, default=ROUNDS, help="rounds of the oracle, on each Postgres")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "part" in metafunc.fixturenames:
        rounds: int = metafunc.config.getoption("--rounds", default=ROUNDS)
        parts = [
            (number, min(_ROUNDS_A_PART, rounds - first))
            for number, first in enumerate(range(0, rounds, _ROUNDS_A_PART))
        ]
        metafunc.parametrize("part", parts, ids=[f"world{number}" for number, _ in parts])
