"""The demo's clinic → compositions in a sandbox beside it; one patient's are told as they arrive."""

from __future__ import annotations

import asyncio
import shutil
import sys

import click

from replicator import queries
from replicator.config import Config
from replicator.database import Connection, connected, rows
from replicator.ehr.columns import read_catalogue
from replicator.ehr.identity import joined
from replicator.ehr.mapping import load_mapping
from replicator.ehr.queue_added import lane_id
from replicator.ehr.sandbox.guess import guessed
from replicator.ehr.sandbox.server import Sandbox

_q = queries.load("queue")

#: How often is looked what has arrived.
_LOOK_S = 0.3
#: What a colour takes of a line and nobody sees.
_UNSEEN = len(click.style("", fg="cyan"))
_DONE = {"create": "created", "update": "changed", "delete": "deleted", "mark": "marked", "status": "status"}


async def furnish(sandbox: Sandbox, config: Config, source: Connection) -> None:
    """Give the sandbox templates for the clinic's mapping: its own, for the real ones are others' work."""
    mapping = load_mapping(config.ehr.mapping_path)
    await sandbox.add_templates(guessed(mapping, (await read_catalogue(source, mapping)).columns))


async def watch_record(config: Config, patient: str) -> None:
    """Tell of each version that the record has of a patient, those of before first."""
    lane, upto = lane_id(joined(("patient", patient))), 0
    async with connected(config.storage_dsn, "tail", schema=config.storage.schema_name) as storage:
        while True:
            for found in await rows(storage, _q.delivered_after, lane=lane, seq=upto):
                upto, mapping, key, operation, version, uid = found
                # What was created and changed before it could be delivered arrives as one version.
                done = "create" if operation == "update" and version == 1 else operation
                what = click.style(f"{_DONE[done]:<8}", fg="cyan")
                of = "the EHR's status" if operation == "status" else _composition(uid)
                tell("record", f"{what}  {mapping}/{key}  version {version or '?'} of {of}")
            await asyncio.sleep(_LOOK_S)


def tell(where: str, what: str) -> None:
    """One line; on a terminal, no more than one."""
    line = f"  {where}  {what}"
    click.echo(line[: shutil.get_terminal_size().columns + _UNSEEN] if sys.stdout.isatty() else line)


def _composition(uid: str | None) -> str:
    return f"composition {uid.partition('::')[0]}" if uid else "its composition"
