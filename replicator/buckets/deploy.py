"""Sets of rules ↔ `rule_sets`: the one in force, the one that is built beside it, and the switch.

A set is stored as `preparing`, is made part of what is replicated by whoever replicates, and is put in
force in the transaction that stores the last row it waited for; the one before it is retired in the same.
Readers go by the set that was in force at the checkpoint they are shown.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from psycopg.rows import TupleRow

from replicator import queries
from replicator.database import Connection, rows
from replicator.rules.model import Rules
from replicator.rules.versions import Versions, versions_of
from replicator.wal.window import Key

_q = queries.load("deploy")
_buckets = queries.load("buckets")

#: Runs one statement in the transaction that is open, and answers its rows.
Execute = Callable[[bytes], Awaitable[list[TupleRow]]]


class RuleSet(NamedTuple):
    """One set that was deployed."""

    id: int
    content: str
    origin: str
    state: str
    why: str | None
    versions: Versions
    stored_at: datetime
    begun_at: datetime | None
    active_at: datetime | None
    ended_at: datetime | None
    cleaned_at: datetime | None


@dataclass(frozen=True, slots=True)
class Standing:
    """Every set that is known, the newest first."""

    sets: tuple[RuleSet, ...]

    @property
    def active(self) -> RuleSet | None:
        return next((one for one in self.sets if one.state == "active"), None)

    @property
    def preparing(self) -> RuleSet | None:
        return next((one for one in self.sets if one.state == "preparing"), None)

    @property
    def configured(self) -> RuleSet | None:
        """The newest that the configuration named."""
        return next((one for one in self.sets if one.origin == "config"), None)

    def by_id(self, number: int) -> RuleSet | None:
        return next((one for one in self.sets if one.id == number), None)


@dataclass(slots=True)
class RuleCopy:
    """How far a table has been read for what is new in a set."""

    oid: int
    state: str
    copied_to: Key | None
    rows_copied: int
    rows_expected: int

    @property
    def is_copied(self) -> bool:
        return self.state == "copied"


async def load(storage: Connection, slot: str) -> Standing:
    found = await rows(storage, _q.sets, slot=slot)
    made = [RuleSet(*row)._replace(versions=Versions.from_json(row[5])) for row in found]
    return Standing(tuple(made))


async def standing(storage: Connection, slot: str) -> tuple[int | None, int | None]:
    """The number of the set in force, and of the one that is being prepared."""
    active, preparing = (await rows(storage, _q.standing, slot=slot))[0]
    return active, preparing


async def named_in_force(storage: Connection, slot: str, bucket: str) -> str:
    """A bucket's name with its version, also where a person has left that out, as the rules do."""
    active = (await load(storage, slot)).active
    name, bracket, values = bucket.partition("[")
    for versioned in () if active is None else active.versions.buckets():
        if versioned.partition("#")[2] == name:
            return f"{versioned}{bracket}{values}"
    return bucket


async def store(storage: Connection, slot: str, rules: Rules, origin: str) -> RuleSet:
    """A new set, to be prepared; one that is being prepared gives way to it."""
    async with storage.transaction():
        await storage.execute(_q.lock)
        known = await load(storage, slot)
        number = known.sets[0].id + 1 if known.sets else 1
        versions = versions_of(rules, number, None if known.active is None else known.active.versions)
        await storage.execute(_q.replace, {"slot": slot, "id": number})
        values = {"content": rules.text, "origin": origin, "versions": json.dumps(versions.as_json())}
        await storage.execute(_q.store, {"slot": slot, "id": number, **values})
    made = (await load(storage, slot)).by_id(number)
    assert made is not None, "it has just been stored"
    return made


async def begin(storage: Connection, slot: str, preparing: RuleSet, *, is_first: bool) -> bool:
    """Make a set part of what is replicated; False if it has been.

    Where none is in force, nothing that is stored is of use to it: every table is copied, for everybody.
    """
    async with storage.transaction():
        begun = await rows(storage, _q.begin, slot=slot, rules=preparing.id)
        if begun and is_first:
            await storage.execute(_buckets.want_all, {"slot": slot})
    return bool(begun)


async def fail(storage: Connection, slot: str, number: int, why: str) -> bool:
    """The set cannot be prepared. The one in force stays."""
    return bool(await rows(storage, _q.fail, slot=slot, rules=number, why=why))


async def give_up(storage: Connection, slot: str, why: str) -> int | None:
    """Go on by the set in preparation alone, because the one in force cannot be followed any more.

    As where none has been in force: every table is copied for everybody, and the set is put in force with the
    last of them. Until then readers see what they saw, by the rules that they saw it by. Answers its number.
    """
    async with storage.transaction():
        await storage.execute(_q.lock)
        active, preparing = await standing(storage, slot)
        if active is None or preparing is None:
            return None
        await storage.execute(_q.give_up, {"slot": slot, "rules": preparing, "why": why})
        await storage.execute(_q.forget_copies, {"slot": slot, "rules": preparing})
        await storage.execute(_q.free_tables, {"slot": slot})
        await storage.execute(_buckets.want_all, {"slot": slot})
    return preparing


async def put_in_force(execute: Execute) -> bool:
    """Switch to the set that is being prepared, if it is ready; in the transaction that is open."""
    if not (await execute(_q.is_ready))[0][0]:
        return False
    await execute(_q.lock)
    if not (await execute(_q.is_ready))[0][0]:
        return False  # somebody has deployed another one a moment ago
    await execute(_q.retire)
    await execute(_q.put_in_force)
    await execute(_q.free_tables)
    return True


async def put_in_force_at_once(storage: Connection, slot: str, number: int) -> bool:
    """The same, in a transaction of its own, where nothing had to be copied."""
    values: dict[str, Any] = {"slot": slot, "rules": number}

    async def execute(query: bytes) -> list[TupleRow]:
        cursor = await storage.execute(query, values)
        return await cursor.fetchall() if cursor.description else []

    async with storage.transaction():
        return await put_in_force(execute)


async def copies(storage: Connection, slot: str, number: int) -> dict[int, RuleCopy]:
    """What is read once more for a set, by table."""
    found = [RuleCopy(*row) for row in await rows(storage, _q.copies, slot=slot, rules=number)]
    for copy in found:
        copy.copied_to = None if copy.copied_to is None else tuple(copy.copied_to)
    return {copy.oid: copy for copy in found}


async def want_copy(storage: Connection, slot: str, number: int, copy: RuleCopy) -> None:
    """A table to be read once more for a set, or not, because its copy for everybody does that as well."""
    values = {"oid": copy.oid, "state": copy.state, "rows": copy.rows_expected}
    await storage.execute(_q.want_copy, {"slot": slot, "rules": number, **values})


async def set_for(storage: Connection, slot: str, oid: int, for_rules: int | None) -> None:
    """Whether only a set in preparation reads this table."""
    await storage.execute(_q.set_for, {"slot": slot, "oid": oid, "for_rules": for_rules})
