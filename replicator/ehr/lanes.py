"""What was taken from the queue → what became of it, and which jobs stand for others. No I/O."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import Literal, NamedTuple, TypeAlias

from replicator.ehr.client.versions import VersionUid
from replicator.ehr.identity import ChangeId
from replicator.ehr.job import Job, Operation
from replicator.ehr.retry import Done, Hold, Park, Retry, delay_s

State = Literal["waiting", "retrying", "held", "parked", "skipping"]
Ended = Literal["done", "skipped", "merged"]

#: A contribution holds no more than so many of a transaction's changes; the rest goes in further ones.
TOGETHER_MOST = 1000
#: How long a lane waits whose EHR the server does not have, though it was made.
EHR_S = 30.0
#: An error message is kept up to here; it names paths and columns, and there may be many.
_MESSAGE_MOST = 500


#: A patient, and the EHR we would give them.
Whose: TypeAlias = tuple[str | None, str | None]


def whose(job: Job) -> Whose:
    return job.patient, job.ehr


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
    #: Until then it is surely ours, by our own clock.
    ours_until: float = 0.0
    #: Those that are being delivered: they may have been sent.
    trying: Sequence[Task] = ()
    #: Whether people have decided about its jobs since it was taken.
    is_decided: bool = False
    #: The patient it is for, and the EHR we would give them; None: those of all its jobs.
    own: Whose | None = None
    #: Where others are at home, whose jobs are here because their lane has the same number.
    guests: dict[Whose, Home] = field(default_factory=dict)

    def home_of(self, job: Job) -> Home | None:
        return self.home if self._is_own(job) else self.guests.get(whose(job))

    def has_home(self, job: Job, home: Home | None) -> None:
        if self._is_own(job):
            self.home = home
        elif home is None:
            self.guests.pop(whose(job), None)
        else:
            self.guests[whose(job)] = home

    def _is_own(self, job: Job) -> bool:
        if self.own is None:
            return True
        patient, ehr = self.own
        return job.patient == patient and ehr in (None, job.ehr)


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
    #: The change that the version is of, where it is a newer one than the job's.
    newer: ChangeId | None = None
    #: The EHR it is in, if that is known.
    ehr_id: str | None = None


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
    home = lane.home_of(task.job)
    said = Said(
        lane.id,
        task.seq,
        "done",
        verdict.version,
        message=verdict.note or None,
        ehr_id=home.ehr_id if home is not None else None,
    )
    if (newer := verdict.newer) is not None:
        return replace(said, is_deleted=newer.is_deletion, newer=newer.change)
    return replace(said, is_deleted=task.job.operation is Operation.DELETE)


def set_aside(lane: Lane, task: Task, instead: dict[int, Task]) -> Said | None:
    """What is said of a job that is not delivered, and does not stop its lane."""
    if (later := instead.get(task.seq)) is not None:
        return Said(lane.id, task.seq, "merged", message=f"merged into {lane.id}.{later.seq}")
    return Said(lane.id, task.seq, "skipped") if task.state == "skipping" else None


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
        case Retry(reason, _, after_s, is_outage, is_ours):
            wait_s = max(after_s or 0.0, delay_s(lane.failures, luck))
            kind = "unreached" if is_outage else "replicator" if is_ours else "server"
            said = _said(lane, task, "retrying", kind, reason, wait_s)
            return _report(lane, said, wait_s, failures=lane.failures + 1)


def hold_name(scope: str, template: str | None) -> str:
    """What a hold is known by: the server's own name is its scope."""
    return f"template {template}" if scope == "template" else scope


def released(lane: Lane) -> Report:
    """A lane that is given back as it is, for somebody else to go on with at once."""
    why = "its worker was stopped before the server had answered"
    said = tuple(_said(lane, task, "retrying", "replicator", why, 0.0) for task in lane.trying)
    return Report(Going(lane.id, lane.token, lane.upto, lane.home, 0.0, failures=lane.failures), said)


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


def merged(tasks: Sequence[Task], atomic: Collection[str] = ()) -> dict[int, Task]:
    """Which of these jobs need not be delivered → the one that is delivered in their place.

    The newest change of a composition stands for the others, if all may be merged. It need not come last: a
    row that had been there before may be queued behind a change of it. Nothing is merged across a job at
    which the lane will stop; nor into a deletion what may be on its way to the record, where it would arrive
    after that. Of `atomic` mappings all that one transaction did to a row is merged, whatever
    the mapping says, and nothing else.
    """
    newest: dict[str, Task] = {}
    found: dict[int, Task] = {}
    for task in reversed(tasks):
        is_atomic = is_of_transaction(task, atomic)
        name = task.job.composition or ""
        name = f"{name} {task.job.change.commit_lsn}" if is_atomic else name
        if is_atomic and task.state == "skipping":
            continue
        if task.state == "parked" or task.job.trouble:
            newest.clear()
        elif not name or not (task.job.coalesce or is_atomic) or task.state == "skipping":
            newest.pop(name, None)
        elif (later := newest.get(name)) is None:
            newest[name] = task
        elif later.job.change >= task.job.change:
            if later.job.operation is Operation.DELETE and not is_atomic and may_arrive(task):
                newest[name] = task
            else:
                found[task.seq] = later
        else:
            found |= {seq: task for seq, instead in found.items() if instead is later}
            found[later.seq] = newest[name] = task
    return found


def may_arrive(task: Task) -> bool:
    """Whether it may have been sent already, and brings its composition there whatever was done meanwhile.

    What changes a version that is there is refused once that is not the latest any more.
    """
    return task.attempts > 0 and (task.known is None or task.known.is_deleted)


def is_of_transaction(task: Task, atomic: Collection[str]) -> bool:
    """Whether it is delivered with the other changes of its transaction."""
    return task.job.mapping in atomic and task.job.composition is not None and task.job.change.is_of_log


def together(tasks: Sequence[Task], atomic: Collection[str]) -> list[list[Task]]:
    """The jobs of a lane as they are delivered: each alone, or with all of its transaction that go together.

    Those go where the first of them stands, before whatever else the transaction did in between: that is
    about other compositions. In a lane of two patients, each one's go together.
    """
    found: list[list[Task]] = []
    groups: dict[Whose, list[Task]] = {}
    last = None
    for task in tasks:
        if (commit := task.job.change.commit_lsn) != last:
            groups, last = {}, commit
        if not is_of_transaction(task, atomic):
            found.append([task])
        elif (group := groups.get(whose(task.job))) is not None:
            group.append(task)
        else:
            group = groups[whose(task.job)] = [task]
            found.append(group)
    return found


def is_cut(tasks: Sequence[Task], atomic: Collection[str]) -> bool:
    """Whether what follows these jobs in their lane may have to be delivered with one of them."""
    last = tasks[-1].job.change.commit_lsn if tasks else None
    ending = takewhile(lambda task: task.job.change.commit_lsn == last, reversed(tasks))
    return any(is_of_transaction(task, atomic) for task in ending)


def as_first(task: Task, before: Sequence[Task]) -> Task:
    """A job that stands for these before it: a creation, if one of them was."""
    is_first = task.job.operation is Operation.UPDATE and any(
        earlier.job.operation is Operation.CREATE for earlier in before
    )
    return replace(task, job=task.job._replace(operation=Operation.CREATE)) if is_first else task
