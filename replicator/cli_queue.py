"""argv → `replicator queue …`: what waits for the record system, and decisions about what stops."""

from __future__ import annotations

import asyncio
import getpass
import os
import re
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from replicator.cli import Verbs, ask, facts, main, verb
from replicator.config import load
from replicator.database import Connection, check_migrated, connected, pooled
from replicator.errors import ConfigError, ReplicatorError
from replicator.settings import spans
from replicator.text.counted import counted

if TYPE_CHECKING:
    from replicator.ehr.queue_mirrored import Mirrored
    from replicator.ehr.queue_people import Action, Chosen, Decided

_T = TypeVar("_T")
_MOST = 1_000_000
_WHY_MOST = 500
#: What a job may stand with: its row, or a person; a template, the server or the patient's EHR that refuses;
#: a server that is not reached; and what is ours.
_ERRORS = ("parked", "operator", "template", "server", "ehr", "unreached", "replicator")
#: The id of a job whose lane has a number below zero.
_BELOW_ZERO = re.compile(r"-\d+\.\d+")


class _AboutJobs(click.Command):
    """A verb to which `-606.1` is a job, and no option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        given = [f"\N{MINUS SIGN}{each[1:]}" if _BELOW_ZERO.fullmatch(each) else each for each in args]
        return super().parse_args(ctx, given)


class _Decisions(Verbs):
    command_class = _AboutJobs


@main.group(cls=_Decisions)
def queue() -> None:
    """Clinical changes on their way to the record system: see them, and decide about those that stop."""


def _filters(function: Callable[..., Any]) -> Callable[..., Any]:
    options = [
        click.option("--table", help="Only of this table of the source, or of this mapping."),
        click.option("--patient", help="Only of this patient."),
        click.option("--error-class", type=click.Choice(_ERRORS), help="Only with this error."),
        click.option("--older", metavar="SPAN", help="Only those that have waited for longer, as in 2h."),
    ]
    for option in reversed(options):
        function = option(function)
    return function


def _reason(context: click.Context, option: click.Parameter, why: str) -> str:
    if not why.strip() or len(why) > _WHY_MOST:
        raise click.BadParameter(f"must be said, in at most {_WHY_MOST} characters")
    return why


_why = click.option("--why", required=True, callback=_reason, help="The reason, which is kept.")


def _decision(function: Callable[..., Any]) -> Callable[..., Any]:
    options = [
        click.argument("jobs", nargs=-1, metavar="[JOB]..."),
        _why,
        click.option("--who", help="Who decides; else the user of this machine."),
        click.option("--yes", is_flag=True, help="Do not ask about what the filters find."),
    ]

    @wraps(function)
    def called(**values: Any) -> None:
        function(**values)

    for option in reversed(options):
        called = option(called)
    return _filters(called)


@verb("replicator queue list --state parked", json=True, group=queue)
@_filters
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice(["waiting", "retrying", "held", "parked", "skipping", "done", "skipped", "merged"]),
    help="Only in this state; else everything undelivered.",
)
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1, _MOST))
def queue_list(config: Path | None, states: tuple[str, ...], limit: int, as_json: bool, **asked: Any) -> None:
    """List jobs, the oldest first. Never what their rows say."""
    from replicator.ehr.queue_people import OPEN, find

    chosen = _chosen((), states or OPEN, limit, **asked)
    found = _in_storage(config, lambda storage: find(storage, chosen))
    if not found:
        _require_mapped(config, chosen.table)
    if as_json:
        facts(jobs=[job.facts() for job in found])
        return
    for job in found:
        click.echo(
            f"{job.id}  {job.state}  {job.operation} {job.mapping} {job.key}  patient {job.patient or '?'}  "
            f"{round(job.age_s)} s  tries {job.attempts}"
        )
        if job.error_message:
            click.echo(f"    {job.error_class}: {job.error_message}")
        if job.note:
            click.echo(f"    {job.note}")
    more = ", and perhaps more: see --limit" if len(found) == limit else ""
    click.echo(counted(len(found), "job") + more)


@verb("replicator queue show 4611686018427387904.17", json=True, group=queue)
@click.argument("job")
def queue_show(config: Path | None, job: str, as_json: bool) -> None:
    """Show one job: everything but its row, and what people have decided about it."""
    from replicator.ehr.queue_people import JobId, show

    found = _in_storage(config, lambda storage: show(storage, JobId.parse(job)))
    if as_json:
        facts(**found)
        return
    decided = found.pop("decided")
    for name, value in found.items():
        if value is not None:
            click.echo(f"{name}: {value}")
    for each in decided:
        click.echo(f"{each['at']}: {each['who']} {each['action']}: {each['why']}")


@verb("replicator queue retry --error-class template --why 'uploaded it'", json=True, group=queue)
@_decision
def queue_retry(**values: Any) -> None:
    """Try again what is parked, held, or waits for its next try."""
    _decide("retry", **values)


@verb("replicator queue skip 4611686018427387904.17 --why 'a test patient'", json=True, group=queue)
@_decision
def queue_skip(**values: Any) -> None:
    """Leave jobs out for good; their lanes go on behind them.

    The record will not hold these changes. A later change of the same record brings it up to date. Nor will
    it hold earlier ones that had been merged into them: these are said, and any of them can be replayed. A
    change that a worker is sending just then may get there; who is at work is said, and the job ends as done.
    """
    _decide("skip", **values)


@verb("replicator queue park --patient 7 --why 'identity in doubt'", json=True, group=queue)
@_decision
def queue_park(**values: Any) -> None:
    """Stop lanes at these jobs, until somebody retries or skips them.

    They stop with all that comes behind. A lane in which nothing waits cannot be stopped.
    """
    _decide("park", **values)


@verb("replicator queue replay --table vital_signs --why 'record system restored'", json=True, group=queue)
@_decision
def queue_replay(**values: Any) -> None:
    """Deliver once more what was finished, and is still kept: after the record system lost something.

    The record is asked first, and only gets what it lacks. What has been deleted since stays so: if the
    record has lost the deletion, replay that, too.
    """
    _decide("replay", **values)


@verb("replicator queue rebuild vital_signs --why 'a new record system'", json=True, group=queue)
@click.argument("tables", nargs=-1)
@_why
@click.option("--who", help="Who decides; else the user of this machine.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def queue_rebuild(
    config: Path | None, tables: tuple[str, ...], why: str, who: str | None, yes: bool, as_json: bool
) -> None:
    """Queue every row that mapped tables have now: for a record system that begins empty, or has lost a lot.

    The record is asked first, by what each composition says it was made of: a row gets a newer version where
    the record holds another, and none where it holds the same. What it holds of rows that are gone stays.
    """
    from replicator.ehr.fields import qualified
    from replicator.ehr.job import Jobs
    from replicator.ehr.mapping import load_mapping
    from replicator.ehr.queue_found import Finder
    from replicator.ehr.queue_rebuilt import rebuild
    from replicator.wal.source import printing

    settings = load(config, os.environ)
    mapping = load_mapping(settings.ehr.mapping_path)
    ask(f"queue every row of {', '.join(tables) or 'all mapped tables'}?", yes)
    source_dsn = printing(settings.source_dsn)

    async def work(storage: Connection) -> int:
        async with connected(source_dsn, "rebuild") as source, pooled(source_dsn, "find", most=1) as find:
            finder = Finder(find)
            jobs = Jobs(mapping, finder.find, {})
            return await rebuild(
                storage,
                source,
                jobs,
                finder,
                [qualified(name) for name in tables],
                who or getpass.getuser(),
                why,
            )

    count = _in_storage(config, work)
    if as_json:
        facts(action="rebuild", rows=count)
    else:
        click.echo(f"rebuild: {counted(count, 'row')}")


@verb("replicator queue mirror", json=True, group=queue)
@click.option("--off", is_flag=True, help="Keep it no more, and empty it.")
def queue_mirror(config: Path | None, off: bool, as_json: bool) -> None:
    """Keep a table of what became of each change, so that rules can send it to the apps.

    The table is `ehr_sync_status`, in the schema of storage: a row for each job, as the view
    `ehrbase_sync_queue` has it, with the patient, and without what the row says. Apps get what the source
    publishes, so storage has to be in the source's database. Triggers on the queue's own tables keep it:
    each job costs storage, and the log, about as much again. Only who owns these tables may say so. Where
    somebody has deleted jobs by hand, `--off` and on again brings it back to what the queue has.
    """
    from replicator.ehr.queue_mirrored import mirror
    from replicator.observe.survey import read_place

    settings = load(config, os.environ)
    schema, source_dsn = settings.storage.schema_name, settings.source_dsn

    async def work(storage: Connection) -> Mirrored:
        async with connected(source_dsn, "mirror") as source:
            places = [await read_place(one) for one in (storage, source)]
        if not off and None not in places and places[0] != places[1]:
            raise ConfigError(
                "storage is not in the source's database, and apps get only what the source publishes",
                "A job of your own can bring the view `ehrbase_sync_queue` into a table of the source.",
            )
        return await mirror(storage, is_kept=not off)

    found = _in_storage(config, work)
    if as_json:
        facts(is_kept=not off, has_changed=found.has_changed, rows=found.rows)
        return
    kept = "is not kept" if off else f"is kept: {counted(found.rows, 'row')}"
    click.echo(f"{schema}.ehr_sync_status {kept}" + ("" if found.has_changed else ", as before"))
    if not off:
        click.echo(
            f"Rules can name it: SELECT * FROM {schema}.ehr_sync_status WHERE patient_id = bucket.user_id; "
            "`replicator publication plan` says how it is published."
        )


@verb("replicator queue stats", json=True, group=queue)
def queue_stats(config: Path | None, as_json: bool) -> None:
    """How the queue is: what waits, for how long, and what has stopped."""
    from replicator.ehr.queue_health import health

    found = _in_storage(config, health)
    if as_json:
        facts(**found.facts())
        return
    click.echo(found.status)
    oldest = "" if found.oldest_s is None else f", the oldest for {round(found.oldest_s)} s"
    click.echo(f"undelivered: {found.undelivered}{oldest}")
    for state, (lanes, jobs) in sorted(found.lanes.items()):
        click.echo(f"lanes {state}: {lanes:,}, with {counted(jobs, 'job')}")
    for name, count in sorted(found.errors.items()):
        click.echo(f"error {name}: {count}")
    for name, reason in sorted(found.holds.items()):
        click.echo(f"held by {name}: {reason}")
    for state, count in sorted(found.finished.items()):
        click.echo(f"{state} in the last hour: {count}")


def _decide(
    action: Action,
    config: Path | None,
    jobs: tuple[str, ...],
    why: str,
    who: str | None,
    yes: bool,
    as_json: bool,
    **asked: Any,
) -> None:
    from replicator.ehr.queue_people import STATES, Chosen, Decided, JobId, decide, find, stood_for

    chosen = _chosen(jobs, STATES[action], None, **asked)
    if chosen.is_all:
        raise ConfigError(
            f"queue {action}: which jobs are meant?",
            "Name their ids, or say --table, --patient, --error-class or --older.",
        )
    passed_over: dict[str, str] = {}
    if jobs:
        named = _in_storage(config, lambda storage: find(storage, Chosen(chosen.ids)))
        if missing := set(chosen.ids) - {job.id for job in named}:
            raise ReplicatorError(
                f"there is no job {min(missing)}", "`replicator queue list` shows the ids of jobs."
            )
        passed_over = {str(job.id): job.state for job in named if job.state not in chosen.states}
    else:
        meant = _in_storage(config, lambda storage: find(storage, chosen))
        if not meant:
            _require_mapped(config, chosen.table)
        if not meant and action == "park":
            click.echo("Nothing of this waits. What comes later will be delivered.", err=True)
        if meant or not sys.stdin.isatty():  # a script needs --yes every time, not only when it finds some
            ask(f"{action} {counted(len(meant), 'job')}?", yes)
        # What was asked about is what is decided about, whatever has come since.
        chosen = replace(chosen, ids=tuple(job.id for job in meant))
    name = who or getpass.getuser()

    async def work(storage: Connection) -> tuple[Decided, dict[JobId, list[JobId]]]:
        if not chosen.ids:
            return Decided([], {}), {}
        done = await decide(storage, action, chosen, name, why)
        return done, await stood_for(storage, done.jobs) if action == "skip" else {}

    (done, held), besides = _in_storage(config, work)
    merged = {str(job): list(map(str, others)) for job, others in besides.items()}
    taken = {str(job): holder for job, holder in held.items()}
    if as_json:
        more = {"merged": merged} if action == "skip" else {}
        facts(action=action, jobs=list(map(str, done)), passed_over=passed_over, taken=taken, **more)
        return
    click.echo(f"{action}: {counted(len(done), 'job')}")
    for job, state in passed_over.items():
        click.echo(f"    not {job}, which is {state}: only what is {', '.join(chosen.states)} can be meant")
    for job, holder in taken.items():
        click.echo(f"    {job} is in a lane at which {holder} is at work")
    if taken:
        click.echo(
            "What is being sent just now, or left out, is not stopped: `replicator queue show` says what "
            "became of it."
        )
    for job, others in merged.items():
        click.echo(f"    with {job}, what was merged into it: {', '.join(others)}")
    if merged:
        click.echo(
            "These are not delivered either; `replicator queue replay` delivers one of them after all."
        )


def _chosen(
    jobs: tuple[str, ...],
    states: tuple[str, ...],
    limit: int | None,
    *,
    table: str | None,
    patient: str | None,
    error_class: str | None,
    older: str | None,
) -> Chosen:
    from replicator.ehr.queue_people import Chosen, JobId

    try:
        older_s = None if older is None else float(spans.seconds(0, 10 * 366 * 86_400)(older))
    except ValueError as error:
        raise ConfigError(f"--older: {error}", "Such as 90s, 30m, 2h or 7d.") from None
    return Chosen(tuple(map(JobId.parse, jobs)), states, table, patient, error_class, older_s, limit)


def _require_mapped(config: Path | None, table: str | None) -> None:
    """Where nothing was found: that the name which was asked for is one."""
    from replicator.ehr.mapping import load_mapping

    if table is None:
        return
    mapping = load_mapping(load(config, os.environ).ehr.mapping_path)
    if table not in mapping.tables and not mapping.of(table):
        names = ", ".join(sorted(mapping.tables))
        raise ReplicatorError(f"nothing is mapped from {table}, nor called so", f"There are {names}.")


def _in_storage(config: Path | None, work: Callable[[Connection], Awaitable[_T]]) -> _T:
    settings = load(config, os.environ)
    schema = settings.storage.schema_name

    async def body() -> _T:
        async with connected(settings.storage_dsn, "queue", schema=schema) as storage:
            await check_migrated(storage, schema)
            return await work(storage)

    return asyncio.run(body())
