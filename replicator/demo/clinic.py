"""An empty database → a small clinic at work."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

from replicator import queries
from replicator.database import Connection, rows

_q = queries.load("clinic")

#: How often each thing happens, out of the sum.
_DAY = {
    "measure": 8,
    "correct": 3,
    "report": 2,
    "prescribe": 1,
    "vaccinate": 1,
    "write_down": 1,
    "retract": 1,
}
#: The one who is watched falls ill more often than the others.
_WATCHED = 0.25


async def opened(connection: Connection, count: int, luck: random.Random) -> list[str]:
    """The patients of the clinic that is there; or of a new one, so many and with some history each."""
    if not (await rows(connection, _q.is_built))[0][0]:
        await _build(connection)
        for number in range(count):
            await _admit(connection, number + 1, luck)
    return [str(patient) for (patient,) in await rows(connection, _q.patients)]


async def _build(connection: Connection) -> None:
    """The tables, and what a DBA does once so that they can be replicated."""
    async with connection.transaction():
        await connection.execute(_q.schema)
        await connection.execute(_q.publish)


async def _admit(connection: Connection, number: int, luck: random.Random) -> None:
    async with connection.transaction():
        patient = (await rows(connection, _q.admit, number=number))[0][0]
        await connection.execute(_q.history, {"patient": patient, "luck": luck.randrange(1_000_000)})


async def work(connection: Connection, patients: Sequence[str], rate: float, luck: random.Random) -> None:
    """One thing after the other happens to a patient, often the first; about so many a second, for ever."""
    while True:
        what = luck.choices(list(_DAY), list(_DAY.values()))[0]
        whom = patients[0] if luck.random() < _WATCHED else luck.choice(patients)
        values = {"patient": whom, "luck": luck.randrange(1_000_000)}
        await connection.execute(getattr(_q, what), values)
        await asyncio.sleep(luck.expovariate(rate))
