"""So many requests a second → when each may be sent: in turn, evenly, with no bursts."""

from __future__ import annotations

import asyncio


class Turns:
    """What all requests of a worker wait for."""

    def __init__(self, rate: float | None = None) -> None:
        """`rate` is for all workers of this server together; None: none of them waits."""
        self._rate = rate
        #: Ours of it.
        self.share = 1.0
        self._next_at = 0.0

    async def wait(self) -> None:
        """Until it is our turn."""
        if self._rate is not None:
            await asyncio.sleep(self.take(asyncio.get_running_loop().time()))

    def take(self, now: float) -> float:
        """The next turn is ours; in how many seconds it comes."""
        if self._rate is None:
            return 0.0
        at = max(now, self._next_at)
        self._next_at = at + 1 / (self._rate * self.share)
        return at - now
