"""Names and their numbers in little room: each finds its own, and only the oldest are forgotten."""

from __future__ import annotations

from collections import defaultdict
from hashlib import sha256

import pytest

from replicator.buckets import digests
from replicator.buckets.digests import Digests

NAMES = [f'1#b["{number}"]' for number in range(5000)]


def stored(names: list[str], first: int) -> bytes:
    """As storage tells of them."""
    numbered = enumerate(names, first)
    return b"".join([sha256(n.encode()).digest()[:16] + at.to_bytes(4, "big") for at, n in numbered])


def test_each_name_has_its_own_number_however_it_came() -> None:
    ours = Digests()
    ours.read(stored(NAMES[1000:3000], 1000))
    ours.read(stored(NAMES[:1000], 0))
    for number in range(3000, 4000):
        ours.add(NAMES[number], number)
    assert ours.find(NAMES) == [*range(4000), *[None] * 1000]


def test_the_largest_number_is_told_as_it_is() -> None:
    ours = Digests()
    ours.add(NAMES[0], 2**31 - 1)
    assert ours.find(NAMES[:1]) == [2**31 - 1]


def test_where_a_part_is_full_what_was_there_first_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "_ENTRIES", 2)
    together = defaultdict(list)
    for name in NAMES:
        together[sha256(name.encode()).digest()[:2]].append(name)
    crowd = max(together.values(), key=len)[:3]
    assert len(crowd) == 3
    ours = Digests()
    ours.read(stored(crowd[1:2], 1))
    ours.read(stored(crowd[:1], 0))
    ours.add(crowd[2], 2)
    assert ours.find(crowd) == [None, 1, 2]
