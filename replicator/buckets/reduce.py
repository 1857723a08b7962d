"""Ops of one bucket, as they are stored → as they travel to a client. No I/O.

What a later op of the same row has overtaken need not travel, and what it said may never have been for this
reader to know. But a client adds up the checksums of everything it is sent. So a run of overtaken ops travels
as one op without content that stands at the id of the last and carries their sum: a MOVE or, where a client
holds nothing of the bucket yet and the run comes first, a CLEAR. Wherever a download is interrupted, the sum
up to there is the sum of the history up to there, and the next one goes on from it.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence

from replicator.buckets.model import Op, OpId


def overtaken(ops: Sequence[Op]) -> set[OpId]:
    """The ops that a later one of them is about the same row as."""
    newest: dict[tuple[str, str, str], OpId] = {}
    found: set[OpId] = set()
    for op in ops:
        if op.op in ("PUT", "REMOVE"):
            row = op.object_type, op.object_id, op.subkey
            if row in newest:
                found.add(newest[row])
            newest[row] = op.op_id
    return found


class Reduction:
    """A bucket on its way to one client, page by page."""

    def __init__(self, bucket: str, *, is_new: bool) -> None:
        self._bucket = bucket
        #: Whether the client holds nothing of it.
        self._is_new = is_new
        #: Whether nothing that it is to keep has been sent yet, so that a run is the first.
        self._is_first = is_new
        self._run: tuple[OpId, int] | None = None
        #: The op that has overtaken something which was stored without content: see `read`.
        self.upto = OpId(0)

    def take(self, ops: list[Op], overtaken: Container[OpId]) -> list[Op]:
        """The ops that follow those before, in their order, as they travel."""
        if not overtaken and self._run is None and all([op.op == "PUT" for op in ops]):
            self._is_first = self._is_first and not ops
            return ops  # nearly all there is, where most rows are written once
        return list(self._take(ops, overtaken))

    def _take(self, ops: Iterable[Op], overtaken: Container[OpId]) -> Iterator[Op]:
        for op in ops:
            kind = op.op
            if kind in ("MOVE", "CLEAR"):
                self.upto = max(self.upto, OpId(int(op.data or 0)))
            if kind == "CLEAR":
                # Whatever the client holds is over, and it is as one that is new.
                self._is_new = self._is_first = True
                self._run = None
            is_empty = kind != "PUT" and (kind != "REMOVE" or self._is_new)
            if is_empty or op.op_id in overtaken:
                self._run = op.op_id, (self._run[1] if self._run else 0) + op.checksum
                continue
            yield from self.rest()
            self._is_first = False
            yield op

    def rest(self) -> Iterator[Op]:
        """What is still held back: to be sent when nothing follows, or something else does."""
        if self._run is not None:
            op_id, checksum = self._run
            self._run = None
            kind = "CLEAR" if self._is_first else "MOVE"
            # A client adds up whatever it is sent; but each CLEAR begins anew.
            yield Op(op_id, self._bucket, kind, "", "", "", checksum & 0xFFFFFFFF, None)
            self._is_first = False
