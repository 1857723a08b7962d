"""Buckets × the source they were made from → every difference between them, on a system that is at work.

Two things that change all the time are compared, and nothing may be held up for it. The argument:

No misses. A piece of a table is read, and then a position in the log by which everything it saw was written.
Buckets are looked at only when what readers see has passed that position; so whatever the piece saw is in
them, or overtaken there by something newer, or they are wrong. A row that looks the same in both is right.
One that does not is looked at again, and so is one that only one of them has, until it looks the same or is
told.

No false alarms. What looks different may only have changed in between. So it is told only if it stands three
times in a row, while storage says nothing new about the row: no op of it follows the checkpoint that was
shown before the first of these readings. Then, if buckets were right, nothing that bears on the row was
written after that checkpoint and before the last; what was written before it and was not visible to the first
reading, because its transaction had yet to end, has ended by the last one, whose snapshot begins after
everything that was under way at the first. So the last reading saw exactly what buckets must hold, and they
do not. A row for which this cannot be said, because it changes every time or an old transaction does not end,
is counted and not told.

Nothing of a row is told but its place and the names of its columns.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Container, Sequence
from contextlib import closing, nullcontext

from replicator import queries
from replicator.buckets import deploy
from replicator.buckets.kept import Place as Kept
from replicator.buckets.model import OpId
from replicator.buckets.read import read_bucket, totals
from replicator.config import Config
from replicator.database import Connection, check_migrated, connected, rows
from replicator.errors import ReplicatorError, Unavailable
from replicator.observe.rules.got import User
from replicator.observe.rules.user import granted_to
from replicator.observe.verify_found import Difference, Verified
from replicator.observe.verify_kept import KeptRows
from replicator.observe.verify_noted import EntryPlace, Noted, Place, digest
from replicator.observe.verify_settle import settle, settle_entries
from replicator.observe.verify_shown import Shown
from replicator.observe.verify_source import Named, Source, expecting
from replicator.rules.lookups import DUE, OUTER
from replicator.rules.model import Rules

_q = queries.load("verify")

#: Buckets that are compared together: SQL is narrowed to their rows.
_TOGETHER = 200
_BUCKETS_AT_ONCE = 500
_ENTRIES_AT_ONCE = 2_000
#: Differences that are looked at again together, and more than anybody reads.
_AGAIN = 200
_TOLD_MAX = 1_000
#: How often a bucket is read anew because it was compacted meanwhile.
_TRIES = 5

#: Told now and then how many rows have been compared.
Say = Callable[[int], None]


async def verify(
    config: Config, rules: Rules, *, user: User | None, sample: int | None, say: Say = lambda rows: None
) -> Verified:
    """Compare one user's buckets, so many chosen by chance, or everything there is."""
    schema = config.storage.schema_name
    async with (
        connected(config.storage_dsn, "verify", schema=schema) as storage,
        expecting(config, rules) as source,
    ):
        await check_migrated(storage, schema)
        shown = Shown(storage, source.connection, config.source.slot)
        await shown.require_still()
        kept = KeptRows(storage, source, shown, config.source.slot)
        one = _Verification(storage, source, shown, kept, rules, config.source.slot, say)
        with closing(one.noted):
            if user is None and sample is None:
                await one.everything(await _not_in_force(storage, config.source.slot))
            else:
                names = await _names(storage, source, shown, user, sample)
                for at in range(0, len(names), _TOGETHER):
                    await one.some(names[at : at + _TOGETHER])
            return one.verified


async def _names(
    storage: Connection, source: Source, shown: Shown, user: User | None, sample: int | None
) -> list[str]:
    if user is None:
        return [name for (name,) in await rows(storage, _q.some_buckets, count=sample)]
    now = await shown.now()
    async with source.at(now.clock):
        got = await granted_to(source.reading, user)
    return [granted.bucket for granted in got.granted]


async def _not_in_force(storage: Connection, slot: str) -> set[str]:
    """How names of buckets begin that nobody is sent, of rules being prepared or over; or is sent as well."""
    known = await deploy.load(storage, slot)
    return {name for one in known.sets if one.cleaned_at is None for name in one.versions.buckets()}


