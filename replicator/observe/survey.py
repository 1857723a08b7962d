"""A configuration → what its source says of itself at one moment, without changing or locking anything."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

import psycopg

from replicator import queries
from replicator.config import Config
from replicator.database import Connection, connected, rows
from replicator.errors import ReplicatorError
from replicator.wal.catalogue import Catalogue, Need, meant, read_catalogue
from replicator.wal.slots import Blocker, SlotState, read_blockers, read_slots
from replicator.wal.source import Identity, identify

_q = queries.load("check")

#: Statistics that began less than this ago say nothing about a day.
_WINDOW_S = 60.0
#: Holding back vacuum for longer than this is worth a word.
HOLDING_S = 3600.0

SETTINGS = (
    "wal_level",
    "max_replication_slots",
    "max_wal_senders",
    "wal_sender_timeout",
    "max_slot_wal_keep_size",
    "idle_replication_slot_timeout",
    "synchronized_standby_slots",
    "hot_standby_feedback",
)


@dataclass(frozen=True, slots=True)
class Server:
    """One Postgres, as the connecting role sees it."""

    #: 160014, and what it calls itself.
    version: int
    release: str
    role: str
    database: str
    is_standby: bool
    #: Whether something between us and the server deals out its connections.
    is_pooled: bool
    #: Whether the role may see how long others' transactions have run.
    sees_others: bool
    senders_used: int
    #: rds, cloudsql, azure, alloydb; None where the DBA has the server to themselves.
    provider: str | None
    #: As pg_settings says them, in its units; what this version does not have is not in here.
    settings: dict[str, str]
    #: Those that have a new value, which waits for a restart.
    pending: frozenset[str]


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast the log grows."""

    bytes_per_s: float
    #: Over how long this was observed.
    seconds: float


@dataclass(frozen=True, slots=True)
class Survey:
    """Everything looked at on the source."""

    server: Server
    #: What is wanted, with the tables for which names that end in `%` stand.
    needs: tuple[Need, ...]
    catalogue: Catalogue
    slots: tuple[SlotState, ...]
    writers: tuple[Blocker, ...]
    holders: tuple[Blocker, ...]
    pace: Pace | None
    #: Which cluster, and the oid of the database in it; None where that is hidden.
    place: tuple[str, str] | None
    #: What a replication connection answered.
    identity: Identity | ReplicatorError

    def slot(self, name: str) -> SlotState | None:
        return next((slot for slot in self.slots if slot.name == name), None)


async def survey(config: Config, needs: Sequence[Need], *, sample_s: float) -> Survey:
    """Look, for some milliseconds, or for `sample_s` to observe the pace of the log.

    Otherwise that is the average since the server's statistics began: some seconds of a quiet clinic, or of a
    busy one, say less about a day.
    """
    async with connected(config.source_dsn, "check") as source:
        began, position = time.monotonic(), await _position(source)
        async with source.transaction():
            await be_harmless(source)
            server = await read_server(source)
            needs = await meant(source, needs, config.storage.schema_name)
            catalogue = await read_catalogue(
                source, config.source.publication, needs, server.role, config.storage.schema_name
            )
            ours = (source.info.backend_pid,)
            slots = tuple(await read_slots(source))
            writers = tuple(await read_blockers(source, ours))
            holders = tuple(await _holders(source))
            pace = await _pace_so_far(source)
            place = await read_place(source)
        identity = await _identify(config.source_dsn)
        if sample_s > 0:
            await asyncio.sleep(max(0.0, began + sample_s - time.monotonic()))
            seconds = time.monotonic() - began
            pace = Pace((await _position(source) - position) / seconds, seconds)
    return Survey(server, tuple(needs), catalogue, slots, writers, holders, pace, place, identity)


async def be_harmless(connection: Connection) -> None:
    """At the head of a transaction; gone with it, also where a pooler lends the connection to others."""
    await connection.execute("SET TRANSACTION READ ONLY")
    await connection.execute("SET LOCAL statement_timeout = '5s'")
    await connection.execute("SET LOCAL lock_timeout = '1s'")


async def read_server(connection: Connection) -> Server:
    """The server at the other end."""
    version, release, role, database, standby, pid, sees, senders, provider = (
        await rows(connection, _q.server)
    )[0]
    found = await rows(connection, _q.settings, names=list(SETTINGS))
    return Server(
        version,
        release.split()[0],
        role,
        database,
        standby,
        # A pooler hands out process numbers of its own.
        pid != connection.info.backend_pid,
        sees,
        senders,
        provider,
        {name: setting for name, setting, _ in found},
        frozenset(name for name, _, is_pending in found if is_pending),
    )


async def read_place(connection: Connection) -> tuple[str, str] | None:
    """Which cluster, and which database of it, if we may know."""
    try:
        async with connection.transaction():
            cluster, database = (await rows(connection, _q.system))[0]
    except psycopg.errors.InsufficientPrivilege:
        return None
    return cluster, database


async def _holders(source: Connection) -> list[Blocker]:
    found = await rows(source, _q.holders, seconds=HOLDING_S)
    return [Blocker(pid, name or kind, state or "", age_s) for pid, name, kind, state, age_s in found]


async def _pace_so_far(source: Connection) -> Pace | None:
    written, seconds = (await rows(source, _q.wal_written))[0]
    return Pace(written / seconds, seconds) if seconds is not None and seconds >= _WINDOW_S else None


async def _position(source: Connection) -> int:
    position: int = (await rows(source, _q.position))[0][0]
    return position


async def _identify(dsn: str) -> Identity | ReplicatorError:
    try:
        return await identify(dsn)
    except ReplicatorError as error:
        return error
