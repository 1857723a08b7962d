"""Lines of the sync protocol → what a client comes to hold, and whether sums are right. No I/O.

It keeps what clients keep, by their rules, except what rows say: of each row the checksum of its last PUT. It
never looks into a row. A sum that does not hold is told as a Verdict; what no client could go on from is a
ProtocolError.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

from replicator.errors import ProtocolError

_WRAP = 1 << 32
#: Type, id, and which source row it is.
_Key: TypeAlias = tuple[str, str, str | None]


class Aimed(NamedTuple):
    """A checkpoint has been announced, whole or as what differs."""

    op_id: int
    write_checkpoint: int | None
    buckets: int
    #: How many ops there are in all of them.
    ops: int
    is_difference: bool


class Came(NamedTuple):
    """Some ops of one bucket."""

    bucket: str
    puts: int
    removes: int
    #: MOVE and CLEAR, which stand for others.
    others: int
    upto: int


class Wrong(NamedTuple):
    """A bucket of which what was sent does not come to what was told."""

    bucket: str
    told: int
    found: int


class Verdict(NamedTuple):
    """A checkpoint, or its buckets of some priorities, is complete, and their sums have been compared."""

    op_id: int
    #: None: all of them.
    priority: int | None
    compared: int
    wrong: tuple[Wrong, ...]
    #: By the name clients see: how many rows the app sees.
    rows: dict[str, int]


class Expires(NamedTuple):
    """The token is good for so many seconds more."""

    seconds: int


class Unknown(NamedTuple):
    """A line that clients pass over."""

    kind: str


Told: TypeAlias = Aimed | Came | Verdict | Expires | Unknown


@dataclass(slots=True)
class _Kept:
    """One bucket."""

    position: int = 0
    #: The sum of what has been overtaken, and of what has not.
    added: int = 0
    live: int = 0
    rows: dict[_Key, int] = field(default_factory=dict)

    def apply(self, op: dict[str, Any]) -> None:
        op_id, checksum, kind = int(op["op_id"]), int(op["checksum"]) % _WRAP, op["op"]
        if op_id <= self.position:
            raise ProtocolError(f"op {op_id} was sent after op {self.position} of the same bucket")
        self.position = op_id
        if kind == "CLEAR":
            self.added, self.live, self.rows = checksum, 0, {}
            return
        if kind in ("PUT", "REMOVE"):
            key = op["object_type"], op["object_id"], op.get("subkey")
            before = self.rows.pop(key, None)
            if before is not None:
                self.added, self.live = self.added + before, self.live - before
            if kind == "PUT":
                self.rows[key] = checksum
                self.live += checksum
                return
        elif kind != "MOVE":
            raise ProtocolError(f"there is no op {kind}")
        self.added += checksum

    @property
    def checksum(self) -> int:
        return (self.added + self.live) % _WRAP


@dataclass(slots=True)
class Mirror:
    """What survives a connection, and the target of the present one."""

    kept: dict[str, _Kept] = field(default_factory=dict)
    #: What a checkpoint says of each bucket; None before the first of a connection.
    target: dict[str, dict[str, Any]] | None = None
    op_id: int = 0

    def request(self, client_id: str) -> dict[str, Any]:
        """What a client sends when it connects."""
        self.target = None
        return {
            "buckets": [{"name": name, "after": str(one.position)} for name, one in self.kept.items()],
            "include_checksum": True,
            "raw_data": True,
            "client_id": client_id,
            "parameters": None,
            "streams": {"include_defaults": True, "subscriptions": []},
        }

    def take(self, line: object) -> Told:
        """What a line tells."""
        if not isinstance(line, dict) or len(line) != 1:
            raise ProtocolError("a line is no object with one key")
        [(kind, body)] = line.items()
        try:
            return self._take(kind, body)
        except (KeyError, TypeError, ValueError, AttributeError):
            # What stands there may be a row.
            raise ProtocolError(f"a line {kind!r:.40} is not of its form") from None

    def _take(self, kind: str, body: Any) -> Told:
        match kind:
            case "checkpoint":
                return self._aim({one["bucket"]: one for one in body["buckets"]}, body, False)
            case "checkpoint_diff":
                gone = set(body["removed_buckets"])
                target = {name: one for name, one in self._aimed().items() if name not in gone}
                target |= {one["bucket"]: one for one in body["updated_buckets"]}
                return self._aim(target, body, True)
            case "data":
                return self._apply(body)
            case "partial_checkpoint_complete":
                return self._compare(int(body["priority"]))
            case "checkpoint_complete":
                return self._compare(None)
            case "token_expires_in":
                return Expires(int(body))
        return Unknown(kind)

    def _aimed(self) -> dict[str, dict[str, Any]]:
        if self.target is None:
            raise ProtocolError("there was no checkpoint before this line")
        return self.target

    def _aim(self, target: dict[str, dict[str, Any]], body: dict[str, Any], is_difference: bool) -> Aimed:
        self.target, self.op_id = target, int(body["last_op_id"])
        for name in self.kept.keys() - target.keys():
            del self.kept[name]
        written = body.get("write_checkpoint")
        ops = sum(int(one.get("count") or 0) for one in target.values())
        return Aimed(self.op_id, None if written is None else int(written), len(target), ops, is_difference)

    def _apply(self, body: dict[str, Any]) -> Came:
        bucket: str = body["bucket"]
        if bucket not in self._aimed():
            raise ProtocolError("ops were sent of a bucket that the checkpoint does not name")
        kept = self.kept.setdefault(bucket, _Kept())
        kinds: Counter[str] = Counter()
        for op in body["data"]:
            kept.apply(op)
            kinds[op["op"]] += 1
        if kept.position > self.op_id:
            raise ProtocolError(f"op {kept.position} was sent before the checkpoint that has it")
        return Came(bucket, kinds["PUT"], kinds["REMOVE"], kinds["MOVE"] + kinds["CLEAR"], kept.position)

    def _compare(self, priority: int | None) -> Verdict:
        compared, wrong = 0, []
        for name, told in self._aimed().items():
            if priority is not None and int(told.get("priority", 3)) > priority:
                continue
            compared += 1
            kept = self.kept.get(name, _Kept())
            expected = int(told["checksum"]) % _WRAP
            if kept.checksum != expected:
                wrong.append(Wrong(name, expected, kept.checksum))
            elif name in self.kept:
                kept.position = max(kept.position, self.op_id)
        return Verdict(self.op_id, priority, compared, tuple(wrong), self.rows())

    def rows(self) -> dict[str, int]:
        """How many rows of each name there are, each once, however many buckets hold it."""
        seen = {(kind, row_id) for kept in self.kept.values() for kind, row_id, _ in kept.rows}
        return dict(sorted(Counter(kind for kind, _ in seen).items()))


def lines_in(chunks: Iterable[bytes], rest: bytearray) -> Iterator[bytes]:
    """Whole lines of what has come; what follows the last of them stays in `rest`."""
    for chunk in chunks:
        rest += chunk
    whole, newline, after = bytes(rest).rpartition(b"\n")
    if newline:
        rest[:] = after
        yield from (line for line in whole.split(b"\n") if line.strip())
