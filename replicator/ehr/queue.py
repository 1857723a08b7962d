"""Jobs → the queue, in the storage transaction that advances the checkpoint.

A lane is a patient's, and is known by a hash of its name: nobody has to be asked for a number. Its jobs are
counted in its own row, which is taken before they get their numbers and kept until the commit. So in each
lane numbers become visible in their order, whoever appends: the writer, or an operator who replays.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from replicator import queries
from replicator.database import Connection, rows
from replicator.ehr.identity import ChangeId
from replicator.ehr.job import Job, Jobs, Operation
from replicator.ehr.model import RecordMapping, TableMapping
from replicator.ehr.queue_added import Added
from replicator.ehr.queue_extended import Stored, extend
from replicator.ehr.queue_inserted import Insertion, Write, insertion
from replicator.ehr.queue_manners import of_table
from replicator.ehr.queue_noted import note
from replicator.wal.lsn import Lsn
from replicator.wal.messages import Relation
from replicator.wal.transactions import Change, Kind

if TYPE_CHECKING:
    from replicator.ehr.queue_found import Finder

_q = queries.load("queue")
_feed = queries.load("feed")

#: So much is kept back in memory: more than a batch of small transactions comes to.
_HELD_BYTES = 32 << 20
#: Looked up once: an Enum's member takes longer to find than a row to pass.
_INSERT = Kind.INSERT


class Known(NamedTuple):
    """What a change of a table may mean."""

    relation: Relation
    is_concerned: bool
    insertion: Insertion | None


class Meanings:
    """A mapping, and what the tables it has met may mean: for one feed after another."""

    def __init__(self, jobs: Jobs, finder: Finder | None = None, noted: Collection[int] = ()) -> None:
        """`noted`: the numbers of manners that storage has."""
        self.jobs, self.finder, self.stored = jobs, finder, Stored(noted)
        #: By oid.
        self._known: dict[int, Known] = {}

    def of(self, relation: Relation) -> Known:
        known = self._known.get(relation.oid)
        if known is None or known.relation is not relation:
            name = f"{relation.namespace}.{relation.name}"
            made = insertion(self.jobs.mapping, name, relation.columns)
            is_concerned = self.jobs.concern(relation.namespace, relation.name)
            known = self._known[relation.oid] = Known(relation, is_concerned, made)
        return known


class Emptied(NamedTuple):
    """All that was fed of a mapping has ended, or its parts have."""

    table: TableMapping
    operation: Operation
    at: ChangeId


class Feed:
    """The jobs of one storage transaction, made as its changes pass and appended when it is committed.

    Those of a large transaction do not stay in memory; they go into storage before, though into no lane yet.
    So do all those of one with a TRUNCATE, whose jobs are made there: only storage knows what was fed.
    """

    def __init__(self, meanings: Meanings) -> None:
        self._meanings = meanings
        if meanings.finder is not None:
            meanings.finder.forget()
        self._begin()
        #: What stands before those.
        self._before: list[Added | Emptied] = []
        #: What storage has as well, once these are committed.
        self._manners, self._lanes = set[int](), dict[int, int]()
        self._arrived = 0

    @property
    def is_full(self) -> bool:
        return self._added.bytes >= _HELD_BYTES or bool(self._before)

    async def add(self, changes: Sequence[Change], commit_lsn: Lsn) -> None:
        """Whole changes of one transaction, in order."""
        added, meanings = self._added, self._meanings
        if (finder := meanings.finder) is not None:
            await finder.learn(meanings.jobs, changes, commit_lsn)
        relation: Relation | None = None
        is_concerned, write = False, None
        after = iter(changes)
        change = next(after, None)
        while change is not None:
            if change.relation is not relation:
                relation = change.relation
                _, is_concerned, inserted = meanings.of(relation)
                write = None if inserted is None else self._writer(inserted)
            if write is not None and change.kind is _INSERT:
                met, change = change, write(change, after, commit_lsn)
                if change is not met:
                    continue
            if is_concerned and change.kind is Kind.TRUNCATE:
                truncated = ChangeId(commit_lsn, change.ordinal)
                self._before += [
                    added,
                    *(Emptied(*each, truncated) for each in meanings.jobs.emptied(change)),
                ]
                added = self._begin()
                relation = None
            elif is_concerned:
                made: Iterable[Job] = meanings.jobs.of(change, commit_lsn)
                for job in made if finder is None else finder.kept(meanings.jobs, made):
                    added.add(job)
            change = next(after, None)

    def _begin(self) -> Added:
        # What adds to jobs knows them, and they must not know it: they would stay until the collector comes.
        self._added, self._writers = Added(), dict[Insertion, Write]()
        return self._added

    def _writer(self, insertion: Insertion) -> Write:
        """What adds inserted rows to these jobs, without making one."""
        if (write := self._writers.get(insertion)) is None:
            write = self._writers[insertion] = insertion(self._added)
        return write

    async def spill(self, connection: Connection) -> None:
        """Let storage keep what is held, in its open transaction."""
        held, self._before = [*self._before, self._added], []
        self._begin()
        for each in held:
            if isinstance(each, Emptied):
                mapping = self._meanings.jobs.mapping
                self._arrived += await _arrive_emptied(connection, mapping, each, self._arrived)
            elif each:
                await note(connection, each.manners, self._meanings.stored.manners)
                self._manners.update(each.manners)
                await _copy(connection, _q.append_arrivals, each.counted(self._arrived))
                self._arrived += len(each)

    async def send(self, connection: Connection) -> None:
        """Append all of them, just before the commit."""
        if not self._arrived and not self._before:
            added = self._added
            self._begin()
            self._lanes = await _append(connection, added, self._meanings.stored)
            self._manners.update(added.manners)
            return
        await self.spill(connection)
        if not self._arrived:
            return
        await connection.execute(_q.take_in)
        await connection.execute(_q.clear_arrivals)
        await connection.execute(_q.tell)

    def kept(self) -> None:
        """What was sent is committed: others may go on with it."""
        self._meanings.stored.add(self._manners, self._lanes)


async def _arrive_emptied(
    connection: Connection, mapping: RecordMapping, emptied: Emptied, arrived: int
) -> int:
    table, operation, at = emptied
    await connection.execute(_feed.is_emptied, {"mapping": table.name})
    # Of what waits, some may be named as the mapping was before.
    begun = [None, *(row[0] for row in await rows(connection, _feed.begun, mapping=table.name))]
    manners = [of_table(mapping, table, operation)._replace(begun=each) for each in begun]
    await note(connection, {manner.id: manner for manner in manners})
    values = {
        "mapping": table.name,
        "manners": [manner.id for manner in manners],
        "begun": begun,
        "operation": operation.value,
        "lsn": str(at.commit_lsn),
        "ordinal": at.ordinal,
        "arrived": arrived,
    }
    await connection.execute(_feed.join_many)
    ((count,),) = await rows(connection, _feed.arrive_emptied, **values)
    await connection.execute(_feed.join_any)
    return int(count)


async def append(connection: Connection, jobs: Iterable[Job]) -> None:
    """Add jobs in this order, inside the open transaction; last of all, for it holds their lanes."""
    added = Added()
    for job in jobs:
        added.add(job)
    await _append(connection, added, Stored())


async def _append(connection: Connection, added: Added, stored: Stored) -> dict[int, int]:
    """The lanes of these that are new to us."""
    if not added:
        return {}
    await note(connection, added.manners, stored.manners)
    lanes = await extend(connection, added.lanes, stored.lanes)
    await _copy(connection, _q.append_parcels, added.numbered())
    await connection.execute(_q.tell)
    return lanes


async def _copy(connection: Connection, query: bytes, blocks: Iterable[bytes]) -> None:
    async with connection.cursor().copy(query) as copy:
        for block in blocks:
            await copy.write(block)
