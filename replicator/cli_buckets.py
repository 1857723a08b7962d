"""argv → the verbs about what is stored: compact, verify, audit."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Coroutine
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

import click

from replicator.cli import facts, verb
from replicator.config import Config, load
from replicator.errors import ReplicatorError

if TYPE_CHECKING:
    from replicator.buckets.compacting import Report, Work
    from replicator.rules.model import Rules

_T = TypeVar("_T")


@verb("""replicator compact --bucket 'user_data["u1"]'""", json=True)
@click.option("--bucket", help="Only this one, whatever it is worth.")
@click.option("--all", "everything", is_flag=True, help="Every bucket, whatever it is worth.")
def compact(config: Path | None, bucket: str | None, everything: bool, as_json: bool) -> None:
    """Merge the history that later changes have overtaken, while everything goes on.

    `replicator run` does the same by itself, slowly; see compact.every. Without options, the buckets where it
    is worth it. What clients hold stays valid: their checksums do not change. The last five minutes are left
    as they are, for readers that are in the middle of them. To be interrupted at any time.

    The space is used again for what is stored next, once autovacuum has been there. Only VACUUM FULL, which
    locks the table, would give it back to the disk; after the first compaction of a large storage that may be
    worth a maintenance window.
    """
    from replicator.buckets.compacting import compact as run

    if bucket is not None and everything:
        raise click.UsageError("name a bucket, or say --all")
    settings = load(config, os.environ)
    with _Bar(sys.stderr.isatty() and not as_json) as say:
        report = asyncio.run(run(settings, bucket, everything=everything, say=say))
    if as_json:
        facts(
            buckets=report.buckets,
            ops_before=report.ops_before,
            ops_after=report.ops_after,
            bytes_freed=report.bytes_freed,
            entries_forgotten=report.entries_forgotten,
        )
    else:
        click.echo(_said(report))


@verb("replicator verify --sample 50", json=True)
@click.option("--user", metavar="SUB", help="The buckets that this user gets.")
@click.option(
    "--jwt", "token", type=click.File(), help="A token, or its claims as JSON; - is standard input."
)
@click.option("--parameters", metavar="JSON", help="What the app sends along as client parameters.")
@click.option("--sample", metavar="N", type=click.IntRange(min=1), help="So many buckets, by chance.")
@click.option("--all", "everything", is_flag=True, help="Every row, bucket, lookup and kept row.")
def verify(
    config: Path | None,
    user: str | None,
    token: TextIO | None,
    parameters: str | None,
    sample: int | None,
    everything: bool,
    as_json: bool,
) -> None:
    """Compare buckets with the source they are made from, while everything goes on.

    Without options, 20 buckets chosen by chance. Only --all finds a bucket that should be there and is not,
    and looks at what is kept of rows in tables without REPLICA IDENTITY FULL.
    What only changes while it is looked at is no difference, and is not told. Reads the source in short
    transactions of some thousand rows, and rests between them.

    \b
    Tells which rows differ, and in which columns; never what they say.
    Exit code 1 if anything differs.
    """
    from replicator.observe import verify_found
    from replicator.observe.rules.asked import user_of
    from replicator.observe.verify import verify as run

    is_somebody = user is not None or token is not None
    if is_somebody + (sample is not None) + everything > 1:
        raise click.UsageError("say one of --user or --jwt, --sample, and --all")
    settings = load(config, os.environ)
    claims = token.read() if token is not None else None
    who = user_of(user, claims, parameters, ()) if is_somebody else None
    count = None if is_somebody or everything else sample or 20
    found = asyncio.run(_by_rules(settings, lambda rules: run(settings, rules, user=who, sample=count)))
    if as_json:
        facts(**verify_found.facts_of(found))
    else:
        click.echo(verify_found.text_of(found))
    sys.exit(found.exit_code)


@verb("replicator audit vital_signs 8c0a5b1e-3d43-4d2c-9a52-0f4c3f0e7f11", json=True)
@click.argument("table")
@click.argument("row_id", metavar="ID")
@click.option("--at", metavar="TIME", help="Only at this time, such as 2026-03-01T12:00:00Z.")
@click.option("--everywhere", is_flag=True, help="Read all ops, however many there are.")
def audit(
    config: Path | None, table: str, row_id: str, at: str | None, everywhere: bool, as_json: bool
) -> None:
    """Tell who could see a row, and when: the buckets that held it, and the users behind them.

    ID is the id that clients know the row by. Goes back as far as history has not been compacted, and says
    where that ends. Times are those of checkpoints, to the minute. The users are those whom the rules of
    today lead to a bucket.
    """
    from replicator.observe import audit as audited

    settings = load(config, os.environ)
    when = None if at is None else _time(at)

    def look(rules: Rules) -> Coroutine[Any, Any, audited.Audit]:
        return audited.audit(settings, rules, table, row_id, at=when, everywhere=everywhere)

    found = asyncio.run(_by_rules(settings, look))
    if as_json:
        facts(**audited.facts_of(found))
    else:
        click.echo(audited.text_of(found))


async def _by_rules(settings: Config, look: Callable[[Rules], Coroutine[Any, Any, _T]]) -> _T:
    """Look at what is stored by the rules that it is shown by."""
    from replicator.buckets.force import shown
    from replicator.database import check_migrated, connected

    schema = settings.storage.schema_name
    async with connected(settings.storage_dsn, "rules", schema=schema) as storage:
        await check_migrated(storage, schema)
        rules = await shown(storage, settings.source.slot)
    if rules is None:
        raise ReplicatorError("nothing is shown to anybody yet", "Wait for the first `replicator run`.")
    return await look(rules)


def _time(text: str) -> datetime:
    """A time as one writes it; without a zone, of this machine's."""
    try:
        return datetime.fromisoformat(text).astimezone()
    except ValueError:
        raise click.BadParameter("such as 2026-03-01T12:00:00Z", param_hint="--at") from None


def _said(report: Report) -> str:
    if not report.buckets:
        return "nothing was worth compacting"
    what = "1 bucket" if report.buckets == 1 else f"{report.buckets:,} buckets"
    freed = f"{report.bytes_freed / 1e6:,.1f} MB freed inside the tables"
    return f"{what}: {report.ops_before:,} ops before, {report.ops_after:,} after; {freed}"


class _Bar:
    """A bar over the ops that have been gone through, on a terminal."""

    def __init__(self, is_shown: bool) -> None:
        self._is_shown = is_shown

    def __enter__(self) -> Callable[[Work, int], None]:
        if not self._is_shown:
            return lambda work, read: None
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        self._progress = Progress(*columns, console=Console(stderr=True))
        task = self._progress.add_task("ops", total=None)
        self._progress.start()

        def say(work: Work, read: int) -> None:
            self._progress.update(task, total=work.ops or 1, advance=read)

        return say

    def __exit__(self, *_: object) -> None:
        if self._is_shown:
            self._progress.stop()
