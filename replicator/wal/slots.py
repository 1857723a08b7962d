"""A server's replication slots → what each holds back; a new slot, or the name of who is in its way.

A slot can be made only at a moment the server knows every running transaction; so making one waits until all
that were writing when it began have ended, in any database of the server. A forgotten session can hold it up
for days. We wait so long and no longer, say who it was, and cancel, which leaves no trace.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from psycopg import sql

from replicator import queries
from replicator.database import Connection, rows
from replicator.errors import ConfigError, SlotBlocked, SourceUnready
from replicator.wal.lsn import Lsn

_q = queries.load("slots")

#: The first version whose slots can follow a promotion.
FAILS_OVER = 170000
#: Waiting longer than this deserves a word.
_PATIENCE_S = 2.0


class SlotState(NamedTuple):
    """A slot, as pg_replication_slots and pg_stat_activity show it."""

    name: str
    #: One that sends changes; the others keep log for a standby, and have neither plugin nor database.
    is_logical: bool
    plugin: str | None
    database: str | None
    is_temporary: bool
    active_pid: int | None
    #: Of the session that reads it; None if it is hidden, or nobody does.
    active_application: str | None
    #: reserved, extended, unreserved or lost; None before it has reserved anything.
    wal_status: str | None
    #: What the source has written since the position its reader has confirmed.
    lag_bytes: int | None
    #: What the source keeps for it.
    kept_bytes: int | None
    #: How much more can be written before it is lost; None where there is no limit.
    safe_bytes: int | None
    restart_lsn: Lsn | None
    confirmed_lsn: Lsn | None
    #: None before 17.
    failover: bool | None
    inactive_since: str | None
    invalidation_reason: str | None


class Blocker(NamedTuple):
    """An open transaction: whose, since when. Never what it says."""

    #: None for one that was prepared, and belongs to no session.
    pid: int | None
    application: str
    state: str
    #: None where only pg_read_all_stats may know.
    age_s: float | None

    def __str__(self) -> str:
        who = f"pid {self.pid}" if self.pid else "prepared transaction"
        named = f" ({self.application})" if self.application else ""
        state = f", {self.state}" if self.state else ""
        age = f", open for {self.age_s:.0f} s" if self.age_s is not None else ""
        return f"{who}{named}{state}{age}"


async def read_slots(source: Connection) -> list[SlotState]:
    """Every slot of the server."""
    found = []
    for row in await rows(source, _q.slots):
        head, (restart, confirmed), tail = row[:11], row[11:13], row[13:]
        found.append(SlotState._make((*head, _lsn(restart), _lsn(confirmed), *tail)))
    return found


async def find_slot(source: Connection, name: str) -> SlotState | None:
    """The slot of this name, if there is one."""
    return next((slot for slot in await read_slots(source) if slot.name == name), None)


async def read_blockers(source: Connection, but: tuple[int, ...] = ()) -> list[Blocker]:
    """Who writes at this moment, anywhere on the server, the longest first."""
    found = [
        Blocker(pid, application or kind, state or "", age_s)
        for pid, application, kind, state, age_s, _ in await rows(source, _q.writers, but=list(but))
    ]
    prepared = await rows(source, _q.prepared)
    return found + [
        Blocker(None, f"{gid!r} of {owner} in {name}", "", age) for gid, owner, name, age in prepared
    ]


async def create_slot(
    source: Connection,
    watcher: Connection,
    name: str,
    *,
    failover: bool,
    timeout_s: float,
    waiting: Callable[[list[Blocker]], None],
) -> Lsn:
    """Make the slot; every commit after the position it answers will be sent.

    `watcher` is a second connection, to see who is in the way; `waiting` is told of them once.
    """
    version = source.info.server_version
    if failover and version < FAILS_OVER:
        raise ConfigError(
            f"the source is Postgres {version // 10000}, whose slots cannot follow a promotion",
            "Leave out --failover; slots can from Postgres 17 on.",
        )
    if await find_slot(source, name) is not None:
        raise SourceUnready(f"slot {name} exists already", "See: replicator slot list")
    ours = (source.info.backend_pid,)
    making = asyncio.create_task(_make(source, name, failover))
    try:
        done, _ = await asyncio.wait({making}, timeout=min(_PATIENCE_S, timeout_s))
        if not done:
            waiting(await read_blockers(watcher, ours))
            done, _ = await asyncio.wait({making}, timeout=max(0, timeout_s - _PATIENCE_S))
        blockers = [] if done else await read_blockers(watcher, ours)
    finally:
        # Cancelling the task cancels the statement on the server, too, and waits for that.
        making.cancel()
        await asyncio.wait({making})
    if not making.cancelled():
        return making.result()
    # It may have been made in the very moment it was cancelled.
    made = await find_slot(watcher, name)
    if made is None or made.confirmed_lsn is None:
        raise _gave_up(name, timeout_s, blockers)
    return made.confirmed_lsn


async def _make(source: Connection, name: str, failover: bool) -> Lsn:
    await source.execute("SET statement_timeout = 0")
    # The argument is unknown before 17, so this cannot stand in sql/.
    call = sql.SQL("SELECT lsn::text FROM pg_catalog.pg_create_logical_replication_slot({}, 'pgoutput'{})")
    asked = sql.SQL(", failover => true" if failover else "")
    row = await (await source.execute(call.format(sql.Literal(name), asked))).fetchone()
    assert row is not None, "the function answers one row"
    return Lsn.parse(row[0])


def _gave_up(name: str, timeout_s: float, blockers: list[Blocker]) -> SlotBlocked:
    lines = [str(blocker) for blocker in blockers] or ["nobody is to be seen: try again"]
    return SlotBlocked(
        f"slot {name} could not be made within {timeout_s:g} s: open transactions are in its way",
        "It can be made when these have ended, by themselves or by pg_terminate_backend(pid); a prepared one "
        "by COMMIT PREPARED or ROLLBACK PREPARED. Nothing was left behind.\n" + "\n".join(lines),
    )


async def require_droppable(source: Connection, name: str) -> SlotState:
    """The slot, unless it is in use, or not for logical changes."""
    found = await find_slot(source, name)
    if found is None:
        raise SourceUnready(f"there is no slot {name}", "See: replicator slot list")
    if not found.is_logical:
        raise SourceUnready(f"slot {name} belongs to a physical standby", "It is not ours to drop.")
    if found.active_pid is not None:
        application = f" ({found.active_application})" if found.active_application else ""
        raise SourceUnready(
            f"slot {name} is being read by pid {found.active_pid}{application}",
            "Stop that replicator first; a slot in use cannot be dropped.",
        )
    return found


async def drop_slot(source: Connection, name: str) -> None:
    """End a slot; refuses one that is in use, or that is not for logical changes."""
    await require_droppable(source, name)
    await rows(source, _q.drop_slot, slot=name)


def _lsn(text: str | None) -> Lsn | None:
    return None if text is None else Lsn.parse(text)
