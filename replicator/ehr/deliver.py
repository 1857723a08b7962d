"""A job × the record system → what has become of it.

The record itself is what makes a delivery happen once: a composition is created under a uid that only this
record has, and changed or deleted only as the version that we know. So whatever was sent before, by us or by
one who was killed, is answered with a refusal, upon which one looks, and finds it done.

Nothing is sent that would say what the record says already, or something older.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import orjson

from replicator.ehr.about import NotComposed, Stamp, status_flags
from replicator.ehr.bind import Plan
from replicator.ehr.client import Answer, Client, Ehr, Flat, Subject, Unreached, VersionUid
from replicator.ehr.client.client import status_of
from replicator.ehr.compose import compose
from replicator.ehr.deliver_content import signed
from replicator.ehr.deliver_look import look
from replicator.ehr.deliver_plans import Plans
from replicator.ehr.deliver_rows import NotRead, Read, rows_of
from replicator.ehr.job import Job, Jobs, Operation
from replicator.ehr.lanes import Home, Known, Task
from replicator.ehr.model import Formula, Style, TableMapping
from replicator.ehr.retry import (
    Again,
    Conflict,
    Done,
    Hold,
    Park,
    Retry,
    Verdict,
    overtaken_by,
    settle,
    verdict,
)
from replicator.errors import ProtocolError
from replicator.marks import mark

#: What is sent of one job before somebody else seems to be writing the same all the time.
ROUNDS = 4

End: TypeAlias = Done | Retry | Hold | Park


@dataclass(frozen=True, slots=True)
class Delivery:
    """What delivering needs besides the job."""

    client: Client
    jobs: Jobs
    plans: Plans
    #: Compiled expressions, by their text.
    formulas: Mapping[str, Formula] = field(default_factory=dict)
    #: None: rows of other tables cannot be had, and what needs them is parked.
    read: Read | None = None

    async def home(self, job: Job) -> Home | End:
        """The patient's EHR, made if there is none."""
        assert job.patient is not None and job.ehr is not None, "a job without a patient is in trouble"
        subject = Subject(job.patient, self.jobs.mapping.namespace)
        try:
            found = await self.client.ensure_ehr(job.ehr, subject)
        except Unreached as unreached:
            return end_of(verdict(Operation.STATUS, unreached, tries=0, template_is_known=True))
        except ProtocolError as error:
            return Hold("server", error.what)
        if isinstance(found, Ehr):
            return Home(found.id, found.system)
        return end_of(verdict(Operation.STATUS, found, tries=0, template_is_known=True))

    async def deliver(self, task: Task, home: Home, is_ours: Callable[[], Awaitable[bool]]) -> End:
        """Have the record hold what the job says. `is_ours` asks whether the lane is ours still."""
        try:
            if task.job.operation is Operation.STATUS:
                return await self._status(task, home)
            return await Composition(self, task, home, is_ours).deliver()
        except ProtocolError as error:
            return Hold("server", error.what)

    # The status of an EHR.

    async def _status(self, task: Task, home: Home) -> End:
        job = task.job
        table = self.jobs.mapping.tables.get(job.mapping)
        if table is None or job.snapshot is None or job.patient is None:
            return Park("the mapping has no such table any more")
        flags = status_flags(table, orjson.loads(job.snapshot))
        subject = Subject(job.patient, self.jobs.mapping.namespace)
        wanted = status_of(subject, modifiable=flags.is_modifiable, queryable=flags.is_queryable)
        said: Verdict = Conflict("")
        for _ in range(ROUNDS):
            try:
                there = await self.client.ehr_status(home.ehr_id)
                if not there.ok or there.version is None:
                    return end_of(verdict(job.operation, there, tries=task.attempts, template_is_known=True))
                if all(there.body.get(name) == wanted[name] for name in ("is_modifiable", "is_queryable")):
                    return Done(there.version, "it says so already")
                mark("ehr sending", operation=job.operation.value, change=str(job.change))
                # All else that its status says stays as it is.
                body = {**there.body, **{name: wanted[name] for name in ("is_modifiable", "is_queryable")}}
                answer: Answer | Unreached = await self.client.update_ehr_status(
                    home.ehr_id, there.version, body
                )
            except Unreached as unreached:
                answer = unreached
            said = verdict(job.operation, answer, tries=task.attempts, template_is_known=True)
            if not isinstance(said, Conflict):
                break
        return end_of(said)


