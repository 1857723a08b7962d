"""What the record system answered, or did not → what becomes of the job. No I/O.

An answer does not say what to do; it says so together with what was asked. A 404 to a deletion is success, a
404 to an update is a question, a 404 to a creation means that the EHR is not there. The table `MEANING` holds
every kind of refusal, and beside it only what depends on what was asked.

    Done      the record holds what it should
    Retry     nothing is wrong with the job: later, and after a look if it may have been done already
    Hold      nothing is wrong with this job alone: all of this server, template or EHR wait
    Park      a person has to look at it; its lane waits behind it
    Conflict  the record holds something else than we thought: read it, then `settle`
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, TypeAlias

from replicator.ehr.client.answers import Answer, Refusal
from replicator.ehr.client.faults import Unreached
from replicator.ehr.client.versions import VersionUid
from replicator.ehr.identity import ChangeId
from replicator.ehr.job import Operation

#: After so many internal errors (500) in a row it is the job, and not the server.
INTERNAL_ERRORS_MAX: Final = 5
BASE_S: Final = 1.0
CAP_S: Final = 300.0


class Newer(NamedTuple):
    """A change that the record holds, and that came after the job's; and whether that is a deletion."""

    change: ChangeId
    is_deletion: bool


@dataclass(frozen=True, slots=True)
class Done:
    """The record holds what it should."""

    version: VersionUid | None = None
    #: Why nothing was written, if nothing was.
    note: str = ""
    #: What that version is, where it is not of the job's own change.
    newer: Newer | None = None


@dataclass(frozen=True, slots=True)
class Retry:
    """Later. `delay_s` says when."""

    reason: str
    #: Whether the server may have done it: read, and `settle`, before it is sent again.
    look_first: bool = False
    #: How long the server asks to be left alone.
    after_s: float | None = None
    #: Whether the circuit is to hear of it.
    is_outage: bool = False
    #: Whether it is the replicator that failed.
    is_ours: bool = False


@dataclass(frozen=True, slots=True)
class Hold:
    """Everything of this kind waits until somebody has looked, or a check succeeds."""

    scope: Literal["server", "template", "ehr"]
    reason: str


@dataclass(frozen=True, slots=True)
class Park:
    """A person has to look."""

    reason: str
    #: What the server complains about; never a value.
    places: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Conflict:
    """Read what is there, then `settle`."""

    reason: str


Verdict: TypeAlias = Done | Retry | Hold | Park | Conflict

_SERVER_WORDS = "the server refuses our requests: check ehr.url and ehr.auth"
#: What a refusal means if nothing about the request says otherwise.
MEANING: Final[Mapping[Refusal, Verdict]] = {
    Refusal.ALREADY_EXISTS: Conflict("a composition of this uid is there, or was"),
    Refusal.STALE: Conflict("another version is the latest"),
    Refusal.WRONG_UID: Hold("server", "the server's own name is another than the uids say"),
    Refusal.IF_MATCH_FORM: Hold("server", "the server reads no form of If-Match that we know"),
    Refusal.EHR_EXISTS: Conflict("an EHR of this id is there"),
    Refusal.SUBJECT_TAKEN: Conflict("this subject has another EHR"),
    Refusal.NOT_MODIFIABLE: Park("the EHR is closed: its status says not modifiable"),
    Refusal.UNKNOWN_EHR: Hold("ehr", "the server has no such EHR"),
    Refusal.UNKNOWN_TEMPLATE: Hold("template", "the server has no such template"),
    Refusal.TEMPLATE_EXISTS: Done(note="the template is there"),
    Refusal.UNKNOWN_PATHS: Park("the server's template does not have these paths"),
    Refusal.INVALID: Park("the composition contradicts its template"),
    Refusal.MALFORMED: Park("the server cannot read the composition"),
    Refusal.NOT_FOUND: Conflict("the server does not find it"),
    Refusal.UNAUTHORISED: Hold("server", "the server refuses our credentials"),
    Refusal.CONFLICT: Conflict("the server says there is a conflict"),
    Refusal.TROUBLE: Retry("the server is in trouble", look_first=True, is_outage=True),
    Refusal.OTHER: Park("the server refuses it"),
}
#: What it means of these requests.
MEANING_OF: Final[Mapping[tuple[Operation, Refusal], Verdict]] = {
    (Operation.DELETE, Refusal.NOT_FOUND): Done(note="it was not there any more"),
    (Operation.DELETE, Refusal.UNKNOWN_EHR): Done(note="its EHR is not there"),
    # A composition is created below its EHR: nothing else can be missing.
    (Operation.CREATE, Refusal.NOT_FOUND): Hold("ehr", "the server has no such EHR"),
    (Operation.STATUS, Refusal.NOT_FOUND): Hold("ehr", "the server has no such EHR"),
}
#: Statuses that say more than their refusal: nobody gets through, or nobody here is meant.
MEANING_OF_STATUS: Final[Mapping[int, Verdict]] = {
    405: Hold("server", _SERVER_WORDS),
    406: Hold("server", _SERVER_WORDS),
    415: Hold("server", _SERVER_WORDS),
    501: Hold("server", _SERVER_WORDS),
}


