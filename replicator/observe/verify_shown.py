"""What readers see → whether it has passed what was read of the source; waits until it has."""

from __future__ import annotations

import asyncio
import time
from typing import NamedTuple

from replicator import queries
from replicator.buckets.model import OpId
from replicator.database import Connection, rows
from replicator.errors import ReplicatorError, Unavailable
from replicator.observe.verify_source import Seen
from replicator.wal.lsn import Lsn
from replicator.wal.names import qualify

_q = queries.load("verify")

_LOOK_S = 0.05
#: When nothing has passed by then, something is written that will; given up when it has stood so long.
_NUDGE_S = 0.5
_GIVE_UP_S = 60.0


class Now(NamedTuple):
    """What readers see."""

    op_id: OpId
    lsn: Lsn
    #: The time at which rows are where they are.
    clock: float


class Shown:
    """The checkpoint that is shown, and where it has to come."""

    def __init__(self, storage: Connection, source: Connection, slot: str) -> None:
        self._storage, self._source, self._slot = storage, source, slot
        self._must_pass = Lsn(0)
        #: The rules that all of it is compared by.
        self._rules: int | None = None

    async def now(self) -> Now:
        found = await rows(self._storage, _q.shown, slot=self._slot)
        if not found or found[0][0] is None:
            raise ReplicatorError(
                "nothing is shown yet", "The first `replicator run` copies every table; then there is."
            )
        op_id, lsn, clock, by_rules = found[0]
        if self._rules not in (None, by_rules):
            # What only those before made is not kept up any more: it would all look different.
            raise Unavailable(
                f"rules {by_rules} came into force while buckets were compared by rules {self._rules}",
                "Nothing can be said of either. Run it again.",
            )
        self._rules = by_rules
        return Now(OpId(op_id), Lsn.parse(lsn), clock)

    async def require_still(self) -> None:
        """Refuse while a table is being copied: until the copy is complete, what is shown stands still."""
        for namespace, name in await rows(self._storage, _q.uncopied, slot=self._slot):
            raise Unavailable(
                f"{qualify(namespace, name)} is being copied, and readers see what was before",
                "Try again when `replicator snapshot` says that it has been copied.",
            )

    def must_pass(self, seen: Seen | None) -> None:
        assert seen is not None, "something that was read"
        self._must_pass = max(self._must_pass, seen.lsn)

    async def wait(self) -> Now:
        """What readers see, once it has passed everything that was read."""
        begun, last = time.monotonic(), Lsn(0)
        is_nudged = False
        while (now := await self.now()).lsn < self._must_pass:
            if now.lsn != last:
                begun, last = time.monotonic(), now.lsn
            waited = time.monotonic() - begun
            if waited > _NUDGE_S and not is_nudged:
                is_nudged = True
                await self._source.execute(_q.nudge)
            if waited > _GIVE_UP_S:
                await self.require_still()
                raise Unavailable(
                    f"what readers see is at {now.lsn}, and does not come to {self._must_pass}",
                    "Is `replicator run` running, and how far behind is it?",
                )
            await asyncio.sleep(_LOOK_S)
        return now