class Composition:
    """One job about a composition."""

    def __init__(
        self, delivery: Delivery, task: Task, home: Home, is_ours: Callable[[], Awaitable[bool]]
    ) -> None:
        self.delivery, self.client, self.mapping = delivery, delivery.client, delivery.jobs.mapping
        self.task, self.job, self.home, self.is_ours = task, task.job, home, is_ours
        assert self.job.composition is not None, "a job without one is in trouble"
        self.id = self.job.composition
        self.flat: Flat | None = None
        self.content: str | None = None
        self.plan: Plan | None = None

    async def prepared(self) -> End | None:
        """None if there is something to send, and it is composed."""
        if (done := overtaken(self.job, self.task.known)) is not None:
            return done
        if self.job.operation is Operation.DELETE:
            return None
        table = self.mapping.tables.get(self.job.mapping)
        if table is None or table.template is None:
            return Park("the mapping has no such table any more")
        try:
            return await self._compose(table)
        except Unreached as unreached:
            return end_of(self._verdict(unreached))

    async def deliver(self) -> End:
        if (end := await self.prepared()) is not None:
            return end
        step = first_step(self.job, self.task)
        for _ in range(ROUNDS):
            if step is None:
                looked = await self.look()
                if not isinstance(looked, Again):
                    return looked
                # Others may have gone on meanwhile: what was found may be theirs.
                if not await self.is_ours():
                    return Retry("somebody else has taken the lane")
                step = looked
            said = self._verdict(await self._send(step), step.operation)
            if not isinstance(said, Conflict):
                return said
            step = None
        return Retry("somebody else writes the same composition")

    def _verdict(self, answer: Answer | Unreached, sent: Operation | None = None) -> Verdict:
        """What was sent may be another thing than the job: what had been deleted is created by a change."""
        asked = sent or self.job.operation
        return verdict(asked, answer, tries=self.task.attempts, template_is_known=True)

    async def look(self) -> Again | End:
        """What is there, and so what is still to be done."""
        try:
            found = await look(self.client, self.home.ehr_id, self.id, self.mapping.system)
        except Unreached as unreached:
            return end_of(self._verdict(unreached))
        if isinstance(found, Answer):
            return end_of(self._verdict(found))
        return settle(self.job.operation, self.job.change, found, self.content)

    async def _send(self, step: Again) -> Answer | Unreached:
        operation, preceding = step
        mark("ehr sending", operation=operation.value, change=str(self.job.change))
        try:
            if operation is Operation.DELETE:
                assert preceding is not None, "nothing else can be deleted"
                return await self.client.delete(self.home.ehr_id, preceding)
            assert self.flat is not None, "it has been composed"
            if preceding is not None:
                return await self.client.update(self.home.ehr_id, preceding, self.flat)
            first = VersionUid(self.id, self.home.system, 1)
            return await self.client.create(self.home.ehr_id, self.flat, first)
        except Unreached as unreached:
            return unreached

    # What it is to say.

    async def _compose(self, table: TableMapping) -> End | None:
        """None once it is composed."""
        plan = await self.delivery.plans.of(table)
        if not isinstance(plan, Plan):
            return end_of(plan)
        try:
            row, children = await rows_of(self.delivery.read, self.delivery.jobs, self.job, table)
        except NotRead as error:
            return error.end
        self.plan = plan
        is_gone = self.job.operation is Operation.MARK
        stamp = Stamp(self.job.key, self.job.change)
        try:
            fields = compose(
                plan, row, stamp, children=children, formulas=self.delivery.formulas, is_gone=is_gone
            )
        except NotComposed as error:
            return Park(error.what)
        fields, content = signed(fields, plan.template.root, self.mapping.system)
        self.flat = Flat(plan.template.id, fields)
        # Where one composition stands for several rows, each of them is a version, whatever it says.
        self.content = content if table.style is Style.EVENT else None
        return None


# Decisions.


def overtaken(job: Job, known: Known | None) -> Done | None:
    """Whether the record is known to hold this change already, or a newer one."""
    if known is None:
        return None
    if known.change > job.change:
        return overtaken_by(known.version, known.change, is_deletion=known.is_deleted)
    if job.operation is Operation.DELETE:
        return Done(known.version, "it was not there any more") if known.is_deleted else None
    return Done(known.version, "it was there") if known.change == job.change else None


def first_step(job: Job, task: Task) -> Again | None:
    """What to send first; None if one has to look before."""
    if task.attempts > 0:
        return None  # the last try may have been obeyed
    if task.known is not None:
        operation = Operation.UPDATE if job.operation is Operation.CREATE else job.operation
        return Again(operation, task.known.version)
    return Again(Operation.CREATE, None) if job.operation is Operation.CREATE else None


def end_of(said: Verdict) -> End:
    """A conflict that is not about the composition is one that nobody here can settle."""
    return Park(said.reason) if isinstance(said, Conflict) else said
