"""A source's slots → a table for a DBA; and a slot made or dropped, with what that means said first."""

from __future__ import annotations

from collections.abc import Sequence

import click

from replicator.config import Config
from replicator.database import connected
from replicator.observe.check_storage import look_at_storage
from replicator.observe.units import size
from replicator.wal import slots
from replicator.wal.lsn import Lsn
from replicator.wal.slots import Blocker, SlotState


async def read(config: Config) -> list[SlotState]:
    """Every logical slot of the source's server."""
    async with connected(config.source_dsn, "slot list") as source:
        return [slot for slot in await slots.read_slots(source) if slot.is_logical]


async def create(config: Config, name: str, *, failover: bool, timeout_s: float) -> Lsn:
    """Make a slot, naming who is in the way meanwhile."""
    async with (
        connected(config.source_dsn, "slot create") as source,
        connected(config.source_dsn, "slot create watcher") as watcher,
    ):
        return await slots.create_slot(
            source, watcher, name, failover=failover, timeout_s=timeout_s, waiting=_say_who
        )


async def drop(config: Config, name: str) -> None:
    """End a slot."""
    async with connected(config.source_dsn, "slot drop") as source:
        await slots.drop_slot(source, name)


async def loss(config: Config, name: str) -> str:
    """What would be lost with a slot, in a sentence; refuses one that cannot be dropped."""
    async with connected(config.source_dsn, "slot drop") as source:
        found = await slots.require_droppable(source, name)
    behind = f"{size(found.lag_bytes)} not read yet" if found.lag_bytes is not None else "its place"
    gives_up = f"Dropping slot {name} gives up {behind}."
    stored = await look_at_storage(config, None) if name == config.source.slot else None
    if stored is None or stored.position is None:
        return gives_up
    return (
        f"{gives_up} What it had sent up to {stored.position.stored.lsn} is stored: the replicator will not "
        "go on from there until every table is copied again (replicator snapshot --all)."
    )


def _say_who(blockers: list[Blocker]) -> None:
    click.echo("waiting for open transactions to end:", err=True)
    for blocker in blockers:
        click.echo(f"  {blocker}", err=True)


def facts_of(found: Sequence[SlotState], ours: str) -> list[dict[str, object]]:
    """For programs."""
    facts = []
    for slot in found:
        fact = slot._asdict() | {"is_ours": slot.name == ours}
        for key in ("restart_lsn", "confirmed_lsn"):
            fact[key] = None if fact[key] is None else str(fact[key])
        facts.append(fact)
    return facts


def text_of(found: Sequence[SlotState], ours: str) -> str:
    """One line per slot, ours marked with a star."""
    if not found:
        return f"no logical slots; {ours} is made when the replicator first runs"
    knows_failover = any(slot.failover is not None for slot in found)
    head = [
        "",
        "slot",
        "plugin",
        "database",
        "state",
        "behind",
        "bytes",
        "keeps",
        "room",
        "restart",
        "confirmed",
    ]
    head += ["failover"] if knows_failover else []
    lines = [head, *(_line(slot, ours, knows_failover) for slot in found)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(head))]
    shown = [
        "  ".join(f"{cell:<{w}}" for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines
    ]
    return "\n".join([click.style(shown[0], dim=True), *shown[1:]])


def _line(slot: SlotState, ours: str, knows_failover: bool) -> list[str]:
    state = slot.wal_status or "new"
    if slot.invalidation_reason:
        state += f" ({slot.invalidation_reason})"
    if slot.active_pid is not None:
        state += f", read by pid {slot.active_pid}"
    elif slot.inactive_since:
        state += f", idle since {slot.inactive_since[:16].replace('T', ' ')}"
    else:
        state += ", idle"
    cells = [
        "*" if slot.name == ours else "",
        slot.name,
        slot.plugin or "",
        slot.database or "",
        state,
        _size(slot.lag_bytes),
        "" if slot.lag_bytes is None else str(slot.lag_bytes),
        _size(slot.kept_bytes),
        _size(slot.safe_bytes) or "no limit",
        str(slot.restart_lsn or ""),
        str(slot.confirmed_lsn or ""),
    ]
    return [*cells, "yes" if slot.failover else "no"] if knows_failover else cells


def _size(count: int | None) -> str:
    return "" if count is None else size(count)
