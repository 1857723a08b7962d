"""A Session, a place in the feed and somewhere to send to → the conversation, until something ends it.

Nothing is read for a client that does not take what was sent before: each line waits until the one before it
has left. A connection to storage is held for one page at a time, and never while a client is slow.
"""

from __future__ import annotations

import random
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Protocol

from replicator.buckets.model import OpId, Total
from replicator.buckets.read import read_bucket
from replicator.database import Connect
from replicator.rules.model import Rules
from replicator.sync.auth import User
from replicator.sync.feed import Feed, Moment, Viewer
from replicator.sync.grants import Grants, Most, grants
from replicator.sync.lines import Line, TokenLine
from replicator.sync.request import Request
from replicator.sync.session import Session
from replicator.sync.session_offer import Offer, Page

#: A sign of life about so often; not in step with that of others.
_KEEPALIVE_S = (18.0, 22.0)
#: A client is told once more that its token is about to end, so that it can fetch another in time.
_LAST_CALL_S = 20.0
#: Totals of more buckets than this are asked for at once, not each with whoever else wants it.
_FEW = 20


class Out(Protocol):
    """Where lines go."""

    on_close: Callable[[], None]

    @property
    def is_closed(self) -> bool: ...

    async def send(self, lines: Sequence[Line]) -> None:
        """Returns when there is room for more."""


class Wanting:
    """What one client is offered: its grants and their totals, kept up to date by what the feed tells."""

    def __init__(
        self, feed: Feed, viewer: Viewer, rules: Rules, user: User, request: Request, most: Most
    ) -> None:
        self._feed, self._viewer = feed, viewer
        self._rules, self._user, self._request, self._most = rules, user, request, most
        self._grants = Grants((), (), frozenset())
        self._totals: dict[str, Total] = {}

    async def offer(self, moment: Moment) -> Offer:
        """The checkpoint of this moment, which must be the feed's own; as it looks to this client."""
        viewer, upto = self._viewer, moment.checkpoint.op_id
        written, changed, is_to_ask = viewer.written, viewer.changed, viewer.is_to_ask
        viewer.changed, viewer.is_to_ask = set(), False
        if is_to_ask:
            changed |= await self._ask(upto)
            if self._feed.moment is not moment:
                # Something may have changed before the feed knew that it concerns this viewer.
                viewer.changed, viewer.is_to_ask = set(self._viewer.buckets), True
                viewer.bell.ring()
        if len(changed) > _FEW:
            found = await self._feed.totals(changed, upto)
        else:
            found = await self._feed.changed_totals(changed, upto)
        self._totals |= found
        return Offer(upto, written, self._grants.granted, self._grants.streams, self._totals)

    async def _ask(self, upto: OpId) -> set[str]:
        """Ask anew what is granted; the buckets that were not granted before."""
        asking = grants(self._rules, self._user, self._request, most=self._most)
        try:
            needs = next(asking)
            while True:
                needs = asking.send(await self._feed.answers(needs, upto))
        except StopIteration as end:
            self._grants = end.value
        buckets = {grant.bucket for grant in self._grants.granted}
        new = buckets - self._viewer.buckets
        self._totals = {bucket: total for bucket, total in self._totals.items() if bucket in buckets}
        self._feed.depend(self._viewer, buckets, self._grants.needs)
        return new


async def drive(
    session: Session,
    wanting: Wanting,
    feed: Feed,
    viewer: Viewer,
    out: Out,
    moment: Moment,
    ends_at: float,
    connect: Connect,
    clock: Callable[[], float] = time.time,
) -> None:
    """Hold the conversation until the client goes, its token ends, or other rules come into force."""
    rules = moment.rules
    next_sign = clock() + random.uniform(*_KEEPALIVE_S)
    last_call = ends_at - _LAST_CALL_S
    while not out.is_closed:
        viewer.bell.quiet()
        is_first, before = not viewer.at, viewer.at
        lines = session.offer(await wanting.offer(moment))
        viewer.at = session.checkpoint
        if is_first or session.wanted() is None:
            await out.send(lines)  # the first download may be long, and the client shows how long
            lines = []
        await _fetch(session, lines, feed, viewer, out, connect, lambda: clock() >= ends_at)
        if viewer.at > before and not is_first and session.wanted() is None:
            feed.on_sent(moment)
        while not viewer.bell.is_rung and not out.is_closed:
            now = clock()
            if now >= ends_at:
                break
            if now >= min(next_sign, last_call):
                await out.send([TokenLine(round(ends_at - now))])
                last_call = last_call if now < last_call else ends_at
                next_sign = now + random.uniform(*_KEEPALIVE_S)
            feed.chimes.stir_in(viewer.bell, min(next_sign, last_call, ends_at) - now)
            await viewer.bell.wait()
        if clock() >= ends_at:
            await out.send([TokenLine(0)])
            return
        assert feed.moment is not None, "it only ever moves on"
        moment = feed.moment
        if moment.rules != rules or viewer.is_to_end:
            return


async def _fetch(
    session: Session,
    lines: list[Line],
    feed: Feed,
    viewer: Viewer,
    out: Out,
    connect: Connect,
    is_over: Callable[[], bool],
) -> None:
    """Send these lines and then what the session wants; stop where a newer checkpoint may be offered."""
    while fetch := session.wanted():
        for bucket, after in fetch.buckets.items():
            async with aclosing(_pages(feed, bucket, after, fetch.upto, connect)) as pages:
                async for page in pages:
                    await out.send(lines + session.take(page))
                    lines = []
                    is_news = viewer.bell.is_rung and session.may_interrupt
                    if is_news or page.is_overtaken or out.is_closed or is_over():
                        return


async def _pages(
    feed: Feed, bucket: str, after: OpId, upto: OpId, connect: Connect
) -> AsyncGenerator[Page, None]:
    if after and (little := await feed.first_page(bucket, after, upto)) is not None:
        yield little
        return
    async with aclosing(read_bucket(connect, bucket, after, upto)) as pages:
        async for page in pages:
            yield Page(bucket, page.ops, page.has_more, page.is_overtaken)
