"""What rows say of clients' writes → numbers that are reached with the checkpoint of the batch they are in.

They are stored in the batch's own transaction, so a reader sees a number when it sees what was written. A
number only grows; what is lower than the known one says nothing new.
"""

from __future__ import annotations

from collections.abc import Iterable

from replicator import queries
from replicator.database import Connection
from replicator.rules.route import Written
from replicator.wal.lsn import Lsn

_q = queries.load("write_checkpoints")

#: Of more clients than this, numbers are sent before the end is known.
_HELD = 5000
#: Where a number has no place yet. Nobody sees it: the transaction that puts it there puts it right.
_NOWHERE = Lsn((1 << 64) - 1)


class ToldWrites:
    """Those of one batch."""

    def __init__(self) -> None:
        self._newest: dict[tuple[str, str], int] = {}
        self._is_sent_early = False

    def add(self, written: Iterable[Written]) -> None:
        for one in written:
            client = one.user_id, one.client_id
            self._newest[client] = max(one.id, self._newest.get(client, 0))

    @property
    def is_full(self) -> bool:
        return len(self._newest) > _HELD

    async def send(self, connection: Connection, lsn: Lsn = _NOWHERE) -> None:
        """Store them; without a place, they are to be placed later in the same transaction."""
        newest, self._newest = self._newest, {}
        if newest:
            self._is_sent_early |= lsn == _NOWHERE
            values = {
                "user_ids": [user_id for user_id, _ in newest],
                "client_ids": [client_id for _, client_id in newest],
                "ids": list(newest.values()),
            }
            await connection.execute(_q.tell, {**values, "lsn": str(lsn)})
        if self._is_sent_early and lsn != _NOWHERE:
            await connection.execute(_q.place, {"nowhere": str(_NOWHERE), "lsn": str(lsn)})
