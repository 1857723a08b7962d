"""Who asks, and when → whether that is still a pace at which clients ask. No I/O."""

from __future__ import annotations

from typing import NamedTuple


class _Left(NamedTuple):
    """How often somebody may ask at once, as of a time."""

    requests: float
    at: float


class Pace:
    """So many requests of one user at once, and so many a second on average."""

    def __init__(self, burst: int, per_s: float) -> None:
        self._burst, self._per_s = burst, per_s
        self._left: dict[str, _Left] = {}
        self._swept_at = 0.0

    def allows(self, user: str, now: float) -> bool:
        """Whether this one is within it; then it counts."""
        self._sweep(now)
        left = self._now(self._left.get(user, _Left(self._burst, now)), now)
        if left < 1:
            return False
        self._left[user] = _Left(left - 1, now)
        return True

    def _now(self, left: _Left, now: float) -> float:
        return min(self._burst, left.requests + (now - left.at) * self._per_s)

    def _sweep(self, now: float) -> None:
        """Forget who has not asked for so long that they may ask as if they never had."""
        whole_s = self._burst / self._per_s
        if now - self._swept_at >= whole_s:
            self._swept_at = now
            self._left = {user: left for user, left in self._left.items() if now - left.at < whole_s}
