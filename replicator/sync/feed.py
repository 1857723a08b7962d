"""Checkpoints as storage announces them → whoever waits for what they changed, and what that has become.

One listener for all clients of a process. A checkpoint says which buckets and lookups it has changed; a
viewer says which it depends on; those whom it concerns are woken, and nobody else does anything. What several
of them then want to know, the totals and the new ops of a bucket, is read once, while the checkpoint lasts.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Coroutine, Iterable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar

from replicator import pulse, queries
from replicator.buckets.force import of_number
from replicator.buckets.model import Checkpoint, OpId, Told, Total
from replicator.buckets.read import answers, position, read_bucket, told, totals
from replicator.buckets.write_checkpoints import Client, newest
from replicator.database import Connect, Connection, connected
from replicator.errors import Unavailable
from replicator.marks import mark
from replicator.rules.ask import Answers
from replicator.rules.compile import Need
from replicator.rules.model import Rules
from replicator.sync.bell import Bell, Chimes
from replicator.sync.ear import Ear
from replicator.sync.session_offer import Page

_T = TypeVar("_T")
_q = queries.load("buckets")

#: A notice can be lost with the connection that carried it, so it is looked also without one.
_POLL_S = 2.0
#: After storage has failed, it is asked again after so long.
_RETRY_S = 1.0
#: A client that has seen more than we have waits so long for us.
_CATCH_UP_S = 5.0
#: Of so few buckets at most, what is new is read before anybody asks.
_FORESEEN = 8
#: A page no larger than this is kept for others who want the same.
_SHARED_OPS = 200
#: And of what has been read, no more than this: on an idle source no checkpoint comes to let go of it.
_KEPT_MOST = 500


class Moment(NamedTuple):
    """What readers see now."""

    checkpoint: Checkpoint
    #: Which rules are in force.
    rules: int
    #: When the newest transaction in it was committed, by the source's clock.
    committed_at: float | None = None


class Viewer:
    """One connection's place in the feed: what it depends on, and what of that has changed."""

    def __init__(self, client: Client) -> None:
        self.client = client
        #: Rung when something concerns it.
        self.bell = Bell()
        #: The checkpoint that it was told last.
        self.at = OpId(0)
        self.buckets: frozenset[str] = frozenset()
        self.needs: frozenset[Need] = frozenset()
        self.changed: set[str] = set()
        #: Whether the buckets it is granted may be others now.
        self.is_to_ask = True
        #: Whether its stream is to end, because the server does.
        self.is_to_end = False
        #: The newest write of this client that has been reached.
        self.written: int | None = None


