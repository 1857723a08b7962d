"""Names of buckets → the numbers their ops go by in storage.

A number, once given, stays: so what is known here never becomes wrong, and a name is asked for once. Numbers
are given on a connection of their own, outside the transaction that stores the ops: that one is in the middle
of taking ops in. If it is given up, what is left behind is a bucket without ops, which nobody sees.

To find one name among a million takes storage as long as to take its op in, and to read them all a quarter
of that for each: so a writer begins by reading them. What is not known all the same can be looked up while
something else is done.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from replicator import queries
from replicator.buckets.digests import MOST, Digests
from replicator.database import Connection, rows

_q = queries.load("buckets")

#: So many names are kept as they are, to be found at once.
_MOST = 50_000
#: So many are read together.
_READ = 20_000


class Numbers:
    """The numbers of buckets, as one writer has come to know them."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        #: Of names that were asked for lately, and of all there is room for.
        self._known: dict[str, int] = {}
        self._digests = Digests()
        self._looking: asyncio.Task[list[int]] | None = None

    async def read(self) -> None:
        """Come to know all there are; or, of very many, the newest."""
        before, left = 1 << 31, MOST
        while left > 0:
            asked = {"before": before, "most": _READ}
            cursor = await self._connection.execute(_q.numbered_before, asked, binary=True)
            count, before, entries = (await cursor.fetchall())[0]
            self._digests.read(entries or b"")
            left = left - count if count == _READ else 0

    def known(self, names: Sequence[str]) -> list[int] | None:
        """What `of` would answer at once; None if it would have to ask."""
        try:
            return list(map(self._known.__getitem__, names))
        except KeyError:
            numbers = [number for number in self._find(names) if number is not None]
            return numbers if len(numbers) == len(names) else None

    def foresee(self, names: Sequence[str]) -> None:
        """Have the numbers of these looked up, while whoever will ask for them does something else."""
        assert self._looking is None, "one after the other"
        self._looking = asyncio.create_task(self._of(names))

    async def of(self, names: Sequence[str]) -> list[int]:
        """The number of each of these buckets, in the order of the names."""
        looking, self._looking = self._looking, None
        if looking is not None:
            await looking
        return await self._of(names)

    async def abandon(self) -> None:
        """Nobody will ask for what has been foreseen."""
        looking, self._looking = self._looking, None
        if looking is not None:
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)

    async def _of(self, names: Sequence[str]) -> list[int]:
        numbers = self._find(names)
        unknown = {name for name, number in zip(names, numbers, strict=True) if number is None}
        there = await self._look_up(list(unknown)) if unknown else {}
        return [
            there[name] if number is None else number for name, number in zip(names, numbers, strict=True)
        ]

    def _find(self, names: Sequence[str]) -> list[int | None]:
        """The number of each of these, where it is known."""
        if len(self._known) >= _MOST:
            self._known = {}
        known = self._known
        others = [name for name in names if name not in known]
        found = self._digests.find(others)
        known.update([(name, n) for name, n in zip(others, found, strict=True) if n is not None])
        return list(map(known.get, names))

    async def _look_up(self, names: list[str]) -> dict[str, int]:
        """Come to know these. Those that have numbers are found faster than they would be given one."""
        found = (await rows(self._connection, _q.numbers_of_buckets, names=names))[0][0]
        there = {name: number for name, number in zip(names, found, strict=True) if number is not None}
        if len(there) < len(names):
            new = [name for name in names if name not in there]
            there |= dict(await rows(self._connection, _q.number_buckets, names=new))
        for name, number in there.items():
            self._digests.add(name, number)
        self._known |= there
        return there
