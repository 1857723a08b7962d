"""Looks, as somebody asks for them → one for all who ask within a moment, and how it went before that.

Nobody looks at a system while nobody asks: an idle server stays idle.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from replicator.observe.status.look import Looker
from replicator.observe.status.model import Look, Silent

#: For so long the same is told again.
_KEPT_S = 1.0
#: So many looks back it is told how it went.
_POINTS = 300


class Point(NamedTuple):
    """What charts are drawn of."""

    at: float
    op_id: int | None
    lag_bytes: int | None
    lag_s: float | None
    undelivered: int | None


class Looks:
    """Looks for everybody who asks this process."""

    def __init__(self, looker: Looker, clock: Callable[[], float] = time.monotonic) -> None:
        self._looker, self._clock = looker, clock
        self._newest: tuple[float, asyncio.Task[Look]] | None = None
        self._points: deque[Point] = deque(maxlen=_POINTS)

    async def look(self) -> Look:
        """How it is now, or was a moment ago."""
        if self._newest is None or (self._newest[1].done() and self._clock() - self._newest[0] >= _KEPT_S):
            self._newest = self._clock(), asyncio.create_task(self._look())
        # One who leaves does not take it from the others.
        return await asyncio.shield(self._newest[1])

    @property
    def points(self) -> list[Point]:
        return list(self._points)

    async def _look(self) -> Look:
        look = await self._looker.look()
        self._points.append(_point(look))
        return look


def _point(look: Look) -> Point:
    source, stored = look.source, look.stored
    slot = None if isinstance(source, Silent) else source.slot
    return Point(
        round(look.at, 3),
        None if isinstance(stored, Silent) else stored.op_id,
        None if slot is None or slot.lag_bytes is None else max(0, slot.lag_bytes),
        None if isinstance(source, Silent) else source.lag_s,
        None if isinstance(stored, Silent) else stored.queue.undelivered,
    )
