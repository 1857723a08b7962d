"""Who waits at a bell is woken by news and by its time, and by nobody else's."""

from __future__ import annotations

import asyncio

import pytest

from replicator.sync.bell import Bell, Chimes

_SOON_S, _NEVER_S = 0.001, 1e6


async def _woken(bell: Bell) -> None:
    async with asyncio.timeout(30):
        await bell.wait()


async def test_news_wakes_and_stays_until_it_is_taken() -> None:
    bell = Bell()
    waiting = asyncio.create_task(_woken(bell))
    await asyncio.sleep(0)
    bell.ring()
    await waiting
    assert bell.is_rung
    await _woken(bell)  # at once, for nobody has taken it
    bell.quiet()
    assert not bell.is_rung


async def test_time_wakes_and_is_no_news() -> None:
    bell, chimes = Bell(), Chimes()
    chimes.stir_in(bell, _SOON_S)
    await _woken(bell)
    assert not bell.is_rung and bell.tick is None


async def test_each_is_woken_at_its_own_time_however_they_come() -> None:
    chimes, order = Chimes(), list[str]()

    async def wait(name: str, bell: Bell) -> None:
        await _woken(bell)
        order.append(name)

    late, soon = Bell(), Bell()
    chimes.stir_in(late, 1.1)
    chimes.stir_in(soon, _SOON_S)
    await asyncio.gather(wait("late", late), wait("soon", soon))
    assert order == ["soon", "late"]


async def test_another_time_stands_for_the_one_before() -> None:
    moved, other, chimes = Bell(), Bell(), Chimes()
    chimes.stir_in(moved, _SOON_S)
    chimes.stir_in(moved, _NEVER_S)
    chimes.stir_in(other, _SOON_S)
    waiting = asyncio.create_task(moved.wait())
    await _woken(other)
    await asyncio.sleep(0)
    assert not waiting.done()
    chimes.stir_in(moved, _SOON_S)
    await waiting


async def test_who_has_left_is_not_kept() -> None:
    bell, other, chimes = Bell(), Bell(), Chimes()
    chimes.stir_in(bell, _SOON_S)
    chimes.stir_in(other, _SOON_S)
    chimes.forget(bell)
    chimes.forget(bell)
    waiting = asyncio.create_task(bell.wait())
    await _woken(other)
    await asyncio.sleep(0)
    assert not waiting.done() and bell.tick is None
    waiting.cancel()


async def test_one_that_is_cancelled_while_it_waits_takes_nothing_along() -> None:
    bell, other, chimes = Bell(), Bell(), Chimes()
    waiting = asyncio.create_task(bell.wait())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    chimes.stir_in(bell, _SOON_S)
    chimes.stir_in(other, _SOON_S)
    await _woken(other)
