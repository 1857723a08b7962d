"""The words of a look: what was seen on the source, in storage, and of every process. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from replicator.ehr.lanes_taken import SERVER
from replicator.ehr.queue_health import Health
from replicator.wal.slots import SlotState


class Copy(NamedTuple):
    """How far a table has been copied."""

    namespace: str
    name: str
    state: str
    rows_copied: int
    rows_expected: int
    has_holes: bool
    #: The rules in preparation for which it is read once more; None: the copy that all have.
    rules: int | None
    since: float | None

    @property
    def label(self) -> str:
        return self.name if self.namespace == "public" else f"{self.namespace}.{self.name}"

    @property
    def share(self) -> float:
        """From 0 to 1; how many rows there are is an estimate."""
        if self.state == "copied":
            return 1.0
        most = max(self.rows_expected, self.rows_copied)
        return min(self.rows_copied / most, 0.99) if most else 0.0


class RuleState(NamedTuple):
    """A set of rules."""

    id: int
    state: str
    why: str | None
    since: float


class Hold(NamedTuple):
    """What many lanes wait for: a template, or the record system itself."""

    name: str
    reason: str
    since: float


class PartState(NamedTuple):
    """A process, as it told itself."""

    part: str
    node: str
    is_alive: bool
    starts: int
    started_at: float
    told_at: float
    waits_for: str | None
    waits_since: float | None
    figures: Mapping[str, Any]

    @property
    def clients(self) -> int:
        return int(self.figures.get("clients") or 0)


@dataclass(frozen=True, slots=True)
class Source:
    """The source's side."""

    slot: SlotState | None
    #: How far its log is.
    position: int
    #: What slots may keep back at most; None without a limit.
    limit_bytes: int | None
    #: What the disk has left that its data is on, where that can be seen.
    disc_bytes: int | None
    #: How fast the log grows, and over how long that was seen.
    pace: float | None
    pace_s: float | None
    #: How late the slot's reader is.
    lag_s: float | None

    @property
    def room_bytes(self) -> int | None:
        """How much more may be written, if nobody reads, until the slot is lost or the disk full."""
        if self.slot is not None and self.slot.safe_bytes is not None:
            return max(0, self.slot.safe_bytes)
        return self.limit_bytes if self.limit_bytes is not None else self.disc_bytes

    @property
    def seconds_to_full(self) -> float | None:
        if self.room_bytes is None or not self.pace:
            return None
        return self.room_bytes / self.pace


@dataclass(frozen=True, slots=True)
class Stored:
    """The side of storage."""

    #: What is stored, and what readers see; None before the first start.
    op_id: int | None
    lsn: str | None
    recorded_at: float | None
    committed_at: float | None
    shown_op_id: int | None
    #: Whether somebody holds the writer's lock.
    is_writing: bool
    copies: tuple[Copy, ...]
    rules: tuple[RuleState, ...]
    parts: tuple[PartState, ...]
    queue: Health
    holds: tuple[Hold, ...]
    parked_since: float | None

    def rule(self, state: str) -> RuleState | None:
        return next((one for one in self.rules if one.state == state), None)

    def alive(self, part: str) -> list[PartState]:
        return [one for one in self.parts if one.part == part and one.is_alive]

    @property
    def outage(self) -> Hold | None:
        """That the record system does not answer, or does not let us in: nothing is sent but a probe."""
        return next((one for one in self.holds if one.name == SERVER), None)

    @property
    def clients(self) -> int:
        return sum(one.clients for one in self.alive("serve"))


class Silent(NamedTuple):
    """A side that did not say how it is."""

    what: str
    hint: str


@dataclass(frozen=True, slots=True)
class Look:
    """Everything at one moment, in seconds since 1970."""

    at: float
    slot: str
    publication: str
    #: Where they are, without who with which password.
    source_at: str
    storage_at: str
    source: Source | Silent
    stored: Stored | Silent
    #: What the configuration has work for.
    serves: bool
    works: bool
