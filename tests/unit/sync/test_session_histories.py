"""Whatever happens to history and connection, a completed checkpoint is what the whole history comes to."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replicator.buckets.model import OpId
from replicator.sync import session as session_module
from replicator.sync.lines import Encoding, Line, PartialLine, Reason, Stream, encode
from replicator.sync.request import Request, understood
from replicator.sync.session import Session
from replicator.sync.session_offer import Fetch, Grant, Offer, Page
from tests.unit.sync.client import BSON, NDJSON, Client, shown
from tests.unit.sync.history import History

BUCKETS = {"a[]": 0, "b[1]": 1, "b[2]": 1, "c[]": 2, 'd["ü"]': 3, "e[]": 3}
ROWS = [("t", str(at), subkey) for at in range(4) for subkey in ("x", "y")]
ENCODINGS = {NDJSON: Encoding.NDJSON, BSON: Encoding.BSON}


@dataclass
class World:
    """History on one side, a client on the other, and the connection between them."""

    chance: Random
    client: Client
    #: Whether what is read is reduced on its way, as storage does it.
    is_reduced: bool = False
    history: History = field(default_factory=History)
    granted: set[str] = field(default_factory=set)
    priorities: dict[str, int] = field(default_factory=lambda: dict(BUCKETS))
    write_checkpoint: int | None = None
    session: Session | None = None
    request: Request | None = None
    #: What was granted when the client was last told.
    offered: set[str] = field(default_factory=set)
    #: How often what is rare has happened.
    seen: Counter[str] = field(default_factory=Counter)

    def write(self) -> None:
        for _ in range(self.chance.randint(1, 6)):
            bucket, key = self.chance.choice(sorted(BUCKETS)), self.chance.choice(ROWS)
            if self.chance.random() < 0.6:
                data = {"id": key[1], "v": self.chance.randint(0, 9), "s": 'ü\n"\\'}
                text = json.dumps(data, separators=(",", ":"), ensure_ascii=False)
                self.history.put(bucket, key, text)
            else:
                self.history.remove(bucket, key)

    def compact(self) -> None:
        for bucket in BUCKETS:
            self.history.compact(bucket, self.chance)

    def regrant(self) -> None:
        bucket = self.chance.choice(sorted(BUCKETS))
        self.granted ^= {bucket}
        if self.chance.random() < 0.3:
            self.priorities[bucket] = self.chance.randint(0, 3)

    def acknowledge(self) -> None:
        self.write_checkpoint = self.chance.choice([None, (self.write_checkpoint or 0) + 1])

    def connect(self) -> None:
        request = understood(self.client.request())
        assert isinstance(request, Request)
        self.request, self.session = request, Session(request)
        self.offer()

    def offer(self) -> None:
        assert self.session is not None
        if not self.session.may_interrupt:
            return
        ways = [
            Grant(bucket, self.priorities[bucket], (Reason("default", 0),)) for bucket in sorted(self.granted)
        ]
        again = [Grant(bucket, 3, (Reason("default", 1),)) for bucket in sorted(self.granted) if bucket < "c"]
        self.offered = set(self.granted)
        offer = Offer(
            OpId(self.history.last),
            self.write_checkpoint,
            self.chance.sample(ways + again, len(ways + again)),
            (Stream("s", True), Stream("r", True)),
            self.history.totals(self.history.last),
        )
        was_complete = self.session.is_complete
        lines = self.session.offer(offer)
        self.seen["interrupted"] += bool(lines) and not was_complete
        self.hear(lines)

    def read(self) -> None:
        """One fetch, some of what it wants, in any order."""
        assert self.session is not None
        fetch = self.session.wanted()
        if fetch is None:
            return
        some = self.chance.sample(sorted(fetch.buckets), self.chance.randint(1, len(fetch.buckets)))
        for bucket in some:
            for page in self.pages(bucket, fetch):
                self.seen["overtaken"] += page.is_overtaken
                self.hear(self.session.take(page))

    def pages(self, bucket: str, fetch: Fetch) -> Iterator[Page]:
        """One page as it is stored, or some as they are reduced, with whatever happens between them."""
        after, limit = fetch.buckets[bucket], self.chance.randint(1, 4)
        if not self.is_reduced:
            yield self.history.page(bucket, after, fetch.upto, limit)
            return
        for page in self.history.reduced(bucket, after, fetch.upto, limit):
            yield page
            match self.chance.randint(0, 5):
                case 0:
                    return
                case 1:
                    self.write()
                case 2:
                    self.compact()

    def hear(self, lines: list[Line]) -> None:
        for line in lines:
            self.seen[type(line).__name__] += 1
            before = self.client.completed
            written = encode(line, ENCODINGS[self.client.content_type], raw_data=self.client.raw_data)
            self.client.receive(written)
            if isinstance(line, PartialLine):
                self.agrees(line.priority)
            if self.client.completed > before:
                self.agrees(3)
                held = {name: self.history.rows(name, self.client.target_op) for name in self.offered}
                assert self.client.rows == shown(held)

    def agrees(self, priority: int) -> None:
        """The client's buckets up to a priority are what their histories come to at the checkpoint."""
        assert self.client.target is not None
        for name, told in self.client.target.items():
            if told["priority"] <= priority:
                held = self.client.kept[name].rows if name in self.client.kept else {}
                assert held == self.history.rows(name, self.client.target_op)

    def settle(self) -> None:
        """Nothing happens any more: the client comes to have everything."""
        if self.session is None:
            self.connect()
        for _ in range(10_000):
            self.offer()
            if self.session is not None and self.session.wanted() is None and self.client.is_complete:
                break
            self.read()
            if self.session is not None and self.session.wanted() is None and not self.client.is_complete:
                self.write()  # overtaken: it waits for a newer checkpoint
        assert self.client.is_complete
        assert set(self.client.kept) <= self.offered == self.granted