class Feed:
    """What readers see, kept up to date while `run` runs."""

    def __init__(self, dsn: str, schema: str, slot: str, connect: Connect) -> None:
        self._dsn, self._schema, self._slot = dsn, schema, slot
        self._connect = connect
        self.moment: Moment | None = None
        #: The rules in force at the moment, and their text.
        self.rules = Rules(())
        self.rules_text = ""
        #: Called when other rules have come into force.
        self.on_rules: Callable[[], None] = lambda: None
        #: Called when a client that follows has been sent all that a moment changed for it.
        self.on_sent: Callable[[Moment], None] = lambda moment: None
        #: By which viewers are woken that have something to do at a time of their own.
        self.chimes = Chimes()
        self._viewers: set[Viewer] = set()
        self._by_bucket: dict[str, set[Viewer]] = {}
        self._by_need: dict[Need, set[Viewer]] = {}
        self._by_client: dict[Client, set[Viewer]] = {}
        self._by_mark: dict[str, Client] = {}
        #: Clients whose newest write may not have been reached yet, as far as anybody has told.
        self._writing: set[Client] = set()
        self._reading: dict[object, asyncio.Task[Any]] = {}
        self._moved = asyncio.Event()

    # -- viewers -----------------------------------------------------------------------------------

    def join(self, viewer: Viewer) -> None:
        self._viewers.add(viewer)
        self._by_client.setdefault(viewer.client, set()).add(viewer)
        self._by_mark[viewer.client.mark] = viewer.client
        self._writing.add(viewer.client)

    def leave(self, viewer: Viewer) -> None:
        self.depend(viewer, (), ())
        self.chimes.forget(viewer.bell)
        self._viewers.discard(viewer)
        _drop(self._by_client, viewer.client, viewer)
        if viewer.client not in self._by_client:
            self._by_mark.pop(viewer.client.mark, None)

    def depend(self, viewer: Viewer, buckets: Iterable[str], needs: Iterable[Need]) -> None:
        """Say what it is to be woken for from now on."""
        now_buckets, now_needs = frozenset(buckets), frozenset(needs)
        for bucket in viewer.buckets - now_buckets:
            _drop(self._by_bucket, bucket, viewer)
        for bucket in now_buckets - viewer.buckets:
            self._by_bucket.setdefault(bucket, set()).add(viewer)
        for need in viewer.needs - now_needs:
            _drop(self._by_need, need, viewer)
        for need in now_needs - viewer.needs:
            self._by_need.setdefault(need, set()).add(viewer)
        viewer.buckets, viewer.needs = now_buckets, now_needs

    async def first(self, after: OpId) -> Moment:
        """What readers see: if that comes within a moment, no less than what a client says it has seen.

        Another process may have shown it more than this one has heard of. But what it says may be anything.
        """
        assert self.moment is not None, "nobody is let in before"
        with suppress(TimeoutError):
            async with asyncio.timeout(_CATCH_UP_S):
                while self.moment.checkpoint.op_id < after:
                    self._moved.clear()
                    await self._moved.wait()
        return self.moment

    async def catch_up(self, viewer: Viewer, moment: Moment) -> Moment:
        """Know what the client has written before it came; the newest moment there is by then."""
        async with self._connect() as storage:
            written = await newest(storage, {viewer.client}, moment.checkpoint.lsn)
        assert self.moment is not None, "there is one already"
        # What has been told meanwhile is newer, and so is the moment that it belongs to.
        viewer.written = viewer.written or written.get(viewer.client)
        return self.moment

    # -- what they want to know --------------------------------------------------------------------

    async def totals(self, buckets: Collection[str], upto: OpId) -> dict[str, Total]:
        async with self._connect() as storage:
            return await totals(storage, list(buckets), upto)

    async def answers(self, needs: set[Need], upto: OpId) -> Answers:
        async with self._connect() as storage:
            return await answers(storage, needs, upto)

    async def changed_totals(self, buckets: Collection[str], upto: OpId) -> dict[str, Total]:
        """The same, where many ask for few buckets at a time."""
        found = await asyncio.gather(
            *(self._once(("total", one, upto), self.totals([one], upto)) for one in buckets)
        )
        return {bucket: total for one in found for bucket, total in one.items()}

    async def first_page(self, bucket: str, after: OpId, upto: OpId) -> Page | None:
        """All that is new in a bucket, if that is little; None if it is more."""
        return await self._once(("page", bucket, after, upto), self._little(bucket, after, upto))

    async def _little(self, bucket: str, after: OpId, upto: OpId) -> Page | None:
        async for page in read_bucket(self._connect, bucket, after, upto, page_rows=_SHARED_OPS + 1):
            return None if page.has_more else Page(bucket, page.ops, False, page.is_overtaken)
        return None

    async def _once(self, key: object, work: Coroutine[Any, Any, _T]) -> _T:
        # One who leaves does not take it from the others.
        found: _T = await asyncio.shield(self._begin(key, work))
        return found

    def _begin(self, key: object, work: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        task = self._reading.get(key)
        if task is None:
            if len(self._reading) >= _KEPT_MOST:
                self._let_go()
            self._reading[key] = task = asyncio.create_task(work)
            task.add_done_callback(_take_note)
        else:
            work.close()
        return task

    def _let_go(self) -> None:
        self._reading = {key: task for key, task in self._reading.items() if not task.done()}

    # -- what storage says -------------------------------------------------------------------------

    async def run(self) -> None:
        """Listen until cancelled, also across failures of storage."""
        said = ""
        while True:
            try:
                await self._listen()
            except Unavailable as error:
                if error.what != said:
                    mark("feed interrupted", level=logging.WARNING, why=error.what)
                said = error.what
                pulse.went_round()
                await asyncio.sleep(_RETRY_S)

    async def _listen(self) -> None:
        async with connected(self._dsn, "feed", schema=self._schema) as storage:
            ear = Ear(storage)
            await storage.execute(_q.listen)
            await storage.execute(_q.listen_to_writes)
            # While nobody listened, anybody may have been told anything.
            self._writing.update(self._by_client)
            while True:
                pulse.went_round()
                stands = await position(storage, self._slot)
                if stands is not None and stands.shown is not None:
                    await self._show(
                        storage, Moment(stands.shown, stands.shown_rules or 0, stands.committed_at)
                    )
                for notice in await ear.hear(_POLL_S):
                    self._heed(notice.channel, notice.payload)

    async def _show(self, storage: Connection, now: Moment) -> None:
        before = self.moment
        if before is None or now.rules != before.rules:
            if now.rules:
                # From here to the moment's change nothing may come between: who comes takes both.
                self.rules, self.rules_text = await of_number(storage, self._slot, now.rules)
            self._move(now, Told(None, None))
            self.on_rules()
            mark("rules served", level=logging.INFO, rules=now.rules)
            for viewer in self._viewers:
                viewer.bell.ring()  # every stream ends, and its client comes again
        elif now.checkpoint.op_id != before.checkpoint.op_id:
            self._move(now, await told(storage, before.checkpoint.op_id, now.checkpoint.op_id))
        self.moment = now
        await self._acknowledge(storage, now)

    def _heed(self, channel: str, payload: str) -> None:
        if channel == "replicator_write" and (client := self._by_mark.get(payload)) is not None:
            self._writing.add(client)

    async def _acknowledge(self, storage: Connection, now: Moment) -> None:
        """Tell clients whose newest write has been reached; the others go on waiting."""
        waiting = self._writing & self._by_client.keys()
        self._writing -= waiting
        if not waiting:
            return
        for client, written in (await newest(storage, waiting, now.checkpoint.lsn)).items():
            if written is None:
                self._writing.add(client)
                continue
            for viewer in self._by_client.get(client, ()):
                if viewer.written != written:
                    viewer.written = written
                    viewer.bell.ring()

    def _move(self, now: Moment, changed: Told) -> None:
        """A new checkpoint: note what it has changed for whom, and wake them."""
        self._let_go()
        self.moment = now
        self._moved.set()
        concerned = self._concerned_by_buckets(changed.buckets)
        self._foresee(concerned, now.checkpoint.op_id)
        for _, viewer in concerned:
            viewer.bell.ring()
        asks: Iterable[Viewer] = self._viewers
        if changed.lookups is not None:
            needs = [_need(entry) for entry in changed.lookups]
            asks = {viewer for need in needs for viewer in self._by_need.get(need, ())}
        for viewer in asks:
            if viewer.needs:
                viewer.is_to_ask = True
                viewer.bell.ring()

    def _concerned_by_buckets(self, changed: Collection[str] | None) -> Sequence[tuple[str, Viewer]]:
        concerned = []
        for bucket in self._by_bucket if changed is None else changed:
            for viewer in self._by_bucket.get(bucket, ()):
                viewer.changed.add(bucket)
                concerned.append((bucket, viewer))
        return concerned

    def _foresee(self, concerned: Sequence[tuple[str, Viewer]], upto: OpId) -> None:
        """Begin to read what they are going to ask for: first the totals, and then what is new."""
        places = dict.fromkeys((bucket, viewer.at) for bucket, viewer in concerned if viewer.at)
        if len(places) > _FORESEEN:
            return
        for bucket, after in places:
            self._begin(("total", bucket, upto), self.totals([bucket], upto))
            self._begin(("page", bucket, after, upto), self._little(bucket, after, upto))


def _take_note(task: asyncio.Task[Any]) -> None:
    """A failure is for whoever waits for it; there may be nobody."""
    if not task.cancelled():
        task.exception()


def _need(entry: str) -> Need:
    lookup, _, key = entry.partition("\t")
    return lookup, key


def _drop(index: dict[Any, set[Viewer]], key: object, viewer: Viewer) -> None:
    there = index.get(key)
    if there is not None:
        there.discard(viewer)
        if not there:
            del index[key]
