"""Tables to be copied → the request, and how far each copy has come, on a terminal."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import Protocol

import click

from replicator import queries
from replicator.buckets.tables import TableState, load, want_again
from replicator.buckets.write import give_up
from replicator.config import Config
from replicator.database import Connection, check_migrated, connected, rows
from replicator.errors import ConfigError, ReplicatorError
from replicator.observe.lost import find_lost
from replicator.wal.names import qualify

_q = queries.load("buckets")
_LOOK_S = 0.5
_MISSED_S = 5.0
#: What a table's state means to who waits for it.
_STANDING = {"wanted": "waits to be copied", "copying": "being copied", "copied": "copied"}


class Copying(Protocol):
    """A copy, as far as it is shown."""

    @property
    def oid(self) -> int: ...
    @property
    def namespace(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def state(self) -> str: ...
    @property
    def rows_copied(self) -> int: ...
    @property
    def rows_expected(self) -> int: ...


async def recopy(config: Config, names: Sequence[str], *, everything: bool, wait: bool) -> list[TableState]:
    """Ask for tables to be copied again, and watch until they have been."""
    schema, slot = config.storage.schema_name, config.source.slot
    async with connected(config.storage_dsn, "snapshot", schema=schema) as storage:
        await check_migrated(storage, schema)
        known = await load(storage, slot)
        lost = await find_lost(config, storage, known.values()) if everything else None
        if not known and lost is None:
            raise ReplicatorError(
                f"nothing is known of any table for slot {slot}",
                "The first `replicator run` copies every table in the rules by itself.",
            )
        chosen = list(known.values()) if everything else [_choose(name, known) for name in names]
        async with storage.transaction():
            for state in chosen:
                await want_again(storage, slot, state.oid)
            if lost is not None:
                await give_up(storage, slot, lost.standing)
        if lost is not None:
            click.echo(
                f"given up: {lost.why}; `replicator run` goes on from where the source is now", err=True
            )
        if wait:
            await _watch(storage, slot, {state.oid for state in chosen})
        return [
            state for state in (await load(storage, slot)).values() if state.oid in {c.oid for c in chosen}
        ]


def _choose(name: str, known: dict[int, TableState]) -> TableState:
    """The table of this name, with or without its schema."""
    for state in known.values():
        if name in (f"{state.namespace}.{state.name}", state.name, qualify(state.namespace, state.name)):
            return state
    names = [f"{state.namespace}.{state.name}" for state in known.values()]
    close = get_close_matches(name, names + [state.name for state in known.values()], 1)
    hint = f"Did you mean {close[0]}?" if close else f"Known tables: {', '.join(sorted(names))}"
    raise ConfigError(f"no table {name} is being replicated", hint)


async def _watch(storage: Connection, slot: str, oids: set[int]) -> None:
    draw, missed = drawing(), Missed(storage, slot)
    try:
        while True:
            states = [state for oid, state in (await load(storage, slot)).items() if oid in oids]
            draw(states)
            if all(state.is_copied for state in states):
                return
            if await missed.is_news():
                click.echo("waiting for `replicator run`: nothing is running for this slot", err=True)
            await asyncio.sleep(_LOOK_S)
    finally:
        draw([])


class Missed:
    """Looks whether somebody holds the writer's lock.

    Whoever has just been started, or takes over, does so a little later: somebody is missed only when nobody
    has held it for some time.
    """

    def __init__(self, storage: Connection, slot: str) -> None:
        self._storage, self._slot = storage, slot
        self._since = time.monotonic()
        self._is_told = False

    async def is_running(self) -> bool:
        return bool((await rows(self._storage, _q.is_writing, slot=self._slot))[0][0])

    async def is_news(self) -> bool:
        """Whether it is to be told now, once, that nothing is running."""
        if await self.is_running():
            self._since = time.monotonic()
        elif not self._is_told and time.monotonic() - self._since >= _MISSED_S:
            self._is_told = True
            return True
        return False

    async def is_missed(self) -> bool:
        """Wait until somebody runs, or is missed."""
        while not await self.is_running():
            if await self.is_news():
                return True
            await asyncio.sleep(_LOOK_S)
        return False


def drawing() -> Callable[[Sequence[Copying]], None]:
    """What shows copies, as often as it is called; to be called with none at the end."""
    return _bars() if sys.stderr.isatty() else _lines()


def _lines() -> Callable[[Sequence[Copying]], None]:
    """A line whenever a table has got further; for logs and pipes."""
    said: dict[int, str] = {}

    def draw(states: Sequence[Copying]) -> None:
        for state in states:
            line = f"{qualify(state.namespace, state.name)}: {_STANDING[state.state]}"
            if state.state != "wanted":
                line += f", {state.rows_copied} {'row' if state.rows_copied == 1 else 'rows'}"
            if said.get(state.oid) != line:
                said[state.oid] = line
                click.echo(line, err=True)

    return draw


def _bars() -> Callable[[Sequence[Copying]], None]:
    """A bar for each table, with rows done, expected and the time left."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
    bars: dict[int, TaskID] = {}
    progress.start()

    def draw(states: Sequence[Copying]) -> None:
        for state in states:
            name = qualify(state.namespace, state.name)
            if state.oid not in bars:
                bars[state.oid] = progress.add_task(name, total=None)
            expected = max(state.rows_expected, state.rows_copied)
            total = state.rows_copied if state.state == "copied" else expected or None
            progress.update(bars[state.oid], completed=state.rows_copied, total=total)
        if not states:
            progress.stop()

    return draw