STEPS = ("write", "write", "compact", "offer", "read", "read", "read", "connect", "regrant", "acknowledge")


@pytest.mark.parametrize("content_type,raw_data", [(NDJSON, True), (NDJSON, False), (BSON, True)])
@pytest.mark.parametrize("is_reduced", [False, True], ids=["as stored", "reduced"])
@settings(max_examples=70, deadline=None)
@given(
    st.integers(0, 1 << 32),
    st.lists(st.sampled_from(STEPS), min_size=20, max_size=80),
    st.sampled_from([1, 5, 1000]),
)
def test_a_completed_checkpoint_is_what_the_whole_history_comes_to(
    is_reduced: bool, content_type: str, raw_data: bool, seed: int, steps: list[str], interrupt_ops: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session_module, "INTERRUPT_OPS", interrupt_ops)
        patch.setattr(session_module, "FETCH_BUCKETS", 1 + seed % 3)
        world = World(Random(seed), Client(content_type, raw_data), is_reduced)
        world.granted = set(sorted(BUCKETS)[: 1 + seed % 6])
        world.write()
        world.connect()
        for step in steps:
            getattr(world, step)()
        world.settle()


@pytest.mark.parametrize("is_reduced", [False, True], ids=["as stored", "reduced"])
def test_what_is_rare_happens_in_such_histories(is_reduced: bool) -> None:
    """The same with seeds that are fixed, so that no run goes without interruptions and compaction."""
    seen: Counter[str] = Counter()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session_module, "INTERRUPT_OPS", 3)
        for seed in range(150):
            print("seed", seed)
            world = World(Random(seed), Client(NDJSON if seed % 2 else BSON), is_reduced)
            world.granted = set(BUCKETS)
            world.write()
            world.connect()
            for _ in range(100):
                getattr(world, world.chance.choice(STEPS))()
            world.settle()
            seen += world.seen
    for rare in ("overtaken", "interrupted", "PartialLine", "CompleteLine", "DiffLine", "CheckpointLine"):
        assert seen[rare] > 30, f"{rare}: {seen}"


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1 << 32), st.integers(1, 12))
def test_a_client_that_reconnects_in_the_middle_of_a_download_gets_no_op_twice(seed: int, reads: int) -> None:
    world = World(Random(seed), Client())
    world.granted = set(BUCKETS)
    for _ in range(20):
        world.write()
    world.connect()
    for _ in range(reads):
        world.read()
    positions = {name: kept.position for name, kept in world.client.kept.items()}
    world.connect()  # the client fails on any op it was sent before
    assert world.request is not None
    assert dict(world.request.buckets) == positions
    world.settle()
