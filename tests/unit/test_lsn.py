"""Positions print as Postgres prints them, and are read from nothing else."""

from __future__ import annotations

import copy
import doctest
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.wal import lsn
from replicator.wal.lsn import ZERO, Lsn

positions = st.integers(0, 2**64 - 1)


@given(positions)
def test_what_is_printed_is_read_back(position: int) -> None:
    assert Lsn.parse(str(Lsn(position))) == position


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_both_halves_are_hexadecimal_without_leading_zeros(high: int, low: int) -> None:
    assert str(Lsn(high << 32 | low)) == f"{high:X}/{low:X}"


@given(positions, positions)
def test_positions_are_ordered_as_numbers(one: int, other: int) -> None:
    assert (Lsn(one) < Lsn(other)) == (one < other)
    assert Lsn(one) - Lsn(other) == one - other


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("0/0", 0),
        ("0/1", 1),
        ("1/0", 2**32),
        ("16/B374D848", 0x16_B374D848),
        ("16/b374d848", 0x16_B374D848),
        ("00000001/00000001", 2**32 + 1),
        ("FFFFFFFF/FFFFFFFF", 2**64 - 1),
    ],
)
def test_postgres_forms_are_read(text: str, position: int) -> None:
    assert Lsn.parse(text) == position


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "0",
        "0/",
        "/0",
        "0/0/0",
        "0-0",
        "G/0",
        "0/G",
        "-1/0",
        "0/-1",
        "100000000/0",
        "0/100000000",
        "latest",
    ],
)
def test_anything_else_is_refused_by_name(text: str) -> None:
    with pytest.raises(ValueError, match="not a WAL position") as caught:
        Lsn.parse(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize("text", ["0x1/0", "1_0/0", "+1/0", " 1/0", "1/0\n", "١/0", "000000001/0"])
def test_what_python_would_take_but_postgres_would_not_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a WAL position"):
        Lsn.parse(text)


def test_a_position_shows_itself_and_survives_copies() -> None:
    position = Lsn.parse("16/B374D848")
    assert repr(position) == "Lsn('16/B374D848')"
    assert f"{position}" == "16/B374D848"
    for other in (pickle.loads(pickle.dumps(position)), copy.deepcopy(position)):
        assert (type(other), other) == (Lsn, position)


def test_zero_is_before_everything() -> None:
    assert str(ZERO) == "0/0"
    assert Lsn.parse("0/1") > ZERO


def test_the_examples_in_the_docstrings_hold() -> None:
    result = doctest.testmod(lsn)
    assert result.attempted > 0
    assert result.failed == 0
