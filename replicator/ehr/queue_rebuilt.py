"""The rows that mapped tables have now → jobs, as if each had just been written.

For a record system that begins empty, or has lost what no finished job is left of. Each job is a change at
one position of the source's log: everything committed before it can be seen, and everything after it comes,
or has come, as a job of its own, and counts as newer. So whichever of them is delivered first, the record
ends with the newer one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from psycopg import sql

from replicator import queries
from replicator.database import Connection, rows
from replicator.ehr.deliver_read import texts_of
from replicator.ehr.job import Jobs
from replicator.ehr.queue import Feed, Meanings
from replicator.ehr.queue_found import Finder
from replicator.ehr.queue_noted import note_manners
from replicator.errors import ConfigError, Unavailable
from replicator.marks import mark
from replicator.wal.lsn import Lsn
from replicator.wal.messages import Column, Relation
from replicator.wal.transactions import Change, Kind

_q = queries.load("queue")

#: So many rows are read, and appended in one transaction.
_ROWS = 2000
#: Transactions that were open when we began are waited for so long.
_OPEN_S = 60.0


async def rebuild(
    storage: Connection,
    source: Connection,
    jobs: Jobs,
    finder: Finder,
    tables: Sequence[str],
    who: str,
    why: str,
) -> int:
    """Queue every row of these mapped tables, or of all; how many jobs that came to."""
    known = {table.table for table in jobs.mapping.tables.values()}
    if unknown := [name for name in tables if name not in known]:
        raise ConfigError(f"{unknown[0]}: not a mapped table", f"There are {', '.join(sorted(known))}.")
    at = await position_before(source)
    meant = [name for name, table in jobs.mapping.tables.items() if table.table in (tables or known)]
    noted = await note_manners(storage, jobs.mapping)
    await storage.execute(_q.forget_mappings, {"mappings": meant})
    meanings, count = Meanings(jobs, finder, noted), 0
    async with source.transaction():
        await source.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        for name in sorted(tables or known):
            async for changes in _read(source, name, count):
                feed = Feed(meanings)
                await feed.add(changes, at)
                async with storage.transaction():
                    await feed.send(storage)
                feed.kept()
                count += len(changes)
                mark("rebuilding", table=name, rows=count)
    said = {"who": who, "action": "rebuild", "why": why, "lanes": [None], "seqs": [None]}
    await storage.execute(
        _q.audit, {**said, "mappings": [", ".join(tables) or "all"], "keys": [f"{count} rows"]}
    )
    return count


async def position_before(source: Connection) -> Lsn:
    """A position before which every commit is visible to whoever looks from now on."""
    ((lsn, newest),) = await rows(source, _q.position_and_newest)
    try:
        async with asyncio.timeout(_OPEN_S):
            # A commit is in the log a moment before it can be seen; with a synchronous standby, much longer.
            while not (await rows(source, _q.are_over, newest=newest))[0][0]:
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise Unavailable(
            f"transactions of the source have been open for more than {_OPEN_S:g} s",
            "End them, or wait for them, and try again. Nothing was queued.",
        ) from None
    # One byte before: at the position itself the next commit may stand.
    return Lsn(Lsn.parse(lsn) - 1)


async def _read(source: Connection, name: str, ordinal: int) -> AsyncIterator[list[Change]]:
    """All rows of a table, in parts, as changes that insert them."""
    schema, table = name.split(".", 1)
    query = sql.SQL("DECLARE rebuilt CURSOR FOR SELECT * FROM {}").format(sql.Identifier(schema, table))
    await source.execute(query)
    while True:
        found = (await source.execute(f"FETCH {_ROWS} FROM rebuilt".encode())).pgresult
        assert found is not None, "FETCH answers with rows"
        names, values = texts_of(found)
        if not values:
            break
        columns = tuple(Column(column, found.ftype(at), -1, False) for at, column in enumerate(names))
        relation = Relation(0, schema, table, "f", columns)
        yield [
            Change(Kind.INSERT, relation, None, tuple(row), ordinal + number)
            for number, row in enumerate(values, 1)
        ]
        ordinal += len(values)
    await source.execute(b"CLOSE rebuilt")
