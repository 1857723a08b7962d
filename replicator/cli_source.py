"""argv → the verbs about the source: check, publication, slot."""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import NoReturn

import click

from replicator.cli import ask, facts, main, verb, width
from replicator.config import load

_IDENTITY = click.option(
    "--identity",
    type=click.Choice(["keep", "full"]),
    default="keep",
    show_default=True,
    help="Leave a replica identity that is enough, or have every table send whole old rows.",
)
_RULES = click.option(
    "--rules",
    "rules_path",
    type=click.Path(path_type=Path),
    help="For the rules of this file, before they are deployed; else for the configured ones.",
)


@main.group()
def publication() -> None:
    """Which tables leave the source: what is missing, and the SQL for it."""


@main.group()
def slot() -> None:
    """Replication slots of the source: see them, make ours, drop one."""


@verb("replicator check --sql | psql -v ON_ERROR_STOP=1 clinic", json=True)
@click.option("--source-only", is_flag=True, help="Leave out where buckets are kept.")
@click.option("--sql", "as_sql", is_flag=True, help="Print only the SQL that mends what was found.")
@click.option("--ehr", is_flag=True, help="Check only the mapping, with the record system's own templates.")
@click.option("--user", metavar="SUB", help="Also look whether the rules can know a token of this subject.")
@click.option(
    "--sample",
    "sample_s",
    default=0.0,
    type=click.FloatRange(0, 3600),
    help="Seconds to watch how fast the log grows; else the average since the server's statistics began.",
)
def check(
    config: Path | None,
    source_only: bool,
    as_sql: bool,
    ehr: bool,
    user: str | None,
    sample_s: float,
    as_json: bool,
) -> None:
    """Can this source be replicated? Every finding, with the SQL that mends it.

    Looks at settings, the role's rights, the publication, every table the rules name, the slot, the storage,
    and who is let in to read. Changes and locks nothing. Exit code 1 if anything has to be mended first.

    With --ehr, whether rows can become compositions instead: compares the mapping (ehr.mapping) with the
    source's columns and with the templates that the record system has, before anything is sent. Tells each
    fault as file:line:column with the nearest name, and each template's hash. Exit code 2 if anything does
    not fit.

    \b
    More examples:
      replicator check --ehr
      replicator check --ehr --json
    """
    if ehr:
        _check_ehr(config, as_json)
    from replicator.observe import report
    from replicator.observe.check import check as look
    from replicator.rules.parse import load_rules

    settings = load(config, os.environ)
    rules = load_rules(settings.rules_path)
    found = asyncio.run(
        look(settings, rules, source_only=source_only, sample_s=sample_s, environ=os.environ, user=user)
    )
    if as_json:
        facts(**report.facts_of(found))
    else:
        click.echo(report.script_of(found) if as_sql else report.text_of(found, width()))
    sys.exit(found.exit_code)


def _check_ehr(config: Path | None, as_json: bool) -> NoReturn:
    from replicator.observe.check_ehr import check_ehr
    from replicator.text.nodes import Problems

    try:
        found = asyncio.run(check_ehr(load(config, os.environ)))
    except Problems as error:
        if not as_json:
            raise
        facts(fits=False, problems=[asdict(problem) for problem in error.problems])
        sys.exit(error.exit_code)
    if as_json:
        facts(**found.facts())
    else:
        click.echo(found.text())
    sys.exit(found.exit_code)


@verb("replicator publication plan --role replicator | less", json=True, group=publication)
@click.option("--role", help="Also plan this role, with no right it does not need.")
@_IDENTITY
@_RULES
@click.option("--remove", is_flag=True, help="Print the way back instead: everything the replicator brought.")
def publication_plan(
    config: Path | None,
    role: str | None,
    identity: str,
    rules_path: Path | None,
    remove: bool,
    as_json: bool,
) -> None:
    """Print the SQL from what is published to what the rules need; change nothing.

    Exit code 1 if something has to be done by hand first.
    """
    from replicator.observe import publication as published
    from replicator.rules.parse import load_rules

    settings = load(config, os.environ)
    rules = load_rules(rules_path or settings.rules_path)
    if remove:
        from replicator.observe.removal import removal

        click.echo(asyncio.run(removal(settings, rules, role)))
        return
    planned = asyncio.run(published.plan(settings, rules, role, whole_rows=identity == "full"))
    if as_json:
        facts(**published.facts_of(planned))
    else:
        click.echo(published.text_of(planned))
    sys.exit(1 if planned.plan.problems else 0)