class _Verification:
    """One run."""

    def __init__(
        self,
        storage: Connection,
        source: Source,
        shown: Shown,
        kept: KeptRows,
        rules: Rules,
        slot: str,
        say: Say,
    ) -> None:
        self._storage, self._source, self._shown, self._rules = storage, source, shown, rules
        self._kept, self._slot, self._say = kept, slot, say
        #: What the names begin with of all that other rules have, as far as they have been met.
        self._others: set[str] = set()
        self.noted, self.verified = Noted(), Verified()
        self._doubtful: list[Place] = []
        self._doubtful_entries: list[EntryPlace] = []

    async def some(self, names: Sequence[str]) -> None:
        """Compare these buckets."""
        named = [one for name in names if (one := Named.read(name, self._rules)) is not None]
        wanted = {one.name for one in named}
        for table in self._source.tables:
            where = await self._source.narrowed(table, named)
            clock = (await self._shown.now()).clock
            async for piece in self._source.pieces(table, where, clock, with_entries=False):
                self.noted.expect([put for put in piece.puts if put.bucket in wanted], ())
                self._shown.must_pass(piece.seen)
                self._say(piece.rows)
        await self._shown.wait()
        for name in names:
            await self._bucket(name)
        await self._rest()

    async def everything(self, not_in_force: Container[str]) -> None:
        """Compare every bucket, every lookup and every kept row with every row."""
        await self._meet_others()
        await self._kept.read_their_tables()
        for table in self._source.tables:
            clock = (await self._shown.now()).clock
            async for piece in self._source.pieces(table, None, clock, with_entries=True):
                self.noted.expect(piece.puts, piece.entries)
                self.noted.expect_kept(piece.kept)
                self._shown.must_pass(piece.seen)
                self._say(piece.rows)
        await self._shown.wait()
        after = ""
        while page := await rows(self._storage, _q.next_buckets, after=after, limit=_BUCKETS_AT_ONCE):
            for (name,) in page:
                is_sent = Named.read(name, self._rules) is not None
                if is_sent or name.partition("[")[0] not in not_in_force:
                    await self._bucket(name)
            after = page[-1][0]
        for (number,) in await rows(self._storage, _q.nameless, limit=_AGAIN):
            await self._tell(Difference("nameless", str(number)))
        await self._entries()
        await self._kept_rows()
        await self._rest()

    async def _bucket(self, name: str) -> None:
        self.verified.buckets += 1
        is_known = Named.read(name, self._rules) is not None
        for _ in range(_TRIES):
            if await self._read(name, is_known):
                break
        else:
            self.verified.unsettled += 1
        for op_id, is_sum, is_count in await rows(self._storage, _q.wrong_sums, bucket=name):
            what = [word for word, is_wrong in (("checksum", is_sum), ("count", is_count)) if is_wrong]
            await self._tell(Difference("sum", name, f"op {op_id}", columns=tuple(what)))

    async def _read(self, name: str, is_known: bool) -> bool:
        """Read a bucket as a new client does; False if it was compacted past the checkpoint meanwhile."""
        upto = (await self._shown.now()).op_id
        try:
            expected = (await totals(self._storage, [name], upto)).get(name)
        except Unavailable:
            return False
        checksum = 0
        is_stranger = False
        async for page in read_bucket(lambda: nullcontext(self._storage), name, OpId(0), upto):
            if page.is_overtaken:
                return False
            for op in page.ops:
                checksum = op.checksum if op.op == "CLEAR" else checksum + op.checksum
                if op.op != "PUT":
                    continue
                place = Place(name, op.object_type, op.object_id, op.subkey)
                self.verified.rows += 1
                if not is_known:
                    is_stranger = True
                elif not self.noted.find(place, op.data or ""):
                    self._doubtful.append(place)
            if len(self._doubtful) >= _AGAIN:
                await self._settle()
            self._say(len(page.ops))
        if is_stranger:
            await self._tell(Difference("stranger", name))
        if checksum % (1 << 32) != (expected.checksum if expected else 0):
            await self._tell(Difference("sum", name, columns=("checksum",)))
        return True

    async def _entries(self) -> None:
        """Compare what stands in lookups."""
        place = {"lookup": "", "key": "", "subkey": "", "at": "(0,0)"}
        while True:
            found = await rows(self._storage, _q.next_entries, **place, limit=_ENTRIES_AT_ONCE)
            for lookup, key, subkey, _, value in found:
                self.verified.entries += 1
                value = self._source.as_today(lookup, subkey, value)
                entry = EntryPlace(lookup, key, subkey, digest(value))
                if not self.noted.find_entry(entry) and not self._is_of_others(lookup):
                    self._doubtful_entries.append(entry)
            if len(self._doubtful_entries) >= _AGAIN:
                await self._settle()
            if len(found) < _ENTRIES_AT_ONCE:
                return
            place = dict(zip(place, found[-1][:4], strict=True))

    async def _kept_rows(self) -> None:
        """Compare what is kept of rows that the log does not bring whole."""
        async for count, doubtful in self._kept.unlike(self.noted):
            self.verified.kept += count
            self._say(count)
            await self._settle_kept(doubtful)
        doubtful = []
        for place in self.noted.missing_kept():
            doubtful.append(place)
            if len(doubtful) >= _AGAIN:
                await self._settle_kept(doubtful)
                doubtful = []
        await self._settle_kept(doubtful)

    async def _settle_kept(self, places: Sequence[Kept]) -> None:
        for at in range(0, len(places), _AGAIN):
            async for difference in self._kept.settle(places[at : at + _AGAIN]):
                await self._tell(difference)

    async def _rest(self) -> None:
        """What was expected and nobody has met."""
        for place in self.noted.missing():
            self._doubtful.append(place)
            if len(self._doubtful) >= _AGAIN:
                await self._settle()
        for entry in self.noted.missing_entries():
            self._doubtful_entries.append(entry)
            if len(self._doubtful_entries) >= _AGAIN:
                await self._settle()
        self.noted.forget()
        await self._settle()

    async def _settle(self) -> None:
        """Look again at what looked different, until it is known what of it is."""
        places, self._doubtful = self._doubtful, []
        entries, self._doubtful_entries = self._doubtful_entries, []
        async for difference in self._looked_at(places, entries):
            await self._tell(difference)

    async def _looked_at(
        self, places: Sequence[Place], entries: Sequence[EntryPlace]
    ) -> AsyncIterator[Difference | None]:
        for at in range(0, len(places), _AGAIN):
            async for found in settle(self._storage, self._source, self._shown, places[at : at + _AGAIN]):
                yield found
        for at in range(0, len(entries), _AGAIN):
            some = entries[at : at + _AGAIN]
            async for found in settle_entries(self._storage, self._source, self._shown, some):
                yield found

    async def _meet_others(self) -> None:
        """Know what is of rules that are being prepared, or are over and have not been taken away yet."""
        for one in (await deploy.load(self._storage, self._slot)).sets:
            if one.cleaned_at is None:
                self._others |= one.versions.buckets() | one.versions.maintained()
        self._others -= {variant.name for variant in self._rules.variants()}
        self._others -= {one.id for one in self._rules.lookups}

    def _is_of_others(self, name: str) -> bool:
        return name.removeprefix(DUE).removeprefix(OUTER).partition("[")[0] in self._others

    async def _tell(self, difference: Difference | None) -> None:
        if difference is None:
            self.verified.unsettled += 1
            return
        if difference.kind in ("stranger", "sum", "lookup"):
            await self._meet_others()
            if self._is_of_others(difference.bucket):
                return
        self.verified.differences.append(difference)
        if len(self.verified.differences) >= _TOLD_MAX:
            raise ReplicatorError(
                f"there are {_TOLD_MAX} differences and more",
                "This is no single row. Look at a user with `replicator verify --user`; "
                "`replicator snapshot --all` makes all of it anew.",
            )
