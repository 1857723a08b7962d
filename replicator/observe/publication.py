"""A configuration and rules → what a publication lacks, as SQL to read; and, when asked to, done."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace

import click

from replicator.config import Config
from replicator.database import connected
from replicator.dsn import describe_dsn
from replicator.ehr.mapping import mapping_of
from replicator.observe.check_server import judge_level
from replicator.observe.check_storage import judge_owner
from replicator.observe.needs import needs_of
from replicator.observe.report import comment
from replicator.observe.survey import be_harmless, read_server
from replicator.rules.model import Rules
from replicator.wal.catalogue import meant, read_catalogue
from replicator.wal.finding import Finding
from replicator.wal.mend import LOCK_TIMEOUT, batches, mend
from replicator.wal.names import quote
from replicator.wal.publication import Plan, plan_publication

#: Statements that need no words.
_OBVIOUS = frozenset({"role.connect", "role.usage", "role.select", "publication.table"})


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan, and where it belongs."""

    where: str
    tables: int
    plan: Plan
    #: Whose rights are in it.
    role: str | None


async def plan(config: Config, rules: Rules, role: str | None, *, whole_rows: bool = False) -> Planned:
    """Look at the source, and plan; with `whole_rows`, REPLICA IDENTITY FULL for every table."""
    needs = needs_of(rules, mapping_of(config), config.sync.token.subject)
    name, schema = config.source.publication, config.storage.schema_name
    async with connected(config.source_dsn, "publication") as source, source.transaction():
        await be_harmless(source)
        needs = await meant(source, needs, schema)
        catalogue = await read_catalogue(source, name, needs, role or source.info.user, schema)
        stored_here = config.storage_dsn == config.source_dsn
        owner = await judge_owner(source, schema, role) if role is not None and stored_here else []
        server = await read_server(source)
    made = plan_publication(
        catalogue,
        needs,
        name,
        schema,
        with_role=role is not None,
        with_storage=stored_here,
        whole_rows=whole_rows,
    )
    made = replace(
        made,
        steps=_with_owner(made.steps, owner),
        notes=(*made.notes, *(replace(one, level="note") for one in judge_level(server))),
    )
    followed = sum(need.is_followed for need in needs)
    return Planned(describe_dsn(config.source_dsn), followed, made, role)


def _with_owner(steps: Sequence[Finding], owner: Sequence[Finding]) -> tuple[Finding, ...]:
    """Who owns the storage needs no grants there."""
    if not owner:
        return tuple(steps)
    others = [step for step in steps if step.code != "storage.rights"]
    first = sum(step.group == "role" for step in others)
    return (*others[:first], *owner, *others[first:])


async def apply(config: Config, planned: Planned, *, quiet: bool = False) -> None:
    """Do what was planned; says of each step that it is done."""

    def done(step: Finding) -> None:
        if not quiet:
            click.echo(click.style("done ", fg="green") + step.sql.splitlines()[0])

    async with connected(config.source_dsn, "publication") as source:
        await mend(source, planned.plan.steps, done)


def facts_of(planned: Planned) -> dict[str, object]:
    """For programs."""
    made = planned.plan
    parts = {"steps": made.steps, "problems": made.problems, "notes": made.notes}
    listed = {name: [asdict(finding) for finding in part] for name, part in parts.items()}
    return {"publication": made.publication, "source": planned.where, **listed}


def text_of(planned: Planned) -> str:
    """The plan as SQL: to read, to paste, or to pipe into psql."""
    made = planned.plan
    name = quote(made.publication)
    lines = [comment(f"{planned.where}: publication {name}, for {planned.tables} tables of the rules"), ""]
    if made.steps:
        lines += [f"{LOCK_TIMEOUT}  -- rather give up than let the application queue behind us", ""]
    for batch in batches(made.steps):
        together = len(batch) > 1
        lines += ["BEGIN;"] if together else []
        for step in batch:
            lines += [step.sql] if step.code in _OBVIOUS else [comment(step.what), step.sql]
        lines += ["COMMIT;", ""] if together else [""]
    if not made.steps:
        lines += ["-- nothing to do" if not made.problems else "-- nothing that can be done yet", ""]
    for problem in made.problems:
        lines += [comment(f"BY HAND: {problem.what}")]
        lines += [comment(line) for line in (*textwrap.wrap(problem.why, 100), *problem.sql.splitlines())]
    lines += [comment(f"note: {note}") for note in _notes(made.notes)]
    lines += ["-- note: who may read it is not planned; with --role NAME that is, too"] * (
        planned.role is None
    )
    return "\n".join(lines).rstrip()


def _notes(notes: Sequence[Finding]) -> Iterator[str]:
    """What a note says; what most tables have in common, once."""
    kept = [note.about for note in notes if note.code == "table.identity"]
    for note in notes:
        if note.code != "table.identity":
            yield f"{note.what}: {note.sql}" if note.sql else note.what
    if kept:
        yield (
            f"{', '.join(kept)}: the log tells the key of an old row, which is enough; "
            "with --identity full it tells the whole row"
        )