@verb("replicator publication apply --yes", json=True, group=publication)
@click.option("--role", help="Also make this role, with no right it does not need.")
@_IDENTITY
@_RULES
@click.option("--yes", is_flag=True, help="Do not ask.")
def publication_apply(
    config: Path | None, role: str | None, identity: str, rules_path: Path | None, yes: bool, as_json: bool
) -> None:
    """Do what `publication plan` prints, after asking.

    Never drops a publication, takes no table out of one, and rather gives up than make the application wait
    for a lock. What was done stays done: run it again to go on.
    """
    from replicator.observe import publication as published
    from replicator.rules.parse import load_rules

    settings = load(config, os.environ)
    rules = load_rules(rules_path or settings.rules_path)
    planned = asyncio.run(published.plan(settings, rules, role, whole_rows=identity == "full"))
    if not as_json:
        click.echo(published.text_of(planned))
    if planned.plan.steps:
        ask(f"\nDo this on {planned.where}?", yes)
        asyncio.run(published.apply(settings, planned, quiet=as_json))
    if as_json:
        facts(**published.facts_of(planned))
    sys.exit(1 if planned.plan.problems else 0)


@verb("replicator slot list", json=True, group=slot)
def slot_list(config: Path | None, as_json: bool) -> None:
    """Show every logical slot of the server: how far behind, and what it keeps. Ours has a star."""
    from replicator.observe import slots

    settings = load(config, os.environ)
    found = asyncio.run(slots.read(settings))
    if as_json:
        facts(slots=slots.facts_of(found, settings.source.slot))
    else:
        click.echo(slots.text_of(found, settings.source.slot))


@verb("replicator slot create --failover", json=True, group=slot)
@click.argument("name", required=False)
@click.option("--failover", is_flag=True, help="Keep it on standbys, too (Postgres 17 and later).")
@click.option(
    "--timeout",
    "timeout_s",
    default=30.0,
    show_default=True,
    type=click.FloatRange(min=0.1),
    help="Seconds to wait for open transactions.",
)
def slot_create(
    config: Path | None, name: str | None, failover: bool, timeout_s: float, as_json: bool
) -> None:
    """Make the configured slot, or the one named.

    `replicator run` makes its slot itself. This one is for who wants it to follow a promotion, or to see who
    is in the way: a slot can be made only when every transaction that was writing has ended.
    """
    from replicator.observe import slots

    settings = load(config, os.environ)
    name = name or settings.source.slot
    lsn = asyncio.run(slots.create(settings, name, failover=failover, timeout_s=timeout_s))
    if as_json:
        facts(slot=name, lsn=str(lsn), failover=failover)
    else:
        click.echo(f"made slot {name}: it has every commit from {lsn} on")


@verb("replicator slot drop old_replicator --yes", json=True, group=slot)
@click.argument("name", required=False)
@click.option("--yes", is_flag=True, help="Do not ask.")
def slot_drop(config: Path | None, name: str | None, yes: bool, as_json: bool) -> None:
    """Drop the configured slot, or the one named, after saying what that gives up.

    Refuses while somebody reads it.
    """
    from replicator.observe import slots

    settings = load(config, os.environ)
    name = name or settings.source.slot
    loss = asyncio.run(slots.loss(settings, name))
    if not as_json:
        click.echo(loss)
    ask(f"Drop slot {name}?", yes)
    asyncio.run(slots.drop(settings, name))
    if as_json:
        facts(slot=name, dropped=True)
    else:
        click.echo(f"dropped slot {name}")
