"""What was stored, and what was heard meanwhile → which position to store and acknowledge next. No I/O.

Two rules.

1. Only a stored position is acknowledged. What we acknowledge the source may forget; if storage did not
   have it, it would be nowhere.
2. A quiet source must not keep its log for our sake. Where nothing of ours is written, the server still
   tells how far it has read; outside any transaction, with nothing in flight, that position is as good as a
   commit's, so it is stored as a checkpoint without ops, and then acknowledged.

The second rule has a trap: storing a checkpoint writes WAL, and if source and storage are one database the
server then reports that WAL, which would be stored, and so on for ever. So a quiet position is worth storing
only when it is further ahead than our own storing can have moved it, or when somebody waits for it.
"""

from __future__ import annotations

from replicator.wal.lsn import Lsn

#: What one stored checkpoint may add to the log (a row version, full-page images, a commit, a notice), and
#: then some: a quiet source that moves less than this keeps less than this.
QUIET_BYTES = 1 << 18


class Progress:
    """Where the stream stands against where storage stands."""

    def __init__(self, stored: Lsn, *, quiet_bytes: int = QUIET_BYTES) -> None:
        #: Everything up to here is stored, and may be acknowledged.
        self.stored_lsn = stored
        self._heard = stored
        self._quiet_bytes = quiet_bytes
        self._wanted = Lsn(0)

    def store(self, lsn: Lsn) -> None:
        """Storage has committed a checkpoint at this position."""
        assert lsn >= self.stored_lsn, "a checkpoint never goes back"
        self.stored_lsn = lsn

    def hear(self, quiet_lsn: Lsn) -> None:
        """The server stands here, outside any transaction and with everything before it in our hands."""
        self._heard = max(self._heard, quiet_lsn)

    def want(self, lsn: Lsn) -> None:
        """Somebody waits until the checkpoint reaches this position."""
        self._wanted = max(self._wanted, lsn)

    def due(self) -> Lsn | None:
        """The quiet position worth storing now, if there is one."""
        ahead = self._heard - self.stored_lsn
        waited_for = self.stored_lsn < self._wanted <= self._heard
        return self._heard if ahead >= self._quiet_bytes or (waited_for and ahead > 0) else None
