"""argv → the verbs about what is stored: compact, verify, audit."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from replicator.cli import facts, verb
from replicator.config import load

if TYPE_CHECKING:
    from replicator.buckets.compacting import Report, Work


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
