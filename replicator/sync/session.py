"""What a client has × what a checkpoint offers → Lines, and what to read next. No I/O.

Whoever drives it reads storage and writes to the socket:

    session = Session(request)
    while True:
        offer = …                                   # wait for a checkpoint, newer than the last
        send(session.offer(offer))
        while fetch := session.wanted():
            if session.may_interrupt and …:         # a newer checkpoint has come
                break
            for page in …:                          # read what is wanted, in pages
                send(session.take(page))

A round begins with a line that tells the checkpoint: the first in full, later ones as a difference to the
one told last, whether that was completed or not. Then come the data of one priority after the other, and
the line that completes the checkpoint. A checkpoint that changes nothing for this client is not told.

What the rules are made for:

1. A position is what was sent, not what was completed. A round that is interrupted leaves what it has not
   finished to the next one, which goes on from there; nothing is sent twice.
2. The client verifies everything up to a priority when that is completed, so it is completed only when all
   its buckets, and those left over from earlier rounds, have been sent up to this round's checkpoint.
3. The client deletes at once what a checkpoint does not name. From then on it has nothing of the bucket,
   whatever it said at first: a bucket that comes back, or comes later, is sent from its beginning.
4. After a page that compaction has overtaken, this checkpoint can not be completed by any client. Nothing
   more is read, and the next checkpoint is told even if it looks the same.
5. A round of less than INTERRUPT_OPS is not interrupted, so every round gets on, and a client catches up
   however often there is a new checkpoint.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import islice

from replicator.buckets.model import OpId
from replicator.sync.lines import (
    CheckpointLine,
    CompleteLine,
    DataLine,
    DiffLine,
    Line,
    Listed,
    PartialLine,
    cut,
)
from replicator.sync.request import Request
from replicator.sync.session_offer import Fetch, Offer, Page

#: After this many ops a round gives way to a newer checkpoint.
INTERRUPT_OPS = 1_000
#: So many buckets are read for at once.
FETCH_BUCKETS = 250


class Session:
    """One client's connection: what it has been told, and what it has been sent."""

    def __init__(self, request: Request) -> None:
        #: What the client said it has; only the first checkpoint asks.
        self._claimed = request.buckets
        #: By bucket: as it was told last. None before the first checkpoint.
        self._told: dict[str, Listed] | None = None
        #: By bucket that was told: the op up to which the client has been sent it.
        self._sent: dict[str, OpId] = {}
        self._checkpoint = OpId(0)
        self._write_checkpoint: int | None = None
        #: What is left of the round: by ascending priority, the buckets still to be sent.
        self._left: deque[tuple[int, dict[str, None]]] = deque()
        self._is_overtaken = False
        self._round_ops = 0

    @property
    def checkpoint(self) -> OpId:
        """The checkpoint told last."""
        return self._checkpoint

    @property
    def is_complete(self) -> bool:
        """Whether the client has all of what it was told."""
        return self._told is not None and not self._left

    @property
    def may_interrupt(self) -> bool:
        """Whether a checkpoint may be offered now."""
        return not self._left or self._is_overtaken or self._round_ops >= INTERRUPT_OPS

    def offer(self, offer: Offer) -> list[Line]:
        """The lines with which a checkpoint begins; none if it changes nothing."""
        assert self.may_interrupt, "a round gives way only once it has got on"
        assert offer.checkpoint >= self._checkpoint, "a checkpoint never goes back"
        listed = offer.listed()
        if self._told is None:
            return self._begin(offer, listed)
        return self._go_on(offer, listed, self._told)

    def wanted(self) -> Fetch | None:
        """What to read next; None if the next thing to happen is a newer checkpoint."""
        if not self._left or self._is_overtaken:
            return None
        priority, buckets = self._left[0]
        some = {bucket: self._sent[bucket] for bucket in islice(buckets, FETCH_BUCKETS)}
        return Fetch(priority, self._checkpoint, some)

    def take(self, page: Page) -> list[Line]:
        """The lines for a page of what was wanted."""
        assert self._left and page.bucket in self._left[0][1], "a page nobody asked for"
        after, next_after = self._sent[page.bucket], self._checked(page)
        lines = _data_lines(page, after)
        self._sent[page.bucket] = next_after
        self._round_ops += len(page.ops)
        self._is_overtaken |= page.is_overtaken
        if not (page.has_more or self._is_overtaken):
            self._sent[page.bucket] = self._checkpoint
            del self._left[0][1][page.bucket]
        return lines + self._completed()

    def _begin(self, offer: Offer, listed: dict[str, Listed]) -> list[Line]:
        self._sent = {bucket: self._claimed.get(bucket, OpId(0)) for bucket in listed}
        self._claimed = {}
        line = CheckpointLine(
            offer.checkpoint, offer.write_checkpoint, tuple(listed.values()), tuple(offer.streams)
        )
        self._tell(offer, listed)
        return [line, *self._start(listed, set(listed))]

    def _go_on(self, offer: Offer, listed: dict[str, Listed], told: dict[str, Listed]) -> list[Line]:
        updated = [now for bucket, now in listed.items() if told.get(bucket) != now]
        removed = [bucket for bucket in told if bucket not in listed]
        # That one is awaited and not there yet is no news: the client has asked for it itself.
        is_acknowledged = offer.write_checkpoint not in (None, self._write_checkpoint)
        if self._is_overtaken:
            if offer.checkpoint == self._checkpoint:
                return []
        elif not (updated or removed or is_acknowledged):
            return []
        unfinished = {bucket for _, buckets in self._left for bucket in buckets if bucket in listed}
        grown = {now.bucket for now in updated if _total(told.get(now.bucket)) != _total(now)}
        for bucket in removed:
            del self._sent[bucket]
        for now in updated:
            self._sent.setdefault(now.bucket, OpId(0))
        line = DiffLine(offer.checkpoint, offer.write_checkpoint, tuple(updated), tuple(removed))
        self._tell(offer, listed)
        touched = unfinished.union(now.bucket for now in updated)
        return [line, *self._start((bucket for bucket in listed if bucket in touched), unfinished | grown)]

    def _tell(self, offer: Offer, listed: dict[str, Listed]) -> None:
        self._told = listed
        self._checkpoint = offer.checkpoint
        self._write_checkpoint = offer.write_checkpoint

    def _start(self, touched: Iterable[str], wanted: set[str]) -> list[Line]:
        """Begin a round over these buckets, of which those wanted may have something to be sent."""
        assert self._told is not None
        by_priority: dict[int, dict[str, None]] = {}
        for bucket in touched:
            left = by_priority.setdefault(self._told[bucket].priority, {})
            has_more = self._sent[bucket] < self._checkpoint and self._told[bucket].ops_count > 0
            if bucket in wanted and has_more:
                left[bucket] = None
        self._left = deque(sorted(by_priority.items()))
        # The line that completes the checkpoint completes these as well.
        while self._left and not self._left[-1][1]:
            self._left.pop()
        self._is_overtaken, self._round_ops = False, 0
        return self._completed()

    def _completed(self) -> list[Line]:
        """The lines for the priorities of which nothing is left."""
        lines: list[Line] = []
        while self._left and not self._left[0][1]:
            priority, _ = self._left.popleft()
            if self._left:
                lines.append(PartialLine(self._checkpoint, priority))
        if not self._left:
            lines.append(CompleteLine(self._checkpoint))
        return lines

    def _checked(self, page: Page) -> OpId:
        """The op up to which the page goes; anything outside of what was wanted ends the session."""
        after = self._sent[page.bucket]
        if not page.ops:
            assert not page.has_more or page.is_overtaken, "an empty page that is not the last"
            return after
        first, last = page.ops[0], page.ops[-1]
        assert after < first.op_id <= last.op_id <= self._checkpoint, "ops that were not asked for"
        assert first.bucket == last.bucket == page.bucket, "ops of another bucket"
        return last.op_id


def _data_lines(page: Page, after: OpId) -> list[Line]:
    lines: list[Line] = []
    runs = list(cut(page.ops))
    for at, run in enumerate(runs, 1):
        next_after = run[-1].op_id
        lines.append(DataLine(page.bucket, after, next_after, page.has_more or at < len(runs), run))
        after = next_after
    return lines


def _total(listed: Listed | None) -> tuple[int, int] | None:
    return None if listed is None else (listed.checksum, listed.ops_count)
