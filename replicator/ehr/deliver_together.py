"""What one transaction did to one patient × the record system → one contribution, and what becomes of each.

All of it is in the record at once, or nothing is. That it happens once is seen to as with a single one: each
composition is created under a uid of its own, or changed as the version that we know; and the contribution
itself has an id that these versions give it, by which it is found when its answer was not heard.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

from replicator.ehr.canonical import NotCanonical, canonical
from replicator.ehr.client import Answer, Unreached, VersionUid
from replicator.ehr.deliver import ROUNDS, Composition, Delivery, End, end_of, first_step
from replicator.ehr.identity import contribution_id
from replicator.ehr.job import Operation
from replicator.ehr.lanes import Home, Task
from replicator.ehr.retry import Again, Conflict, Done, Hold, Park, Retry, Verdict, verdict
from replicator.ehr.shape import Shape
from replicator.ehr.values import Made, coded, text
from replicator.errors import ProtocolError
from replicator.marks import mark

#: openEHR's codes for what a version is to the one before, and their names.
_CREATION, _MODIFICATION, _DELETED = ("creation", "249"), ("modification", "251"), ("deleted", "523")
_COMPLETE = ("complete", "532")


class Stopped(NamedTuple):
    """A job that cannot be delivered now, and all of its transaction with it."""

    task: Task
    end: Retry | Hold | Park


class _Version(NamedTuple):
    """A version that the contribution is to bring."""

    uid: VersionUid
    #: As a contribution has it.
    said: Made


async def deliver_together(
    delivery: Delivery, tasks: Sequence[Task], home: Home, is_ours: Callable[[], Awaitable[bool]]
) -> dict[int, Done] | Stopped:
    """What has become of each, by its number; no two of them are about the same composition."""
    try:
        return await _Together(delivery, tasks, home, is_ours).deliver()
    except ProtocolError as error:
        return Stopped(tasks[0], Hold("server", error.what))


class _Together:
    """The jobs of one transaction in one lane."""

    def __init__(
        self,
        delivery: Delivery,
        tasks: Sequence[Task],
        home: Home,
        is_ours: Callable[[], Awaitable[bool]],
    ) -> None:
        self.delivery, self.home, self.is_ours = delivery, home, is_ours
        self.tasks, self.mapping = tasks, delivery.jobs.mapping
        self.ends: dict[int, Done] = {}
        #: Those of which something is to be sent, and what.
        self.open: list[Composition] = []
        self.steps: dict[int, Again | None] = {}

    async def deliver(self) -> dict[int, Done] | Stopped:
        for task in self.tasks:
            member = Composition(self.delivery, task, self.home, self.is_ours)
            end = await member.prepared()
            if end is None:
                self.open.append(member)
                self.steps[task.seq] = first_step(task.job, task)
            elif (stopped := self._settled(task, end)) is not None:
                return stopped
        for _ in range(ROUNDS):
            if (stopped := await self._look()) is not None:
                return stopped
            if not self.open:
                return self.ends
            said = await self._send()
            if isinstance(said, dict | Stopped):
                return said
            self.steps = {}
        return self._stopped(Retry("somebody else writes the same compositions"))

    def _settled(self, task: Task, end: End) -> Stopped | None:
        if not isinstance(end, Done):
            return Stopped(task, end)
        self.ends[task.seq] = end
        return None

    def _stopped(self, end: Retry | Hold | Park) -> Stopped:
        return Stopped(self.open[0].task, end)

    async def _look(self) -> Stopped | None:
        """What is still to be done of those of which we do not know it."""
        unknown = [member for member in self.open if self.steps.get(member.task.seq) is None]
        for member in unknown:
            looked = await member.look()
            if isinstance(looked, Again):
                self.steps[member.task.seq] = looked
            elif (stopped := self._settled(member.task, looked)) is not None:
                return stopped
        self.open = [member for member in self.open if member.task.seq not in self.ends]
        # Others may have gone on meanwhile: what was found may be theirs.
        if unknown and self.open and not await self.is_ours():
            return self._stopped(Retry("somebody else has taken the lane"))
        return None

    async def _send(self) -> dict[int, Done] | Stopped | None:
        """None if something else was there than we thought."""
        versions: list[_Version] = []
        for member in self.open:
            made = await self._version(member)
            if not isinstance(made, _Version):
                return Stopped(member.task, made)
            versions.append(made)
        job = self.open[0].job
        changes = [f"{at.uid} {member.job.change}" for at, member in zip(versions, self.open, strict=True)]
        id = contribution_id(self.mapping.system, self.home.ehr_id, changes)
        mark("ehr sending", operation="contribution", change=str(job.change), versions=len(versions))
        said = await self._contribute(id, self._contribution(id, versions))
        if isinstance(said, Conflict):
            return None
        if isinstance(said, Hold) and said.scope == "template":
            return await self._lacking()
        if not isinstance(said, Done):
            return self._stopped(said)
        made_of = zip(self.open, versions, strict=True)
        return self.ends | {member.task.seq: Done(version.uid) for member, version in made_of}

    async def _lacking(self) -> Stopped:
        """The server has said that it lacks a template, and not whose."""
        for member in self.open:
            if member.flat is not None:
                self.delivery.plans.forget(member.flat.template_id)
                end = await member.prepared()
                if end is not None and not isinstance(end, Done):
                    return Stopped(member.task, end)
        return self._stopped(Retry("the server lacked a template, and has it now"))

    async def _contribute(self, id: str, body: Made) -> Verdict:
        client, ehr_id = self.delivery.client, self.home.ehr_id
        try:
            answer = await client.contribute(ehr_id, body)
            said = self._verdict(answer)
            # Where it is there already, a server may have no better word for it than that it failed.
            is_doubtful = isinstance(said, Conflict) or answer.status == 500
            if is_doubtful and (await client.contribution(ehr_id, id)).ok:
                return Done()
        except Unreached as unreached:
            return self._verdict(unreached)
        if isinstance(said, Park) and len(self.open) > 1:
            return Park(f"one of the {len(self.open)} changes of its transaction: {said.reason}", said.places)
        return said

    def _verdict(self, answer: Answer | Unreached) -> Verdict:
        tries = max(member.task.attempts for member in self.open)
        return verdict(Operation.UPDATE, answer, tries=tries, template_is_known=True)

    # What is said.

    async def _version(self, member: Composition) -> _Version | Retry | Hold | Park:
        step = self.steps[member.task.seq]
        assert step is not None, "it has been looked at"
        operation, preceding = step
        if operation is Operation.DELETE:
            assert preceding is not None, "nothing else can be deleted"
            return _Version(preceding.next(), self._original(_DELETED, preceding, None))
        uid = preceding.next() if preceding else VersionUid(member.id, self.home.system, 1)
        try:
            data = await self._data(member)
        except NotCanonical as error:
            return Park(error.what)
        except Unreached as unreached:
            return _stop_of(self._verdict(unreached))
        if not isinstance(data, dict):
            return _stop_of(data)
        if preceding is None:
            data["uid"] = {"_type": "OBJECT_VERSION_ID", "value": str(uid)}
        return _Version(uid, self._original(_MODIFICATION if preceding else _CREATION, preceding, data))

    async def _data(self, member: Composition) -> dict[str, Any] | Verdict:
        """Its composition, as contributions take it."""
        assert member.flat is not None and member.plan is not None, "it has been composed"
        shape = await self.delivery.plans.shape(member.flat.template_id)
        if not isinstance(shape, Shape):
            return shape
        return canonical(member.flat.fields, member.plan.template, shape)

    def _contribution(self, id: str, versions: Sequence[_Version]) -> Made:
        lsn, count = self.open[0].job.change.commit_lsn, len(versions)
        what = f"transaction {lsn} of {self.mapping.system}: {count} change{'s' if count > 1 else ''}"
        kinds = {_kind(version.said) for version in versions}
        audit = self._audit(kinds.pop() if len(kinds) == 1 else _MODIFICATION)
        return {
            "_type": "CONTRIBUTION",
            "uid": {"_type": "HIER_OBJECT_ID", "value": id},
            "versions": [version.said for version in versions],
            "audit": {**audit, "description": text(what)},
        }

    def _original(self, kind: tuple[str, str], preceding: VersionUid | None, data: Made | None) -> Made:
        made: Made = {
            "_type": "ORIGINAL_VERSION",
            "commit_audit": self._audit(kind),
            "lifecycle_state": coded(*_COMPLETE, "openehr"),
        }
        if preceding is not None:
            made["preceding_version_uid"] = {"_type": "OBJECT_VERSION_ID", "value": str(preceding)}
        return made if data is None else {**made, "data": data}

    def _audit(self, kind: tuple[str, str]) -> Made:
        return {
            "_type": "AUDIT_DETAILS",
            "system_id": self.mapping.system,
            "change_type": coded(*kind, "openehr"),
            "committer": {"_type": "PARTY_IDENTIFIED", "name": self.mapping.committer},
        }


def _kind(version: Made) -> tuple[str, str]:
    change = version["commit_audit"]["change_type"]
    return change["value"], change["defining_code"]["code_string"]


def _stop_of(said: Verdict) -> Retry | Hold | Park:
    """Of what was asked before anything was sent, nothing can be done."""
    end = end_of(said)
    return Retry("the server answers in another way than before") if isinstance(end, Done) else end
