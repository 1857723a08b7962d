"""Parcels of lanes → the jobs they are, laid out for whoever works on them, each with its composition's id.

Of most new rows the job says neither its key nor that id: see `queue_inserted`. Postgres finds the key in the
row; the id is a hash that it does not know, so it is computed here, of what it answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from replicator import queries
from replicator.database import Connection, rows
from replicator.ehr.identity import composition_named
from replicator.ehr.queue_extended import array_of

_q = queries.load("queue")


async def lay_out(connection: Connection, uptos: Mapping[int, int]) -> int:
    """By lane: up to this job, inside the open transaction. How many jobs that were."""
    asked = {"lanes": list(uptos), "uptos": list(uptos.values())}
    parcels = await rows(connection, _q.take_parcels, **asked)
    if not parcels:
        return 0
    given = {
        "lanes": [lane for lane, *_ in parcels],
        "seqs": [seq for _, seq, *_ in parcels],
        "compositions": [_compositions(count, unnamed or ()) for *_, count, unnamed in parcels],
    }
    return (await connection.execute(_q.lay_out, given)).rowcount


def _compositions(count: int, unnamed: Sequence[tuple[int, str, str | None, str | None]]) -> str | None:
    """By their places in a parcel of so many jobs, the ids of these, as Postgres reads an array."""
    if not unnamed:
        return None
    found = ["NULL"] * count
    for place, begun, patient, key in unnamed:
        # Somebody may have erased one or the other.
        if patient is not None and key is not None:
            found[place] = composition_named(begun, patient, key)
    return array_of(found)
