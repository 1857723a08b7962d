"""A configuration → its status in this terminal: once, or drawn again and again until interrupted."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import Mapping
from functools import partial

import click
import orjson

from replicator.config import Config
from replicator.database import connected
from replicator.observe.status.facts import facts_of
from replicator.observe.status.judge import troubles
from replicator.observe.status.look import Looker
from replicator.observe.status.screen import screen
from replicator.sync.keys_configured import client_keyring

#: To the other screen of a terminal and back; to its corner; the rest of a line away, or of the screen.
_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
_HOME, _REST_OF_LINE, _REST = "\x1b[H", "\x1b[K", "\x1b[J"


def looker(config: Config, environ: Mapping[str, str]) -> Looker:
    """Connects anew for each look: it is rare, and a server may have gone and come back meanwhile."""
    schema = config.storage.schema_name
    storage = partial(connected, config.storage_dsn, "status", schema=schema)
    source = partial(connected, config.source_dsn, "status")
    return Looker(config, storage, source, serves=not client_keyring(config, environ).is_empty)


async def once(looking: Looker, *, as_json: bool) -> int:
    """Print it; 1 if there is something wrong that does not heal by being waited for."""
    look = await looking.look()
    if as_json:
        click.echo(orjson.dumps(facts_of(look), option=orjson.OPT_APPEND_NEWLINE), nl=False)
    else:
        click.echo(screen(look, shutil.get_terminal_size((100, 24)).columns))
    return int(any(one.level == "error" for one in troubles(look)))


async def watch(looking: Looker, every_s: float, *, as_json: bool) -> None:
    """Print it again and again; on a terminal, in one place."""
    if as_json or not sys.stdout.isatty():
        while True:
            await once(looking, as_json=as_json)
            if not as_json:
                click.echo()
            await asyncio.sleep(every_s)
    click.echo(_ENTER, nl=False)
    try:
        while True:
            look = await looking.look()
            columns, height = shutil.get_terminal_size((100, 24))
            lines = screen(look, columns).splitlines()[: height - 1]
            click.echo(_HOME + "".join(f"{line}{_REST_OF_LINE}\n" for line in lines) + _REST, nl=False)
            await asyncio.sleep(every_s)
    finally:
        click.echo(_LEAVE, nl=False)
