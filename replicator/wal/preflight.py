"""A source → nothing, or the first thing that must be mended before anything is begun.

Asked before a slot is made: one that is made and then not read would keep the source's log for nothing.
`replicator check` looks at much more, and at everything at once.
"""

from __future__ import annotations

from collections.abc import Sequence

from replicator import queries
from replicator.database import Connection, rows
from replicator.errors import SourceUnready
from replicator.wal.names import like, qualify, quote
from replicator.wal.snapshot import Table, read_tables
from replicator.wal.source import Slot

_q = queries.load("source")
_copy = queries.load("copy")


async def require_ready(
    source: Connection, publication: str, wanted: Sequence[tuple[str, str]], storage_schema: str
) -> None:
    """Refuse a server that does not log what we need, and a publication that lacks a table of the rules."""
    level = (await rows(source, _q.wal_level))[0][0]
    if level != "logical":
        raise SourceUnready(
            f"the source's wal_level is {level}: its log does not say which rows changed",
            "ALTER SYSTEM SET wal_level = logical;  -- and restart the server",
        )
    await require_publication(source, publication, wanted)
    there = await read_tables(source, publication, wanted)
    await find_missing(source, publication, wanted, there, storage_schema)


async def require_ours(source: Connection, name: str, slot: Slot) -> None:
    """Refuse a slot that has the name of ours, and sends something else, or from somewhere else."""
    here = source.info.dbname
    if slot.slot_type != "logical":
        what = "belongs to a physical standby"
    elif slot.database != here:
        what = f"belongs to the database {slot.database}, and the source is {here}"
    elif slot.plugin != "pgoutput":
        what = f"sends its changes as {slot.plugin} prints them, not as pgoutput"
    else:
        return
    raise SourceUnready(
        f"slot {name} {what}",
        "Name another under source.slot; each replicator has one of its own, which it makes itself.",
    )


def require_unread(name: str, slot: Slot) -> None:
    """Refuse to begin with a slot that somebody else reads, or whose log is gone."""
    if slot.active_pid is not None:
        raise SourceUnready(
            f"slot {name} is being read by pid {slot.active_pid}, and nothing of it is stored here",
            "Name another under source.slot, or stop who reads this one (pg_stat_replication shows who).",
        )
    if slot.wal_status == "lost" or slot.confirmed_lsn is None:
        raise SourceUnready(
            f"slot {name} has lost its log, or never had any, and nothing of it is stored here",
            f"Nothing is lost with it: replicator slot drop {name} --yes",
        )


async def require_publication(
    source: Connection, publication: str, wanted: Sequence[tuple[str, str]]
) -> None:
    """Refuse a source without the publication."""
    if (await rows(source, _q.has_publication, publication=publication))[0][0]:
        return
    tables = ", ".join(qualify(*name) for name in wanted)
    raise SourceUnready(
        f"the source has no publication {publication} (source.publication)",
        f"CREATE PUBLICATION {quote(publication)} FOR TABLE {tables};",
    )


async def find_missing(
    source: Connection,
    publication: str,
    wanted: Sequence[tuple[str, str]],
    found: Sequence[Table],
    storage_schema: str,
) -> list[str]:
    """Tables of the rules that do not exist; refuses one that does, and is not published: a silent gap."""
    published = {(table.relation.namespace, table.relation.name) for table in found}
    missing = []
    for namespace, name in wanted:
        if (namespace, name) in published:
            continue
        is_exact = not (namespace.endswith("%") or name.endswith("%"))
        there = await rows(
            source,
            _copy.tables_like,
            namespace=like(namespace),
            name=like(name),
            is_exact=is_exact,
            storage_schema=storage_schema,
        )
        unpublished = [qualify(*table) for table in there if tuple(table) not in published]
        if unpublished:
            await require_publication(source, publication, wanted)
            raise SourceUnready(
                f"table {unpublished[0]} is in the rules, but not in publication {publication}",
                f"ALTER PUBLICATION {quote(publication)} ADD TABLE {', '.join(unpublished)};",
            )
        if not there:
            missing.append(qualify(namespace, name))
    return missing
