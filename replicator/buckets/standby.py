"""A slot that another replicator writes for → waiting, until its lock is ours.

A session that waits inside Postgres for an advisory lock keeps a snapshot all the while, and a standby waits
for months: nothing that dies meanwhile could be vacuumed. So it asks, on one connection, several times a
second, which costs storage a fraction of a millisecond each time.
"""

from __future__ import annotations

import asyncio
import logging

from replicator import pulse, queries
from replicator.database import Connection, rows
from replicator.marks import mark

_q = queries.load("buckets")

#: How often it asks.
_ASK_S = 0.25
#: It is said again after so long that it still waits.
_TOLD_AGAIN_S = 3600.0


async def become_writer(connection: Connection, slot: str) -> Connection:
    """Return it when this session may write; after a killed one, once storage has noticed."""
    asked = 0
    while not (await rows(connection, _q.lock_writer, slot=slot))[0][0]:
        if asked % int(_TOLD_AGAIN_S / _ASK_S) == 0:
            why = f"another replicator is writing for slot {slot}: standing by"
            mark("waiting", level=logging.INFO, why=why)
        pulse.at("standing by: another replicator writes", is_ready=True)
        asked += 1
        await asyncio.sleep(_ASK_S)
    return connection
