"""A Look → what is wrong, since when, what it threatens and what to do; the worst first. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from replicator.ehr.queue_health import LATE_S
from replicator.observe.status.model import Look, PartState, Silent, Source, Stored
from replicator.observe.units import size, span

Level = Literal["error", "warning", "note"]
_LEVELS: tuple[Level, ...] = ("error", "warning", "note")

#: A slot that would not last a night, and one that would not last until somebody is there.
NIGHT_S, SOON_S = 12 * 3600.0, 2 * 3600.0
#: Behind by more than this, phones show yesterday's record for too long.
SLOW_S, LATE_LAG_S = 60.0, 600.0
#: How often a part may have been started again before that is worth a word.
_AGAIN_START = "Start it: systemctl start replicator, or replicator run. Its log says why it ended."
_COPY_ALL = "To start over beside what is stored, which stays served meanwhile: replicator snapshot --all"


@dataclass(frozen=True, slots=True)
class Trouble:
    """One thing that is not as it should be."""

    level: Level
    #: Known by this to programs.
    code: str
    what: str
    #: Seconds since 1970; None where nobody knows.
    since: float | None
    threat: str
    remedy: str


def troubles(look: Look) -> list[Trouble]:
    """All of them, the worst first, and of those the oldest."""
    found = [*_sides(look), *_slot(look), *_replicating(look), *_data(look), *_serving(look), *_queue(look)]
    return sorted(found, key=lambda one: (_LEVELS.index(one.level), one.since or look.at))


def _full(look: Look) -> str:
    """What a source whose log nobody reads comes to."""
    source = look.source
    if isinstance(source, Silent):
        return "Meanwhile the source keeps its log."
    kept = source.slot.kept_bytes if source.slot is not None else None
    keeps = (
        f"The source keeps its log for us, {size(kept)} so far" if kept else "The source keeps its log for us"
    )
    left = source.seconds_to_full
    if left is None:
        return f"{keeps}."
    end = "the slot is lost" if source.limit_bytes is not None else "its disk is full"
    return f"{keeps}; at this pace {end} in {span(left)}."


def _sides(look: Look) -> Iterator[Trouble]:
    if isinstance(look.stored, Silent):
        what, hint = look.stored
        threat = f"Nothing is stored, and apps are not served. {_full(look)}"
        yield Trouble("error", "storage.silent", what, None, threat, hint)
    if isinstance(look.source, Silent):
        what, hint = look.source
        since = None if isinstance(look.stored, Silent) else look.stored.recorded_at
        threat = "Apps are served what is stored, and nothing newer."
        yield Trouble("error", "source.silent", what, since, threat, hint)


def _slot(look: Look) -> Iterator[Trouble]:
    source, stored = look.source, look.stored
    if isinstance(source, Silent):
        return
    slot, name = source.slot, look.slot
    has_begun = not isinstance(stored, Silent) and stored.op_id is not None
    if slot is None:
        if has_begun and not isinstance(stored, Silent):
            what = f"slot {name} does not exist any more"
            threat = "What was committed since it was last read cannot be read from the log any more."
            yield Trouble("error", "slot.gone", what, stored.recorded_at, threat, _COPY_ALL)
        return
    if slot.wal_status == "lost" or slot.invalidation_reason:
        reason = f" ({slot.invalidation_reason})" if slot.invalidation_reason else ""
        threat = "The log it needed is gone: what was committed since is missing from buckets and record."
        since = None if isinstance(stored, Silent) else stored.recorded_at
        yield Trouble("error", "slot.lost", f"slot {name} is lost{reason}", since, threat, _COPY_ALL)
    elif slot.wal_status == "unreserved":
        what = f"slot {name} is about to be lost: it is {size(slot.lag_bytes or 0)} behind"
        threat = (
            "The log it needs may go with the next Postgres checkpoint; then every table is copied again."
        )
        remedy = "Let the replicator run, now; or raise max_slot_wal_keep_size and reload Postgres."
        yield Trouble("error", "slot.unreserved", what, None, threat, remedy)
    else:
        yield from _room(source, name)


def _room(source: Source, name: str) -> Iterator[Trouble]:
    """A slot that grows full while nobody reads it. One that is read keeps little, whatever the pace."""
    slot, left = source.slot, source.seconds_to_full
    if slot is None or left is None or (slot.active_pid is not None and (source.lag_s or 0) < SLOW_S):
        return
    if left < NIGHT_S:
        level: Level = "error" if left < SOON_S else "warning"
        end = "is lost" if source.limit_bytes is not None else "has filled the disk"
        what = f"slot {name} {end} in {span(left)}, at the pace the log grows now"
        threat = (
            "Then every table has to be copied again."
            if source.limit_bytes is not None
            else "Then the source stops."
        )
        yield Trouble(level, "slot.room", what, None, threat, "Let the replicator run and catch up.")


def _replicating(look: Look) -> Iterator[Trouble]:
    stored, source = look.stored, look.source
    if isinstance(stored, Silent):
        return
    parts = [one for one in stored.alive("replicate") if one.waits_for is not None]
    if not stored.is_writing:
        if stored.op_id is None and not stored.alive("replicate"):
            what, threat = "nothing has been replicated yet", "Apps are served nothing."
            yield Trouble("warning", "replicate.never", what, None, threat, "Start it: replicator run")
            return
        waits = _waiting(parts)
        what = waits.waits_for if waits is not None and waits.waits_for else "nobody replicates"
        since = waits.waits_since if waits is not None else _ended_at(stored)
        remedy = (
            "It goes on by itself once that heals; the replicator's log says more." if waits else _AGAIN_START
        )
        threat = f"Apps and record see nothing newer. {_full(look)}"
        yield Trouble("error", "replicate.down", what, since, threat, remedy)
    elif (waits := _waiting(parts)) is not None and not isinstance(source, Silent):
        if source.slot is None or source.slot.active_pid is None:
            what = str(waits.waits_for)
            threat = f"Apps and record see nothing newer. {_full(look)}"
            remedy = "It goes on by itself once that heals; the replicator's log says more."
            yield Trouble("error", "replicate.waits", what, waits.waits_since, threat, remedy)
    lag_s = None if isinstance(source, Silent) else source.lag_s
    if lag_s is not None and lag_s > SLOW_S:
        what = f"what is stored is {span(lag_s)} behind the source"
        threat = "Phones and record show what was so long ago. " + _full(look)
        remedy = "After a large transaction or a copy it passes; else see the rate, and storage's disk."
        level: Level = "error" if lag_s > LATE_LAG_S else "warning"
        yield Trouble(level, "replicate.slow", what, look.at - lag_s, threat, remedy)


def _waiting(parts: Iterable[PartState]) -> PartState | None:
    """Who waits for something that is wrong; a second one stands by, as it should."""
    return next((one for one in parts if "standing by" not in (one.waits_for or "")), None)


def _ended_at(stored: Stored) -> float | None:
    told = [one.told_at for one in stored.parts if one.part == "replicate"]
    return max([*told, stored.recorded_at or 0.0]) or None


def _data(look: Look) -> Iterator[Trouble]:
    stored = look.stored
    if isinstance(stored, Silent):
        return
    for copy in stored.copies:
        if copy.has_holes:
            what = f"rows of {copy.label} are missing: they arrived without all their values"
            remedy = f"replicator snapshot {copy.name}; and give the table REPLICA IDENTITY FULL."
            yield Trouble("warning", "table.holes", what, copy.since, "Apps do not see these rows.", remedy)
    failed = stored.rule("failed")
    if failed is not None:
        what = (
            f"the rules that were deployed last (version {failed.id}) could not be put in force: {failed.why}"
        )
        threat = "Apps are served by those before, as if nothing had been deployed."
        remedy = "Mend the file and deploy it again: replicator rules validate; replicator rules deploy"
        yield Trouble("warning", "rules.failed", what, failed.since, threat, remedy)
    if stored.op_id is not None and stored.shown_op_id is None and stored.is_writing:
        done = sum(copy.state == "copied" for copy in stored.copies)
        what = f"the first copy is under way: {done} of {len(stored.copies)} tables"
        since = min((copy.since for copy in stored.copies if copy.since), default=None)
        yield Trouble(
            "note", "copy.first", what, since, "Apps are served nothing until it is complete.", "Wait."
        )


def _serving(look: Look) -> Iterator[Trouble]:
    stored = look.stored
    if isinstance(stored, Silent) or not look.serves or stored.alive("serve") or stored.op_id is None:
        return
    told = max((one.told_at for one in stored.parts if one.part == "serve"), default=None)
    threat = "Apps work with what they have, and get nothing newer."
    yield Trouble("error", "serve.down", "nobody serves apps", told, threat, _AGAIN_START)


def _queue(look: Look) -> Iterator[Trouble]:
    stored = look.stored
    if isinstance(stored, Silent):
        return
    queue = stored.queue
    workers = stored.alive("work")
    if look.works and not workers and queue.undelivered:
        since = max((one.told_at for one in stored.parts if one.part == "work"), default=None)
        what = f"nobody delivers to the record: {queue.undelivered} changes wait"
        yield Trouble("error", "work.down", what, since, _RECORD, _AGAIN_START)
    if (outage := stored.outage) is not None:
        what = f"the record system cannot be used: {outage.reason}"
        remedy = (
            "It is asked now and then, and delivery goes on once it answers. Is it running, and reachable? "
            "If it refuses us, see ehr.url and ehr.auth."
        )
        yield Trouble("error", "work.circuit", what, outage.since, _RECORD, remedy)
    for name, reason, since in (one for one in stored.holds if one != outage):
        lanes, jobs = queue.lanes.get("held", (0, 0))
        what = f"delivery waits for {name}: {reason}"
        threat = f"{lanes} patients' changes, {jobs} of them, are not in the record." if lanes else _RECORD
        yield Trouble("error", "work.held", what, since, threat, "It is looked at again every few seconds.")
    lanes, jobs = queue.lanes.get("parked", (0, 0))
    if lanes:
        whose = "patient's" if lanes == 1 else "patients'"
        what = f"{lanes} {whose} changes cannot be delivered as they are"
        told = "1 change is" if jobs == 1 else f"{jobs} changes are"
        threat = f"Of {'this patient' if lanes == 1 else 'these patients'}, {told} not in the record."
        remedy = "replicator queue list --state parked; then replicator queue retry, or skip."
        yield Trouble("warning", "work.parked", what, stored.parked_since, threat, remedy)
    late = queue.oldest_s is not None and queue.oldest_s > LATE_S
    if late and queue.oldest_s is not None and not queue.stopped and not stored.holds and workers:
        what = f"the oldest change has waited for {span(queue.oldest_s)}"
        remedy = "See replicator queue stats: errors by class; and how fast the record system answers."
        yield Trouble("warning", "work.late", what, look.at - queue.oldest_s, _RECORD, remedy)


_RECORD = "Changes reach apps, but not the record."
