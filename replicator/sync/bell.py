"""News, and time that goes by → the one that waits at a Bell, woken for either.

Thousands wait, nearly all of them for a time some seconds away. A timer for each would wake the process for
each, and most of what that costs is to wake. So times are rounded up to two a second, and all that are due
are stirred together.
"""

from __future__ import annotations

import asyncio
import math

#: Times are rounded up to a whole number of these.
_TICK_S = 0.5


class Bell:
    """One waits here; anybody may ring."""

    __slots__ = ("_waiting", "is_rung", "tick")

    def __init__(self) -> None:
        #: Whether there is news; whoever takes it says `quiet`.
        self.is_rung = False
        #: When it is to be stirred; None: not at all.
        self.tick: int | None = None
        self._waiting: asyncio.Future[None] | None = None

    def ring(self) -> None:
        """There is news."""
        self.is_rung = True
        self.stir()

    def quiet(self) -> None:
        self.is_rung = False

    def stir(self) -> None:
        """Wake whoever waits: there may be something to do, if no news."""
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.done():
            waiting.set_result(None)

    async def wait(self) -> None:
        """Until it is rung or stirred."""
        if not self.is_rung:
            self._waiting = asyncio.get_running_loop().create_future()
            await self._waiting


class Chimes:
    """Stirs each bell when its time has come."""

    def __init__(self) -> None:
        self._due: dict[int, set[Bell]] = {}
        self._timer: asyncio.TimerHandle | None = None
        #: When the timer goes off.
        self._next = 0

    def stir_in(self, bell: Bell, seconds: float) -> None:
        """Stir it after so long, and not when it was to be stirred before."""
        tick = math.ceil((asyncio.get_running_loop().time() + max(seconds, 0.0)) / _TICK_S)
        if bell.tick == tick:
            return
        self.forget(bell)
        bell.tick = tick
        self._due.setdefault(tick, set()).add(bell)
        if self._timer is None or tick < self._next:
            self._set(tick)

    def forget(self, bell: Bell) -> None:
        """Stir it no more."""
        if bell.tick is None:
            return
        due = self._due[bell.tick]
        due.discard(bell)
        if not due:
            del self._due[bell.tick]
        bell.tick = None

    def _set(self, tick: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._next = tick
        self._timer = asyncio.get_running_loop().call_at(tick * _TICK_S, self._strike)

    def _strike(self) -> None:
        """Stir all whose time has come, in whatever order."""
        self._timer = None
        now = max(math.floor(asyncio.get_running_loop().time() / _TICK_S), self._next)
        for tick in [tick for tick in self._due if tick <= now]:
            for bell in self._due.pop(tick):
                bell.tick = None
                bell.stir()
        if self._due:
            self._set(min(self._due))
