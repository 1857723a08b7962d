"""What was taken from the queue → what became of it, and which jobs stand for others. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

from replicator.ehr.client.versions import VersionUid
from replicator.ehr.identity import ChangeId
from replicator.ehr.job import Job, Operation
from replicator.ehr.retry import Done, Hold, Park, Retry, delay_s

State = Literal["waiting", "retrying", "held", "parked", "skipping"]
Ended = Literal["done", "skipped", "merged"]

#: How long a lane waits whose EHR the server does not have, though it was made.
EHR_S = 30.0
#: An error message is kept up to here; it names paths and columns, and there may be many.
_MESSAGE_MOST = 500


class Known(NamedTuple):
    """What the record holds of a composition, as far as we know."""

    version: VersionUid
    is_deleted: bool
    change: ChangeId


@dataclass(frozen=True, slots=True)
class Task:
    """A job in its lane, as it was taken."""

    seq: int
    job: Job
    state: State
    #: Failures so far.
    attempts: int
    known: Known | None = None


class Home(NamedTuple):
    """A patient's EHR, and what the server that has it calls itself."""

    ehr_id: str
    system: str


@dataclass(slots=True)
class Lane:
    """A lane that was taken: nobody else's while its lease lasts, and its number is the newest."""

    id: int
    token: int
    failures: int
    home: Home | None
    tasks: list[Task]
    #: Up to here everything is done, and said so.
    upto: int = 0


@dataclass(frozen=True, slots=True)
class Said:
    """What became of one job."""

    lane: int
    seq: int
    state: Ended | State
    uid: VersionUid | None = None
    is_deleted: bool = False
    error_class: str | None = None
    message: str | None = None
    delay_s: float | None = None


@dataclass(frozen=True, slots=True)
class Going:
    """How a lane goes on: still ours without a delay, and free after it with one."""

    lane: int
    token: int
    upto: int
    home: Home | None
    delay_s: float | None = None
    state: Literal["waiting", "held", "parked"] | None = None
    held_by: str | None = None
    failures: int = 0


@dataclass(frozen=True, slots=True)
class Report:
    """What is to be recorded of a lane at once."""

    going: Going
    said: tuple[Said, ...] = field(default=())


def ended(lane: Lane, task: Task, verdict: Done) -> Said:
    """A job that is delivered."""
    is_deleted = task.job.operation is Operation.DELETE
    return Said(lane.id, task.seq, "done", verdict.version, is_deleted, message=verdict.note or None)


def stopped(lane: Lane, task: Task, verdict: Retry | Hold | Park, luck: float) -> Report:
    """A lane that stops at a job which cannot be delivered now."""
    match verdict:
        case Park(reason, places):
            message = f"{reason}: {', '.join(places)}" if places else reason
            said = _said(lane, task, "parked", "parked", message)
            return _report(lane, said, 0.0, "parked")
        case Hold("ehr", reason):
            return _report(
                lane, _said(lane, task, "retrying", "ehr", reason, EHR_S), EHR_S, forgets_home=True
            )
        case Hold(scope, reason):
            held_by = hold_name(scope, task.job.template)
            # What holds the server is seen before a lane is taken; so the lane itself is free.
            state: Literal["held"] | None = "held" if scope == "template" else None
            said = _said(lane, task, "held" if state else "retrying", scope, reason)
            return _report(lane, said, 0.0, state, held_by if state else None)
        case Retry(reason, _, after_s, is_outage):
            wait_s = max(after_s or 0.0, delay_s(lane.failures, luck))
            said = _said(lane, task, "retrying", "unreached" if is_outage else "server", reason, wait_s)
            return _report(lane, said, wait_s, failures=lane.failures + 1)


def hold_name(scope: str, template: str | None) -> str:
    """What a hold is known by: the server's own name is its scope."""
    return f"template {template}" if scope == "template" else scope


def released(lane: Lane) -> Report:
    """A lane that is given back as it is, for somebody else to go on with at once."""
    return Report(Going(lane.id, lane.token, lane.upto, lane.home, 0.0, failures=lane.failures))


def _said(lane: Lane, task: Task, state: State, kind: str, message: str, delay: float | None = None) -> Said:
    return Said(lane.id, task.seq, state, error_class=kind, message=message[:_MESSAGE_MOST], delay_s=delay)


def _report(
    lane: Lane,
    said: Said,
    delay: float,
    state: Literal["held", "parked"] | None = None,
    held_by: str | None = None,
    *,
    failures: int = 0,
    forgets_home: bool = False,
) -> Report:
    home = None if forgets_home else lane.home
    return Report(Going(lane.id, lane.token, lane.upto, home, delay, state, held_by, failures), (said,))


# One version for several.


def merged(tasks: Sequence[Task]) -> dict[int, Task]:
    """Which of these jobs need not be delivered → the one that is delivered in their place.

    The newest version of a composition stands for those before it, if both may be merged. Nothing is merged
    across a job at which the lane will stop.
    """
    newest: dict[str, Task] = {}
    found: dict[int, Task] = {}
    for task in reversed(tasks):
        name = task.job.composition or ""
        if task.state == "parked" or task.job.trouble:
            newest.clear()
        elif not name or not task.job.coalesce or task.state == "skipping":
            newest.pop(name, None)
        elif (later := newest.get(name)) is not None:
            found[task.seq] = later
        else:
            newest[name] = task
    return found


def as_first(task: Task, before: Sequence[Task]) -> Task:
    """A job that stands for these before it: a creation, if one of them was."""
    is_first = task.job.operation is Operation.UPDATE and any(
        earlier.job.operation is Operation.CREATE for earlier in before
    )
    return replace(task, job=task.job._replace(operation=Operation.CREATE)) if is_first else task
