"""The places of a server × who wants one → whether there is one more, for them. No I/O.

What somebody may take is a share: else a single token, in a client that connects anew without end, would
keep everybody else out.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from replicator.errors import ReplicatorError
from replicator.marks import mark


class Full(ReplicatorError):
    """There is no place, now."""

    code = "PSYNC_S2304"


class Places:
    """So many, and so many of them for one user."""

    def __init__(self, most: int, each: int) -> None:
        self.most, self._each = most, each
        self._by_user: Counter[str] = Counter()
        self.taken = 0

    @contextmanager
    def one_for(self, user: str) -> Iterator[None]:
        """A place, for as long as one stays inside."""
        self._check(user)
        self._by_user[user] += 1
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1
            self._by_user[user] -= 1
            if not self._by_user[user]:
                del self._by_user[user]

    def _check(self, user: str) -> None:
        if self.taken >= self.most:
            mark("too many connections", level=logging.WARNING, most=self.most)
            raise Full("The limit of concurrent connections is reached", "Try again later.")
        if self._by_user[user] >= self._each:
            mark("too many connections of one user", level=logging.WARNING, most=self._each)
            raise Full("The limit of concurrent connections of one user is reached", "Close some of them.")
