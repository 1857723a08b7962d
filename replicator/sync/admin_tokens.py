"""An Authorization header × the configured admin tokens → whether its sender is one of them. No I/O.

What is compared are digests, all of them each time, so that the time it takes tells nothing about any token.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable

from replicator.sync.auth import MISSING, AuthError

_HEADER = re.compile(r"Bearer ([!-~]+)")


class AdminTokens:
    """Who administers; with no token configured, nobody."""

    def __init__(self, tokens: Iterable[str]) -> None:
        self._digests = tuple(_digest(token) for token in tokens)

    def admits(self, authorization: str | None) -> bool:
        found = _HEADER.fullmatch(authorization or "")
        if found is None:
            return False
        sent = _digest(found[1])
        matches = [hmac.compare_digest(sent, digest) for digest in self._digests]
        return any(matches)

    def require(self, authorization: str | None) -> None:
        """AuthError unless it is one of them."""
        if not self.admits(authorization):
            raise AuthError(
                MISSING,
                "Authentication required",
                "Send the header `Authorization: Bearer <one of sync.admin_tokens>`.",
            )


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
