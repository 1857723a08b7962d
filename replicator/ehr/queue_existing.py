"""The rows a table had before it was mapped → jobs, once, beside the stream.

The log says what changes; what had been there before it says never. So of every mapping that is new, the
rows of its table are read in the order of their keys, and each becomes a job as if it had just been written:
but for those of which a job is known already, because since then the log has told every change of theirs.

All of them are changes at one position of the log, from before the first was read. Whatever was committed
before it can be seen by every reading; whatever was committed after it comes as a job of its own, and counts
as newer. So it does not matter which of the two is appended first.

A mapping that was taken out of the file and comes back has missed changes: then all its rows are queued, and
the record is told once more what it may know.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from typing import NamedTuple

from replicator import queries
from replicator.config import Config
from replicator.database import Connection, connected, pooled, rows
from replicator.ehr.job import Job, Jobs
from replicator.ehr.model import RecordMapping, Style, TableMapping
from replicator.ehr.queue import append
from replicator.ehr.queue_added import lane_id
from replicator.ehr.queue_extended import array_of
from replicator.ehr.queue_found import Finder
from replicator.ehr.queue_rebuilt import position_before
from replicator.errors import Unavailable
from replicator.marks import mark
from replicator.rules.columns.types import Types
from replicator.wal.lsn import Lsn
from replicator.wal.snapshot import Moved, Table, next_limit, read_chunk, read_tables
from replicator.wal.source import printing
from replicator.wal.transactions import Change, Kind
from replicator.wal.window import Chunk

_q = queries.load("feed")

#: How often is looked whether a table has been copied, or can be read.
_LOOK_S = 1.0
_FIRST_ROWS = 500


class Existing(NamedTuple):
    """How far the rows of one mapping have been queued."""

    #: The position they are changes at; None before that is known.
    at: Lsn | None
    #: The key of the last one.
    upto: tuple[str, ...] | None
    rows: int
    #: Raised whenever the table was emptied: what had been read before is not there any more.
    emptied: int
    #: Whether changes have passed while it was not mapped.
    is_behind: bool


async def note_mappings(storage: Connection, mapping: RecordMapping | None) -> None:
    """Before any change passes by: which mappings there are, and which there are not any more."""
    tables = mapping.tables.values() if mapping is not None else ()
    wanted = {table.name: table.deliver_existing for table in tables}
    await storage.execute(_q.note_mappings, {"names": list(wanted), "wanted": list(wanted.values())})


async def fill(config: Config, mapping: RecordMapping, types: Types) -> None:
    """Queue what was there before, mapping after mapping, until nothing is left. Then wait, for ever."""
    schema = config.storage.schema_name
    async with AsyncExitStack() as stack:
        storage = await stack.enter_async_context(connected(config.storage_dsn, "existing", schema=schema))
        if unfilled := [row[0] for row in await rows(storage, _q.unfilled)]:
            source = await stack.enter_async_context(connected(printing(config.source_dsn), "existing"))
            find = await stack.enter_async_context(pooled(printing(config.source_dsn), "find", most=1))
            place = Place(source, storage, config.source.publication, config.source.slot)
            for name in unfilled:
                await _Filler(place, mapping, mapping.tables[name], types, Finder(find)).run()
    await asyncio.Event().wait()


class Place(NamedTuple):
    """Where rows are read, and where jobs are kept."""

    source: Connection
    storage: Connection
    publication: str
    slot: str


class _Filler:
    """One mapping, whose rows are queued."""

    def __init__(
        self, place: Place, mapping: RecordMapping, table: TableMapping, types: Types, finder: Finder
    ) -> None:
        self._place, self._table, self._finder = place, table, finder
        # Others of the same table have rows of their own to queue, or none.
        alone = replace(mapping, tables={table.name: table})
        self._jobs = Jobs(alone, finder.find, {}, types)

    async def run(self) -> None:
        limit = _FIRST_ROWS
        while (known := await self._known()) is not None:
            if known.at is None:
                await self._begin()
                continue
            found = await self._find() if await self._is_copied() else None
            if found is None:
                await asyncio.sleep(_LOOK_S)
                continue
            with suppress(Moved):  # it is another table by now, or looks otherwise: it is looked at again
                chunk = await read_chunk(
                    self._place.source, self._place.publication, found, after=known.upto, limit=limit
                )
                await self._append(known, known.at, chunk)
                limit = next_limit(limit, chunk)

    async def _append(self, known: Existing, at: Lsn, chunk: Chunk) -> None:
        """Queue a chunk, unless the table was emptied, or somebody else has gone on, since `known` was so."""
        changes = [
            Change(Kind.INSERT, chunk.relation, None, row, known.rows + number)
            for number, row in enumerate(chunk.rows, 1)
        ]
        self._finder.forget()
        await self._finder.learn(self._jobs, changes, at)
        made = [job for change in changes for job in self._jobs.of(change, at)]
        storage, name, count = self._place.storage, self._table.name, known.rows + len(changes)
        before = {"mapping": name, "emptied": known.emptied, "before": known.rows}
        after = {"rows": count, "upto": list(chunk.last_key or known.upto or ()), "is_last": chunk.is_last}
        async with storage.transaction():
            if not await rows(storage, _q.advance_existing, **before, **after):
                return
            new = made if known.is_behind else await self._unknown(made)
            await append(storage, new)
        mark("existing rows", mapping=name, rows=count, jobs=len(new))
        if chunk.is_last:
            mark("existing queued", level=logging.INFO, mapping=name, rows=count)

    async def _unknown(self, made: Sequence[Job]) -> list[Job]:
        """Those of records of which no job has been made before."""
        asked = [job for job in made if job.composition is not None]
        values = {
            "compositions": array_of([str(job.composition) for job in asked]),
            "lanes": array_of([str(lane_id(job.lane)) for job in asked]),
            "keys": [job.key for job in asked],
            "patients": [job.patient for job in asked],
            "begun": next((job.begun for job in asked), None),
            "is_one": self._table.style is Style.EVENT,
        }
        found = (
            {row[0] for row in await rows(self._place.storage, _q.known_records, **values)}
            if asked
            else set()
        )
        known = {id(asked[at - 1]) for at in found}
        return [job for job in made if id(job) not in known]

    async def _known(self) -> Existing | None:
        """None once all of its rows are queued."""
        found = await rows(self._place.storage, _q.existing, mapping=self._table.name)
        if not found:
            return None
        at, upto, *rest = found[0]
        return Existing(None if at is None else Lsn.parse(at), None if upto is None else tuple(upto), *rest)

    async def _begin(self) -> None:
        try:
            at = await position_before(self._place.source)
        except Unavailable as error:
            mark("waiting", level=logging.WARNING, why=error.what, seconds=_LOOK_S)
            await asyncio.sleep(_LOOK_S)
            return
        await self._place.storage.execute(_q.begin_existing, {"mapping": self._table.name, "at": str(at)})

    async def _is_copied(self) -> bool:
        """Before that, the stream may leave out a change of a row that it does not know whole."""
        namespace, name = self._table.table.split(".", 1)
        values = {"slot": self._place.slot, "namespace": namespace, "name": name}
        return bool(await rows(self._place.storage, _q.is_copied, **values))

    async def _find(self) -> Table | None:
        namespace, name = self._table.table.split(".", 1)
        found = await read_tables(self._place.source, self._place.publication, [(namespace, name)])
        return found[0] if found else None
