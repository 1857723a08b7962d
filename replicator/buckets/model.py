"""The words of what is stored: Op, OpId, Checkpoint. No I/O."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple, NewType

from replicator.wal.lsn import Lsn

#: The place of an Op in the one order of all buckets.
OpId = NewType("OpId", int)


class Checkpoint(NamedTuple):
    """Every source change up to `lsn` is in Ops up to `op_id`, and no later Op will ever be ≤ `op_id`."""

    op_id: OpId
    lsn: Lsn


class Op(NamedTuple):
    """One recorded entry of a bucket's history."""

    op_id: OpId
    bucket: str
    op: str
    object_type: str
    object_id: str
    subkey: str
    checksum: int
    data: str | None


class Total(NamedTuple):
    """What the ops of a bucket come to, up to a checkpoint."""

    #: The sum of their checksums, modulo 2^32.
    checksum: int
    #: How many there are.
    ops: int


class Page(NamedTuple):
    """Some of a bucket's ops on their way to a client, in their order, as they travel."""

    ops: list[Op]
    #: Whoever has received them goes on after this one.
    next_after: OpId
    has_more: bool
    #: Whether what was stored has been reduced, meanwhile, to what a later checkpoint makes of it: then this
    #: one cannot be completed any more, and a later one will be.
    is_overtaken: bool


class Told(NamedTuple):
    """What may have changed between two checkpoints: buckets, and `lookup<tab>key`; None is all of them."""

    buckets: frozenset[str] | None
    lookups: frozenset[str] | None


class Position(NamedTuple):
    """Where a slot's stream stands and whose log it is, as one row of `checkpoints` says."""

    #: What is stored, and may be acknowledged.
    stored: Checkpoint
    #: What readers may see: the same, but while a table is being copied; None before the first copy.
    shown: Checkpoint | None
    fence: int
    system_id: str
    timeline: int
    recorded_at: datetime
    #: What an operator has given up as lost: the source and the slot as they stood then. See `standing`.
    given_up: str | None
    #: The time at which rows are where they are, in seconds since 1970.
    clock: float = 0.0
    #: Which set of rules was in force at what readers see.
    shown_rules: int | None = None
    #: When the newest of the transactions in it was committed, in seconds since 1970 by the source's clock.
    committed_at: float | None = None
