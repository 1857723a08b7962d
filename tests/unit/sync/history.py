"""Puts, removes and compaction → histories of buckets, and what a reader at a checkpoint finds. No I/O."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from zlib import crc32

from replicator.buckets.model import Op, OpId, Total
from replicator.buckets.reduce import Reduction, overtaken
from replicator.sync.session_offer import Page
from tests.unit.sync.client import Key

WRAP = 1 << 32


@dataclass
class History:
    """All ops of all buckets, as they stand now and as they were written."""

    last: int = 0
    now: dict[str, list[Op]] = field(default_factory=dict)
    written: dict[str, list[Op]] = field(default_factory=dict)
    #: Of a compacted op: the last of those it made way for.
    target: dict[int, int] = field(default_factory=dict)

    def put(self, bucket: str, key: Key, data: str) -> None:
        self._append(bucket, "PUT", key, crc32(f"{key}{data}".encode()), data)

    def remove(self, bucket: str, key: Key) -> None:
        self._append(bucket, "REMOVE", key, crc32(f"{key}".encode()), None)

    def _append(self, bucket: str, what: str, key: Key, checksum: int, data: str | None) -> None:
        self.last += 1
        op = Op(OpId(self.last), bucket, what, *key, checksum, data)
        for ops in (self.now, self.written):
            ops.setdefault(bucket, []).append(op)

    def totals(self, upto: int) -> dict[str, Total]:
        found = {}
        for bucket, ops in self.now.items():
            some = [op.checksum for op in ops if op.op_id <= upto]
            if some:
                found[bucket] = Total(sum(some) % WRAP, len(some))
        return found

    def page(self, bucket: str, after: int, upto: int, limit: int) -> Page:
        """The next ops, and whether what they are read from has been compacted past `upto`."""
        ops = self.now.get(bucket, [])
        wanted = [op for op in ops if after < op.op_id <= upto]
        taken = wanted[:limit]
        is_moved = any(self.target.get(op.op_id, 0) > upto for op in taken)
        return Page(bucket, taken, len(wanted) > limit, is_moved or self._is_cleared(bucket, upto))

    def reduced(self, bucket: str, after: int, upto: int, limit: int) -> Iterator[Page]:
        """The same page by page, as storage reduces it on its way."""
        reduction, known = Reduction(bucket, is_new=not after), None
        while True:
            page = self.page(bucket, after, upto, limit)
            if known is None:
                known = overtaken([op for op in self.now.get(bucket, []) if after < op.op_id <= upto])
            sent = list(reduction.take(list(page.ops), known if page.has_more else overtaken(page.ops)))
            if not page.has_more:
                sent += reduction.rest()
            is_overtaken = reduction.upto > upto or self._is_cleared(bucket, upto)
            if sent or not page.has_more or is_overtaken:
                yield Page(bucket, sent, page.has_more, is_overtaken)
            if not page.has_more or is_overtaken:
                return
            after = page.ops[-1].op_id

    def _is_cleared(self, bucket: str, upto: int) -> bool:
        return any(op.op == "CLEAR" and op.op_id > upto for op in self.now.get(bucket, []))

    def compact(self, bucket: str, chance: Random) -> None:
        """Turn what is superseded into MOVEs, some of it, and perhaps what then leads into one CLEAR."""
        ops = self.now.get(bucket, [])
        newest: dict[Key, int] = {}
        for at in range(len(ops) - 1, -1, -1):
            op = ops[at]
            if op.op not in ("PUT", "REMOVE"):
                continue
            key = op.object_type, op.object_id, op.subkey
            if key in newest and chance.random() < 0.7:
                self.target[op.op_id] = newest[key]
                ops[at] = Op(op.op_id, bucket, "MOVE", "", "", "", op.checksum, str(newest[key]))
            newest.setdefault(key, op.op_id)
        leading = 0
        while leading < len(ops) and ops[leading].op != "PUT":
            leading += 1
        if leading > 1 and chance.random() < 0.5:
            last, cleared = ops[leading - 1].op_id, ops[:leading]
            checksum = sum(op.checksum for op in cleared) % WRAP
            self.target[last] = max(self.target.get(op.op_id, op.op_id) for op in cleared)
            target = str(self.target[last])
            ops[:leading] = [Op(last, bucket, "CLEAR", "", "", "", checksum, target)]

    def rows(self, bucket: str, upto: int) -> dict[Key, tuple[int, int, str]]:
        """What the bucket's whole history comes to: the truth, from what was written first."""
        found: dict[Key, tuple[int, int, str]] = {}
        for op in self.written.get(bucket, []):
            if op.op_id > upto:
                break
            key = op.object_type, op.object_id, op.subkey
            if op.op == "PUT":
                found[key] = op.op_id, op.checksum, op.data or ""
            else:
                found.pop(key, None)
        return found
