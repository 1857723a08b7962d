"""A source database → who it is, and the state of its slot."""

from __future__ import annotations

import re
from typing import NamedTuple

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from replicator import queries
from replicator.database import Connection, dial, failure, rows
from replicator.dsn import describe_dsn
from replicator.errors import ReplicatorError, SourceUnready
from replicator.wal.lsn import Lsn

_q = queries.load("source")

#: What servers say to a role without REPLICATION; the second is how it was said before Postgres 16.
_MAY_NOT = re.compile("permission denied to start WAL sender|superuser or replication role")

#: How values are printed, wherever we read them: a row must look the same from the stream and from a copy.
PRINTING = {
    "client_encoding": "UTF8",
    "datestyle": "ISO",
    "intervalstyle": "postgres",
    "extra_float_digits": "3",
    "bytea_output": "hex",
    "timezone": "UTC",
    "statement_timeout": "0",
    # The stream has all rows: a policy that hides some from a copy has to refuse it instead.
    "row_security": "off",
}


class Identity(NamedTuple):
    """Whose log it is: positions mean something only within one system and timeline."""

    system_id: str
    timeline: int
    wal_lsn: Lsn


class Slot(NamedTuple):
    """One row of pg_replication_slots."""

    #: None, like the database, for one of a physical standby.
    plugin: str | None
    slot_type: str
    database: str | None
    active_pid: int | None
    restart_lsn: Lsn | None
    confirmed_lsn: Lsn | None
    wal_status: str | None


def printing(dsn: str) -> str:
    """The DSN with `PRINTING` among its settings."""
    given = conninfo_to_dict(dsn).get("options") or ""
    ours = " ".join(f"-c {name}={value}" for name, value in PRINTING.items())
    # What is said by its own name has more weight than options.
    return make_conninfo(dsn, options=f"{given} {ours}".strip(), client_encoding="UTF8")


async def identify(dsn: str) -> Identity:
    """Ask over the replication protocol, which knows the timeline even just after a promotion."""
    try:
        connection = await dial(make_conninfo(printing(dsn), replication="database", connect_timeout=10))
        async with connection:
            row = await (await connection.execute("IDENTIFY_SYSTEM")).fetchone()
    except psycopg.Error as error:
        raise _refusal(error, dsn) from error
    assert row is not None, "IDENTIFY_SYSTEM answers one row"
    return Identity(str(row[0]), int(row[1]), Lsn.parse(row[2]))


async def find_slot(source: Connection, name: str) -> Slot | None:
    """The slot of this name, if there is one."""
    found = await rows(source, _q.slot, slot=name)
    if not found:
        return None
    plugin, kind, database, pid, restart, confirmed, status = found[0]
    return Slot(plugin, kind, database, pid, _lsn(restart), _lsn(confirmed), status)


async def drop_slot(source: Connection, name: str) -> None:
    """Forget the slot: it is lost, or not the one it was."""
    await rows(source, _q.drop_slot, slot=name)


async def is_held_up(source: Connection, sender_pid: int) -> bool:
    """Whether our sender wants to end, and cannot, because we do not read what it says last.

    It waits for a client that is only slow in another place. Until it has ended, a checkpoint that gives up
    its slot does not go on, nor does a shutdown.
    """
    return bool((await rows(source, _q.is_held_up, pid=sender_pid))[0][0])


async def sender_timeout_s(source: Connection) -> float:
    """After how long without a word from us the source ends the stream; 0 for never."""
    return float((await rows(source, _q.sender_timeout_s))[0][0])


def _refusal(error: psycopg.Error, dsn: str) -> ReplicatorError:
    """Why there is no conversation. While connecting, libpq hands on the words, but no SQLSTATE."""
    if _MAY_NOT.search(str(error)):
        return SourceUnready(
            f"the role in {describe_dsn(dsn)} may not replicate",
            f'ALTER ROLE "{conninfo_to_dict(dsn).get("user", "…")}" REPLICATION;',
        )
    return failure(error, f"cannot identify {describe_dsn(dsn)}")


def _lsn(text: str | None) -> Lsn | None:
    return None if text is None else Lsn.parse(text)
