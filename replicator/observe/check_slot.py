"""What a source server says of its slots → Findings about ours, and what it may do to the disk. No I/O."""

from __future__ import annotations

import math
from collections.abc import Iterable

from replicator.buckets.divergence import beginning, standing
from replicator.buckets.model import Position
from replicator.errors import ReplicatorError
from replicator.observe.check_server import set_system
from replicator.observe.survey import Pace, Server, Survey
from replicator.observe.units import size, span
from replicator.wal.finding import Finding
from replicator.wal.lsn import Lsn
from replicator.wal.names import quote
from replicator.wal.slots import FAILS_OVER, SlotState

_MB = 1 << 20
_GB = 1 << 30
#: Shorter than a night nobody watches is too short.
_HOURS_MIN = 12
_IDLE_S_MIN = 86400
_START_OVER = "To start over beside what is stored, which stays served meanwhile: replicator snapshot --all"


def judge_slot(survey: Survey, name: str, position: Position | None) -> list[Finding]:
    """Our slot, if there is one, and the room it may take up."""
    slot = survey.slot(name)
    found = [*_budget(survey.server, survey.pace), *_idle(survey.server)]
    if slot is None:
        return [*_gone(name, position, survey), *found]
    return [
        *_is_ours(slot, survey.server),
        *_health(slot, position),
        *_reader(slot),
        *_against(slot, position, survey),
        *_failover(slot, survey),
        *found,
    ]


def _budget(server: Server, pace: Pace | None) -> Iterable[Finding]:
    """How long a slot nobody reads may keep log, and what then."""
    name, limit_mb = "max_slot_wal_keep_size", int(server.settings["max_slot_wal_keep_size"])
    rate = pace.bytes_per_s if pace else 0.0
    seen = (
        f"The log grows by about {size(rate * 86400)} a day (seen over {span(pace.seconds)}). "
        if pace
        else ""
    )
    day_gb = max(10, math.ceil(rate * 86400 / _GB))
    after = (
        "A slot further behind than the limit is given up: its tables are then copied again, and the "
        f"database goes on. {day_gb} GB is {'a day' if day_gb > 10 else 'a beginning'}; choose what the disk "
        "can spare."
    )
    if limit_mb < 0:
        what = f"{name} is -1: a slot that nobody reads keeps log until the disk is full"
        yield set_system(server, "warning", "slot.keep", name, f"{day_gb}GB", what, seen + after)
    elif rate and (hours := limit_mb * _MB / rate / 3600) < _HOURS_MIN:
        limit, left = size(limit_mb * _MB), span(hours * 3600)
        what = f"{name} is {limit}: a replicator that is stopped loses its slot within {left}"
        yield set_system(server, "warning", "slot.keep", name, f"{day_gb}GB", what, seen + after)


def hours_to_full(server: Server, pace: Pace | None) -> float | None:
    """How long a slot nobody reads would last; None where there is no limit, or nothing is written."""
    limit_mb = int(server.settings["max_slot_wal_keep_size"])
    if limit_mb < 0 or pace is None or pace.bytes_per_s <= 0:
        return None
    return limit_mb * _MB / pace.bytes_per_s / 3600


def _idle(server: Server) -> Iterable[Finding]:
    name = "idle_replication_slot_timeout"
    seconds = int(server.settings.get(name, "0"))
    if 0 < seconds < _IDLE_S_MIN:
        what = f"{name} is {span(seconds)}: a replicator that is stopped for longer loses its slot"
        why = "Its tables would have to be copied again."
        yield set_system(server, "warning", "slot.idle", name, "2d", what, why)


def _is_given_up(position: Position, confirmed_lsn: Lsn | None, survey: Survey) -> bool:
    """Whether an operator has said to start over from where things stand."""
    identity = survey.identity
    if position.given_up is None or isinstance(identity, ReplicatorError):
        return False
    return position.given_up in (standing(identity, confirmed_lsn), beginning(identity))


def _gone(name: str, position: Position | None, survey: Survey) -> Iterable[Finding]:
    if position is not None and not _is_given_up(position, None, survey):
        lsn = position.stored.lsn
        what = f"slot {quote(name)} does not exist any more, but what it had sent up to {lsn} is stored"
        why = f"What was committed since cannot be read from the log. {_START_OVER}"
        yield Finding("error", "slot.gone", name, what, why)


