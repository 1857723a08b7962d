"""A client's word that it has written → a number, which a checkpoint repeats once it holds what was written.

The client asks after its backend has committed. So what it has written stands before the end of the source's
log at that moment, and a checkpoint up to there holds it. The number is stored with that place, and only then
is something of our own written to the source: there is a checkpoint after the number, then, which no reader
can miss; and none waits on an idle source, also where storage and source are one database and nothing else
moves.

Only the newest write of a client counts: while that one is not held, none is reported. Many ask at once, and
are answered together.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from hashlib import md5
from typing import NamedTuple

from replicator import queries
from replicator.database import Connect, Connection, rows
from replicator.wal.lsn import Lsn

_q = queries.load("write_checkpoints")


class Client(NamedTuple):
    """One database of one user."""

    user_id: str
    #: Empty where a client does not say which it is.
    client_id: str

    @property
    def mark(self) -> str:
        """By which it is told that it has asked; see `request`."""
        return md5(f"{self.user_id}\n{self.client_id}".encode(), usedforsecurity=False).hexdigest()


class _Asked(NamedTuple):
    client: Client
    #: The number that the client has given it; None if it is to be given one.
    id: int | None
    answer: asyncio.Future[int]


class Writes:
    """Numbers the writes of clients."""

    def __init__(self, source: Connect, storage: Connect) -> None:
        self._source, self._storage = source, storage
        self._waiting: list[_Asked] = []
        self._working: asyncio.Task[None] | None = None

    async def request(self, client: Client, id: int | None = None) -> int:
        """The number of what the client has written until now."""
        asked = _Asked(client, id, asyncio.get_running_loop().create_future())
        self._waiting.append(asked)
        if self._working is None or self._working.done():
            self._working = asyncio.create_task(self._work())
        return await asked.answer

    async def close(self) -> None:
        if self._working is not None:
            self._working.cancel()
            await asyncio.gather(self._working, return_exceptions=True)

    async def _work(self) -> None:
        """Answer those who wait; who asks meanwhile is among the next, for the log may have grown."""
        while self._waiting:
            asked, self._waiting = self._waiting, []
            try:
                numbers = await self._number(asked)
            except BaseException as error:
                for one in asked:
                    if not one.answer.done():
                        one.answer.set_exception(error)
                if isinstance(error, asyncio.CancelledError):
                    raise
                continue
            for one in asked:
                if not one.answer.done():
                    one.answer.set_result(numbers[one.client])

    async def _number(self, asked: Collection[_Asked]) -> dict[Client, int]:
        async with self._source() as source:
            head = (await rows(source, _q.head))[0][0]
            async with self._storage() as storage:
                stored = await rows(
                    storage,
                    _q.request,
                    user_ids=[one.client.user_id for one in asked],
                    client_ids=[one.client.client_id for one in asked],
                    ids=[one.id for one in asked],
                    lsn=head,
                )
            await source.execute(_q.move_on)
        return {Client(user_id, client_id): number for user_id, client_id, number in stored}


async def newest(storage: Connection, clients: Collection[Client], lsn: Lsn) -> dict[Client, int | None]:
    """The newest writes of these clients; None for one that no checkpoint up to here holds."""
    found = await rows(
        storage,
        _q.newest,
        user_ids=[client.user_id for client in clients],
        client_ids=[client.client_id for client in clients],
        lsn=str(lsn),
    )
    return {
        Client(user_id, client_id): number if is_held else None
        for user_id, client_id, number, is_held in found
    }
