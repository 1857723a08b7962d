"""A configuration → what of its stream is lost, if anything is, with both ends as they stand."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import NamedTuple

from replicator import queries
from replicator.buckets.divergence import divergence, standing
from replicator.buckets.read import position
from replicator.buckets.tables import TableState
from replicator.config import Config
from replicator.database import Connection, connected, rows
from replicator.wal.source import find_slot, identify

_q = queries.load("publication")


class Lost(NamedTuple):
    """Something that cannot be read from the log any more."""

    why: str
    #: What may be given up.
    standing: str


async def find_lost(config: Config, storage: Connection, tables: Iterable[TableState]) -> Lost | None:
    """Compare both ends of the stream."""
    name, publication = config.source.slot, config.source.publication
    async with connected(config.source_dsn, "snapshot") as source:
        # In this order: who replicates meanwhile confirms after storing, and stores what has been written.
        slot = await find_slot(source, name)
        stood = await position(storage, name)
        identity = await identify(config.source_dsn)
        oids = await rows(source, _q.publication_oid, publication=publication)
    if stood is None:
        return None
    now = standing(identity, slot and slot.confirmed_lsn)
    if problem := divergence(name, identity, slot, stood):
        return Lost(problem.what, now)
    known = {json.loads(state.form)["publication"] for state in tables if state.form}
    if known - {oid for (oid,) in oids}:
        return Lost(f"publication {publication} is not the one that the log was read by", now)
    return None