def _is_ours(slot: SlotState, server: Server) -> Iterable[Finding]:
    wrong = []
    if not slot.is_logical:
        wrong.append("keeps log for a physical standby")
    elif slot.plugin != "pgoutput":
        wrong.append(f"is for the plugin {slot.plugin}")
    if slot.database is not None and slot.database != server.database:
        wrong.append(f"belongs to database {quote(slot.database)}")
    if slot.is_temporary:
        wrong.append("is temporary")
    if wrong:
        what = f"slot {quote(slot.name)} {' and '.join(wrong)}"
        why = "It is somebody else's. Choose another name under source.slot."
        yield Finding("error", "slot.foreign", slot.name, what, why)


def _health(slot: SlotState, position: Position | None) -> Iterable[Finding]:
    name, reason = quote(slot.name), f" ({slot.invalidation_reason})" if slot.invalidation_reason else ""
    if slot.wal_status == "lost" or slot.invalidation_reason:
        why, sql = f"The log it needed is gone. {_START_OVER}", ""
        if position is None:
            why, sql = "Nothing was read from it yet.", f"SELECT pg_drop_replication_slot('{slot.name}');"
        yield Finding("error", "slot.lost", slot.name, f"slot {name} is lost{reason}", why, sql)
    elif slot.wal_status == "unreserved":
        what = f"slot {name} is about to be lost: the log it needs may go with the next Postgres checkpoint"
        why = f"It is {size(slot.lag_bytes or 0)} behind. Let the replicator run, now."
        yield Finding("error", "slot.unreserved", slot.name, what, why)
    elif slot.safe_bytes is not None and slot.safe_bytes < (slot.kept_bytes or 0):
        what = (
            f"slot {name} has used more than half of its room: {size(slot.safe_bytes)} more, and it is lost"
        )
        why = f"It is {size(slot.lag_bytes or 0)} behind. Is the replicator running, and keeping up?"
        yield Finding("warning", "slot.room", slot.name, what, why)


def _reader(slot: SlotState) -> Iterable[Finding]:
    who = slot.active_application
    if slot.active_pid is not None and who is not None and not who.startswith("replicator"):
        what = f"slot {quote(slot.name)} is being read by pid {slot.active_pid} ({who})"
        why = "A slot has one reader, and what that one confirms is gone for every other."
        yield Finding("warning", "slot.reader", slot.name, what, why)


def _against(slot: SlotState, position: Position | None, survey: Survey) -> Iterable[Finding]:
    """The slot and what is stored are two ends of one thing."""
    if position is None or _is_given_up(position, slot.confirmed_lsn, survey):
        return
    identity, name = survey.identity, quote(slot.name)
    stored, lsn = (position.system_id, position.timeline), position.stored.lsn
    if not isinstance(identity, ReplicatorError) and stored != (identity.system_id, identity.timeline):
        what = (
            f"what is stored is of system {stored[0]}, timeline {stored[1]}; "
            f"the source is system {identity.system_id}, timeline {identity.timeline}"
        )
        why = f"Positions of one mean nothing in the other. Is source.dsn right? {_START_OVER}"
        yield Finding("error", "slot.other_source", slot.name, what, why)
    elif slot.confirmed_lsn is not None and slot.confirmed_lsn > lsn:
        what = f"slot {name} has confirmed {slot.confirmed_lsn}, past what is stored, {lsn}"
        why = (
            "Something else read from it, it was made anew, or storage was restored from a backup: what lies "
            f"between is not in the log any more. {_START_OVER}"
        )
        yield Finding("error", "slot.ahead", slot.name, what, why)


def _failover(slot: SlotState, survey: Survey) -> Iterable[Finding]:
    has_standbys = any(not one.is_logical for one in survey.slots)
    if survey.server.version < FAILS_OVER or not has_standbys:
        return
    if not slot.failover:
        what = f"slot {quote(slot.name)} does not follow a promotion, and this server has standbys"
        why = (
            "After a failover it would be gone. One made with `replicator slot create --failover` is kept on "
            "standbys that have sync_replication_slots = on."
        )
        yield Finding("note", "slot.failover", slot.name, what, why)
    elif not survey.server.settings.get("synchronized_standby_slots"):
        what = "synchronized_standby_slots is empty: a standby may be behind what the slot has confirmed"
        why = "Name the standby's physical slot there, so that nothing is sent before the standby has it."
        yield Finding("note", "slot.synchronized", "synchronized_standby_slots", what, why)
