"""How often something has failed, and how long it had lasted → how long to wait before trying again."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress

#: Waiting for what heals by itself: from so much, doubling, to so much; each wait a random part of it.
_BACKOFF_S = (0.1, 5.0)
#: What lasted this long was good: the next fault is a new one.
GOOD_S = 10.0


class Patience:
    """Waits that grow while the same thing fails again and again."""

    def __init__(self) -> None:
        #: How often it has failed in a row.
        self.attempts = 0

    def after(self, lasted_s: float) -> float:
        """It has failed after so long: the seconds to wait."""
        self.attempts = 1 if lasted_s > GOOD_S else self.attempts + 1
        first, most = _BACKOFF_S
        return random.uniform(0.5, 1) * min(most, first * 2.0 ** min(self.attempts, 16))


async def stopped_within(stop: asyncio.Event, seconds: float) -> None:
    """Wait so long, or until told to stop."""
    with suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)