def verdict(
    operation: Operation, answer: Answer | Unreached, *, tries: int, template_is_known: bool
) -> Verdict:
    """What becomes of the job, tried `tries` times before.

    `template_is_known` says whether the server has been seen to have the job's template: where it has not, a
    server has been seen to answer 500 for ever.
    """
    if isinstance(answer, Unreached):
        return Retry(str(answer.fault), look_first=answer.outcome_unknown, is_outage=True)
    if answer.ok:
        return Done(answer.version)
    if answer.status < 400:
        return Hold("server", _SERVER_WORDS)
    if answer.status == 500:
        return _internal_error(tries, template_is_known)
    if (found := MEANING_OF_STATUS.get(answer.status)) is not None:
        return found
    refusal = answer.refusal or Refusal.OTHER
    found = MEANING_OF.get((operation, refusal)) or MEANING[refusal]
    match found:
        case Park(reason):
            return Park(reason, answer.places)
        case Retry(reason, look_first, _, is_outage):
            return Retry(reason, look_first, answer.retry_after_s, is_outage)
    return found


def _internal_error(tries: int, template_is_known: bool) -> Verdict:
    """500: perhaps a passing trouble, a race that somebody won, or this composition. Not an outage."""
    if not template_is_known:
        return Hold("template", "an internal error, and the template has not been seen on the server")
    if tries >= INTERNAL_ERRORS_MAX:
        return Park("the server has an internal error with this each time")
    return Retry("the server had an internal error", look_first=True)


def tired(end: Done | Retry | Hold | Park, tries: int, *, others_pass: bool) -> Done | Retry | Hold | Park:
    """The same; or, if one job meets again and again what others do not meet, that a person has to look.

    `others_pass`: the last of them that were tried came through, so it is not the server that refuses us.
    """
    is_its_own = isinstance(end, Hold) and end.scope == "server" and others_pass
    is_its_own = is_its_own or (isinstance(end, Retry) and end.is_ours)
    if is_its_own and not isinstance(end, Done | Park) and tries >= INTERNAL_ERRORS_MAX:
        return Park(f"{end.reason}: each time, and others are delivered")
    return end


# What is there × what should be → what to do.


class Found(NamedTuple):
    """The latest version of a composition, as it was read."""

    version: VersionUid
    is_deleted: bool
    #: By its feeder audit; None if somebody else wrote it, or a deletion, which says nothing of itself.
    change: ChangeId | None
    #: What it says, as a digest.
    content: str | None = None


class Again(NamedTuple):
    """Send this instead; `preceding` is the version it follows."""

    operation: Operation
    preceding: VersionUid | None


def settle(
    operation: Operation, ours: ChangeId, found: Found | None, content: str | None = None
) -> Done | Again | Park:
    """What is still to be done, now that one knows what is there. None: nothing was ever.

    `content` is what is to be created: where that is there, by an earlier change, it is not said again.
    """
    if operation is Operation.DELETE:
        return _settle_deletion(ours, found)
    if found is None:
        return Again(Operation.CREATE, None)
    if found.is_deleted:
        return Again(operation if operation is Operation.MARK else Operation.UPDATE, found.version)
    if (other := _of_others(found)) is not None:
        return other
    if found.change == ours:
        return Done(found.version, "it was there")
    if found.change is not None and found.change > ours:
        return overtaken_by(found.version, found.change)
    if operation is Operation.CREATE and content is not None and found.content == content:
        return Done(found.version, "it says so already")
    return Again(operation if operation is Operation.MARK else Operation.UPDATE, found.version)


def _settle_deletion(ours: ChangeId, found: Found | None) -> Done | Again | Park:
    if found is None or found.is_deleted:
        return Done(found.version if found else None, "it was not there any more")
    if (other := _of_others(found)) is not None:
        return other
    if found.change is not None and found.change > ours:
        return overtaken_by(found.version, found.change)
    return Again(Operation.DELETE, found.version)


def overtaken_by(version: VersionUid, change: ChangeId, *, is_deletion: bool = False) -> Done:
    """Nothing is to be done, for the record holds what came later."""
    return Done(version, "a newer change was there", Newer(change, is_deletion))


def _of_others(found: Found) -> Park | None:
    if found.change is None:
        return Park("somebody else has written the latest version: it would be overwritten")
    return None


# When.


def delay_s(tries: int, luck: float, *, base_s: float = BASE_S, cap_s: float = CAP_S) -> float:
    """How long to wait after `tries` failures: anything up to a bound that doubles; luck is in [0, 1)."""
    return luck * min(cap_s, base_s * 2.0 ** min(tries, 60))
