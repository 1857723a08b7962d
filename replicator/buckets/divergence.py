"""What is stored × what the source says of itself and its slot → why both cannot be true. No I/O."""

from __future__ import annotations

from replicator.buckets.model import Position
from replicator.errors import Diverged, SlotAhead, SlotLost, SourceReplaced
from replicator.wal.lsn import Lsn
from replicator.wal.source import Identity, Slot

_START_OVER = "To start over beside what is stored, which stays served meanwhile: replicator snapshot --all"


def divergence(name: str, identity: Identity, slot: Slot | None, position: Position) -> Diverged | None:
    """The reason not to go on from where storage stands, if there is one."""
    stored = position.stored
    if (identity.system_id, identity.timeline) != (position.system_id, position.timeline):
        return SourceReplaced(
            f"slot {name} was read from system {position.system_id}, timeline {position.timeline}; "
            f"the source is now system {identity.system_id}, timeline {identity.timeline}",
            "Positions of one mean nothing in the other. If this is the wrong server, correct source.dsn.\n"
            + _START_OVER,
        )
    if identity.wal_lsn < stored.lsn:
        return SourceReplaced(
            f"the source's log ends at {identity.wal_lsn}, before what is stored of it, {stored.lsn}",
            "It was restored to an earlier state: what it had committed after that is stored here, and not "
            f"there. If this is the wrong server, correct source.dsn.\n{_START_OVER}",
        )
    if slot is None:
        return SlotLost(
            f"slot {name} does not exist any more, but what it had sent up to {stored.lsn} is stored",
            f"What was committed since cannot be read from the log.\n{_START_OVER}",
        )
    if slot.wal_status == "lost":
        return SlotLost(
            f"slot {name} was invalidated: the server has removed log that had not been read",
            f"Raise max_slot_wal_keep_size before the next time.\n{_START_OVER}",
        )
    if slot.confirmed_lsn is not None and slot.confirmed_lsn > stored.lsn:
        return SlotAhead(
            f"slot {name} has confirmed {slot.confirmed_lsn}, past what is stored, {stored.lsn}",
            "Something else read from this slot, it was recreated, or storage was restored from a backup; "
            f"the changes in between are not in the log any more.\n{_START_OVER}",
        )
    return None


def standing(identity: Identity, confirmed_lsn: Lsn | None) -> str:
    """The source and the slot as they stand: what is lost is given up as it stands, and no further.

    A permission to start over that outlived its occasion would pass over the next loss in silence.
    """
    return f"{identity.system_id} {identity.timeline} {confirmed_lsn or '-'}"


def beginning(identity: Identity) -> str:
    """The same while it is acted on: the slot is being dropped and made, so how it stands says nothing.

    Ended in between, one has to go on from there, and not ask again.
    """
    return f"{identity.system_id} {identity.timeline} beginning"
