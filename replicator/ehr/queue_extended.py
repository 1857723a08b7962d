"""The lanes of a storage transaction's jobs → the numbers that these have there; and the lanes are ours.

A lane that is new to us is described to storage. One that we have met is only counted, as most are.
"""

from __future__ import annotations

from psycopg.rows import TupleRow

from replicator import queries
from replicator.database import Connection, rows
from replicator.ehr.queue_added import Waiting

_q = queries.load("queue")

#: So many lanes are known to be there, at most.
_KNOWN = 65_536


async def extend(connection: Connection, lanes: dict[int, Waiting], known: dict[int, int]) -> None:
    """Take the lanes, and let them have so many jobs more.

    `known`: by number, a hash of whose they are, those that storage has for the patient and EHR that we know.
    """
    found = list[TupleRow]()
    if all([known.get(number) == hash(lane.home) for number, lane in lanes.items()]):
        await connection.execute(_q.in_order)
        found = await rows(connection, _q.extend_known_lanes, **_counts(lanes))
    there = {row[0] for row in found}
    # Some may have been known from a transaction that was not to be: then none of them are, any more.
    if rest := {number: lane for number, lane in lanes.items() if number not in there}:
        if there or len(known) > _KNOWN:
            known.clear()
        found += await rows(connection, _q.extend_lanes, **_counts(rest), **_names(rest))
    for number, appended, is_others in found:
        lane = lanes[number]
        lane.before, lane.is_others = appended - len(lane.jobs), is_others
        if number in rest and lane.ehr is not None and not is_others:
            known[number] = hash(lane.home)


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
