"""A rules file × the sets that were deployed → the rules to replicate by, and those to prepare beside."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from replicator.buckets import deploy
from replicator.buckets.deploy import RuleSet, Standing
from replicator.buckets.read import position
from replicator.database import Connection
from replicator.errors import ReplicatorError
from replicator.marks import mark
from replicator.rules.digest import basis_of
from replicator.rules.model import Rules
from replicator.rules.parse import parse_rules
from replicator.rules.versions import only_new, versioned


@dataclass(frozen=True, slots=True)
class Force:
    """What is replicated, with every name in its version."""

    #: The set in force; where none has been yet, the one that is prepared as the first.
    rules: Rules
    #: What is new in the set that is prepared beside it.
    beside: Rules | None
    active: int | None
    preparing: int | None

    #: All of the set that is prepared beside it.
    next: Rules | None = None

    @property
    def tables(self) -> tuple[tuple[str, str], ...]:
        new = self.beside.tables() if self.beside is not None else ()
        return tuple(sorted({*self.rules.tables(), *new}))

    @property
    def kept(self) -> tuple[tuple[str, str], ...] | None:
        """The tables of the set in force, if another one is prepared beside it."""
        return None if self.beside is None else self.rules.tables()

    @property
    def new(self) -> tuple[tuple[str, str], ...]:
        """The tables that what is new reads."""
        return () if self.beside is None else self.beside.tables()


class Configured:
    """The rules file that the configuration names, as it was when this process began."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        #: A file that could not be deployed is tried once more by each process.
        self._is_fresh = True
        self._told: int | None = None

    def renew(self, rules: Rules) -> None:
        """The file has been read again; also one that could not be deployed is tried again."""
        self.rules, self._is_fresh = rules, True

    async def names(self, storage: Connection, slot: str) -> tuple[tuple[str, str], ...]:
        """The tables that must be there for anything to begin: those of the set in force, or of the file."""
        now = await deploy.load(storage, slot)
        first = now.active or (now.preparing if self._to_deploy(now) is None else None)
        return (self.rules if first is None else _read(first)).tables()

    async def take(self, storage: Connection, slot: str) -> Force:
        """What to replicate from here on, with the file deployed if it is not the one that was."""
        now = await deploy.load(storage, slot)
        again = self._to_deploy(now)
        self._is_fresh = False
        if again is not None:
            rules, origin = again
            made = await deploy.store(storage, slot, rules, origin)
            mark("rules deployed", level=logging.INFO, rules=made.id, origin=origin)
            now = await deploy.load(storage, slot)
        force = await self._force(storage, slot, now)
        if force.active is not None and force.active != self._told:
            self._told = force.active
            mark("rules in force", level=logging.INFO, rules=force.active)
        return force

    def _to_deploy(self, now: Standing) -> tuple[Rules, str] | None:
        """The file, if it has been changed or could not be deployed; or what a release reads otherwise."""
        configured, active = now.configured, now.active
        if configured is None or configured.content != self.rules.text:
            return self.rules, "config"
        if now.preparing is not None:
            return None
        if active is None:
            return self.rules, "config"
        if self._is_fresh and now.sets[0] == configured and configured.state == "failed":
            return self.rules, "config"
        read = _read(active)
        return (read, active.origin) if basis_of(read.dialect) != active.versions.basis else None

    async def _force(self, storage: Connection, slot: str, now: Standing) -> Force:
        active, preparing = now.active, now.preparing
        if preparing is None:
            assert active is not None, "where none is in force, one is prepared"
            return Force(_versioned(active), None, active.id, None)
        if await deploy.begin(storage, slot, preparing, is_first=active is None):
            mark("rules begun", rules=preparing.id)
        rules = _versioned(preparing)
        if active is None:
            return Force(rules, None, None, preparing.id)
        new = only_new(rules, preparing.versions, preparing.id)
        return Force(_versioned(active), new, active.id, preparing.id, rules)


async def of_number(storage: Connection, slot: str, number: int) -> tuple[Rules, str]:
    """A set by its number, with every name in its version; and its text."""
    found = (await deploy.load(storage, slot)).by_id(number)
    if found is None:
        raise ReplicatorError(
            f"rules {number} are not stored any more", "Run the replicator, which deploys its file."
        )
    return _versioned(found), found.content


async def shown(storage: Connection, slot: str) -> Rules | None:
    """The set in force at what readers see, with every name in its version; None before there is one."""
    stands = await position(storage, slot)
    if stands is None or stands.shown_rules is None:
        return None
    return (await of_number(storage, slot, stands.shown_rules))[0]


def _versioned(one: RuleSet) -> Rules:
    return versioned(_read(one), one.versions)


def _read(one: RuleSet) -> Rules:
    try:
        return parse_rules(one.content, f"rules {one.id}")
    except ReplicatorError as error:
        raise ReplicatorError(
            f"rules {one.id}, which were deployed at {one.stored_at:%Y-%m-%d %H:%M}, cannot be read by this "
            f"release: {error.what}",
            "Run the release that deployed them; or change the file that the configuration names.",
        ) from error
