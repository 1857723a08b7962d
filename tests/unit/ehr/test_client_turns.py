"""Requests take turns, so that a server gets no more of them a second than it is to."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from replicator.ehr.client import Turns


@given(st.integers(1, 1000), st.lists(st.floats(0, 3), min_size=1, max_size=50))
def test_turns_are_spaced_whenever_they_are_asked_for(rate: int, pauses: list[float]) -> None:
    turns, now, at = Turns(rate), 100.0, []
    for pause in pauses:
        now += pause
        at.append(now + turns.take(now))
    assert all(later - one >= 1 / rate - 1e-6 for one, later in itertools.pairwise(at))
    assert at[0] == 100.0 + pauses[0], "whoever comes first does not wait"


def test_a_part_of_the_rate_is_as_much_slower() -> None:
    turns = Turns(10)
    turns.share = 0.25
    assert [turns.take(0.0) for _ in range(4)] == [0.0, 0.4, 0.8, 1.2000000000000002]


def test_without_a_rate_nobody_waits() -> None:
    assert {Turns().take(0.0) for _ in range(3)} == {0.0}
