"""argv → `replicator status`: what is wrong, since when, what it threatens, what to do; and all else."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import click

from replicator.cli import _until_interrupted, verb
from replicator.config import load


@verb("replicator status --watch", json=True)
@click.option("--watch", "is_watched", is_flag=True, help="Look again and again, until Ctrl-C.")
@click.option(
    "--every", default=2.0, show_default=True, type=click.FloatRange(0.2, 3600), help="Seconds, with --watch."
)
def status(config: Path | None, is_watched: bool, every: float, as_json: bool) -> None:
    """Show how everything stands: source, slot, copies, rules, clients, and the way to the record.

    What is wrong comes first: what it is, since when, what it threatens, and what to do. Asks source and
    storage directly, so it answers also where nothing is running. Prints positions, counts and times, and
    nothing of a row. Exit code 1 if something is broken.
    """
    from replicator.observe.status.show import looker, once, watch

    looking = looker(load(config, os.environ), os.environ)
    if is_watched:
        _until_interrupted(watch(looking, every, as_json=as_json))
        return
    sys.exit(asyncio.run(once(looking, as_json=as_json)))
