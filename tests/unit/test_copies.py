"""A copy that is abandoned learns so: while it waits for a mark, and when it did not."""

from __future__ import annotations

import pytest

from replicator.copying.copies import Copies, Restarted, Wanted

OID = 7


def copying() -> Copies:
    copies = Copies(Wanted("", "slot", "publication", [("public", "visits")]))
    copies.windows.watch(OID)
    return copies


async def test_one_that_waits_for_a_mark_is_told() -> None:
    copies = copying()
    future = copies.expect(copies.name_mark(), OID)
    copies.abandon(OID)
    with pytest.raises(Restarted):
        await future


async def test_one_that_does_not_wait_is_told_when_it_next_would() -> None:
    copies = copying()
    copies.abandon(OID)
    with pytest.raises(Restarted):
        copies.expect(copies.name_mark(), OID)


async def test_marks_of_another_run_are_not_ours() -> None:
    copies, earlier = copying(), copying()
    name = earlier.name_mark()
    assert earlier.is_ours(name) and not copies.is_ours(name)


async def test_holes_are_taken_once_and_noted_again() -> None:
    copies = copying()
    for key in ("a", "b", "c"):
        copies.note_hole(OID, (key,))
    assert copies.take_holes(OID, 2) == [("a",), ("b",)]
    copies.note_hole(OID, ("a",))
    copies.fill_hole(OID, ("c",))
    assert copies.take_holes(OID, 2) == [("a",)]
    assert not copies.has_holes(OID)
