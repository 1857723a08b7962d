"""Whoever wants a place gets one while there is one, and no more than their share."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from replicator.sync.places import Full, Places


def test_one_user_gets_no_more_than_a_share_and_others_the_rest() -> None:
    places = Places(5, 2)
    with ExitStack() as stack:
        for user in ("greedy", "greedy", "a", "b"):
            stack.enter_context(places.one_for(user))
        with pytest.raises(Full, match="of one user"), places.one_for("greedy"):
            raise AssertionError("let in")
        stack.enter_context(places.one_for("c"))
        with pytest.raises(Full, match="connections is reached"), places.one_for("d"):
            raise AssertionError("let in")
    assert places.taken == 0


def test_a_place_is_given_back_however_it_is_left() -> None:
    places = Places(1, 1)
    with pytest.raises(ValueError), places.one_for("a"):
        raise ValueError
    with places.one_for("a"):
        assert places.taken == 1
