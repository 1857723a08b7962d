"""A rules file × the set in force → what deploying it changes, and the deploy, watched to its end."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import click

from replicator import queries
from replicator.buckets import deploy
from replicator.buckets.deploy import RuleSet, Standing
from replicator.config import Config
from replicator.database import Connection, check_migrated, connected, rows
from replicator.errors import ReplicatorError
from replicator.observe.copies import Missed, drawing
from replicator.observe.rules.tables import SourceTable
from replicator.observe.rules.validate import Validated, validate
from replicator.rules.model import Rules
from replicator.rules.parse import parse_rules
from replicator.rules.versions import Versions, only_new, versioned, versions_of
from replicator.wal.own import require_foreign
from replicator.wal.snapshot import require_readable

_q = queries.load("deploy")
_LOOK_S = 0.3

Becomes = Literal["new", "changed", "kept", "dropped"]


class Reading(NamedTuple):
    """A table that is read for a deploy, and how far that has come."""

    oid: int
    namespace: str
    name: str
    state: str
    rows_copied: int
    rows_expected: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What a deploy does to each definition, and what has to be read for it."""

    number: int
    rules: Rules
    becomes: dict[str, Becomes]
    #: What is new: definitions, and lookups that others need.
    new: Rules
    #: The tables of the source that have to be read for what is new.
    tables: tuple[SourceTable, ...]
    #: The set in force that it is beside, if there is one.
    beside: int | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a deploy stands when it is looked at last."""

    number: int
    state: str
    why: str | None
    becomes: dict[str, Becomes]

    @property
    def exit_code(self) -> int:
        return 0 if self.state in ("active", "preparing") else 1


async def planned(config: Config, path: Path) -> tuple[Validated, Plan | None]:
    """What a file would change; no plan if there is something wrong with it."""
    validated = await validate(path, config)
    if validated.rules is None:
        return validated, None
    async with connected(config.storage_dsn, "rules deploy", schema=config.storage.schema_name) as storage:
        await check_migrated(storage, config.storage.schema_name)
        known = await deploy.load(storage, config.source.slot)
    plan = _plan(validated, known)
    require_foreign(plan.rules.tables(), config.storage.schema_name)
    async with connected(config.source_dsn, "rules deploy") as source:
        for table in plan.tables:
            await require_readable(source, table.relation)
    return validated, plan


def _plan(validated: Validated, known: Standing) -> Plan:
    # Read without what the source has of the tables, as whoever replicates will read it.
    assert validated.rules is not None and validated.seen is not None, "it has been validated with its source"
    rules = parse_rules(validated.rules.text, validated.file)
    number = known.sets[0].id + 1 if known.sets else 1
    active = known.active
    before = active.versions if active is not None else None
    versions = versions_of(rules, number, before)
    new = only_new(versioned(rules, versions), versions, number)
    names = new.table_names()
    tables = [one for one in validated.seen.tables if any(name.matches(*one.where) for name in names)]
    becomes = dict(_becomes(before, versions))
    plan = Plan(number, rules, becomes, new, tuple(tables), None if active is None else active.id)
    _refuse(plan, validated)
    return plan


def _becomes(before: Versions | None, after: Versions) -> Iterator[tuple[str, Becomes]]:
    known = {} if before is None else before.definitions
    for name, one in after.definitions.items():
        if name not in known:
            yield name, "new"
        else:
            yield name, "kept" if known[name].version == one.version else "changed"
    for name in known:
        if name not in after.definitions:
            yield name, "dropped"


def _refuse(plan: Plan, validated: Validated) -> None:
    """Refuse what whoever replicates would refuse a moment later."""
    seen = validated.seen
    assert seen is not None, "it has been validated with its source"
    _refuse_missing(plan, validated)
    names = {str(name) for name in plan.new.table_names()}
    missing = [name for name in seen.missing if name in names]
    if missing and plan.beside is not None:
        what = f"the source has no table {', '.join(missing)}"
        raise ReplicatorError(what, "What is in force goes on. Nothing was deployed.")
    unpublished = [table.label for table in plan.tables if not table.is_published]
    if unpublished:
        raise ReplicatorError(
            f"{', '.join(unpublished)}: not in publication {validated.publication}",
            "`replicator publication plan --rules FILE` says how to add it. Nothing was deployed.",
        )


def _refuse_missing(plan: Plan, validated: Validated) -> None:
    """Refuse what is not there, by the place that names it; what is kept names what it has named before."""
    kept = tuple(f"{name}." for name, becomes in plan.becomes.items() if becomes == "kept")
    missing = [one for one in validated.warnings if one.is_missing and not one.key.startswith(kept)]
    if not missing or plan.beside is None:
        return
    first, more = missing[0], f"; and {len(missing) - 1} more like it" if len(missing) > 1 else ""
    raise ReplicatorError(
        f"{first.file}:{first.line}:{first.column}: {first.key}: {first.what}{more}",
        "What is in force goes on. Nothing was deployed.",
    )


async def carry_out(config: Config, plan: Plan, *, wait: bool) -> Outcome:
    """Deploy it, and watch until it is in force, or is not going to be."""
    schema, slot = config.storage.schema_name, config.source.slot
    async with connected(config.storage_dsn, "rules deploy", schema=schema) as storage:
        if not (await rows(storage, _q.has_begun, slot=slot))[0][0]:
            raise ReplicatorError(
                f"nothing has been replicated for slot {slot} yet",
                "The first `replicator run` deploys the file that the configuration names.",
            )
        made = await deploy.store(storage, slot, plan.rules, "command")
        found = made
        try:
            found = await _watched(storage, slot, made.id) if wait else await _told(storage, slot, made)
        finally:
            if found.state == "preparing" and wait:
                click.echo("this goes on without being watched; see: replicator rules list", err=True)
    return Outcome(found.id, found.state, found.why, plan.becomes)


async def _told(storage: Connection, slot: str, made: RuleSet) -> RuleSet:
    if await Missed(storage, slot).is_missed():
        click.echo("nothing is running for this slot: the next `replicator run` does it", err=True)
    return made


async def _watched(storage: Connection, slot: str, number: int) -> RuleSet:
    draw, missed = drawing(), Missed(storage, slot)
    try:
        while True:
            found = (await deploy.load(storage, slot)).by_id(number)
            assert found is not None, "the last sets are remembered"
            if found.state != "preparing":
                return found
            draw(await progress(storage, slot, number))
            if await missed.is_news():
                click.echo("waiting for `replicator run`: nothing is running for this slot", err=True)
            await asyncio.sleep(_LOOK_S)
    finally:
        draw([])


async def progress(storage: Connection, slot: str, number: int) -> Sequence[Reading]:
    """The tables that a set in preparation waits for."""
    return [Reading(*row) for row in await rows(storage, _q.progress, slot=slot, rules=number)]


async def listed(config: Config) -> tuple[Standing, dict[int, Sequence[Reading]]]:
    """Every set that is known, and how far the one in preparation has come."""
    schema, slot = config.storage.schema_name, config.source.slot
    async with connected(config.storage_dsn, "rules list", schema=schema) as storage:
        await check_migrated(storage, schema)
        known = await deploy.load(storage, slot)
        preparing = known.preparing
        if preparing is None:
            return known, {}
        return known, {preparing.id: await progress(storage, slot, preparing.id)}
