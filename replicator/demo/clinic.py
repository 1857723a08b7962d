"""An empty database → a small clinic at work."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

from replicator import queries
from replicator.database import Connection, rows

_q = queries.load("clinic")

#: How often each thing happens, out of the sum.
_DAY = {"measure": 8, "correct": 3, "report": 2, "prescribe": 1, "retract": 1}


async def build(connection: Connection) -> None:
    """The tables, and what a DBA does once so that they can be replicated."""
    async with connection.transaction():
        await connection.execute(_q.schema)
        await connection.execute(_q.publish)


async def admit(connection: Connection, count: int) -> list[str]:
    """So many patients, each in a transaction of their own; their ids."""
    return [str((await rows(connection, _q.admit, number=number + 1))[0][0]) for number in range(count)]


async def work(connection: Connection, patients: Sequence[str], rate: float, luck: random.Random) -> None:
    """One thing after the other happens to some patient, about so many a second, for ever."""
    while True:
        what = luck.choices(list(_DAY), list(_DAY.values()))[0]
        values = {"patient": luck.choice(patients), "luck": luck.randrange(1_000_000)}
        await connection.execute(getattr(_q, what), values)
        await asyncio.sleep(luck.expovariate(rate))
