"""The lanes of a storage transaction's jobs → the numbers that these have there; and the lanes are ours.

A lane that is new to us is described to storage. One that we have met is only counted, as most are.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from psycopg.rows import TupleRow

from replicator import queries
from replicator.database import Connection, rows
from replicator.ehr.queue_added import Waiting
from replicator.errors import Unavailable

_q = queries.load("queue")

#: So many lanes are known to be there, about.
_KNOWN = 65_536


class Stored:
    """What storage is known to have, because it was committed."""

    def __init__(self, manners: Collection[int] = ()) -> None:
        self.manners = set(manners)
        #: By number, a hash of whose they are: lanes for the patient and the EHR that we know them for.
        self.lanes: dict[int, int] = {}

    def add(self, manners: Collection[int], lanes: Mapping[int, int]) -> None:
        self.manners.update(manners)
        if len(self.lanes) > _KNOWN:
            self.lanes.clear()
        self.lanes.update(lanes)


async def extend(connection: Connection, lanes: dict[int, Waiting], known: dict[int, int]) -> dict[int, int]:
    """Take the lanes, and let them have so many jobs more.

    `known` are those that storage is known to have. Answers which others are, once this is committed.
    """
    found = list[TupleRow]()
    if all([known.get(number) == hash(lane.home) for number, lane in lanes.items()]):
        await connection.execute(_q.in_order)
        found = await rows(connection, _q.extend_known_lanes, **_counts(lanes))
    there = {row[0] for row in found}
    if there and len(there) < len(lanes):
        # To take the others now would be to take them out of their order.
        raise Unavailable("lanes are gone that were in storage", "Beginning again with those that are there.")
    new = dict[int, int]()
    if not there:
        found = await rows(connection, _q.extend_lanes, **_counts(lanes), **_names(lanes))
    for number, appended, is_others in found:
        lane = lanes[number]
        lane.before, lane.is_others = appended - len(lane.jobs), is_others
        if number not in there and lane.ehr is not None and not is_others:
            new[number] = hash(lane.home)
    return new


def _names(lanes: dict[int, Waiting]) -> dict[str, str]:
    """Arrays as Postgres reads them: the driver would look at each element twice."""
    found = list(lanes.values())
    return {
        "names": array_of([quoted(lane.name) for lane in found]),
        "patients": array_of(["NULL" if lane.patient is None else quoted(lane.patient) for lane in found]),
        "ehrs": array_of([lane.ehr or "NULL" for lane in found]),
    }


def _counts(lanes: dict[int, Waiting]) -> dict[str, str]:
    found = list(lanes.values())
    return {
        "ids": array_of([str(lane.id) for lane in found]),
        "jobs": array_of([str(len(lane.jobs)) for lane in found]),
        "priorities": array_of([str(lane.priority) for lane in found]),
        "urgent": array_of([str(lane.urgent_upto) for lane in found]),
    }


def array_of(elements: list[str]) -> str:
    return f"{{{','.join(elements)}}}"


def quoted(text: str) -> str:
    if "\\" in text or '"' in text:
        text = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'
