"""The words between a Session and whoever drives it: Grant, Offer, Fetch, Page. No I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from replicator.buckets.model import Op, OpId, Total
from replicator.sync.lines import Listed, Reason, Stream


class Grant(NamedTuple):
    """A bucket the client may have, and why."""

    bucket: str
    priority: int
    reasons: tuple[Reason, ...] = ()


@dataclass(frozen=True, slots=True)
class Offer:
    """A checkpoint as it looks to one client.

    All of it is read in one snapshot, together with the checkpoint: were the totals read later, history may
    have been compacted past the checkpoint in between, and they would not add up to it.
    """

    checkpoint: OpId
    #: The newest of the client's own writes that the checkpoint holds, where it holds its newest.
    write_checkpoint: int | None
    #: A bucket may stand here several times, once for each way that leads to it.
    granted: Sequence[Grant]
    #: Told once on a connection: the places to which reasons point must not change while it lasts.
    streams: Sequence[Stream]
    #: Buckets without ops need not be here.
    totals: Mapping[str, Total]

    def listed(self) -> dict[str, Listed]:
        """By name, each bucket once: all reasons, the least of the priorities."""
        found: dict[str, tuple[int, tuple[Reason, ...]]] = {}
        for bucket, priority, reasons in self.granted:
            if bucket in found:
                known, others = found[bucket]
                priority, reasons = min(known, priority), (*others, *reasons)
            found[bucket] = priority, reasons
        nothing = Total(0, 0)
        return {
            bucket: Listed(bucket, *self.totals.get(bucket, nothing), priority, _once(reasons))
            for bucket, (priority, reasons) in found.items()
        }


class Fetch(NamedTuple):
    """What is to be read next, all of one priority, in any order."""

    priority: int
    #: Up to and with this op, and never further.
    upto: OpId
    #: By bucket: after which op.
    buckets: Mapping[str, OpId]


class Page(NamedTuple):
    """A run of a bucket's ops from where the Fetch said, without a gap; empty where there are none."""

    bucket: str
    ops: Sequence[Op]
    #: Whether the bucket has more up to the checkpoint: then this page must not be empty.
    has_more: bool = False
    #: Compaction has gone past the checkpoint here: an op up to it has made way for one after it, or was
    #: taken into a CLEAR after it. What was sent does not add up to the checkpoint any more.
    is_overtaken: bool = False


def _once(reasons: tuple[Reason, ...]) -> tuple[Reason, ...]:
    """In one order however they were found, so that they compare as equal when they are."""
    return reasons if len(reasons) < 2 else tuple(sorted(set(reasons)))
