"""Blocks of ops, as a binary COPY has them → storage, which takes them in while more are made.

Whoever makes them is not to wait for storage, as long as what waits for it is little: after it has flushed a
commit storage is behind, and catches up faster than ops are made. So a task of its own hands them over.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from replicator import queries
from replicator.binary_copy import BEGIN, END
from replicator.database import Connection

_q = queries.load("buckets")

#: With so much that storage has not taken yet, whoever makes more has to wait.
_WAITING_BYTES = 12 << 20
#: With so much, storage is given some of it before more is made.
_TURN_BYTES = 1 << 19


class Inflow:
    """The COPY into `ops` of one connection, begun when there are blocks and ended by `rest`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._blocks: deque[bytes] = deque()
        self._waiting = 0
        #: Set when there is something new to do, for the one that hands over; and for the one that has it do.
        self._given, self._taken = asyncio.Event(), asyncio.Event()
        self._is_to_end = False
        self._handing_over: asyncio.Task[None] | None = None

    async def send(self, blocks: Sequence[bytes]) -> None:
        """Have storage given these, and go on without waiting for it.

        They stay what they are: joined, those of a large transaction would be copied once more.
        """
        if self._handing_over is None:
            self._is_to_end = False
            self._handing_over = asyncio.create_task(self._hand_over())
        self._blocks += blocks
        self._waiting += sum(map(len, blocks))
        self._given.set()
        if self._waiting >= _TURN_BYTES:
            await asyncio.sleep(0)  # it needs its turns
        while self._waiting > _WAITING_BYTES and not self._handing_over.done():
            self._taken.clear()
            await self._taken.wait()
        if self._handing_over.done():
            await self.rest()  # which says why it has ended

    async def rest(self) -> None:
        """Wait until storage has taken in what it was given, and can be told something else."""
        if self._handing_over is not None:
            self._is_to_end = True
            self._given.set()
            await self._handing_over
            self._handing_over = None

    async def abandon(self) -> None:
        """End the COPY, if one is under way, in such a way that nothing of it is stored."""
        handing_over, self._handing_over = self._handing_over, None
        if handing_over is not None:
            handing_over.cancel()
            await asyncio.wait({handing_over})
            if not handing_over.cancelled():
                handing_over.exception()  # whatever it was, nobody needs to know it any more
        self._blocks.clear()
        self._waiting = 0

    async def _hand_over(self) -> None:
        try:
            async with self._connection.cursor().copy(_q.append_ops) as copying:
                await copying.write(BEGIN)
                while self._blocks or not self._is_to_end:
                    while self._blocks:
                        block = self._blocks.popleft()
                        await copying.write(block)
                        self._waiting -= len(block)
                        self._taken.set()
                    if not self._is_to_end:
                        self._given.clear()
                        await self._given.wait()
                await copying.write(END)
        finally:
            self._taken.set()
